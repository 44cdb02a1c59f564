//! Layers to prune: shapes, values, inputs and memory layouts, made from a seed so that large
//! ones are cheap to generate and shrink by their shape.

use std::iter;

use proptest::prelude::*;
use proptest::sample::select;
#[cfg(feature = "second-order")]
use wanda::Gram;
use wanda::ndarray::{Array2, ArrayRef2, ArrayView2, ArrayViewMut2, s};
use wanda::{ColumnNorms, Pattern};

use super::element::TestElement;

/// A small generator of pseudo-random numbers (`SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to 1, 1 not included.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of mean 0 and variance 1, distributed much like a normal one.
    pub(crate) fn normal(&mut self) -> f64 {
        let sum = self.unit() + self.unit() + self.unit() + self.unit();
        3_f64.sqrt() * (sum - 2.0)
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let n = choices.len() as u64;
        choices[usize::try_from(self.bits() % n).expect("less than a length")]
    }
}

/// What kind of numbers the weights are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// Of many sizes, hardly two alike.
    Spread,
    /// Four magnitudes and zeros of both signs, so that nearly all scores have equals.
    Ties,
    /// One magnitude for all.
    Constant,
    /// Zeros, subnormals and large numbers among ordinary ones.
    Extreme,
    /// As `Extreme`, with the largest finite numbers: their scores may overflow.
    Overflowing,
}

impl Values {
    fn draw<A: TestElement>(self, random: &mut Random) -> A {
        let spread = |random: &mut Random| {
            let sign = random.pick(&[-1.0, 1.0]);
            sign * 10_f64.powf(6.0 * random.unit() - 4.0)
        };
        A::round(match self {
            Self::Spread => spread(random),
            Self::Ties => random.pick(&[0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 0.25]),
            Self::Constant => random.pick(&[1.5, -1.5]),
            Self::Extreme => match random.bits() % 8 {
                0 => 0.0,
                1 => -0.0,
                2 => A::LEAST,
                3 => -3.0 * A::LEAST,
                4 => A::LARGE * random.pick(&[-1.0, 1.0]),
                _ => spread(random),
            },
            Self::Overflowing => match random.bits() % 16 {
                0 => A::LARGEST * random.pick(&[-1.0, 1.0]),
                1 => A::LEAST,
                _ => spread(random),
            },
        })
    }
}

/// How a matrix lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    RowMajor,
    ColumnMajor,
    /// Every second row and column of a larger matrix.
    EverySecond,
    /// Rows and columns from the last to the first.
    Backwards,
}

impl Layout {
    pub(crate) const ALL: [Self; 4] = [
        Self::RowMajor,
        Self::ColumnMajor,
        Self::EverySecond,
        Self::Backwards,
    ];
}

/// A matrix in some layout. What lies between its elements is not a number, so that a stray read
/// is noticed, and has to be left alone.
#[derive(Debug, Clone)]
pub(crate) struct Laid<A> {
    memory: Array2<A>,
    layout: Layout,
}

impl<A: TestElement> Laid<A> {
    pub(crate) fn new(values: &Array2<A>, layout: Layout) -> Self {
        let (rows, columns) = values.dim();
        let memory = match layout {
            Layout::ColumnMajor => Array2::from_elem((columns, rows), A::ZERO),
            Layout::EverySecond => {
                Array2::from_elem((2 * rows + 1, 2 * columns + 3), A::round(f64::NAN))
            }
            Layout::RowMajor | Layout::Backwards => Array2::from_elem((rows, columns), A::ZERO),
        };
        let mut laid = Self { memory, layout };
        laid.view_mut().assign(values);
        laid
    }

    pub(crate) fn view(&self) -> ArrayView2<'_, A> {
        match self.layout {
            Layout::RowMajor => self.memory.view(),
            Layout::ColumnMajor => self.memory.t(),
            Layout::EverySecond => self.memory.slice(s![1..;2, 3..;2]),
            Layout::Backwards => self.memory.slice(s![..;-1, ..;-1]),
        }
    }

    pub(crate) fn view_mut(&mut self) -> ArrayViewMut2<'_, A> {
        match self.layout {
            Layout::RowMajor => self.memory.view_mut(),
            Layout::ColumnMajor => self.memory.view_mut().reversed_axes(),
            Layout::EverySecond => self.memory.slice_mut(s![1..;2, 3..;2]),
            Layout::Backwards => self.memory.slice_mut(s![..;-1, ..;-1]),
        }
    }

    /// The bits of everything in memory, in the matrix or between its elements.
    pub(crate) fn memory_bits(&self) -> Vec<u64> {
        self.memory.iter().map(|x| x.bits()).collect()
    }

    /// How many elements in memory do not belong to the matrix and are still not a number.
    pub(crate) fn untouched_gaps(&self) -> usize {
        self.memory.iter().filter(|x| x.exact().is_nan()).count()
    }

    pub(crate) fn gaps(&self) -> usize {
        self.memory.len() - self.view().len()
    }
}

/// All bits of a matrix, row by row.
pub(crate) fn bits_of<A: TestElement>(w: &ArrayRef2<A>) -> Vec<u64> {
    w.iter().map(|x| x.bits()).collect()
}

/// A layer, its inputs, and how both lie in memory, as a recipe.
#[derive(Debug, Clone)]
pub(crate) struct Case {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) values: Values,
    pub(crate) tokens: usize,
    pub(crate) layout: Layout,
    pub(crate) seed: u64,
}

impl Case {
    pub(crate) fn weights<A: TestElement>(&self) -> Array2<A> {
        let mut random = Random::new(self.seed);
        Array2::from_shape_simple_fn((self.rows, self.columns), || self.values.draw(&mut random))
    }

    /// Inputs of which some features are dead, and others are much larger or smaller than usual.
    pub(crate) fn inputs<A: TestElement>(&self) -> Array2<A> {
        let mut random = Random::new(!self.seed);
        let scales: Vec<f64> = iter::repeat_with(|| random.pick(&[0.0, 1e-3, 1.0, 1.0, 7.0, 1e3]))
            .take(self.columns)
            .collect();
        Array2::from_shape_fn((self.tokens, self.columns), |(_, feature)| {
            A::round(scales[feature] * (2.0 * random.unit() - 1.0))
        })
    }

    /// Marks about one weight in `one_in`.
    pub(crate) fn protected(&self, one_in: u64) -> Array2<bool> {
        let mut random = Random::new(self.seed ^ 0x5555);
        Array2::from_shape_simple_fn((self.rows, self.columns), || {
            random.bits().is_multiple_of(one_in)
        })
    }
}

/// Weights as trained layers have them.
pub(crate) fn normal_weights<A: TestElement>(dim: (usize, usize), seed: u64) -> Array2<A> {
    let mut random = Random::new(seed);
    Array2::from_shape_simple_fn(dim, || A::round(random.normal()))
}

/// Inputs as trained layers have them, [tokens, features]: features of unlike sizes that go
/// together, because a few hidden causes move them all.
pub(crate) fn correlated_inputs<A: TestElement>(
    (tokens, features): (usize, usize),
    seed: u64,
) -> Array2<A> {
    const CAUSES: usize = 4;
    let mut random = Random::new(!seed);
    let effects =
        Array2::from_shape_simple_fn((features, CAUSES), || random.normal() / CAUSES as f64);
    let scales: Vec<f64> = iter::repeat_with(|| random.pick(&[0.3, 1.0, 1.0, 4.0]))
        .take(features)
        .collect();
    let mut inputs = Array2::from_elem((tokens, features), A::ZERO);
    for mut token in inputs.rows_mut() {
        let causes: Vec<f64> = (0..CAUSES).map(|_| random.normal()).collect();
        for ((x, effects), scale) in token.iter_mut().zip(effects.rows()).zip(&scales) {
            let response: f64 = effects.iter().zip(&causes).map(|(e, c)| e * c).sum();
            *x = A::round(scale * (response + 0.5 * random.normal()));
        }
    }
    inputs
}

/// The statistics of all inputs, given in one batch.
pub(crate) fn gathered<A: TestElement>(inputs: &Array2<A>) -> ColumnNorms {
    let mut stats = ColumnNorms::new(inputs.ncols());
    stats
        .update(inputs)
        .expect("finite inputs of the right shape");
    stats
}

pub(crate) fn ones(rows: usize, columns: usize) -> Array2<f32> {
    Array2::ones((rows, columns))
}

/// Statistics of two tokens, whose inputs are all 1.
pub(crate) fn seen(features: usize) -> ColumnNorms {
    gathered(&ones(2, features))
}

/// The Gram matrix of all inputs, given in one batch.
#[cfg(feature = "second-order")]
pub(crate) fn gram_of<A: TestElement>(inputs: &ArrayRef2<A>) -> Gram {
    let mut gram = Gram::new(inputs.ncols());
    gram.update(inputs)
        .expect("finite inputs of the right shape");
    gram
}

/// Shapes from nothing at all to rows of many mask words; columns around multiples of 64 come
/// up often.
pub(crate) fn shapes() -> impl Strategy<Value = (usize, usize)> {
    prop_oneof![
        5 => (0..=12_usize, 0..=70_usize),
        2 => (1..=6_usize, select(vec![1_usize, 63, 64, 65, 127, 128, 129, 192])),
        2 => (0..=40_usize, 0..=200_usize),
        1 => (1..=3_usize, 300..=2000_usize),
    ]
}

fn cases_of(values: impl Strategy<Value = Values>) -> impl Strategy<Value = Case> {
    (
        shapes(),
        values,
        1..=5_usize,
        select(&Layout::ALL[..]),
        any::<u64>(),
    )
        .prop_map(|((rows, columns), values, tokens, layout, seed)| Case {
            rows,
            columns,
            values,
            tokens,
            layout,
            seed,
        })
}

/// Any layer of finite weights, now and then with scores that overflow.
pub(crate) fn layers() -> impl Strategy<Value = Case> {
    cases_of(prop_oneof![
        4 => Just(Values::Spread),
        4 => Just(Values::Ties),
        1 => Just(Values::Constant),
        4 => Just(Values::Extreme),
        1 => Just(Values::Overflowing),
    ])
}

/// Layers whose scores are all finite.
pub(crate) fn tame_layers() -> impl Strategy<Value = Case> {
    cases_of(prop_oneof![
        4 => Just(Values::Spread),
        4 => Just(Values::Ties),
        1 => Just(Values::Constant),
        4 => Just(Values::Extreme),
    ])
}

/// Sparsities, those among them that rounding is known to get wrong.
pub(crate) fn sparsities() -> impl Strategy<Value = f64> {
    prop_oneof![
        select(vec![0.0, 0.25, 0.29, 0.5, 0.57, 0.75, 0.999_999]),
        0.0..1.0_f64,
    ]
}

/// A pattern of each kind, with blocks of this many rows and columns.
pub(crate) fn of_each_kind(sparsity: f64, (rows, cols): (usize, usize)) -> [Pattern; 7] {
    [
        Pattern::PerOutput(sparsity),
        Pattern::PerLayer(sparsity),
        Pattern::PerInput(sparsity),
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::Block {
            rows,
            cols,
            sparsity,
        },
        Pattern::Cumulative(sparsity),
        Pattern::Threshold(sparsity),
    ]
}

pub(crate) fn per_output() -> impl Strategy<Value = Pattern> {
    sparsities().prop_map(Pattern::PerOutput)
}

pub(crate) fn per_layer() -> impl Strategy<Value = Pattern> {
    sparsities().prop_map(Pattern::PerLayer)
}

pub(crate) fn per_input() -> impl Strategy<Value = Pattern> {
    sparsities().prop_map(Pattern::PerInput)
}

pub(crate) fn cumulative() -> impl Strategy<Value = Pattern> {
    sparsities().prop_map(Pattern::Cumulative)
}

pub(crate) fn threshold() -> impl Strategy<Value = Pattern> {
    sparsities().prop_map(Pattern::Threshold)
}

/// Groups of usual and unusual sizes, some larger than any row.
pub(crate) fn n_of_m() -> impl Strategy<Value = Pattern> {
    let of = prop_oneof![
        2 => select(vec![4_usize, 8, 16]),
        2 => 1..=9_usize,
        1 => select(vec![32_usize, 63, 64, 65, 100, 300, usize::MAX]),
    ];
    of.prop_flat_map(|of| {
        let keep = prop_oneof![1..=of, Just(of / 2 + 1), Just(of.min(2))];
        (keep, Just(of))
    })
    .prop_map(|(keep, of)| Pattern::NOfM { keep, of })
}

/// Blocks of usual and unusual sizes, some larger than any layer.
pub(crate) fn block() -> impl Strategy<Value = Pattern> {
    let side = || {
        prop_oneof![
            8 => 1..=9_usize,
            2 => select(vec![16_usize, 64, 65]),
            1 => Just(usize::MAX),
        ]
    };
    (side(), side(), sparsities()).prop_map(|(rows, cols, sparsity)| Pattern::Block {
        rows,
        cols,
        sparsity,
    })
}

pub(crate) fn patterns() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        per_output(),
        per_layer(),
        per_input(),
        n_of_m(),
        block(),
        cumulative(),
        threshold(),
    ]
}
