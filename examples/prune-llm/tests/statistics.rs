//! Statistics that were gathered before take the place of calibration.

mod common;

use candle_core::{
    DType, Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use clap::Parser;
use common::{Fixture, HIDDEN, INTERMEDIATE, LAYERS, assert_says, config, load, tensors, weights};
use prune_llm::{
    Progress,
    cli::Cli,
    report::{Calibration, Report},
};
use serde_json::json;
use std::{fs, path::Path};
use wanda::ActivationStats;
use wanda::LayerStats;
use wanda::stats::file::{self, StatsFile};

fn fixture() -> Fixture {
    Fixture::new(&config(), &tensors(DType::F32))
}

/// A run that uses statistics, without a text to calibrate on.
fn run_with(fixture: &Fixture, files: &[&Path], more: &[&str]) -> anyhow::Result<Report> {
    let mut line = vec!["--statistics"];
    line.extend(files.iter().map(|file| file.to_str().unwrap()));
    line.extend(more);
    fixture.run(&line)
}

fn error_with(fixture: &Fixture, files: &[&Path], more: &[&str]) -> String {
    format!("{:#}", run_with(fixture, files, more).unwrap_err())
}

#[test]
fn a_file_has_every_input_of_the_model() {
    let fixture = fixture();
    for (flags, gram) in [(&[][..], false), (&["--gram"][..], true)] {
        let mut file = StatsFile::open(fixture.calibrate("stats", flags)).unwrap();
        let expected: Vec<String> = (0..LAYERS)
            .flat_map(|block| {
                [
                    "mlp.down_proj",
                    "mlp.gate_proj",
                    "self_attn.o_proj",
                    "self_attn.q_proj",
                ]
                .map(|module| format!("model.layers.{block}.{module}"))
            })
            .collect();
        assert_eq!(file.layers().collect::<Vec<_>>(), expected);
        for name in expected {
            let stats = file.layer(&name).unwrap();
            assert_eq!(matches!(stats, LayerStats::Gram(_)), gram);
            assert_eq!(stats.tokens(), 4 * 40);
            let features = if name.ends_with("down_proj") {
                INTERMEDIATE
            } else {
                HIDDEN
            };
            assert_eq!(stats.features(), features);
            assert!(stats.sums_of_squares().iter().all(|&sum| sum > 0.0));
        }
        assert_eq!(fixture.entries(), ["model", "stats", "text"]);
    }
}

/// The first block sees the same as when the model is calibrated as it is pruned.
#[test]
fn the_first_block_is_pruned_as_without_a_file() {
    let fixture = fixture();
    let norms = fixture.calibrate("norms", &[]);
    let gram = fixture.calibrate("gram", &["--gram"]);
    for (method, update, file) in [
        ("wanda", "none", &norms),
        ("wanda", "none", &gram),
        ("wanda", "obs", &gram),
        ("sparsegpt", "obs", &gram),
        ("magnitude", "none", &norms),
        ("magnitude", "obs", &gram),
    ] {
        let line = ["--method", method, "--update", update];
        let direct = fixture.run(&line).unwrap();
        let expected = weights(&load(&fixture.path("pruned")).model);
        let from_file = run_with(&fixture, &[file], &line).unwrap();
        let found = weights(&load(&fixture.path("pruned")).model);
        let first = expected.len() / LAYERS;
        assert_eq!(found[..first], expected[..first], "{line:?}");
        for (a, b) in from_file.layers.iter().zip(&direct.layers).take(first) {
            assert_eq!(a.relative_error, b.relative_error, "{line:?}");
            assert_eq!(a.error_basis, b.error_basis, "{line:?}");
        }
        assert_eq!(from_file.inputs[..4], direct.inputs[..4]);
        let name = file.to_str().unwrap().to_owned();
        assert_eq!(
            from_file.calibration,
            Some(Calibration::Statistics(vec![name]))
        );
    }
}

/// Two files of halves of a text, and one file that they were merged into, act as one of all.
#[test]
fn files_are_added_up() {
    let fixture = fixture();
    let whole = fixture.calibrate("whole", &["--gram"]);
    let text = fs::read_to_string(fixture.path("text")).unwrap();
    let halves = [&text[..80], &text[80..]].map(|text| {
        fs::write(fixture.path("half"), text).unwrap();
        let half = fixture.path("half");
        let name = format!("half-{}", text.len());
        let text = [
            "--gram",
            "--calibration",
            half.to_str().unwrap(),
            "--calibration-samples",
            "2",
        ];
        fixture.calibrate(&name, &text)
    });
    let run = |files: &[&Path]| {
        let report = run_with(&fixture, files, &["--method", "sparsegpt"]).unwrap();
        let errors: Vec<f64> = report
            .layers
            .iter()
            .map(|l| l.relative_error.unwrap())
            .collect();
        (errors, weights(&load(&fixture.path("pruned")).model))
    };
    let expected = run(&[&whole]);
    let found = run(&[&halves[0], &halves[1]]);
    for (a, b) in found.0.iter().zip(&expected.0) {
        assert!((a - b).abs() < 1e-4 * b, "{a} where {b} is expected");
    }
    let mut layers = file::load(&halves[0]).unwrap();
    file::merge(&mut layers, &file::load(&halves[1]).unwrap()).unwrap();
    let merged = fixture.path("merged");
    file::save(&merged, &layers).unwrap();
    assert_eq!(run(&[&merged]), found);
    assert_ne!(run(&[&halves[0]]).1, expected.1);

    // Blocks may be in different files.
    let split = [0, 1].map(|block| {
        let prefix = format!("model.layers.{block}.");
        let mut layers = layers.clone();
        layers.retain(|name, _| name.starts_with(&prefix));
        let path = fixture.path(&format!("block-{block}"));
        file::save(&path, &layers).unwrap();
        path
    });
    assert_eq!(run(&[&split[0], &split[1]]), found);
    let error = error_with(&fixture, &[&split[0]], &[]);
    assert_says(&error, &["no file", "q_proj", "block 1"]);
    // What is not pruned needs none.
    let report = run_with(&fixture, &[&split[0]], &["--include=layers.0.mlp"]).unwrap();
    assert_eq!((report.layers.len(), report.inputs.len()), (3, 2));
}

/// What is measured on is none of the texts that were sampled to calibrate on.
#[test]
fn sampled_texts_to_measure_on_are_held_out() {
    let fixture = fixture();
    let (model, output) = (fixture.model(), fixture.path("pruned"));
    let run = |more: &[&str]| {
        let mut line = vec!["prune-llm", "--model", model.to_str().unwrap()];
        line.extend(["--output", output.to_str().unwrap(), "--sequence-length=24"]);
        line.extend([
            "--eval-windows=2",
            "--eval-length=24",
            "--calibration-samples=3",
        ]);
        line.extend(more);
        prune_llm::job::prune(&common::prune_args(&line).unwrap(), Progress::Hidden).unwrap()
    };
    let stats = fixture.calibrate("stats", &[]);
    let with = run(&["--statistics", stats.to_str().unwrap()]);
    let without = run(&[]);
    assert_eq!(
        with.dense_perplexity.to_bits(),
        without.dense_perplexity.to_bits()
    );
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let fixture = fixture();
    let norms = fixture.calibrate("norms", &[]);
    let name = norms.to_str().unwrap();
    let error = error_with(&fixture, &[&norms], &["--method", "sparsegpt"]);
    assert_says(
        &error,
        &[name, "q_proj` has only norms", "calibrate --gram"],
    );
    let error = error_with(&fixture, &[&fixture.path("nowhere")], &[]);
    assert_says(&error, &["cannot open", "nowhere"]);

    let whole = fs::read(&norms).unwrap();
    let damaged = fixture.path("damaged");
    for len in [0, 3, 100, whole.len() - 1] {
        fs::write(&damaged, &whole[..len]).unwrap();
        assert_says(
            &error_with(&fixture, &[&damaged], &[]),
            &["damaged` is damaged in its header"],
        );
    }
    let mut flipped = whole;
    let last = flipped.len() - 30;
    flipped[last] ^= 1;
    fs::write(&damaged, &flipped).unwrap();
    assert_says(
        &error_with(&fixture, &[&damaged], &[]),
        &["is damaged in tensor"],
    );
    let model = fixture.model().join("model.safetensors");
    assert_says(
        &error_with(&fixture, &[&model], &[]),
        &["is not a statistics file"],
    );
    assert_eq!(fixture.entries(), ["damaged", "model", "norms", "text"]);

    let mut other = config();
    other["intermediate_size"] = json!(INTERMEDIATE / 2);
    let mut weights = tensors(DType::F32);
    for (name, tensor) in &mut weights {
        let half = |dim| {
            tensor
                .narrow(dim, 0, INTERMEDIATE / 2)
                .unwrap()
                .contiguous()
                .unwrap()
        };
        if name.ends_with("gate_proj.weight") || name.ends_with("up_proj.weight") {
            *tensor = half(0);
        } else if name.ends_with("down_proj.weight") {
            *tensor = half(1);
        }
    }
    let error = error_with(&Fixture::new(&other, &weights), &[&norms], &[]);
    assert_says(
        &error,
        &[
            "down_proj` has 48 inputs, where the model has 24",
            "another model",
        ],
    );

    let mut other = config();
    other["num_hidden_layers"] = json!(1);
    let mut weights = tensors(DType::F32);
    weights.retain(|name, _| !name.starts_with("model.layers.1"));
    let error = error_with(&Fixture::new(&other, &weights), &[&norms], &[]);
    assert_says(&error, &["model.layers.1.", "is no layer of the model"]);
}

#[test]
fn statistics_and_a_text_to_calibrate_on_exclude_each_other() {
    let line = ["prune-llm", "--statistics", "file", "--calibration", "text"];
    let error = Cli::try_parse_from(line).unwrap_err();
    assert_says(
        &error.to_string(),
        &["--statistics", "--calibration", "cannot be used"],
    );
}

/// An importance matrix as llama.cpp writes it, of the sums in a file of norms.
fn imatrix(norms: &Path, edit: impl Fn(&str, &mut Vec<f32>, &mut Vec<f32>)) -> Vec<u8> {
    let layers = file::load(norms).unwrap();
    let mut tensors = Vec::new();
    for block in 0..LAYERS {
        for (matrix, reader) in [
            ("attn_q", "self_attn.q_proj"),
            ("attn_k", "self_attn.q_proj"),
            ("attn_v", "self_attn.q_proj"),
            ("attn_output", "self_attn.o_proj"),
            ("ffn_gate", "mlp.gate_proj"),
            ("ffn_up", "mlp.gate_proj"),
            ("ffn_down", "mlp.down_proj"),
        ] {
            let stats = &layers[&format!("model.layers.{block}.{reader}")];
            #[expect(clippy::cast_possible_truncation, reason = "the format has f32")]
            let mut sums = stats
                .sums_of_squares()
                .iter()
                .map(|&sum| sum as f32)
                .collect();
            let mut counts = vec![stats.tokens() as f32];
            let name = format!("blk.{block}.{matrix}.weight");
            edit(&name, &mut sums, &mut counts);
            let tensor = |values: &[f32], columns| {
                let shape = (values.len() / columns, columns);
                let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
                QTensor::quantize(&tensor, GgmlDType::F32).unwrap()
            };
            let matrices = counts.len();
            tensors.push((
                format!("{name}.in_sum2"),
                tensor(&sums, sums.len() / matrices),
            ));
            tensors.push((format!("{name}.counts"), tensor(&counts, 1)));
        }
    }
    let kind = gguf_file::Value::String("imatrix".to_owned());
    let chunks = gguf_file::Value::U32(1);
    let metadata = [("general.type", &kind), ("imatrix.chunk_count", &chunks)];
    let tensors: Vec<(&str, &QTensor)> = tensors
        .iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let mut file = std::io::Cursor::new(Vec::new());
    gguf_file::write(&mut file, &metadata, &tensors).unwrap();
    file.into_inner()
}

#[test]
fn importance_matrices_are_norms() {
    let fixture = fixture();
    let norms = fixture.calibrate("norms", &[]);
    let matrix = fixture.path("imatrix.gguf");
    fs::write(&matrix, imatrix(&norms, |_, _, _| {})).unwrap();
    let expected = run_with(&fixture, &[&norms], &[]).unwrap();
    let expected_weights = weights(&load(&fixture.path("pruned")).model);
    let found = run_with(&fixture, &[&matrix], &[]).unwrap();
    assert_eq!(
        weights(&load(&fixture.path("pruned")).model),
        expected_weights
    );
    for (a, b) in found.layers.iter().zip(&expected.layers) {
        let (a, b) = (a.relative_error.unwrap(), b.relative_error.unwrap());
        assert!((a - b).abs() < 1e-6 * b, "{a} where {b} is expected");
    }
    let error = error_with(&fixture, &[&matrix], &["--method", "sparsegpt"]);
    assert_says(&error, &["imatrix.gguf", "has only norms"]);
}

#[test]
fn damaged_importance_matrices_are_refused() {
    let fixture = fixture();
    let norms = fixture.calibrate("norms", &[]);
    let path = fixture.path("imatrix.gguf");
    let refused = |bytes: &[u8], parts: &[&str]| {
        fs::write(&path, bytes).unwrap();
        assert_says(&error_with(&fixture, &[&path], &[]), parts);
    };
    let up = "blk.1.ffn_up.weight";
    let edited = |edit: fn(&mut Vec<f32>, &mut Vec<f32>)| {
        imatrix(&norms, |name, sums, counts| {
            if name == up {
                edit(sums, counts);
            }
        })
    };
    refused(
        &edited(|sums, _| sums[3] = -1.0),
        &["imatrix.gguf", up, "feature 3 is -1"],
    );
    refused(
        &edited(|sums, _| sums[3] = f32::NAN),
        &[up, "feature 3 is NaN"],
    );
    refused(&edited(|_, counts| counts[0] = 0.0), &[up, "saw 0 tokens"]);
    refused(
        &edited(|_, counts| counts[0] = f32::INFINITY),
        &[up, "saw inf tokens"],
    );
    refused(
        &edited(|_, counts| counts.push(1.0)),
        &[up, "2 matrices in one"],
    );
    let whole = imatrix(&norms, |_, _, _| {});
    for len in [4, 20, 100, 1000, whole.len() - 40] {
        refused(&whole[..len], &["imatrix.gguf"]);
    }
    let place = whole.windows(7).position(|w| w == b"imatrix").unwrap();
    let mut other = whole;
    other[place] = b'x';
    refused(&other, &["GGUF file of something else"]);
}

/// Seeded changes of single bytes: an error or a result, and nothing left behind by an error.
#[test]
fn changed_bytes_do_no_harm() {
    use prune_llm::{
        calibrate::Files,
        plan::{Choice, Plan},
    };
    let fixture = fixture();
    let norms = fixture.calibrate("norms", &[]);
    let recipe = common::prune_args(&["prune-llm"]).unwrap().recipe();
    let plan = Plan::new(
        load(&fixture.model()).model.spec(),
        LAYERS,
        recipe,
        &Choice::default(),
    )
    .unwrap();
    let matrix = imatrix(&norms, |_, _, _| {});
    let path = fixture.path("changed");
    let mut random = 1_u64;
    let mut next = |below: usize| {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (random >> 33) as usize % below
    };
    let mut refused = 0;
    for whole in [&fs::read(&norms).unwrap(), &matrix] {
        for _ in 0..500 {
            let mut bytes = whole.clone();
            // Headers are a small part of the file, and where most can go wrong.
            let places = if next(2) == 0 { bytes.len() } else { 2000 };
            let place = next(places);
            bytes[place] ^= 1 << next(8);
            fs::write(&path, &bytes).unwrap();
            let read = Files::open(std::slice::from_ref(&path), &plan).and_then(|mut files| {
                (0..LAYERS).try_for_each(|block| files.block(block, &plan).map(drop))
            });
            refused += usize::from(read.is_err());
        }
    }
    assert!(refused > 500, "only {refused} of 1000 were refused");
}
