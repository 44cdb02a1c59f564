//! Damaged and lying model files: a clear error or a correct result, never a panic, a huge
//! allocation or an output of half a model.

mod common;

use candle_core::DType;
use common::{Fixture, Tensors, config, gguf, load, names_in, tensors};
use peak_alloc::PeakAlloc;
use rand_pcg::{Pcg64, rand_core::Rng};
use safetensors::SafeTensors;
use serde_json::{Value, json};
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Mutations of each kind of file.
const MUTATIONS: u64 = 750;
/// The programs of both tests together take a tenth of this.
const MAX_MEGABYTES: f64 = 64.0;

/// One block, so that a run is short.
fn model() -> (Value, Tensors) {
    let mut config = config();
    config["num_hidden_layers"] = json!(1);
    config["tie_word_embeddings"] = json!(true);
    let mut weights = tensors(DType::F32);
    weights.retain(|name, _| !name.contains("layers.1") && name != "lm_head.weight");
    (config, weights)
}

/// Damages a file whose first `header` bytes tell what the others are. Returns what it did.
fn mutate(bytes: &mut Vec<u8>, header: usize, random: &mut Pcg64) -> String {
    let mut below = |limit: usize| usize::try_from(random.next_u64() % limit as u64).unwrap();
    let length = bytes.len();
    match below(8) {
        0 => {
            let end = below(length);
            bytes.truncate(end);
            format!("cut off at {end}")
        }
        1 => {
            let (place, bit) = (below(length), below(8));
            bytes[place] ^= 1 << bit;
            format!("bit {bit} of byte {place} flipped")
        }
        2 | 3 => {
            let (place, bit) = (below(header), below(8));
            bytes[place] ^= 1 << bit;
            format!("bit {bit} of byte {place} of the header flipped")
        }
        4 => {
            let place = below(header - 8);
            let lie = [0, 1, 1 << 20, 1 << 32, 1 << 60, u64::MAX >> 1, u64::MAX][below(7)];
            bytes[place..place + 8].copy_from_slice(&lie.to_le_bytes());
            format!("{lie} written at byte {place}")
        }
        5 => {
            // Another digit: sizes and types of tensors in a header of JSON.
            let digits: Vec<usize> = (0..header)
                .filter(|&place| bytes[place].is_ascii_digit())
                .collect();
            let place = digits[below(digits.len())];
            bytes[place] = b"0123456789"[below(10)];
            format!("another digit at byte {place}")
        }
        6 => {
            let (from, to) = (below(header), below(header));
            let count = below(header - from.max(to)).min(64);
            bytes.copy_within(from..from + count, to);
            format!("{count} bytes copied from {from} to {to}")
        }
        _ => {
            let place = below(header);
            let count = below(16).min(length - place);
            bytes.drain(place..place + count);
            format!("{count} bytes missing at {place}")
        }
    }
}

/// Runs the program on many mutations of `file`. `check` is told of every run that succeeds.
fn survives(
    fixture: &Fixture,
    file: &Path,
    model: &Path,
    header: usize,
    seed: u64,
    check: impl Fn(&Path),
) {
    let whole = fs::read(file).unwrap();
    let before = fixture.entries();
    let run = || {
        let line = "--calibration-samples 1 --sequence-length 8 --eval-windows 1 --eval-length 8";
        let small: Vec<&str> = line.split(' ').collect();
        fixture.run_on(model, &small)
    };
    run().unwrap();
    let output = fixture.path("pruned");
    fs::remove_dir_all(&output).unwrap();
    let mut successes = 0;
    for index in 0..MUTATIONS {
        let mut bytes = whole.clone();
        let mutation = mutate(
            &mut bytes,
            header,
            &mut Pcg64::new(u128::from(seed), u128::from(index)),
        );
        fs::write(file, &bytes).unwrap();
        let result = catch_unwind(AssertUnwindSafe(run));
        let Ok(result) = result else {
            panic!("mutation {index} makes it panic: {mutation}");
        };
        match result {
            Ok(report) => {
                assert!(report.perplexity.is_finite() && report.sparsity >= 0.5);
                check(&output);
                fs::remove_dir_all(&output).unwrap();
                successes += 1;
            }
            Err(error) => assert!(
                format!("{error:#}").contains("model"),
                "mutation {index} ({mutation}): {error:#}"
            ),
        }
        assert_eq!(fixture.entries(), before, "mutation {index}: {mutation}");
        let peak = MEMORY.peak_usage_as_mb();
        assert!(
            f64::from(peak) < MAX_MEGABYTES,
            "mutation {index} takes {peak} MB: {mutation}"
        );
    }
    // Both outcomes are tested: weights may change without harm, headers may not.
    assert!(
        (MUTATIONS / 20..MUTATIONS * 19 / 20).contains(&successes),
        "{successes} runs of {MUTATIONS} succeed"
    );
}

#[test]
fn safetensors_files() {
    let (config, weights) = model();
    let fixture = Fixture::new(&config, &weights);
    let file = fixture.model().join("model.safetensors");
    let length = fs::read(&file).unwrap()[..8].try_into().unwrap();
    let header = usize::try_from(u64::from_le_bytes(length)).unwrap() + 8;
    // Whoever else reads the file finds the same weights in it, but for those that were pruned.
    let check = |output: &Path| {
        let (before, after) = (
            fs::read(&file).unwrap(),
            fs::read(output.join("model.safetensors")).unwrap(),
        );
        let before = SafeTensors::deserialize(&before).unwrap();
        let after = SafeTensors::deserialize(&after).unwrap();
        for (name, tensor) in after.tensors() {
            let old = before.tensor(&name).unwrap();
            assert_eq!((old.shape(), old.dtype()), (tensor.shape(), tensor.dtype()));
            let size = tensor.dtype().bitsize() / 8;
            let pruned = name.ends_with("_proj.weight");
            let mut weights = old.data().chunks(size).zip(tensor.data().chunks(size));
            assert!(
                weights.all(|(old, new)| old == new || pruned && new.iter().all(|&b| b == 0)),
                "{name}"
            );
        }
    };
    survives(&fixture, &file, &fixture.model(), header, 1, check);
}

#[test]
fn gguf_files() {
    let (config, weights) = model();
    let fixture = Fixture::empty();
    let file = fixture.path("model.gguf");
    gguf::write(
        &file,
        &gguf::metadata(&config),
        &gguf::tensors(&config, &weights),
    );
    let weights: usize = weights
        .values()
        .map(|tensor| (tensor.elem_count() * 4).next_multiple_of(32))
        .sum();
    let header = fs::read(&file).unwrap().len() - weights;
    let check = |output: &Path| {
        assert_eq!(names_in(output).len(), 6);
        load(output);
    };
    survives(&fixture, &file, &file, header, 2, check);
}
