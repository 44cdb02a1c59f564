//! Statistics, masks, patterns and reports can be stored; what was damaged meanwhile is refused.
#![cfg(feature = "serde")]

mod common;

use proptest::prelude::*;
use serde_json::{Value, json};
use wanda::ndarray::array;
use wanda::{ActivationStats, ColumnNorms, LayerReport, Magnitude, Mask, NoStats, Pattern, Pruner};

use common::few_cases;
use common::layer::{self, gathered};
use common::oracle;

fn stored<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("a value that can be stored")
}

proptest! {
    #![proptest_config(few_cases())]

    #[test]
    fn a_mask_survives_storage(case in layer::tame_layers(), one_in in 1..9_u64) {
        let mask = oracle::to_mask(&case.protected(one_in));
        let text = serde_json::to_string(&mask).expect("a mask can be stored");
        prop_assert_eq!(serde_json::from_str::<Mask>(&text).ok(), Some(mask));
    }

    #[test]
    fn statistics_survive_storage(case in layer::tame_layers()) {
        let stats = gathered(&case.inputs::<f32>());
        let value = stored(&stats);
        prop_assert_eq!(serde_json::from_value::<ColumnNorms>(value).ok(), Some(stats));
    }

    #[test]
    fn a_pattern_survives_storage_as_its_text(pattern in layer::patterns()) {
        let value = stored(&pattern);
        prop_assert_eq!(&value, &json!(pattern.to_string()));
        prop_assert_eq!(serde_json::from_value::<Pattern>(value).ok(), Some(pattern));
    }

    #[test]
    fn a_report_survives_storage(case in layer::tame_layers(), pattern in layer::patterns()) {
        let stats = gathered(&case.inputs::<f32>());
        let report = Pruner::new(Magnitude, pattern)
            .prune(&mut case.weights::<f32>(), &stats)
            .expect("finite weights");
        let value = stored(&report);
        prop_assert_eq!(serde_json::from_value::<LayerReport>(value).ok(), Some(report));
    }
}

#[test]
fn stored_statistics_go_on_where_they_stopped() {
    let first = array![[1.0_f32, 0.0, 2.5]];
    let second = array![[0.5_f32, 0.0, -4.0], [3.0, 0.0, 0.25]];
    let text = serde_json::to_string(&gathered(&first)).expect("statistics can be stored");
    let mut stats: ColumnNorms = serde_json::from_str(&text).expect("what was just stored");
    stats.update(&second).expect("finite inputs");
    let mut whole = gathered(&first);
    whole.update(&second).expect("finite inputs");
    assert_eq!(stats, whole);
    assert_eq!(stats.tokens(), 3);
}

#[test]
fn statistics_that_saw_nothing_survive_storage() {
    for features in [0, 5, usize::MAX] {
        let stats = ColumnNorms::new(features);
        assert_eq!(
            serde_json::from_value::<ColumnNorms>(stored(&stats)).ok(),
            Some(stats)
        );
    }
}

#[test]
fn a_report_without_an_error_survives_storage() {
    let report = Pruner::new(Magnitude, Pattern::PerOutput(0.5))
        .prune(&mut array![[1.0_f32, 2.0]], &NoStats)
        .expect("finite weights");
    let text = serde_json::to_string(&report).expect("a report can be stored");
    assert_eq!(
        serde_json::from_str::<LayerReport>(&text).ok(),
        Some(report)
    );
}

/// Fails unless the value with one field replaced is refused, in words that contain `reason`.
fn refused<T: serde::de::DeserializeOwned + std::fmt::Debug>(
    value: &Value,
    field: &str,
    replacement: Value,
    reason: &str,
) {
    let mut damaged = value.clone();
    assert!(damaged.get(field).is_some(), "there is no field {field}");
    damaged[field] = replacement;
    let error = serde_json::from_value::<T>(damaged.clone()).expect_err("damaged data");
    assert!(
        error.to_string().contains(reason),
        "{damaged} was refused with: {error}"
    );
}

#[test]
fn a_mask_with_too_many_or_too_few_words_is_refused() {
    let mask = stored(&Mask::from_fn(2, 70, |row, column| row == column).expect("a small mask"));
    for words in [json!([]), json!([1, 0, 2]), json!([1, 0, 2, 0, 0])] {
        refused::<Mask>(&mask, "words", words, "damaged mask");
    }
    refused::<Mask>(&mask, "rows", json!(3), "damaged mask");
    refused::<Mask>(&mask, "rows", json!(0), "damaged mask");
    refused::<Mask>(&mask, "rows", json!(usize::MAX), "damaged mask");
    refused::<Mask>(&mask, "columns", json!(usize::MAX), "damaged mask");
    refused::<Mask>(&mask, "columns", json!(0), "damaged mask");
    refused::<Mask>(&mask, "rows", json!(-1), "");
}

#[test]
fn a_mask_with_words_for_a_number_of_rows_that_wraps_around_is_refused() {
    let damaged = json!({ "rows": 1_u64 << 63, "columns": 128, "words": [] });
    let error = serde_json::from_value::<Mask>(damaged).expect_err("damaged data");
    assert!(error.to_string().contains("damaged mask"), "{error}");
}

#[test]
fn a_mask_with_marks_past_the_last_column_is_refused() {
    let mask = stored(&Mask::none(2, 70).expect("a small mask"));
    // Columns 64 to 69 are the low six bits of the second word of a row.
    let whole = json!([u64::MAX, 63, u64::MAX, 63]);
    let mut fine = mask.clone();
    fine["words"] = whole;
    let all = serde_json::from_value::<Mask>(fine).expect("marks of columns that exist");
    assert_eq!(all.count(), 140);
    for words in [json!([0, 64, 0, 0]), json!([0, 0, 0, u64::MAX])] {
        refused::<Mask>(&mask, "words", words, "damaged mask");
    }
}

#[test]
fn statistics_that_do_not_fit_together_are_refused() {
    let stats = stored(&gathered(&array![[1.0_f32, 2.0], [3.0, 0.0]]));
    refused::<ColumnNorms>(&stats, "sums", json!([1.0]), "damaged statistics");
    refused::<ColumnNorms>(&stats, "sums", json!([]), "damaged statistics");
    refused::<ColumnNorms>(&stats, "features", json!(3), "damaged statistics");
    refused::<ColumnNorms>(&stats, "tokens", json!(0), "damaged statistics");
    refused::<ColumnNorms>(&stats, "weight", json!(0.0), "damaged statistics");
    refused::<ColumnNorms>(&stats, "weight", json!(-2.0), "damaged statistics");
    refused::<ColumnNorms>(
        &stats,
        "sums",
        json!([1.0, -1.0]),
        "the statistic of input feature 1 is -1",
    );
    refused::<ColumnNorms>(&stats, "sums", json!([null, 1.0]), "");
}

#[test]
fn a_pattern_that_cannot_be_is_refused() {
    for text in [
        "2",
        "per-layer:1",
        "per-input:-0.5",
        "cumulative:NaN",
        "5:4",
        "0:4",
        "block:0x4:0.5",
        "block:4x4:2",
        "",
        "diagonal",
    ] {
        assert!(
            serde_json::from_value::<Pattern>(json!(text)).is_err(),
            "{text}"
        );
    }
    assert!(serde_json::from_value::<Pattern>(json!(0.5)).is_err());
    assert_eq!(
        serde_json::from_value::<Pattern>(json!("2:4")).ok(),
        Some(Pattern::NOfM { keep: 2, of: 4 })
    );
}
