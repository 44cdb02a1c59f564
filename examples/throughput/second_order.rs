//! Second-order pruning, beside a matrix product.

use std::hint::black_box;

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, Par};
use wanda::{
    Admm, Backend, CrossProducts, Damping, Gram, ImportanceMetric, Obs, ObsSweep, Pattern, Pruner,
    Refit, Result, Retarget, Target, Wanda, WeightUpdate,
};

use crate::measure::{Table, timed};
use crate::weights::Random;

/// Inputs and outputs of the layer, as in the attention of Llama-2-7B.
pub(crate) const N: usize = 4096;
/// Tokens of its calibration.
pub(crate) const TOKENS: usize = 8192;
/// Runs of each row, of which the median is printed.
const RUNS: usize = 7;

/// Name of the row of the unit.
const PRODUCT: &str = "the product itself";

/// Names of the rows that the estimates for whole models are made from.
pub(crate) const GRAM: &str = "Gram matrix of 8192 tokens, 4096 inputs";
pub(crate) const FACTOR: &str = "factor, 4096 inputs";
pub(crate) const SPARSEGPT: &str = "sparsegpt per-layer:0.5, 4096 x 4096 f32";

const RETARGET: &str = "retargeting, 4096 x 4096 f32";
const BALANCED: &str = "retargeting and sweep, 4096 x 4096 f32";
const JOINT: &str = "joint solver, 4096 x 4096 f32";
const REFIT: &str = "refit, 10 steps, 4096 x 4096 f32";

/// Runs of each row of what takes many products.
const RUNS_OF_SOLVERS: usize = 3;

pub(crate) fn measure(table: &mut Table) -> Result<()> {
    table.heading(
        "second order",
        "units: a product of two 4096 x 4096 matrices",
    );
    let layers = [
        (
            SPARSEGPT,
            &Obs::new() as &dyn ImportanceMetric,
            "per-layer:0.5",
        ),
        ("sparsegpt 0.5, 4096 x 4096 f32", &Obs::new(), "0.5"),
        ("sparsegpt 2:4, 4096 x 4096 f32", &Obs::new(), "2:4"),
        ("sparsegpt 4:8, 4096 x 4096 f32", &Obs::new(), "4:8"),
        ("wanda 0.5 with update, 4096 x 4096 f32", &Wanda, "0.5"),
    ];
    let names = layers.iter().map(|&(name, ..)| name);
    if !names
        .chain([PRODUCT, GRAM, FACTOR, RETARGET, BALANCED, JOINT, REFIT])
        .any(|name| table.wants(name))
    {
        return Ok(());
    }
    let mut random = Random::new();
    let unit = Unit::new(&mut random);
    let operations = 2.0 * (N as f64).powi(3);
    table.unit(PRODUCT, RUNS, (operations, "Gflop/s"), || unit.pass());
    let tokens = random.matrix(TOKENS, N);
    let dense = random.matrix(N, N);
    let mut gram = Gram::new(N);
    gram.update(&tokens)?;

    table.row(GRAM, RUNS, || {
        let mut gram = Gram::new(N);
        unit.beside(|| gram.update(&tokens))
    })?;
    table.row(FACTOR, RUNS, || {
        unit.beside(|| gram.factor::<f32>(Backend::default(), 0.01).map(drop))
    })?;
    for (name, metric, text) in layers {
        let pattern: Pattern = text.parse()?;
        let pruner = Pruner::new(metric, pattern).update(ObsSweep::new());
        table.row(name, RUNS, || {
            let mut w = dense.clone();
            unit.beside(|| pruner.prune(&mut w, &gram).map(drop))
        })?;
    }
    let mut products = CrossProducts::new(N, N);
    products.update(&tokens, &tokens)?;
    let retarget = || Retarget::to(Target::inputs(&products, 0.5));
    let pattern = Pattern::PerLayer(0.5);
    let sweep = ObsSweep::new().damping(Damping::Diagonal(0.1));
    let updates: [(&str, &dyn WeightUpdate); 4] = [
        (RETARGET, &retarget()),
        (BALANCED, &retarget().then(sweep)),
        (JOINT, &Admm::new()),
        (REFIT, &Refit::new().steps(10)),
    ];
    for (name, update) in updates {
        let pruner = Pruner::new(Wanda, pattern).update(update);
        table.row(name, RUNS_OF_SOLVERS, || {
            let mut w = dense.clone();
            unit.beside(|| pruner.prune(&mut w, &gram).map(drop))
        })?;
    }
    Ok(())
}

/// The product that times are compared with.
struct Unit {
    a: Mat<f32>,
    b: Mat<f32>,
}

impl Unit {
    fn new(random: &mut Random) -> Self {
        Self {
            a: Mat::from_fn(N, N, |_, _| random.next()),
            b: Mat::from_fn(N, N, |_, _| random.next()),
        }
    }

    /// The seconds of the product.
    fn pass(&self) -> f64 {
        let (seconds, product) = timed(|| {
            let mut c = Mat::zeros(N, N);
            matmul(&mut c, Accum::Replace, &self.a, &self.b, 1.0, Par::rayon(0));
            c
        });
        black_box(product);
        seconds
    }

    /// The seconds of the product, and then of the work.
    fn beside(&self, work: impl FnOnce() -> Result<()>) -> Result<(f64, f64)> {
        let unit = self.pass();
        let (seconds, result) = timed(work);
        result.map(|()| (unit, seconds))
    }
}
