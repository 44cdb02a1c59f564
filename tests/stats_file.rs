//! Statistics survive in files, and what is damaged, of another kind or missing is refused.
#![cfg(feature = "safetensors")]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::test_runner::Config;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use tempfile::TempDir;
use wanda::ndarray::{Array2, array, s};
use wanda::stats::file::{self, LayerStats, StatsFile, StatsWriter};
use wanda::{ColumnNorms, Error};

use common::few_cases;
use common::layer::{correlated_inputs, gathered};

type Layers = BTreeMap<String, LayerStats>;

/// A folder that goes away, and a file in it that is not there yet.
fn place() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("statistics.safetensors");
    (folder, path)
}

/// What is in a folder.
fn entries(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).expect("a folder");
    entries
        .map(|entry| entry.expect("an entry").file_name().into_string().unwrap())
        .collect()
}

fn norms_of(inputs: &Array2<f32>) -> LayerStats {
    gathered(inputs).into()
}

/// Statistics of the kind that second-order methods need, where there are any.
#[cfg(feature = "second-order")]
fn gram_of(inputs: &Array2<f32>) -> LayerStats {
    common::layer::gram_of(inputs).into()
}
#[cfg(not(feature = "second-order"))]
use norms_of as gram_of;

/// A layer of each kind, and one that saw nothing.
fn layers_of(inputs: &Array2<f32>) -> Layers {
    [
        ("model.layers.0.mlp.up_proj", norms_of(inputs)),
        ("model.layers.10.mlp.up_proj", gram_of(inputs)),
        ("", ColumnNorms::new(usize::MAX).into()),
    ]
    .map(|(name, stats)| (name.to_owned(), stats))
    .into()
}

fn bytes_of(layers: &Layers) -> Vec<u8> {
    let (_folder, path) = place();
    file::save(&path, layers).expect("a folder that can be written to");
    fs::read(path).expect("the file just written")
}

fn load(bytes: &[u8]) -> wanda::Result<Layers> {
    let (_folder, path) = place();
    fs::write(&path, bytes).expect("a folder that can be written to");
    file::load(path)
}

/// Fails unless loading fails in words that contain all `parts`.
fn assert_refused(bytes: &[u8], parts: &[&str]) -> Error {
    let error = load(bytes).expect_err("damaged data");
    for part in parts {
        assert!(error.to_string().contains(part), "no `{part}` in: {error}");
    }
    error
}

proptest! {
    #![proptest_config(few_cases())]

    #[test]
    fn what_is_loaded_is_what_was_saved(
        (tokens, features) in prop_oneof![(0..9_usize, 1..400_usize), (2040..2060_usize, 1..4_usize)],
        seed in any::<u64>(),
    ) {
        let layers = layers_of(&correlated_inputs((tokens, features), seed));
        let loaded = load(&bytes_of(&layers)).expect("what was just saved");
        prop_assert_eq!(&loaded, &layers);
        prop_assert_eq!(bytes_of(&loaded), bytes_of(&layers));
    }

    #[test]
    fn loaded_statistics_are_continued(at in 0..2100_usize, seed in any::<u64>()) {
        let inputs = correlated_inputs::<f32>((2100, 3), seed);
        let first = inputs.slice(s![..at, ..]).to_owned();
        let mut layers = load(&bytes_of(&layers_of(&first))).expect("what was just saved");
        let rest = inputs.slice(s![at.., ..]);
        for stats in layers.values_mut().filter(|stats| stats.as_stats().features() == 3) {
            stats.update(&rest).expect("finite inputs");
        }
        prop_assert_eq!(layers, layers_of(&inputs));
    }

    #[test]
    fn merged_files_equal_one_pass_within_rounding(
        tokens in 1..5000_usize,
        cuts in [any::<prop::sample::Index>(), any::<prop::sample::Index>()],
        seed in any::<u64>(),
    ) {
        let inputs = correlated_inputs::<f32>((tokens, 5), seed);
        let cuts = cuts.map(|cut| cut.index(tokens + 1));
        let (a, b) = (cuts[0].min(cuts[1]), cuts[0].max(cuts[1]));
        let mut merged = Layers::new();
        for part in [0..a, a..b, b..tokens] {
            let part = bytes_of(&layers_of(&inputs.slice(s![part, ..]).to_owned()));
            file::merge(&mut merged, &load(&part).expect("what was just saved")).expect("one model");
        }
        let whole = layers_of(&inputs);
        prop_assert_eq!(merged.keys().collect::<Vec<_>>(), whole.keys().collect::<Vec<_>>());
        for (merged, whole) in merged.values().zip(whole.values()) {
            assert_close(merged, whole);
        }
    }

}

proptest! {
    #![proptest_config(Config { cases: 4 * Config::default().cases, ..few_cases() })]

    /// Changed bytes are found, wherever they are, unless they change nothing.
    #[test]
    fn a_changed_byte_is_refused(place in any::<prop::sample::Index>(), change in 1..=255_u8) {
        let layers = layers_of(&correlated_inputs((3, 4), 1));
        let mut bytes = bytes_of(&layers);
        let place = place.index(bytes.len());
        bytes[place] ^= change;
        if let Ok(loaded) = load(&bytes) {
            prop_assert_eq!(loaded, layers, "byte {} was changed by {}", place, change);
        }
    }

    #[test]
    fn bytes_at_random_never_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        len in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = bytes_of(&layers_of(&correlated_inputs((3, 4), 1)));
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if cut {
            bytes.truncate(len.index(bytes.len()));
        }
        let _ = load(&bytes);
    }
}

fn assert_close(found: &LayerStats, expected: &LayerStats) {
    let (found, expected) = (found.as_stats(), expected.as_stats());
    assert_eq!(found.tokens(), expected.tokens());
    let pairs = found
        .sums_of_squares()
        .iter()
        .zip(expected.sums_of_squares());
    for (a, b) in pairs {
        assert!((a - b).abs() <= 1e-12 * b, "{a} where {b} is expected");
    }
    #[cfg(feature = "second-order")]
    if let Some(gram) = expected.gram() {
        let norms = gram.norms().norms();
        let products = |gram: Option<&wanda::Gram>| gram.map(|gram| gram.to_array().unwrap());
        let (found, expected) = (products(found.gram()), products(Some(gram)));
        for ((j, k), b) in expected.unwrap().indexed_iter() {
            let a = found.as_ref().unwrap()[[j, k]];
            let bound = 1e-6 * norms[j] * norms[k];
            assert!(
                (a - b).abs() <= bound,
                "({j}, {k}): {a} where {b} is expected"
            );
        }
    }
}

/// Every length that a file can be cut to, and some bytes too many.
#[test]
fn files_of_another_length_are_refused() {
    let whole = bytes_of(&layers_of(&array![[1.0, -2.0]]));
    for len in 0..whole.len() {
        assert_refused(&whole[..len], &["is damaged in its header"]);
    }
    let longer = [whole.as_slice(), &[0; 8]].concat();
    assert_refused(&longer, &["is damaged in its header", "bytes of tensors"]);
    let mut lying = whole;
    lying[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_refused(&lying, &["its header", "it claims 18446744073709551615"]);
}

/// No memory is taken for what a damaged length claims.
#[test]
fn a_header_of_hundreds_of_megabytes_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("claims.safetensors");
    std::fs::write(&path, 200_000_000_u64.to_le_bytes()).expect("room for a few bytes");
    let file = std::fs::File::options().write(true).open(&path);
    // Nothing is written, so it takes no room.
    file.and_then(|file| file.set_len(300_000_000))
        .expect("an empty space");
    let error = StatsFile::open(&path).expect_err("too large a header");
    assert!(
        error
            .to_string()
            .contains("it claims 200000000 bytes, more than 100000000"),
        "{error}"
    );
}

/// Tensors of a file written by other means.
struct Tensors(Vec<(String, Dtype, Vec<usize>, Vec<u8>)>);

impl Tensors {
    /// What the documentation of the format says of a layer of two inputs (3, 1) and (4, 0).
    fn gram() -> Self {
        let floats = |numbers: &[f64]| numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
        let mut tensors = Self(vec![
            (
                "up.features".into(),
                Dtype::U64,
                vec![1],
                2_u64.to_le_bytes().into(),
            ),
            (
                "up.tokens".into(),
                Dtype::U64,
                vec![1],
                2_u64.to_le_bytes().into(),
            ),
            ("up.weight".into(), Dtype::F64, vec![1], floats(&[2.0])),
            ("up.sums".into(), Dtype::F64, vec![2], floats(&[25.0, 1.0])),
            (
                "up.products".into(),
                Dtype::F64,
                vec![4],
                floats(&[0.0, 0.0, 3.0, 0.0]),
            ),
            ("up.narrow".into(), Dtype::F32, vec![0, 2], vec![]),
            ("up.wide".into(), Dtype::F64, vec![0, 2], vec![]),
        ]);
        tensors.sign();
        tensors
    }

    /// Adds the checksums.
    fn sign(&mut self) {
        let sums: Vec<u8> = self
            .0
            .iter()
            .flat_map(|(_, _, _, bytes)| crc32fast::hash(bytes).to_le_bytes())
            .collect();
        let len = self.0.len();
        self.0
            .push(("up.crc32".into(), Dtype::U32, vec![len], sums));
    }

    #[cfg(feature = "second-order")]
    /// With other bytes in a tensor, and checksums of these.
    fn with(mut self, name: &str, numbers: impl IntoIterator<Item = f64>) -> Self {
        let tensor = self.0.iter_mut().find(|(tensor, ..)| tensor == name);
        let (_, _, shape, bytes) = tensor.expect("a tensor of this name");
        *bytes = numbers.into_iter().flat_map(f64::to_le_bytes).collect();
        if let [len] = shape.as_mut_slice() {
            *len = bytes.len() / 8;
        }
        self.0.pop();
        self.sign();
        self
    }

    fn file(&self, version: Option<&str>) -> Vec<u8> {
        let tensors = self.0.iter().map(|(name, dtype, shape, bytes)| {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a whole tensor");
            (name, view)
        });
        let format = |version: &str| [("wanda-statistics".to_owned(), version.to_owned())].into();
        serialize(tensors, version.map(format)).expect("a file")
    }
}

#[test]
fn a_file_as_documented_is_read() {
    let (_folder, path) = place();
    fs::write(&path, Tensors::gram().file(Some("1"))).expect("a file");
    let mut file = StatsFile::open(&path).expect("a file as documented");
    assert_eq!(file.layers().collect::<Vec<_>>(), ["up"]);
    assert!(file.contains("up") && !file.contains("down"));
    assert!(file.has_gram("up") && !file.has_gram("down"));
    assert_eq!(file.features("up"), Ok(2));
    assert_eq!(
        file.norms("up").map(|norms| norms.norms()),
        Ok(vec![5.0, 1.0])
    );
    #[cfg(feature = "second-order")]
    {
        let LayerStats::Gram(gram) = file.layer("up").expect("a Gram matrix") else {
            panic!("these are norms");
        };
        assert_eq!(gram.to_array(), Ok(array![[25.0, 3.0], [3.0, 1.0]]));
    }
    #[cfg(not(feature = "second-order"))]
    assert_eq!(
        file.layer("up"),
        Err(Error::GramNotBuilt { layer: "up".into() })
    );
    assert_eq!(
        file.norms("down"),
        Err(Error::NoSuchLayer {
            path,
            layer: "down".into()
        })
    );
}

/// What is saved has the tensors that the documentation says, and other programs read them.
#[test]
fn a_saved_file_is_as_documented() {
    let bytes = bytes_of(&layers_of(&array![[1.0, -2.0], [0.0, 3.0]]));
    let tensors = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
    let metadata = header.metadata().as_ref().expect("metadata");
    assert_eq!(
        metadata.get("wanda-statistics").map(String::as_str),
        Some("1")
    );
    let sums = tensors
        .tensor("model.layers.0.mlp.up_proj.sums")
        .expect("sums");
    assert_eq!((sums.dtype(), sums.shape()), (Dtype::F64, &[2][..]));
    assert_eq!(sums.data(), [1.0_f64, 13.0].map(f64::to_le_bytes).concat());
    let tokens = tensors
        .tensor("model.layers.0.mlp.up_proj.tokens")
        .expect("tokens");
    assert_eq!(tokens.data(), 2_u64.to_le_bytes());
    let (start, _) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
    assert_eq!(start % 8, 0, "tensors are aligned");
}

#[test]
fn other_files_are_refused() {
    for version in [None, Some("2")] {
        let (_folder, path) = place();
        fs::write(&path, Tensors::gram().file(version)).expect("a file");
        let expected = Error::StatsFileVersion {
            path: path.clone(),
            found: version.map(str::to_owned),
            expected: "1",
        };
        assert_eq!(StatsFile::open(path).map(drop), Err(expected));
    }
    let error = file::load("nowhere/at/all").expect_err("no file");
    assert!(
        matches!(&error, Error::StatsFileAccess { kind, action: "open", .. }
        if *kind == std::io::ErrorKind::NotFound),
        "{error:?}"
    );
}

#[cfg(feature = "second-order")]
#[test]
fn tensors_that_do_not_belong_are_refused() {
    type Edit = fn(&mut Tensors);
    let cases: [(Edit, [&str; 2]); 9] = [
        (|t| t.0.truncate(4), ["layer `up`", "no tensor `up.crc32`"]),
        (
            |t| drop(t.0.remove(4)),
            ["layer `up`", "no tensor `up.products`"],
        ),
        (
            |t| t.0[0].0 = "up.inputs".into(),
            ["tensor `up.inputs`", "no part"],
        ),
        (
            |t| t.0[0].0 = "features".into(),
            ["tensor `features`", "no part"],
        ),
        (
            |t| t.0[0].0 = "down.features".into(),
            ["layer `down`", "no tensor"],
        ),
        (
            |t| t.0[0].1 = Dtype::F64,
            ["tensor `up.features`", "F64 and not U64"],
        ),
        (|t| t.0[3].2 = vec![1, 2], ["tensor `up.sums`", "[1, 2]"]),
        (|t| t.0[5].2 = vec![0], ["tensor `up.narrow`", "[0]"]),
        (
            |t| t.0[3].3[0] ^= 1,
            ["tensor `up.sums`", "not those that were written"],
        ),
    ];
    for (edit, parts) in cases {
        let mut tensors = Tensors::gram();
        edit(&mut tensors);
        assert_refused(&tensors.file(Some("1")), &parts);
    }
}

#[cfg(feature = "second-order")]
#[test]
fn numbers_that_cannot_be_are_refused() {
    let refused = |name: &str, numbers: &[f64], parts: &[&str]| {
        let tensors = Tensors::gram().with(name, numbers.iter().copied());
        let error = assert_refused(&tensors.file(Some("1")), parts);
        assert!(matches!(error, Error::StatsFileDamaged { .. }), "{error:?}");
    };
    refused("up.sums", &[25.0, -1.0], &["layer `up`", "feature 1 is -1"]);
    refused(
        "up.sums",
        &[f64::NAN, 1.0],
        &["layer `up`", "feature 0 is NaN"],
    );
    refused("up.sums", &[25.0], &["layer `up`", "1 sums for 2 features"]);
    refused("up.weight", &[-1.0], &["layer `up`", "2 tokens weigh -1"]);
    let inf = f64::INFINITY;
    refused(
        "up.products",
        &[0.0, 0.0, inf, 0.0],
        &["layer `up`", "finite"],
    );
    refused("up.products", &[0.0; 3], &["layer `up`", "all products"]);
    refused("up.products", &[], &["layer `up`", "all products"]);
    refused(
        "up.products",
        &[0.0, 0.0, -5.1, 0.0],
        &["layer `up`", "-5.1 for input features 1 and 0"],
    );
}

#[cfg(feature = "second-order")]
#[test]
fn kinds_do_not_merge() {
    let inputs = array![[1.0, -2.0]];
    let up = |stats| Layers::from([("up".to_owned(), stats)]);
    let mut layers = up(norms_of(&inputs));
    let before = layers.clone();
    let others = [
        (
            up(gram_of(&inputs)),
            "cannot merge norms with a Gram matrix",
        ),
        (
            up(norms_of(&array![[1.0]])),
            "2 input features with statistics of 1",
        ),
    ];
    for (mut other, reason) in others {
        // A layer that could be merged is not, if another cannot.
        other.insert("down".to_owned(), norms_of(&inputs));
        let error = file::merge(&mut layers, &other).expect_err("another layer");
        assert!(error.to_string().contains("layer `up`"), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(layers, before);
    }
}

#[test]
fn a_file_appears_when_it_is_complete() {
    let (folder, path) = place();
    let layers = layers_of(&array![[1.0, -2.0]]);
    let mut writer = StatsWriter::create(&path, ["up"]).expect("a folder that can be written to");
    let stats = &layers["model.layers.0.mlp.up_proj"];
    writer.add("up", stats).expect("room on the disk");
    let twice = writer.add("up", stats);
    assert_eq!(
        twice,
        Err(Error::LayerTwice {
            path: path.clone(),
            layer: "up".into()
        })
    );
    let unexpected = writer.add("down", stats);
    assert_eq!(
        unexpected,
        Err(Error::LayerUnexpected {
            path: path.clone(),
            layer: "down".into()
        })
    );
    assert!(!path.exists());
    drop(writer);
    assert!(entries(&folder).is_empty());

    file::save(&path, &layers).expect("a folder that can be written to");
    assert_eq!(entries(&folder), ["statistics.safetensors"]);
    file::save(&path, &Layers::new()).expect("a folder that can be written to");
    assert_eq!(file::load(&path), Ok(Layers::new()));
    assert_eq!(entries(&folder), ["statistics.safetensors"]);
}

/// Stopped after any layer, with half of the next one written, it ends with the same bytes.
#[test]
fn a_file_is_resumed() {
    let layers = layers_of(&array![[1.0, -2.0], [0.5, 4.0]]);
    let expected = bytes_of(&layers);
    for stop in 0..=layers.len() {
        let (folder, path) = place();
        let unfinished = folder.path().join("unfinished");
        let mut writer = StatsWriter::create_resumable(&path, &unfinished, layers.keys().cloned())
            .expect("a folder that can be written to");
        for (layer, stats) in layers.iter().take(stop) {
            writer.add(layer, stats).expect("room on the disk");
        }
        let checkpoint = writer.checkpoint().expect("room on the disk");
        let checkpoint = serde_json::to_string(&checkpoint).expect("a checkpoint");
        drop(writer);
        let mut bytes = fs::read(&unfinished).expect("what was written");
        bytes.extend([1; 100]);
        fs::write(&unfinished, bytes).expect("a file");

        let checkpoint = serde_json::from_str(&checkpoint).expect("a checkpoint");
        let mut writer =
            StatsWriter::resume(&path, &unfinished, checkpoint).expect("an unfinished file");
        for (layer, stats) in layers.iter().skip(stop) {
            writer.add(layer, stats).expect("room on the disk");
        }
        assert_eq!(entries(&folder), ["unfinished"]);
        writer.finish().expect("room on the disk");
        assert_eq!(entries(&folder), ["statistics.safetensors"]);
        assert!(fs::read(&path).expect("the file just written") == expected);
    }
}

#[test]
fn an_unfinished_file_that_lacks_something_is_refused() {
    let layers = layers_of(&array![[1.0, -2.0]]);
    let (folder, path) = place();
    let unfinished = folder.path().join("unfinished");
    let mut writer = StatsWriter::create_resumable(&path, &unfinished, layers.keys().cloned())
        .expect("a folder that can be written to");
    for (layer, stats) in &layers {
        writer.add(layer, stats).expect("room on the disk");
    }
    let checkpoint = writer.checkpoint().expect("room on the disk");
    drop(writer);
    let whole = fs::read(&unfinished).expect("what was written");
    fs::write(&unfinished, &whole[..whole.len() - 1]).expect("a file");
    let error = StatsWriter::resume(&path, &unfinished, checkpoint.clone()).expect_err("too short");
    assert!(
        matches!(&error, Error::StatsFileDamaged { path, .. } if *path == unfinished),
        "{error}"
    );
    fs::remove_file(&unfinished).expect("the file just written");
    let error = StatsWriter::resume(&path, &unfinished, checkpoint).expect_err("it is not there");
    assert!(matches!(error, Error::StatsFileAccess { .. }), "{error}");
}

#[test]
fn a_file_that_cannot_be_written_leaves_nothing_behind() {
    let (folder, path) = place();
    fs::create_dir(&path).expect("a folder");
    fs::write(path.join("mine"), "kept").expect("a file");
    for path in [path.as_path(), Path::new("nowhere/at/all")] {
        let error = file::save(path, &layers_of(&array![[1.0]])).expect_err("no place for a file");
        assert!(matches!(error, Error::StatsFileAccess { .. }), "{error:?}");
    }
    assert_eq!(entries(&folder), ["statistics.safetensors"]);
    assert_eq!(
        fs::read_to_string(path.join("mine")).ok().as_deref(),
        Some("kept")
    );
}
