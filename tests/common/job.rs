//! Layers to sweep, as recipes.

use proptest::prelude::*;
use proptest::sample::select;
use wanda::Mask;
use wanda::ndarray::Array2;

use super::element::TestElement;
use super::layer::{Layout, Random, correlated_inputs, normal_weights};
use super::oracle;
use super::oracle_obs::{self, Choice, Layer};

/// A layer to sweep, as a recipe.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) tokens: usize,
    /// Inputs fall into this many families, of which each token activates one.
    pub(crate) families: usize,
    /// One weight in this many is zero.
    pub(crate) zeros: u64,
    /// One input in this many is dead.
    pub(crate) dead: u64,
    /// One weight in this many is protected.
    pub(crate) protected: u64,
    pub(crate) layout: Layout,
    pub(crate) seed: u64,
}

/// One in this many is none.
pub(crate) const NEVER: u64 = u64::MAX;

impl Job {
    /// A layer without zeros, dead inputs and protected weights.
    pub(crate) fn new(rows: usize, columns: usize, tokens: usize) -> Self {
        Self {
            rows,
            columns,
            tokens,
            families: 1,
            zeros: NEVER,
            dead: NEVER,
            protected: NEVER,
            layout: Layout::RowMajor,
            seed: (rows * columns + tokens) as u64,
        }
    }

    pub(crate) fn weights<A: TestElement>(&self) -> Array2<A> {
        let mut random = Random::new(self.seed ^ 0x7777);
        let mut weights = normal_weights((self.rows, self.columns), self.seed);
        for weight in &mut weights {
            if random.bits().is_multiple_of(self.zeros) {
                *weight = A::round(random.pick(&[0.0, -0.0]));
            }
        }
        weights
    }

    /// Inputs of which the last is never dead.
    pub(crate) fn inputs<A: TestElement>(&self) -> Array2<A> {
        let mut random = Random::new(self.seed ^ 0x9999);
        let mut inputs = correlated_inputs((self.tokens, self.columns), self.seed);
        for ((token, feature), x) in inputs.indexed_iter_mut() {
            if token % self.families != feature % self.families {
                *x = A::ZERO;
            }
        }
        for mut feature in inputs.columns_mut().into_iter().rev().skip(1) {
            if random.bits().is_multiple_of(self.dead) {
                feature.fill(A::ZERO);
            }
        }
        inputs
    }

    pub(crate) fn protected(&self) -> Array2<bool> {
        let mut random = Random::new(self.seed ^ 0x5555);
        Array2::from_shape_simple_fn((self.rows, self.columns), || {
            random.bits().is_multiple_of(self.protected)
        })
    }

    /// The layer as the oracle takes it.
    pub(crate) fn layer<A: TestElement>(&self) -> Layer<A> {
        Layer {
            weights: self.weights(),
            gram: oracle_obs::gram(&self.inputs::<A>()),
            protected: self.protected(),
        }
    }

    /// Marks about half of the weights, none of them protected.
    pub(crate) fn given(&self) -> Mask {
        let mut random = Random::new(self.seed ^ 0x3333);
        let free = self.protected().mapv(|protected| !protected);
        oracle::to_mask(&free.mapv(|free| free && random.bits().is_multiple_of(2)))
    }
}

/// Small layers with a few zeros, dead inputs and protected weights, or without.
pub(crate) fn jobs() -> impl Strategy<Value = Job> {
    let columns = prop_oneof![4 => 1..=40_usize, 1 => select(vec![63_usize, 64, 65, 70])];
    let one_in = || select(vec![3, 10, NEVER, NEVER]);
    (
        (1..=9_usize, columns, 1..=90_usize),
        (one_in(), one_in(), select(vec![7, 40, NEVER, NEVER])),
        select(&Layout::ALL[..]),
        any::<u64>(),
    )
        .prop_map(
            |((rows, columns, tokens), (zeros, dead, protected), layout, seed)| Job {
                rows,
                columns,
                tokens,
                families: 1,
                zeros,
                dead,
                protected,
                layout,
                seed,
            },
        )
}

/// What may decide a sweep of this layer.
pub(crate) fn choices(job: &Job) -> Vec<Choice> {
    use wanda::Pattern;
    let mut choices: Vec<Choice> = [
        Pattern::PerOutput(0.5),
        Pattern::PerLayer(0.5),
        Pattern::PerInput(0.5),
        Pattern::Threshold(0.5),
        Pattern::Cumulative(0.3),
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::NOfM { keep: 3, of: 7 },
        Pattern::Block {
            rows: 4,
            cols: 4,
            sparsity: 0.5,
        },
    ]
    .map(Choice::Pattern)
    .into();
    choices.push(Choice::Given(job.given()));
    choices
}
