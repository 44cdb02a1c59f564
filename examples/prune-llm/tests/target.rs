//! Pruning in sequential order and toward the dense model, on tiny models.

mod common;

use candle_core::{DType, Tensor};
use common::{Fixture, assert_says, blocks, config, load, rows, tensors, tensors_in, weights};
use prune_llm::{
    calibrate::Sequences,
    model::{Block, Flow, ForwardPass, Input, Model, Observer, Unobserved},
    with_rows,
};
use wanda::{Gram, Pattern, ndarray::Array2};

fn fixture() -> Fixture {
    Fixture::new(&config(), &tensors(DType::F32))
}

/// Everything that a run of the fixture's text through a model takes.
struct Texts {
    input: Input,
    forward: Box<dyn ForwardPass>,
    /// What the first block reads.
    start: Tensor,
}

impl Texts {
    fn of(fixture: &Fixture) -> Self {
        let input = load(&fixture.model());
        let text = Sequences::from_file(&fixture.path("text"), &input.tokenizer, 4, 40).unwrap();
        let tokens: Vec<u32> = text.iter().flatten().copied().collect();
        let embedding = input.model.embedding().unwrap();
        Self {
            forward: input.model.forward_pass(text.length()).unwrap(),
            start: embedding.embed(&tokens, text.count()).unwrap(),
            input,
        }
    }
}

/// The Gram matrix of every input of a block.
#[derive(Debug, Default)]
struct Grams(Vec<Gram>);

impl Observer for Grams {
    fn input(&mut self, _: usize, x: &Tensor) -> anyhow::Result<()> {
        let mut gram = Gram::new(x.dims()[2]);
        with_rows(x, |rows| Ok(gram.update(&rows)?))?;
        self.0.push(gram);
        Ok(())
    }
}

fn pruned(fixture: &Fixture, more: &[&str]) -> Model {
    fixture.run(more).unwrap();
    load(&fixture.path("pruned")).model
}

/// What a layer reads depends on the layers before it alone, so a block that is pruned as a whole
/// shows what each saw when its turn came.
#[test]
fn sequential_statistics_are_those_of_a_naive_computation() {
    let fixture = fixture();
    let line = ["--method", "sparsegpt", "--pattern", "per-layer:0.5"];
    let pruned = pruned(&fixture, &[&line[..], &["--order", "sequential"]].concat());
    let texts = Texts::of(&fixture);
    let spec = texts.input.model.spec();
    let mut x = texts.start;
    for (dense, pruned) in blocks(&texts.input.model).zip(blocks(&pruned)) {
        let mut grams = Grams::default();
        pruned.observe(&x, &*texts.forward, &mut grams).unwrap();
        for (place, layer) in spec.layers.iter().enumerate() {
            let values = rows(dense.weight(place)).concat();
            let mut expected = Array2::from_shape_vec(layer.shape, values).unwrap();
            let gram = &grams.0[layer.input];
            let _ = wanda::sparsegpt_layer(&mut expected, gram, Pattern::PerLayer(0.5)).unwrap();
            let found = rows(pruned.weight(place)).concat();
            assert_eq!(
                found,
                expected.into_raw_vec_and_offset().0,
                "{}",
                layer.name
            );
        }
        x = pruned
            .forward(&x, &*texts.forward, &mut Unobserved)
            .unwrap();
    }
}

#[test]
fn published_is_block_order_without_a_target() {
    let fixture = fixture();
    let line = ["--method", "sparsegpt", "--pattern", "2:4"];
    let published = weights(&pruned(&fixture, &line));
    let explicit = [
        "--preset=best",
        "--order=block",
        "--target=0",
        "--update=obs",
    ];
    let explicit = [&line[..], &explicit, &["--damping=mean:0.01"]].concat();
    assert!(weights(&pruned(&fixture, &explicit)) == published);
    let sequential = [&line[..], &["--order", "sequential"]].concat();
    assert!(weights(&pruned(&fixture, &sequential)) != published);
}

/// Where nothing was pruned the target of each layer is its own output.
#[test]
fn a_target_changes_nothing_in_a_dense_model() {
    for biased in [false, true] {
        let (mut config, mut tensors) = (config(), tensors(DType::F32));
        if biased {
            config["attention_bias"] = true.into();
            config["mlp_bias"] = true.into();
            add_biases(&mut tensors);
        }
        let fixture = Fixture::new(&config, &tensors);
        let dense = weights(&load(&fixture.model()).model);
        for order in ["block", "sequential"] {
            let line = ["--pattern=0", "--target=0.5,1", "--order", order];
            let found = weights(&pruned(&fixture, &line));
            let pairs = dense.iter().flatten().flatten();
            for (dense, found) in pairs.zip(found.iter().flatten().flatten()) {
                assert!((dense - found).abs() < 1e-3, "{order}: {found} for {dense}");
            }
        }
    }
}

fn add_biases(tensors: &mut common::Tensors) {
    let layers: Vec<(String, usize)> = tensors
        .iter()
        .filter(|(name, _)| name.contains("_proj.weight"))
        .map(|(name, weight)| (name.replace(".weight", ".bias"), weight.dims()[0]))
        .collect();
    for (name, outputs) in layers {
        let bias: Vec<f32> = (0..outputs).map(|i| (i % 7) as f32 / 7.0 - 0.4).collect();
        let bias = Tensor::from_vec(bias, outputs, &candle_core::Device::Cpu).unwrap();
        tensors.insert(name, bias);
    }
}

/// A batch between the stages of a block.
fn stages(block: &Block, x: &Tensor, forward: &dyn ForwardPass, count: usize) -> Vec<Flow> {
    let mut flows = vec![block.enter(x, forward).unwrap()];
    for stage in 0..count {
        let next = block.stage(stage, flows.last().unwrap(), forward).unwrap();
        flows.push(next);
    }
    flows
}

/// Tokens x features, in f64.
fn tokens(x: &Tensor) -> Vec<Vec<f64>> {
    let x = x.flatten_to(1).unwrap().to_dtype(DType::F64).unwrap();
    x.to_vec2().unwrap()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Layers of which nothing is pruned become those that best give the target: W' solves
/// (W' − W) H = E, with both sides computed token by token.
#[test]
fn layers_are_retargeted_as_the_formula_says() {
    const TARGET: (f64, f64) = (0.5, 0.25);
    let fixture = fixture();
    let line = [
        "--target=0.5,0.25",
        "--order=sequential",
        "--sparsity-of=layers.1.=0",
    ];
    let pruned = pruned(&fixture, &line);
    let texts = Texts::of(&fixture);
    let spec = texts.input.model.spec();
    let count = spec.inputs();
    let run = |model: &Model| {
        let first = model.block(0).unwrap();
        let x = first
            .forward(&texts.start, &*texts.forward, &mut Unobserved)
            .unwrap();
        stages(&model.block(1).unwrap(), &x, &*texts.forward, count)
    };
    let (dense, flows) = (run(&texts.input.model), run(&pruned));
    let (old, new) = (
        texts.input.model.block(1).unwrap(),
        pruned.block(1).unwrap(),
    );
    for (place, layer) in spec.layers.iter().enumerate() {
        let input = layer.input;
        let x = tokens(&flows[input].input);
        let wide = |weights: &Tensor| -> Vec<Vec<f64>> {
            let rows = rows(weights).into_iter();
            rows.map(|row| row.into_iter().map(f64::from).collect())
                .collect()
        };
        let (w, retargeted) = (wide(old.weight(place)), wide(new.weight(place)));
        let residual = layer.name.contains("o_proj") || layer.name.contains("down");
        let hidden = |flow: &Flow| tokens(&flow.hidden);
        let (before, after) = (hidden(&dense[input]), hidden(&dense[input + 1]));
        let of_pruned = hidden(&flows[input]);
        let wanted_inputs = tokens(&dense[input].input);
        let (mut e, mut g) = (
            vec![vec![0.0; layer.shape.1]; layer.shape.0],
            vec![vec![0.0; layer.shape.1]; layer.shape.1],
        );
        for (t, x) in x.iter().enumerate() {
            let count = if residual {
                after[t].len() as f64 / dot(&after[t], &after[t])
            } else {
                1.0
            };
            for (i, e) in e.iter_mut().enumerate() {
                let own = dot(&w[i], x);
                let wanted = if residual {
                    TARGET.0 * (after[t][i] - before[t][i] - own)
                        + TARGET.1 * (before[t][i] - of_pruned[t][i])
                } else {
                    TARGET.0 * (dot(&w[i], &wanted_inputs[t]) - own)
                };
                e.iter_mut()
                    .zip(x)
                    .for_each(|(e, x)| *e += count * wanted * x);
            }
            for (g, &a) in g.iter_mut().zip(x) {
                g.iter_mut().zip(x).for_each(|(g, b)| *g += count * a * b);
            }
        }
        let mean = (0..g.len()).map(|j| g[j][j]).sum::<f64>() / g.len() as f64;
        for (j, row) in g.iter_mut().enumerate() {
            row[j] += 0.1 * row[j].max(1e-4 * mean);
        }
        let largest = e.iter().flatten().fold(0.0, |a: f64, e| a.max(e.abs()));
        assert!(largest > 0.0);
        for (i, e) in e.iter().enumerate() {
            let change: Vec<f64> = retargeted[i]
                .iter()
                .zip(&w[i])
                .map(|(a, b)| a - b)
                .collect();
            for (j, e) in e.iter().enumerate() {
                let found = dot(&change, &g[j]);
                assert!(
                    (found - e).abs() < 2e-3 * largest,
                    "{} [{i}, {j}]: {found} for {e}, of {largest}",
                    layer.name
                );
            }
        }
    }
}

#[test]
fn presets_run_and_report_both_errors() {
    let fixture = fixture();
    for (preset, recipe) in [
        ("balanced", "sparsegpt, per-layer:0.5"),
        ("best", "wanda-joint, per-layer:0.5"),
    ] {
        let report = fixture.run(&["--preset", preset]).unwrap();
        let expected = ", sequential order, target 0.5,0.5, output weights, damping diagonal:0.1";
        assert_eq!(report.recipe.to_string(), format!("{recipe}{expected}"));
        assert!((report.sparsity - 0.5).abs() < 0.01);
        for layer in &report.layers {
            assert!(layer.relative_error.is_some() && layer.target_error.is_some());
            assert_eq!(layer.iterations.is_some(), preset == "best");
        }
    }
    let report = fixture
        .run(&["--update", "refit", "--order", "sequential"])
        .unwrap();
    assert!(
        report
            .layers
            .iter()
            .all(|layer| layer.target_error.is_none())
    );
    assert!(report.layers.iter().all(|layer| layer.iterations.is_some()));
}

#[test]
fn targets_need_texts() {
    let fixture = fixture();
    let gram = fixture.calibrate("gram", &["--gram"]);
    let statistics = ["--statistics", gram.to_str().unwrap()];
    let error = |more: &[&str]| fixture.error(&[&statistics[..], more].concat());
    assert_says(
        &error(&["--preset=balanced"]),
        &["--target", "--statistics"],
    );
    assert_says(&error(&["--output-weights"]), &["--output-weights"]);
    let joint = [&statistics[..], &["--update=joint"]].concat();
    fixture.run(&joint).unwrap();
}

#[test]
fn sequences_are_spread_over_the_text() {
    let fixture = fixture();
    let input = load(&fixture.model());
    let path = fixture.path("text");
    let all = Sequences::from_file(&path, &input.tokenizer, 1, 1000).unwrap();
    let text: Vec<u32> = all.iter().flatten().copied().collect();
    let length = std::fs::read_to_string(&path).unwrap().len();
    let spread = Sequences::spread_over_file(&path, &input.tokenizer, 5, 40).unwrap();
    let mut starts = (0..5).map(|place| place * (length - 40) / 4);
    for (sequence, start) in spread.iter().zip(starts.clone()) {
        if start + 40 <= text.len() {
            assert_eq!(sequence, &text[start..start + 40]);
        }
    }
    assert_eq!(starts.next_back(), Some(length - 40));
    let one = Sequences::spread_over_file(&path, &input.tokenizer, 1, 40).unwrap();
    assert_eq!(one.iter().next().unwrap(), &text[..40]);
    let line = ["--pattern=2:4", "--spread"];
    fixture.run(&line).unwrap();
    let found = tensors_in(&fixture.path("pruned"));
    fixture.run(&line[..1]).unwrap();
    assert!(tensors_in(&fixture.path("pruned")) != found);
}
