//! What all public types can do.

use std::fmt::Debug;

use wanda::{
    ActivationStats, ColumnNorms, ComparisonGroup, Context, CsrIndices, Error, ErrorBasis, Factors,
    ImportanceMetric, KeepWeights, LayerReport, Magnitude, Mask, MaskRow, NoStats, OutputEnergy,
    Pattern, Prepared, Pruner, RelativeError, Rows, Scorer, Scores, Scoring, SparsityPattern,
    UpdateTask, Updated, Wanda, WeightUpdate,
};

fn sent_shared_and_shown<T: Send + Sync + Debug + ?Sized>() {}
fn sent_and_shared<T: Send + Sync + ?Sized>() {}

/// Asks for each of the types what the function asks for.
macro_rules! all {
    ($required:ident: $($public:ty),+ $(,)?) => {
        $($required::<$public>();)+
    };
}

#[test]
fn public_types_can_be_sent_shared_and_shown() {
    all!(
        sent_shared_and_shown:
        Mask,
        MaskRow<'_>,
        CsrIndices,
        Pattern,
        Magnitude,
        Wanda,
        NoStats,
        ColumnNorms,
        Error,
        LayerReport,
        RelativeError,
        ErrorBasis,
        Pruner<Wanda, Pattern>,
        dyn ImportanceMetric,
        dyn ImportanceMetric<f64>,
        dyn SparsityPattern,
        dyn SparsityPattern<f64>,
        dyn ActivationStats,
        dyn WeightUpdate,
        dyn WeightUpdate<f64>,
        KeepWeights,
        UpdateTask<'_, f32>,
        Updated<f32>,
        ComparisonGroup,
        Context<'_, f32>,
        Factors<f32>,
        Prepared<'_>,
        Scoring<'_, f32>,
        Scores<'_, f32>,
    );
    all!(sent_and_shared: dyn Scorer, dyn Rows<f32>, dyn OutputEnergy);
}

#[cfg(feature = "safetensors")]
#[test]
fn types_of_files_can_be_sent_shared_and_shown() {
    use wanda::LayerStats;
    use wanda::stats::file::{Checkpoint, StatsFile, StatsWriter};
    all!(sent_shared_and_shown: LayerStats, StatsFile, StatsWriter, Checkpoint);
}

#[cfg(feature = "second-order")]
#[test]
fn types_of_second_order_can_be_sent_shared_and_shown() {
    use wanda::{Backend, Factor, Gram, Obs, ObsSweep};
    all!(sent_shared_and_shown: Gram, Obs, ObsSweep, Backend, Factor<f32>, Factor<f64>);
}

#[test]
fn errors_are_errors_for_others_too() {
    let error: Box<dyn std::error::Error + Send + Sync> =
        Box::new("x".parse::<Pattern>().expect_err("no pattern"));
    assert!(error.downcast_ref::<Error>().is_some());
}
