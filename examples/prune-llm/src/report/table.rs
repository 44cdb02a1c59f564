//! The table of a comparison, in Markdown that lines up as plain text too.

use super::comparison::{Comparison, Run, SPARSITIES};
use crate::plan::Update;

/// Columns of words; numbers follow, aligned to the right.
const WORDS: usize = 2;

/// Perplexities with methods as rows and sparsities as columns.
pub fn table(comparison: &Comparison) -> String {
    let dense = perplexity(comparison.dense_perplexity);
    let mut lines = vec![
        line(
            ["Method", "Weight update", "0 %"],
            SPARSITIES.map(|(name, _)| name.to_owned()),
        ),
        line(["Dense", "–", &dense], SPARSITIES.map(|_| String::new())),
    ];
    for runs in methods(comparison) {
        let Some(Run { recipe, .. }) = runs.first() else {
            continue;
        };
        let update = match recipe.update {
            Update::None => "no",
            Update::Obs | Update::Joint | Update::Refit => "yes",
        };
        lines.push(line(
            [recipe.method.title(), update, ""],
            runs.iter().map(|run| perplexity(run.perplexity)),
        ));
    }
    render(&lines)
}

/// The table and what it was made from.
pub fn document(comparison: &Comparison) -> String {
    let halves: Vec<String> = methods(comparison)
        .filter_map(|runs| runs.first())
        .map(|run| format!("`{}`", run.recipe))
        .collect();
    format!(
        "Perplexity of `{}` on {}.\n\n{}\nCalibrated on {}. The runs in column {}: {}.\n",
        comparison.model,
        comparison.evaluation,
        table(comparison),
        comparison.calibration,
        SPARSITIES[0].0,
        halves.join("; ")
    )
}

/// The runs of one method after another.
fn methods(comparison: &Comparison) -> impl Iterator<Item = &[Run]> {
    comparison
        .runs
        .chunk_by(|a, b| (a.recipe.method, a.recipe.update) == (b.recipe.method, b.recipe.update))
}

/// With as many digits as papers give.
fn perplexity(value: f64) -> String {
    format!("{value:.2}")
}

fn line(start: [&str; WORDS + 1], rest: impl IntoIterator<Item = String>) -> Vec<String> {
    start.map(str::to_owned).into_iter().chain(rest).collect()
}

/// A Markdown table of lines of equal length, the first of which is the header.
fn render(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let rule: Vec<String> = widths
        .iter()
        .enumerate()
        .map(|(column, &width)| {
            let end = if column < WORDS { "-" } else { ":" };
            format!("{end:->width$}")
        })
        .collect();
    let (header, body) = lines.split_at(lines.len().min(1));
    header
        .iter()
        .chain([&rule])
        .chain(body)
        .map(|line| aligned(line, &widths))
        .collect()
}

fn aligned(line: &[String], widths: &[usize]) -> String {
    let cells = line.iter().zip(widths).enumerate();
    let cells = cells.map(|(column, (cell, &width))| {
        if column < WORDS {
            format!(" {cell:<width$} |")
        } else {
            format!(" {cell:>width$} |")
        }
    });
    format!("|{}\n", cells.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{RunSeconds, Text, recipes};

    fn comparison() -> Comparison {
        let runs = recipes().into_iter().zip([
            525.704, 99.0, 1234.5, 51.31, 87.374, 160.806, 40.0, 60.0, 80.0, 45.25, 70.0, 100.0,
        ]);
        Comparison {
            model: "tiny".to_owned(),
            seed: 0,
            calibration: Text {
                file: None,
                sequences: 32,
                length: 256,
            },
            evaluation: Text {
                file: Some("test.txt".to_owned()),
                sequences: 16,
                length: 128,
            },
            dense_perplexity: 24.137,
            runs: runs
                .map(|(recipe, perplexity)| Run {
                    recipe,
                    perplexity,
                    sparsity: 0.5,
                    seconds: RunSeconds {
                        calibrate: 0.0,
                        prune: 0.0,
                        evaluate: 0.0,
                    },
                })
                .collect(),
            seconds: 0.0,
            peak_memory_bytes: None,
        }
    }

    #[test]
    fn methods_are_rows_and_sparsities_columns() {
        assert_eq!(
            table(&comparison()),
            "\
| Method    | Weight update |   0 % |   50 % |   4:8 |     2:4 |
| --------- | ------------- | ----: | -----: | ----: | ------: |
| Dense     | –             | 24.14 |        |       |         |
| Magnitude | no            |       | 525.70 | 99.00 | 1234.50 |
| Wanda     | no            |       |  51.31 | 87.37 |  160.81 |
| SparseGPT | yes           |       |  40.00 | 60.00 |   80.00 |
| Wanda     | yes           |       |  45.25 | 70.00 |  100.00 |
"
        );
    }

    #[test]
    fn the_document_says_what_the_table_was_made_from() {
        let comparison = comparison();
        let table = table(&comparison);
        assert_eq!(
            document(&comparison),
            format!(
                "Perplexity of `tiny` on 16 x 128 tokens of `test.txt`.\n\n{table}\nCalibrated on \
                 32 x 256 tokens of text sampled from the dense model. The runs in column 50 %: \
                 `magnitude, per-layer:0.5`; `wanda, 0.5`; `sparsegpt, per-layer:0.5`; \
                 `wanda-obs, 0.5`.\n"
            )
        );
    }
}
