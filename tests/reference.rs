//! Agreement with the published `PyTorch` code, weight for weight and from the activations up.
//!
//! `fixtures/tiny.safetensors` is always checked. With the environment variable `WANDA_REFERENCE`
//! set to a folder, every `.safetensors` file in it is checked as well, by the same tests.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use wanda::half::f16;
use wanda::ndarray::{Array2, Axis};
use wanda::{
    ActivationStats, ColumnNorms, ImportanceMetric, Magnitude, Mask, Pattern, Pruner, Wanda,
};

/// One layer with its inputs, and what the published code prunes.
struct Reference {
    name: String,
    bytes: Vec<u8>,
}

impl Reference {
    /// The fixture, and the files of the folder that `WANDA_REFERENCE` names.
    fn all() -> Vec<Self> {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny.safetensors");
        let mut paths = vec![fixture];
        if let Some(folder) = std::env::var_os("WANDA_REFERENCE") {
            let mut more: Vec<PathBuf> = fs::read_dir(&folder)
                .expect("WANDA_REFERENCE names a folder")
                .map(|entry| entry.expect("a readable folder").path())
                .filter(|path| path.extension().is_some_and(|ext| ext == "safetensors"))
                .collect();
            assert!(!more.is_empty(), "no .safetensors file in WANDA_REFERENCE");
            more.sort();
            paths.append(&mut more);
        }
        paths.iter().map(|path| Self::read(path)).collect()
    }

    fn read(path: &Path) -> Self {
        Self {
            name: path.display().to_string(),
            bytes: fs::read(path).expect("a readable reference file"),
        }
    }

    /// The elements of a matrix (or of a vector, as a matrix of one row).
    fn matrix<T, const N: usize>(
        &self,
        tensor: &str,
        dtype: Dtype,
        element: fn([u8; N]) -> T,
    ) -> Array2<T> {
        let tensors = SafeTensors::deserialize(&self.bytes).expect("a safetensors file");
        let view = tensors.tensor(tensor).expect("a tensor of this name");
        assert_eq!(view.dtype(), dtype, "{tensor}");
        let (rows, columns) = match *view.shape() {
            [rows, columns] => (rows, columns),
            [columns] => (1, columns),
            ref shape => panic!("{tensor} has shape {shape:?}"),
        };
        let (chunks, rest) = view.data().as_chunks::<N>();
        assert!(rest.is_empty(), "{tensor} ends within an element");
        let elements = chunks.iter().map(|&bytes| element(bytes)).collect();
        Array2::from_shape_vec((rows, columns), elements).expect("as many elements as its shape")
    }

    fn weights(&self) -> Array2<f32> {
        self.matrix("weight", Dtype::F32, f32::from_le_bytes)
    }

    fn activations(&self) -> Array2<f16> {
        self.matrix("activations", Dtype::F16, f16::from_le_bytes)
    }

    /// What the published code prunes.
    fn pruned(&self, result: &str) -> Mask {
        let marks = self.matrix(&format!("{result}.pruned"), Dtype::U8, u8::from_le_bytes);
        let (rows, columns) = marks.dim();
        Mask::from_fn(rows, columns, |row, column| match marks[[row, column]] {
            0 => false,
            1 => true,
            other => panic!("a mark of {other} in {result}"),
        })
        .expect("a small mask")
    }

    /// Statistics of the activations, `tokens` at a time.
    fn stats(&self, tokens: usize) -> ColumnNorms {
        let activations = self.activations();
        let mut stats = ColumnNorms::new(activations.ncols());
        for batch in activations.axis_chunks_iter(Axis(0), tokens) {
            stats.update(&batch).expect("finite activations");
        }
        assert_eq!(stats.tokens(), activations.nrows() as u64);
        stats
    }

    /// Fails unless a metric and a pattern prune the very weights that the published code does.
    fn agrees<M: ImportanceMetric + Copy>(&self, metric: M, pattern: Pattern, result: &str) {
        let weights = self.weights();
        let expected = self.pruned(result);
        for tokens in [256, 37, 1] {
            let found = Pruner::new(metric, pattern)
                .mask(&weights, &self.stats(tokens))
                .expect("finite weights and enough inputs");
            assert_eq!(
                found.differences(&expected),
                Ok(0),
                "{result} of {}, {tokens} tokens a batch",
                self.name
            );
            assert_eq!(found, expected);
        }
    }
}

fn all_agree<M: ImportanceMetric + Copy>(metric: M, pattern: Pattern, result: &str) {
    for reference in Reference::all() {
        reference.agrees(metric, pattern, result);
    }
}

#[test]
fn wanda_per_output_prunes_what_the_published_code_does() {
    all_agree(Wanda, Pattern::PerOutput(0.3), "wanda.per_output.0.3");
    all_agree(Wanda, Pattern::PerOutput(0.5), "wanda.per_output.0.5");
    all_agree(Wanda, Pattern::PerOutput(0.7), "wanda.per_output.0.7");
}

#[test]
fn wanda_n_of_m_prunes_what_the_published_code_does() {
    // The files count what is pruned, this crate what is kept.
    for (keep, of, result) in [
        (2, 4, "wanda.2_of_4"),
        (4, 8, "wanda.4_of_8"),
        (3, 4, "wanda.1_of_4"),
    ] {
        let different = n_of_m_agrees(Wanda, (keep, of), result, |w, norm| w.abs() * norm);
        assert_eq!(different[0], 0, "the fixture agrees to the bit");
    }
}

#[test]
fn the_appendix_variant_prunes_what_the_published_code_does() {
    all_agree(Wanda, Pattern::Cumulative(0.5), "wanda.alpha_variant.0.5");
}

/// Quantised weights have very many equals.
#[test]
fn magnitude_n_of_m_differs_only_in_which_of_equal_weights_go() {
    n_of_m_agrees(Magnitude, (2, 4), "magnitude.2_of_4", |w, _| w.abs());
}

/// Fails unless every group is pruned as by the published code.
///
/// Groups with equal scores on both sides of the cut are the exception. Which of them go the
/// published code leaves to `torch.topk`, which promises no order; these groups have to lose the
/// same scores. Returns how many of them do not lose the same weights, a number a reference.
fn n_of_m_agrees<M: ImportanceMetric + Copy>(
    metric: M,
    (keep, of): (usize, usize),
    result: &str,
    score: fn(f32, f32) -> f32,
) -> Vec<usize> {
    let compare = |reference: Reference| {
        let weights = reference.weights();
        let stats = reference.stats(256);
        let norms: Vec<f32> = stats.norms().into_iter().map(rounded).collect();
        let published = reference.pruned(result);
        let pruner = Pruner::new(metric, Pattern::NOfM { keep, of });
        let found = pruner.mask(&weights, &stats).expect("finite weights");
        for tokens in [37, 1] {
            let again = pruner.mask(&weights, &reference.stats(tokens));
            assert_eq!(again.as_ref(), Ok(&found), "{tokens} tokens a batch");
        }

        let (mut tied, mut different) = (0, 0);
        for (row, weights) in weights.rows().into_iter().enumerate() {
            for start in (0..weights.len()).step_by(of) {
                // Scores in ascending order, each with what became of its weight.
                let mut group: Vec<_> = (start..weights.len().min(start + of))
                    .map(|column| {
                        let found = found.get(row, column).expect("within the mask");
                        let published = published.get(row, column).expect("within the mask");
                        (score(weights[column], norms[column]), found, published)
                    })
                    .collect();
                group.sort_by(|a, b| a.0.total_cmp(&b.0));
                let place = format!("{result}, row {row}, from column {start}");
                let same = group
                    .iter()
                    .all(|&(_, found, published)| found == published);
                let cut = group.len().saturating_sub(keep);
                if cut > 0 && group[cut - 1].0.to_bits() == group[cut].0.to_bits() {
                    let lost = |by_published: bool| -> Vec<u32> {
                        let marked = |&&(_, found, published): &&(f32, bool, bool)| {
                            if by_published { published } else { found }
                        };
                        group
                            .iter()
                            .filter(marked)
                            .map(|one| one.0.to_bits())
                            .collect()
                    };
                    assert_eq!(lost(false), lost(true), "{place} of {}", reference.name);
                    tied += 1;
                    different += usize::from(!same);
                } else {
                    assert!(same, "{place} of {}: {group:?}", reference.name);
                }
            }
        }
        println!(
            "{result} of {}: {tied} groups with equals at the cut, {different} of them lose \
             others of the equals",
            reference.name
        );
        different
    };
    Reference::all().into_iter().map(compare).collect()
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "rounding is what is asked for"
)]
fn rounded(x: f64) -> f32 {
    x as f32
}

#[test]
fn magnitude_per_layer_differs_only_in_weights_at_the_published_threshold() {
    for reference in Reference::all() {
        let weights = reference.weights();
        let found = Pruner::new(Magnitude, Pattern::PerLayer(0.5))
            .mask(&weights, &reference.stats(256))
            .expect("finite weights");
        let published = reference.pruned("magnitude.per_layer.0.5");

        // The published rule: everything no larger than the weight at this place of all sorted.
        let mut sorted: Vec<f32> = weights.iter().map(|w| w.abs()).collect();
        sorted.sort_by(f32::total_cmp);
        let threshold = sorted[sorted.len() / 2];

        let mut more = 0;
        for ((row, column), w) in weights.indexed_iter() {
            let found = found.get(row, column).expect("within the mask");
            let published = published.get(row, column).expect("within the mask");
            if found != published {
                let place = format!("row {row}, column {column} of {}", reference.name);
                assert!(published, "only the published code prunes more: {place}");
                assert_eq!(w.abs().to_bits(), threshold.to_bits(), "{place}");
                more += 1;
            }
        }
        assert_eq!(found.count(), weights.len() / 2);
        assert_eq!(published.count(), found.count() + more);
        assert!(
            more > 0,
            "the published rule always prunes one more at least"
        );
        println!(
            "{}: the published code prunes {more} weights more, all equal to its threshold",
            reference.name
        );
    }
}

#[test]
fn the_statistic_is_the_published_one_times_the_number_of_sequences() {
    for reference in Reference::all() {
        let published = reference.matrix("scaler_row", Dtype::F32, f32::from_le_bytes);
        let stats = reference.stats(256);
        let sequences = stats.tokens().div_ceil(256) as f64;
        for (sum, &scaler) in stats.sums_of_squares().iter().zip(&published) {
            // The published sum over 256 tokens is taken in single precision.
            let expected = f64::from(scaler) * sequences;
            assert!(
                (sum - expected).abs() <= 256.0 * f64::from(f32::EPSILON) * expected,
                "{sum}, published {expected}, in {}",
                reference.name
            );
        }
    }
}
