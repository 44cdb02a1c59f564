//! Methods, updates and patterns on a model: what becomes of its weights and of the report.

mod common;

use candle_core::{DType, Tensor};
use common::{Fixture, blocks, config, load, prune_args, rows, tensors, weights};
use prune_llm::{
    Progress,
    calibrate::Sequences,
    job::prune,
    model::{BlockSpec, Model, Observer, Unobserved},
    report::Report,
    with_rows,
};
use wanda::{ErrorBasis, Gram, Pattern, ndarray::Array2};

fn fixture() -> Fixture {
    Fixture::new(&config(), &tensors(DType::F32))
}

/// A run and the model it wrote.
fn pruned(fixture: &Fixture, more: &[&str]) -> (Report, Model) {
    let report = fixture.run(more).unwrap();
    (report, load(&fixture.path("pruned")).model)
}

/// Weights that are neither zero nor what they were.
fn changed(dense: &[Vec<Vec<f32>>], pruned: &[Vec<Vec<f32>>]) -> usize {
    let pairs = dense.iter().flatten().flatten();
    pairs
        .zip(pruned.iter().flatten().flatten())
        .filter(|&(&old, &new)| new != 0.0 && new.to_bits() != old.to_bits())
        .count()
}

#[test]
fn sparsegpt_from_end_to_end() {
    let fixture = fixture();
    let dense = weights(&load(&fixture.model()).model);
    for pattern in ["per-layer:0.5", "threshold:0.5", "0.5", "2:4"] {
        let (report, model) = pruned(&fixture, &["--method", "sparsegpt", "--pattern", pattern]);
        assert!(report.perplexity.is_finite() && report.perplexity > 1.0);
        assert_eq!(report.recipe.to_string(), format!("sparsegpt, {pattern}"));
        assert!((report.sparsity - 0.5).abs() < 0.01, "{pattern}");
        for layer in &report.layers {
            assert!(layer.damping.unwrap() >= 0.01, "{layer:?}");
            assert_eq!(layer.error_basis, Some(ErrorBasis::Gram));
            assert!((0.0..1.0).contains(&layer.relative_error.unwrap()));
        }
        assert!(changed(&dense, &weights(&model)) > 1000);
    }
}

#[test]
fn every_method_with_and_without_update() {
    let fixture = fixture();
    let dense = weights(&load(&fixture.model()).model);
    for method in ["magnitude", "wanda", "sparsegpt"] {
        for update in ["none", "obs"] {
            let line = ["--method", method, "--update", update, "--pattern", "2:4"];
            let (report, model) = pruned(&fixture, &line);
            assert!(report.perplexity.is_finite());
            let updates = update == "obs";
            let basis = if report.recipe.needs_gram() {
                ErrorBasis::Gram
            } else {
                ErrorBasis::InputNorms
            };
            for layer in &report.layers {
                // The metric of sparsegpt factors the Gram matrix without the update, too.
                let factors = report.recipe.needs_gram();
                assert_eq!(layer.damping.is_some(), factors, "{line:?}");
                assert_eq!(layer.error_basis, Some(basis), "{line:?}");
            }
            let weights = weights(&model);
            assert_eq!(changed(&dense, &weights) > 0, updates, "{line:?}");
            for group in weights.iter().flatten().flat_map(|row| row.chunks(4)) {
                assert_eq!(group.iter().filter(|&&w| w != 0.0).count(), 2, "{line:?}");
            }
        }
    }
}

#[test]
fn an_update_lowers_the_error_of_the_layers() {
    let fixture = fixture();
    let layers = load(&fixture.model()).model.spec().layers.len();
    let error_with = |update| {
        let report = fixture
            .run(&["--method", "sparsegpt", "--update", update])
            .unwrap();
        // The layers after the first block see other inputs in each of the runs.
        let first = report.layers.iter().take(layers);
        first
            .map(|layer| layer.relative_error.unwrap())
            .sum::<f64>()
    };
    assert!(error_with("obs") < error_with("none"));
}

/// Magnitude looks at no data, but an update of its weights does: texts are sampled for it.
#[test]
fn an_update_calibrates_even_magnitude() {
    let fixture = fixture();
    let output = fixture.path("pruned");
    let args = prune_args(&[
        "prune-llm",
        "--model",
        fixture.model().to_str().unwrap(),
        "--method=magnitude",
        "--update=obs",
        "--calibration-samples=4",
        "--sequence-length=40",
        "--eval-windows=2",
        "--eval-length=32",
        "--output",
        output.to_str().unwrap(),
    ])
    .unwrap();
    let report = prune(&args, Progress::Hidden).unwrap();
    assert!(report.layers.iter().all(|layer| layer.damping.is_some()));
}

/// A Gram matrix for every layer, though some read the same input.
#[derive(Debug)]
struct Separate<'a> {
    spec: &'a BlockSpec,
    grams: Vec<(usize, Gram)>,
}

impl Observer for Separate<'_> {
    fn input(&mut self, input: usize, x: &Tensor) -> anyhow::Result<()> {
        for (layer, _) in self.spec.readers(input) {
            let mut gram = Gram::new(x.dims()[2]);
            with_rows(x, |rows| Ok(gram.update(&rows)?))?;
            self.grams.push((layer, gram));
        }
        Ok(())
    }
}

/// Layers that share an input share its Gram matrix, and come out as with one of their own.
#[test]
fn shared_gram_matrices_are_those_of_each_layer() {
    let fixture = fixture();
    let line = ["--method", "sparsegpt", "--pattern", "per-layer:0.5"];
    let (_, pruned) = pruned(&fixture, &line);
    let input = load(&fixture.model());
    let text = Sequences::from_file(&fixture.path("text"), &input.tokenizer, 4, 40).unwrap();
    let spec = input.model.spec();
    let forward = input.model.forward_pass(text.length()).unwrap();
    let tokens: Vec<u32> = text.iter().flatten().copied().collect();
    let embedding = input.model.embedding().unwrap();
    let mut x = embedding.embed(&tokens, text.count()).unwrap();
    for (dense, pruned) in blocks(&input.model).zip(blocks(&pruned)) {
        let grams = Vec::new();
        let mut separate = Separate { spec, grams };
        dense.observe(&x, &*forward, &mut separate).unwrap();
        assert_eq!(separate.grams.len(), spec.layers.len());
        for (layer, gram) in &separate.grams {
            let shape = dense.weight(*layer).dims2().unwrap();
            let values = rows(dense.weight(*layer)).concat();
            let mut expected = Array2::from_shape_vec(shape, values).unwrap();
            let _ = wanda::sparsegpt_layer(&mut expected, gram, Pattern::PerLayer(0.5)).unwrap();
            let found = rows(pruned.weight(*layer)).concat();
            assert_eq!(found, expected.into_raw_vec_and_offset().0, "{layer}");
        }
        x = pruned.forward(&x, &*forward, &mut Unobserved).unwrap();
    }
}
