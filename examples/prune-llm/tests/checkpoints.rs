//! Hugging Face folders: the forward pass, pruning, and what is written.

mod common;

use candle_core::{DType, Device, Tensor};
use common::{
    Fixture, assert_close, blocks, config, header, load, logits, names_in, prune_args, rows,
    stock_logits, tensors, tensors_in, tokens, write_in_order, write_safetensors,
};
use prune_llm::{
    Progress,
    calibrate::{Sequences, sample},
    report::Report,
};
use serde_json::{Value, json};
use std::fs;

/// Dense and pruned, this program and candle's own Llama agree on every logit.
fn agrees_with_stock_llama(config: &Value, dtype: DType) {
    let mut weights = tensors(dtype);
    if config["tie_word_embeddings"] == true {
        weights.remove("lm_head.weight");
    }
    let fixture = Fixture::new(config, &weights);
    let text = tokens(20);
    assert_close(
        &logits(&load(&fixture.model()).model, &text),
        &stock_logits(&fixture.model(), &text),
    );

    let report = fixture.run(&["--pattern", "2:4"]).unwrap();
    assert!((report.sparsity - 0.5).abs() < 1e-9);
    let pruned = load(&fixture.path("pruned")).model;
    assert_close(
        &logits(&pruned, &text),
        &stock_logits(&fixture.path("pruned"), &text),
    );
    for block in blocks(&pruned) {
        for layer in 0..pruned.spec().layers.len() {
            let weights = block.weight(layer);
            assert_eq!(weights.dtype(), dtype);
            for group in rows(weights).iter().flat_map(|row| row.chunks(4)) {
                assert_eq!(group.iter().filter(|&&w| w != 0.0).count(), 2, "{group:?}");
            }
        }
    }
}

#[test]
fn f32_with_a_head_of_its_own() {
    agrees_with_stock_llama(&config(), DType::F32);
}

#[test]
fn tied_head() {
    let mut config = config();
    config["tie_word_embeddings"] = json!(true);
    agrees_with_stock_llama(&config, DType::F32);
}

#[test]
fn llama3_rotary_scaling() {
    let mut config = config();
    config["rope_theta"] = json!(500.0);
    config["rope_scaling"] = json!({
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    agrees_with_stock_llama(&config, DType::F32);
}

#[test]
fn f16_stays_f16() {
    agrees_with_stock_llama(&config(), DType::F16);
}

#[test]
fn bf16_stays_bf16() {
    agrees_with_stock_llama(&config(), DType::BF16);
}

/// Longer than a chunk of queries, so that more than one is scored.
#[test]
fn long_texts_are_attended_in_chunks() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let text = tokens(300);
    let found = logits(&load(&fixture.model()).model, &text);
    let expected = stock_logits(&fixture.model(), &text[..150]);
    assert_close(&found[..150], &expected);
    // The stock model gives the last position only, so the end is checked by itself.
    let mut shifted = text.clone();
    shifted[299] = 5;
    let other = logits(&load(&fixture.model()).model, &shifted);
    assert_close(&other[..299], &found[..299]);
    assert_ne!(other[299], found[299]);
}

/// Everything but the seven linear layers is written as it was read.
#[test]
fn what_is_not_pruned_keeps_its_bits() {
    let fixture = Fixture::new(&config(), &tensors(DType::BF16));
    fixture.run(&[]).unwrap();
    let read = |folder: &str| {
        let path = fixture.path(folder).join("model.safetensors");
        candle_core::safetensors::load(path, &Device::Cpu).unwrap()
    };
    let (before, after) = (read("model"), read("pruned"));
    assert_eq!(before.len(), after.len());
    let bits =
        |tensor: &Tensor| -> Vec<half::bf16> { tensor.flatten_all().unwrap().to_vec1().unwrap() };
    for (name, tensor) in &before {
        let (old, new) = (bits(tensor), bits(&after[name]));
        let pruned = name.contains("_proj");
        let changed = old.iter().zip(&new).filter(|(old, new)| old != new).count();
        assert_eq!(changed > 0, pruned, "{name}");
        for (old, new) in old.iter().zip(new) {
            assert!(*old == new || (pruned && new.to_bits() == 0), "{name}");
        }
    }
    for file in ["config.json", "tokenizer.json"] {
        assert_eq!(
            fs::read(fixture.model().join(file)).unwrap(),
            fs::read(fixture.path("pruned").join(file)).unwrap()
        );
    }
}

/// A model in shards is written in the same shards.
#[test]
fn shards_with_and_without_an_index() {
    const SHARDS: [&str; 2] = ["shard-0.safetensors", "shard-1.safetensors"];
    const INDEX: &str = "model.safetensors.index.json";
    let weights = tensors(DType::F32);
    let whole = Fixture::new(&config(), &weights);
    whole.run(&[]).unwrap();
    let expected = tensors_in(&whole.path("pruned"));

    let sharded = Fixture::new(&config(), &weights);
    let (model, pruned) = (sharded.model(), sharded.path("pruned"));
    fs::remove_file(model.join("model.safetensors")).unwrap();
    let mut weight_map = serde_json::Map::new();
    let mut shards = [weights.clone(), weights.clone()];
    for (index, name) in weights.keys().enumerate() {
        shards[1 - index % 2].remove(name);
        weight_map.insert(name.clone(), json!(SHARDS[index % 2]));
    }
    for (shard, file) in shards.iter().zip(SHARDS) {
        write_safetensors(shard, &model.join(file));
    }
    let check = || {
        sharded.run(&[]).unwrap();
        assert!(tensors_in(&pruned) == expected);
        for file in SHARDS {
            assert_eq!(header(&model.join(file)), header(&pruned.join(file)));
        }
        fs::read(pruned.join(INDEX)).unwrap()
    };
    let made: Value = serde_json::from_slice(&check()).unwrap();
    assert_eq!(made["weight_map"], json!(weight_map));

    let index = json!({ "metadata": {"a": "b"}, "weight_map": weight_map }).to_string();
    fs::write(model.join(INDEX), &index).unwrap();
    assert_eq!(check(), index.as_bytes());

    fs::remove_file(model.join(SHARDS[1])).unwrap();
    let error = sharded.error(&[]);
    assert!(
        error.contains(SHARDS[1]) && error.contains("missing"),
        "{error}"
    );
}

/// The order of the tensors and whatever else the header says are those of the input.
#[test]
fn order_and_metadata_stay() {
    let weights = tensors(DType::F32);
    let sorted = Fixture::new(&config(), &weights);
    sorted.run(&[]).unwrap();
    let fixture = Fixture::new(&config(), &weights);
    let file = fixture.model().join("model.safetensors");
    let names: Vec<String> = weights.keys().rev().cloned().collect();
    write_in_order(&names, &weights, &file);
    fixture.run(&[]).unwrap();
    let pruned = fixture.path("pruned");
    assert_eq!(header(&pruned.join("model.safetensors")), header(&file));
    assert!(tensors_in(&pruned) == tensors_in(&sorted.path("pruned")));
}

/// The perplexities that are reported are those of candle's own Llama on what is written.
#[test]
fn stock_llama_gives_the_same_perplexities() {
    for dtype in [DType::F32, DType::BF16] {
        let fixture = Fixture::new(&config(), &tensors(dtype));
        let report = fixture.run(&[]).unwrap();
        let input = load(&fixture.model());
        let text = Sequences::from_file(&fixture.path("text"), &input.tokenizer, 3, 32).unwrap();
        for (folder, expected) in [
            (fixture.model(), report.dense_perplexity),
            (fixture.path("pruned"), report.perplexity),
        ] {
            let losses: Vec<f64> = text
                .iter()
                .flat_map(|window| {
                    let logits = stock_logits(&folder, window);
                    let pairs = logits.into_iter().zip(&window[1..]);
                    pairs
                        .map(|(row, &next)| loss(&row, next))
                        .collect::<Vec<_>>()
                })
                .collect();
            let found = (losses.iter().sum::<f64>() / losses.len() as f64).exp();
            assert!((found / expected - 1.0).abs() < 1e-3, "{found} {expected}");
        }
    }
}

fn loss(logits: &[f32], target: u32) -> f64 {
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
    sum.ln() - f64::from(logits[target as usize])
}

/// Layers that are not chosen are written as they were read; others as sparse as they shall be.
#[test]
fn layers_can_be_chosen() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let line = [
        "--exclude",
        "attn",
        "--exclude=s.0.*up",
        "--sparsity-of",
        "down=0.25",
    ];
    for more in [["--method", "wanda"], ["--method", "sparsegpt"]] {
        let report = fixture.run(&[line.as_slice(), &more].concat()).unwrap();
        let layers: Vec<(&str, f64)> = report
            .layers
            .iter()
            .map(|layer| (layer.name.as_str(), layer.sparsity))
            .collect();
        assert_eq!(
            layers,
            [
                ("model.layers.0.mlp.gate_proj", 0.5),
                ("model.layers.0.mlp.down_proj", 0.25),
                ("model.layers.1.mlp.gate_proj", 0.5),
                ("model.layers.1.mlp.up_proj", 0.5),
                ("model.layers.1.mlp.down_proj", 0.25),
            ]
        );
        let before = tensors_in(&fixture.model());
        for (name, values) in tensors_in(&fixture.path("pruned")) {
            let layer = name.strip_suffix(".weight").unwrap();
            let pruned = layers.iter().any(|(pruned, _)| *pruned == layer);
            assert_eq!(values != before[&name], pruned, "{name}");
        }
    }
    let error = fixture.error(&["--include", "q_porj"]);
    assert!(error.contains("q_porj"), "{error}");
}

#[test]
fn a_dry_run_lists_layers_and_writes_nothing() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let output = fixture.path("pruned");
    let line = [
        "--output",
        output.to_str().unwrap(),
        "--dry-run",
        "--include=layers.1.*(q|up)_",
    ];
    let result = fixture
        .command(&[line.as_slice(), &["--sparsity-of=up=0.75"]].concat())
        .output()
        .unwrap();
    assert!(result.status.success());
    let text = String::from_utf8(result.stdout).unwrap();
    let layers: Vec<Vec<&str>> = text
        .lines()
        .filter(|line| line.starts_with(' '))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(
        layers,
        [
            ["model.layers.1.self_attn.q_proj", "32", "x", "32", "0.5"],
            ["model.layers.1.mlp.up_proj", "48", "x", "32", "0.75"],
        ]
    );
    assert!(text.contains(output.to_str().unwrap()), "{text}");
    assert_eq!(fixture.entries(), ["model", "text"]);
}

#[test]
fn the_report_tells_all_and_nothing_temporary_stays() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let file = fixture.path("report.json");
    let report = fixture
        .run(&["--report", file.to_str().unwrap(), "--seed", "3"])
        .unwrap();
    let written = fs::read(&file).unwrap();
    assert_eq!(written, report.to_json().unwrap());
    assert!(serde_json::from_slice::<Report>(&written).is_ok());
    let value: Value = serde_json::from_slice(&written).unwrap();
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "model",
            "method",
            "update",
            "pattern",
            "order",
            "target",
            "damping",
            "output_weights",
            "include",
            "exclude",
            "sparsity_of",
            "seed",
            "calibration",
            "evaluation",
            "dense_perplexity",
            "perplexity",
            "sparsity",
            "seconds",
            "peak_memory_bytes",
            "layers",
            "inputs",
            "continuation"
        ]
    );
    assert_eq!(value["calibration"]["text"]["sequences"], json!(4));
    assert_eq!(value["evaluation"]["length"], json!(32));
    assert_eq!(
        value["inputs"].as_array().unwrap().len(),
        4 * common::LAYERS
    );
    assert_eq!(
        (&value["method"], &value["update"], &value["pattern"]),
        (&json!("wanda"), &json!("none"), &json!("0.5"))
    );
    assert_eq!(value["seed"], json!(3));
    for phase in ["load", "calibrate", "prune", "evaluate"] {
        assert!(value["seconds"][phase].as_f64().unwrap() > 0.0, "{phase}");
    }
    assert_eq!(report.layers.len(), 14);
    let keys: Vec<&String> = value["layers"][0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "name",
            "shape",
            "sparsity",
            "relative_error",
            "target_error",
            "iterations",
            "error_basis",
            "damping",
            "seconds"
        ]
    );
    let last = report.layers.last().unwrap();
    assert_eq!(
        (last.name.as_str(), last.shape),
        ("model.layers.1.mlp.down_proj", [32, 48])
    );
    assert!(report.layers.iter().all(|layer| {
        let error = layer.relative_error.unwrap();
        (layer.sparsity - 0.5).abs() < 1e-12 && error > 0.0 && error < 0.5
    }));
    assert!(report.dense_perplexity > 1.0 && report.perplexity > 1.0);
    assert_eq!(
        fixture.entries(),
        ["model", "pruned", "report.json", "text"]
    );
    assert_eq!(
        names_in(&fixture.path("pruned")),
        [
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "pruning.json",
            "tokenizer.json"
        ]
    );
}

/// Where no bar is shown, every block is told of; and every file at the end, the model last, since
/// with it the run is over.
#[test]
fn a_log_tells_how_far_a_run_is_and_what_it_wrote() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let paths = ["r.json", "p.html", "pruned"].map(|name| fixture.path(name).display().to_string());
    let [report, page, output] = &paths;
    let line = ["--output", output, "--report", report, "--html", page];
    let result = fixture.command(&line).output().unwrap();
    let lines = |bytes: Vec<u8>| -> Vec<String> {
        let text = String::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let blocks =
        (1..=common::LAYERS).map(|b| format!("block {b} of {} is finished", common::LAYERS));
    assert_eq!(lines(result.stderr), blocks.collect::<Vec<_>>());
    let told = lines(result.stdout);
    let files = ["report", "page", "model"].into_iter().zip(&paths);
    let files = files.map(|(what, path)| format!("{what} written to `{path}`"));
    assert_eq!(told[told.len() - 3..], files.collect::<Vec<_>>());
}

/// A text gives the same run whatever its line ends.
#[test]
fn line_ends_do_not_matter() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let perplexity_of = |text: String| {
        fs::write(fixture.path("text"), text).unwrap();
        let report = fixture.run(&[]).unwrap();
        (report.dense_perplexity, report.perplexity)
    };
    let text = "One line.\nAnd another.\n\n".repeat(50);
    let expected = perplexity_of(text.clone());
    assert_eq!(perplexity_of(text.replace('\n', "\r\n")), expected);
    assert_eq!(perplexity_of(text.replace('\n', "\r")), expected);
}

/// Without any text: the same seed gives the same run, another seed another.
#[test]
fn sampled_text_follows_the_seed() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let model = load(&fixture.model()).model;
    let sample = |count, seed| sample::texts(&model, 0..count, 12, seed, Progress::Hidden).unwrap();
    let texts = sample(3, 1);
    assert_eq!(texts, sample(3, 1));
    assert_ne!(texts, sample(3, 2));
    assert_eq!(texts[..2], sample(2, 1));
    assert!(texts.iter().all(|text| text.len() == 12 && text[0] == 256));
    assert_ne!(texts[0], texts[1]);
}

/// The cache of keys and values changes nothing: every greedy step is the full pass's choice.
#[test]
fn continuations_are_the_full_pass_s_choice() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let model = load(&fixture.model()).model;
    let mut text = tokens(9);
    let continuation = sample::continuation(&model, &text, 6).unwrap();
    for &token in &continuation {
        let all = logits(&model, &text);
        let last = all.last().unwrap();
        let best = (0u32..)
            .zip(last)
            .max_by(|a, b| a.1.total_cmp(b.1))
            .unwrap();
        assert_eq!(token, best.0);
        text.push(token);
    }
    assert!(!continuation.is_empty());
}

/// Magnitude looks at no data; given some, the report says what it cost.
#[test]
fn magnitude_uses_calibration_only_to_report() {
    let fixture = Fixture::new(&config(), &tensors(DType::F32));
    let with = fixture.run(&["--method", "magnitude"]).unwrap();
    let model = fixture.path("pruned").join("model.safetensors");
    let expected = fs::read(&model).unwrap();
    assert!(
        with.layers
            .iter()
            .all(|layer| layer.relative_error.is_some())
    );

    let text = fixture.path("text");
    let output = fixture.path("pruned");
    let args = prune_args(&[
        "prune-llm",
        "--model",
        fixture.model().to_str().unwrap(),
        "--method",
        "magnitude",
        "--eval",
        text.to_str().unwrap(),
        "--eval-length",
        "32",
        "--output",
        output.to_str().unwrap(),
    ])
    .unwrap();
    let without = prune_llm::job::prune(&args, Progress::Hidden).unwrap();
    assert!(
        without
            .layers
            .iter()
            .all(|layer| layer.relative_error.is_none())
    );
    assert!(fs::read(&model).unwrap() == expected);
}
