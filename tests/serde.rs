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
fn stored_statistics_are_continued() {
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
fn a_report_of_any_numbers_can_be_shown() {
    let report = Pruner::new(Magnitude, Pattern::PerOutput(0.5))
        .prune(&mut wanda::ndarray::Array2::<f32>::ones((2, 2)), &NoStats)
        .expect("a fine layer");
    let mut value = stored(&report);
    value["rows"] = usize::MAX.into();
    let report: LayerReport = serde_json::from_value(value).expect("numbers");
    let shape = format!(
        "{} x 2: 2 of {} weights",
        usize::MAX,
        2 * usize::MAX as u128
    );
    assert!(report.to_string().starts_with(&shape), "{report}");
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

#[cfg(feature = "second-order")]
mod gram {
    use wanda::half::bf16;
    use wanda::ndarray::{Array2, s};
    use wanda::{Gram, Obs, ObsSweep};

    use super::*;
    use common::layer::{bits_of, correlated_inputs, gram_of};

    fn bits(gram: &Gram) -> Vec<u64> {
        bits_of(&gram.to_array().expect("memory for a small matrix"))
    }

    fn read(value: Value) -> Gram {
        serde_json::from_value(value).expect("what was just stored")
    }

    /// Full blocks and tokens that wait for theirs to fill, of both precisions.
    fn large() -> Gram {
        let mut gram = gram_of(&correlated_inputs::<f32>((2050, 3), 1));
        gram.update(&correlated_inputs::<f64>((2, 3), 2))
            .expect("finite inputs");
        gram
    }

    #[test]
    fn a_gram_matrix_survives_storage_with_the_tokens_that_wait() {
        for gram in [large(), gram_of(&array![[1.5_f32, -2.0], [0.0, 3.0]])] {
            let back = read(stored(&gram));
            assert_eq!(back, gram);
            assert_eq!(bits(&back), bits(&gram));
        }
    }

    #[test]
    fn a_stored_gram_matrix_is_continued() {
        let inputs = correlated_inputs::<bf16>((5000, 5), 3);
        let whole = gram_of(&inputs);
        for at in [1, 2047, 2048, 2049, 4999] {
            let mut gram = read(stored(&gram_of(&inputs.slice(s![..at, ..]))));
            gram.update(&inputs.slice(s![at.., ..]))
                .expect("finite inputs");
            assert_eq!(gram, whole, "stored after {at} tokens");
            assert_eq!(bits(&gram), bits(&whole), "stored after {at} tokens");
        }
    }

    #[test]
    fn a_gram_matrix_that_saw_nothing_survives_storage() {
        for features in [0, 5, usize::MAX] {
            let gram = Gram::new(features);
            assert_eq!(read(stored(&gram)), gram);
        }
    }

    #[test]
    fn a_report_of_a_sweep_survives_storage() {
        let report = Pruner::new(Obs::new(), Pattern::PerOutput(0.5))
            .update(ObsSweep::new().damping(0.1))
            .prune(&mut array![[1.0_f32, 2.0, 3.0]], &large())
            .expect("a fine layer");
        assert_eq!(report.damping(), Some(0.1));
        let back = serde_json::from_value::<LayerReport>(stored(&report));
        assert_eq!(back.ok(), Some(report));
    }

    /// Neither the products that were added up nor the tokens that wait can be larger than the
    /// norms of all tokens, nor both together.
    #[test]
    fn products_larger_than_the_norms_are_refused() {
        let gram = stored(&gram_of(&array![[1.0_f32, 1.0]]));
        for (narrow, wide) in [
            (json!([1.0, 5.0]), json!([])),
            (json!([]), json!([1e300, 1e300])),
            (json!([]), json!([1.0, 1.1])),
        ] {
            let mut damaged = gram.clone();
            damaged["narrow"] = narrow;
            damaged["wide"] = wide;
            let error = serde_json::from_value::<Gram>(damaged).expect_err("damaged data");
            assert!(error.to_string().contains("their norms allow"), "{error}");
        }
        // A block of small tokens, and a large one that waits: what that one allows is not theirs.
        let mut gram = gram_of(&Array2::<f32>::from_elem((2048, 2), 0.01));
        gram.update(&array![[10.0_f32, 10.0]])
            .expect("finite inputs");
        let mut damaged = stored(&gram);
        let entry = damaged["folded"]["entries"][2].as_f64().expect("a sum");
        assert!((entry - 0.2048).abs() < 1e-5, "{entry}");
        damaged["folded"]["entries"][2] = json!(50.0);
        let error = serde_json::from_value::<Gram>(damaged).expect_err("damaged data");
        assert!(error.to_string().contains("their norms allow"), "{error}");
    }

    #[test]
    fn a_gram_matrix_of_another_size_is_refused() {
        let gram = stored(&large());
        let smaller = stored(&gram_of(&correlated_inputs::<f32>((2050, 2), 1)));
        for field in ["norms", "folded", "narrow"] {
            refused::<Gram>(&gram, field, smaller[field].clone(), "damaged statistics");
        }
        let unseen = stored(&Gram::new(3));
        refused::<Gram>(
            &gram,
            "folded",
            unseen["folded"].clone(),
            "damaged statistics",
        );
        let mut short = gram["folded"].clone();
        short["entries"].as_array_mut().expect("numbers").pop();
        refused::<Gram>(&gram, "folded", short, "damaged statistics");
        let mut long = gram["folded"].clone();
        long["entries"]
            .as_array_mut()
            .expect("numbers")
            .push(json!(1.0));
        refused::<Gram>(&gram, "folded", long, "damaged statistics");
        let mut huge = gram["folded"].clone();
        huge["n"] = json!(usize::MAX);
        refused::<Gram>(&gram, "folded", huge, "damaged statistics");
    }

    #[test]
    fn half_a_token_and_whole_blocks_are_refused() {
        let gram = stored(&large());
        for field in ["narrow", "wide"] {
            refused::<Gram>(
                &gram,
                field,
                json!([1.0, 2.0, 3.0, 4.0]),
                "damaged statistics",
            );
            let block = vec![1.0; 3 * 2048];
            refused::<Gram>(&gram, field, json!(block), "damaged statistics");
        }
    }

    #[test]
    fn numbers_that_are_not_finite_are_refused() {
        let gram = stored(&large());
        // Too large for single precision.
        let overflows = json!([1.0, 1e300, 1.0, 1.0, 1.0, 1.0]);
        refused::<Gram>(&gram, "narrow", overflows, "damaged statistics");
        for numbers in ["/narrow", "/wide", "/folded/entries"] {
            let mut damaged = gram.clone();
            damaged.pointer_mut(numbers).expect("a list of numbers")[0] = Value::Null;
            let error = from_nulls::read::<Gram>(damaged).expect_err("damaged data");
            let error = error.to_string();
            assert!(error.contains("damaged statistics"), "{numbers}: {error}");
        }
        // Without the damage, this way of reading gives what was stored.
        assert_eq!(from_nulls::read::<Gram>(gram).ok(), Some(large()));
    }

    #[test]
    fn tokens_that_were_never_seen_are_refused() {
        let unseen = stored(&Gram::new(3));
        refused::<Gram>(
            &unseen,
            "narrow",
            json!([1.0, 2.0, 3.0]),
            "damaged statistics",
        );
        let seen_one = stored(&gram_of(&Array2::<f32>::ones((1, 3))));
        refused::<Gram>(
            &seen_one,
            "narrow",
            json!([1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
            "damaged statistics",
        );
    }

    /// Reads what was stored, with every null as something that is not a number, which JSON has
    /// no word for.
    mod from_nulls {
        use serde::de::value::{Error, MapDeserializer, SeqDeserializer};
        use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
        use serde::forward_to_deserialize_any;
        use serde_json::Value;

        pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
            T::deserialize(Nulls(value))
        }

        struct Nulls(Value);

        impl<'de> Deserializer<'de> for Nulls {
            type Error = Error;

            fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
                match self.0 {
                    Value::Null => visitor.visit_f64(f64::NAN),
                    Value::Number(number) => match number.as_u64() {
                        Some(number) => visitor.visit_u64(number),
                        None => visitor.visit_f64(number.as_f64().expect("a number")),
                    },
                    Value::Array(items) => {
                        visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Nulls)))
                    }
                    Value::Object(fields) => {
                        let fields = fields.into_iter().map(|(name, value)| (name, Nulls(value)));
                        visitor.visit_map(MapDeserializer::new(fields))
                    }
                    Value::Bool(_) | Value::String(_) => unreachable!("statistics have none"),
                }
            }

            forward_to_deserialize_any! {
                bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
                option unit unit_struct newtype_struct seq tuple tuple_struct map struct enum
                identifier ignored_any
            }
        }

        impl IntoDeserializer<'_, Error> for Nulls {
            type Deserializer = Self;

            fn into_deserializer(self) -> Self {
                self
            }
        }
    }
}
