//! candle's tensors as ndarray's matrices, without copying.

use anyhow::{Context, Result, bail};
use candle_core::{CpuStorage, InplaceOp1, Layout, Storage, Tensor};
use std::cell::Cell;
use wanda::{
    ActivationStats, Element, ImportanceMetric, LayerReport, Pruner, SparsityPattern, WeightUpdate,
    ndarray::{ArrayView2, ArrayViewMut2},
};

/// Lends a contiguous f32 tensor to `f` as a matrix, with its last dimension as columns.
///
/// # Errors
/// The tensor is of another type or layout; whatever `f` returns.
pub fn with_rows<R>(
    tensor: &Tensor,
    f: impl FnOnce(ArrayView2<'_, f32>) -> Result<R>,
) -> Result<R> {
    let (storage, layout) = tensor.storage_and_layout();
    let Storage::Cpu(CpuStorage::F32(data)) = &*storage else {
        bail!("expected f32 on the CPU, not {:?}", tensor.dtype());
    };
    let (rows, columns) = matrix_shape(layout);
    let data = contiguous(layout)
        .and_then(|range| data.get(range))
        .context("the tensor is not contiguous")?;
    f(ArrayView2::from_shape((rows, columns), data)?)
}

/// Prunes a weight matrix where it is, in the type it is stored in.
pub(crate) fn prune_in_place<M: ImportanceMetric, P: SparsityPattern, U: WeightUpdate>(
    weights: &Tensor,
    pruner: &Pruner<M, P, U>,
    stats: &dyn ActivationStats,
) -> Result<LayerReport> {
    let op = PruneInPlace {
        pruner,
        stats,
        report: Cell::new(None),
    };
    weights.inplace_op1(&op)?;
    op.report.take().context("the layer was not pruned")?
}

/// candle lends out its storage for writing to custom operations only; this one hands the pruner's
/// result back through a cell.
struct PruneInPlace<'a, M, P, U> {
    pruner: &'a Pruner<M, P, U>,
    stats: &'a dyn ActivationStats,
    report: Cell<Option<Result<LayerReport>>>,
}

impl<M: ImportanceMetric, P: SparsityPattern, U: WeightUpdate> PruneInPlace<'_, M, P, U> {
    fn prune<A: Element<Compute = f32>>(
        &self,
        data: &mut [A],
        layout: &Layout,
    ) -> Result<LayerReport> {
        let data = contiguous(layout)
            .and_then(|range| data.get_mut(range))
            .context("the weights are not contiguous")?;
        let mut weights = ArrayViewMut2::from_shape(matrix_shape(layout), data)?;
        Ok(self.pruner.prune(&mut weights, self.stats)?)
    }
}

impl<M: ImportanceMetric, P: SparsityPattern, U: WeightUpdate> InplaceOp1
    for PruneInPlace<'_, M, P, U>
{
    fn name(&self) -> &'static str {
        "prune"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let report = match storage {
            CpuStorage::F32(data) => self.prune(data, layout),
            CpuStorage::F16(data) => self.prune(data, layout),
            CpuStorage::BF16(data) => self.prune(data, layout),
            _ => candle_core::bail!("only f32, f16 and bf16 weights can be pruned"),
        };
        self.report.set(Some(report));
        Ok(())
    }
}

fn contiguous(layout: &Layout) -> Option<std::ops::Range<usize>> {
    layout.contiguous_offsets().map(|(start, end)| start..end)
}

fn matrix_shape(layout: &Layout) -> (usize, usize) {
    let columns = layout.dims().last().copied().unwrap_or(1);
    let rows = layout.shape().elem_count().checked_div(columns);
    (rows.unwrap_or(0), columns)
}
