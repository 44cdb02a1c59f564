//! The elementwise steps of a block that candle would run as several passes over memory, fused and
//! in place. Their exponentials are most of the time that is not spent in matrix products.

use candle_core::{CpuStorage, InplaceOp1, InplaceOp2, Layout, Result, bail};
use rayon::prelude::*;

/// e^x for finite x, within 2e-7 relative, clamped to the range of normal numbers.
///
/// Without a call or a branch, so that loops over it become vector instructions.
#[inline]
pub fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to the nearest integer.
    const ROUND: f32 = 12_582_912.0;
    // ln 2 in two parts, the first short enough for an exact product with any exponent.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = (x - n * LN2_HIGH) - n * LN2_LOW;
    // Taylor's series of e^r; |r| <= ln 2 / 2 leaves the next term below 2^-24.
    let mut p = 1.0 / 5040.0;
    for c in [
        1.0 / 720.0,
        1.0 / 120.0,
        1.0 / 24.0,
        1.0 / 6.0,
        0.5,
        1.0,
        1.0,
    ] {
        p = p * r + c;
    }
    // The integer sits in the low bits of `shifted`; moved into the exponent, it multiplies by 2^n.
    f32::from_bits((shifted.to_bits() << 23).wrapping_add(p.to_bits()))
}

/// The sum of e^(x - max), in f64 so that a vocabulary's worth of terms stays exact.
pub fn sum_exp(row: &[f32], max: f32) -> f64 {
    let mut lanes = [0f32; 16];
    row.chunks(512)
        .map(|chunk| {
            lanes.fill(0.0);
            let mut groups = chunk.chunks_exact(16);
            for group in &mut groups {
                for (lane, &x) in lanes.iter_mut().zip(group) {
                    *lane += exp(x - max);
                }
            }
            let rest: f32 = groups.remainder().iter().map(|&x| exp(x - max)).sum();
            f64::from(lanes.iter().sum::<f32>() + rest)
        })
        .sum()
}

/// The largest element.
pub fn max(row: &[f32]) -> f32 {
    row.iter().copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Scaled softmax over the last dimension of `[.., queries, keys]`, where query `i` sees the
/// `window` keys up to `first_visible + i`, or as many as there are, and none after.
#[derive(Debug)]
pub(crate) struct CausalSoftmax {
    pub queries: usize,
    pub first_visible: usize,
    pub window: usize,
    pub scale: f32,
}

impl InplaceOp1 for CausalSoftmax {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let keys = layout.dims().last().copied().unwrap_or(0);
        let scores = contiguous_mut(storage, layout, self.name())?;
        if keys == 0 || self.queries == 0 || scores.len() % (keys * self.queries) != 0 {
            bail!("{} on shape {:?}", self.name(), layout.shape());
        }
        scores.par_chunks_mut(keys * self.queries).for_each(|head| {
            for (query, row) in head.chunks_mut(keys).enumerate() {
                let end = (self.first_visible + query + 1).min(keys);
                let start = end.saturating_sub(self.window);
                let (before, row) = row.split_at_mut(start);
                let (seen, after) = row.split_at_mut(end - start);
                before.fill(0.0);
                softmax(seen, self.scale);
                after.fill(0.0);
            }
        });
        Ok(())
    }
}

fn softmax(row: &mut [f32], scale: f32) {
    let max = max(row);
    for x in &mut *row {
        *x = exp((*x - max) * scale);
    }
    let mut lanes = [0f32; 16];
    let mut groups = row.chunks_exact(16);
    for group in &mut groups {
        for (lane, x) in lanes.iter_mut().zip(group) {
            *lane += x;
        }
    }
    let sum = lanes.iter().sum::<f32>() + groups.remainder().iter().sum::<f32>();
    let reciprocal = 1.0 / sum;
    for x in row {
        *x *= reciprocal;
    }
}

/// Elements a core works on at a time: both operands' share fits its cache.
const CHUNK: usize = 1 << 14;

/// `gate <- silu(gate) * up`.
#[derive(Debug)]
pub(crate) struct SwiGlu;

impl InplaceOp2 for SwiGlu {
    fn name(&self) -> &'static str {
        "swiglu"
    }

    fn cpu_fwd(
        &self,
        gate: &mut CpuStorage,
        gate_layout: &Layout,
        up: &CpuStorage,
        up_layout: &Layout,
    ) -> Result<()> {
        let gate = contiguous_mut(gate, gate_layout, self.name())?;
        let (CpuStorage::F32(up), Some((start, end))) = (up, up_layout.contiguous_offsets()) else {
            bail!("{} wants contiguous f32", self.name());
        };
        gate.par_chunks_mut(CHUNK)
            .zip(up[start..end].par_chunks(CHUNK))
            .for_each(|(gate, up)| {
                for (g, u) in gate.iter_mut().zip(up) {
                    *g = *g / (1.0 + exp(-*g)) * u;
                }
            });
        Ok(())
    }
}

fn contiguous_mut<'a>(
    storage: &'a mut CpuStorage,
    layout: &Layout,
    name: &str,
) -> Result<&'a mut [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&mut data[start..end]),
        _ => bail!("{name} wants contiguous f32"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{D, Device, Tensor};

    #[test]
    fn exp_is_exact_to_two_units() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let expected = f64::from(x).exp();
            let error = (f64::from(exp(x)) / expected - 1.0).abs();
            assert!(error < 2e-7, "e^{x} is off by {error}");
        }
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn sums_match_a_plain_one() {
        let row: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin() * 5.0).collect();
        let plain: f64 = row.iter().map(|&x| f64::from(x - 5.0).exp()).sum();
        assert!((sum_exp(&row, 5.0) / plain - 1.0).abs() < 1e-6);
    }

    #[test]
    fn causal_softmax_matches_a_masked_one() {
        for window in [1, 2, usize::MAX] {
            let shape = (2, 6, 5);
            let scores = Tensor::randn(0f32, 3.0, shape, &Device::Cpu).unwrap();
            // Two heads of three queries share a row of the product; the first sees three keys.
            let mask: Vec<f32> = (0..2 * 6 * 5)
                .map(|i| {
                    let (query, key) = (i / 5 % 3, i % 5);
                    if key <= 2 + query && 2 + query - key < window {
                        0.0
                    } else {
                        f32::NEG_INFINITY
                    }
                })
                .collect();
            let mask = Tensor::from_vec(mask, shape, &Device::Cpu).unwrap();
            let expected =
                candle_nn::ops::softmax(&((&scores * 0.5).unwrap() + mask).unwrap(), D::Minus1)
                    .unwrap();
            let op = CausalSoftmax {
                queries: 3,
                first_visible: 2,
                window,
                scale: 0.5,
            };
            scores.inplace_op1(&op).unwrap();
            let difference = (scores - expected)
                .unwrap()
                .abs()
                .unwrap()
                .max_all()
                .unwrap();
            assert!(difference.to_scalar::<f32>().unwrap() < 1e-6);
        }
    }

    #[test]
    fn swiglu_matches_candle_s_silu() {
        let gate = Tensor::randn(0f32, 4.0, (3, 50), &Device::Cpu).unwrap();
        let up = Tensor::randn(0f32, 1.0, (3, 50), &Device::Cpu).unwrap();
        let expected = (candle_nn::ops::silu(&gate).unwrap() * &up).unwrap();
        gate.inplace_op2(&up, &SwiGlu).unwrap();
        let difference = (gate - expected).unwrap().abs().unwrap().max_all().unwrap();
        assert!(difference.to_scalar::<f32>().unwrap() < 1e-5);
    }
}
