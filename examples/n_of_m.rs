//! At most N weights left in every M: `cargo run --example n_of_m`, or with patterns of your
//! choice, `cargo run --example n_of_m -- 1:4 2:8`.

use std::process::ExitCode;

use wanda::ndarray::Array2;
use wanda::{ColumnNorms, Pattern, Result, prune_layer, validate};

/// Not a multiple of 8, so that 4:8 has a short last run.
const INPUTS: usize = 12;

fn main() -> ExitCode {
    let mut texts: Vec<String> = std::env::args().skip(1).collect();
    if texts.is_empty() {
        texts = vec!["2:4".to_owned(), "4:8".to_owned()];
    }
    match texts.iter().try_for_each(|text| show(text)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Prunes a layer to the pattern that `text` names, and shows its first rows.
fn show(text: &str) -> Result<()> {
    let pattern: Pattern = text.parse()?;
    let mut w = Array2::from_shape_fn((64, INPUTS), |(i, j)| {
        (7.0 * i as f32 + 2.9 * j as f32 + 0.4).sin()
    });
    let tokens = Array2::from_shape_fn((32, INPUTS), |(t, j)| (5.0 * t as f32 + j as f32).cos());
    let mut stats = ColumnNorms::new(INPUTS);
    stats.update(&tokens)?;

    println!("{pattern}, weights in hundredths");
    let before = w.row(0).to_owned();
    let report = prune_layer(&mut w, &stats, pattern)?;
    validate(&w, &pattern)?;

    println!("  dense   {}", runs(before.iter(), pattern));
    for row in w.rows().into_iter().take(3) {
        println!("  pruned  {}", runs(row.iter(), pattern));
    }
    println!("  {report}");
    if matches!(pattern, Pattern::NOfM { of, .. } if !INPUTS.is_multiple_of(of)) {
        println!("  the last run is short and may keep as many as the others");
    }
    println!("  validated: the matrix is {pattern}\n");
    Ok(())
}

/// The weights in hundredths, with a bar at the end of every run of the pattern.
fn runs<'a>(row: impl Iterator<Item = &'a f32>, pattern: Pattern) -> String {
    let mut text = String::from("|");
    for (column, &w) in row.enumerate() {
        let weight = match w {
            0.0 => "   . ".to_owned(),
            _ => format!("{:>4.0} ", 100.0 * w),
        };
        text += &weight;
        let ends_run =
            matches!(pattern, Pattern::NOfM { of, .. } if (column + 1).is_multiple_of(of));
        if ends_run || column + 1 == INPUTS {
            text += "|";
        }
    }
    text
}
