//! What has to be refused, without a trace.

use std::fmt::Debug;

use wanda::ndarray::ArrayRef2;
use wanda::{
    ActivationStats, Error, ImportanceMetric, Pruner, Result, SparsityPattern, WeightUpdate,
};

use super::element::TestElement;
use super::layer::bits_of;

/// What is not finite, as it is shown.
pub(crate) const NON_FINITE: [(f32, &str); 3] = [
    (f32::NAN, "NaN"),
    (f32::INFINITY, "inf"),
    (f32::NEG_INFINITY, "-inf"),
];

/// What is invalid where numbers must be finite and not negative, as it is shown.
pub(crate) const INVALID: [(f32, &str); 4] =
    [(-1.0, "-1"), NON_FINITE[0], NON_FINITE[1], NON_FINITE[2]];

/// The error with which a layer is refused. Fails if it is pruned, if its weights change, or if
/// its mask is decided or refused for another reason.
pub(crate) fn refuses<A: TestElement, M, P, U>(
    pruner: &Pruner<M, P, U>,
    w: &ArrayRef2<A>,
    stats: &dyn ActivationStats,
) -> Error
where
    M: ImportanceMetric<A::Compute>,
    P: SparsityPattern<A::Compute>,
    U: WeightUpdate<A::Compute>,
{
    let mut after = w.to_owned();
    let error = pruner.prune(&mut after, stats).expect_err("an error");
    assert_eq!(
        bits_of(&after),
        bits_of(w),
        "{error} left the weights changed"
    );
    let from_mask = pruner.mask(w, stats).expect_err("the same error");
    // Not a number is not equal to itself, so texts are compared.
    assert_eq!(from_mask.to_string(), error.to_string());
    error
}

/// The error with which statistics refuse a change. Fails if they accept it or are changed.
pub(crate) fn refuses_change<S: Clone + PartialEq + Debug>(
    stats: &mut S,
    change: impl FnOnce(&mut S) -> Result<()>,
) -> Error {
    let before = stats.clone();
    let error = change(stats).expect_err("an error");
    assert_eq!(*stats, before, "{error} left the statistics changed");
    error
}
