//! How sparse each layer is to be: exact totals, and allocations against oracles that sort.

mod common;

use std::fmt::Debug;

use proptest::collection::vec;
use proptest::prelude::*;
use wanda::allocate::{
    Allocation, Dlp, GlobalBudget, LayerShare, LayerSummary, Owl, ScoreHistogram, Target, Uniform,
    allocate,
};
use wanda::ndarray::{Array2, array};
use wanda::{Error, Magnitude, Mask, NoStats, Pattern, Pruner, Result, Rows, SparsityPattern};

use common::few_cases;
use common::layer::Random;

/// The allocations of the crate, as they come.
fn all() -> [Box<dyn Allocation>; 4] {
    [
        Box::new(Uniform),
        Box::new(Owl::default()),
        Box::new(Dlp::default()),
        Box::new(GlobalBudget::default()),
    ]
}

fn pruned(shares: &[LayerShare]) -> Vec<usize> {
    shares.iter().map(LayerShare::pruned).collect()
}

/// What a pattern prunes of so many weights.
fn quota(weights: usize, sparsity: f64) -> usize {
    SparsityPattern::<f32>::count(&Pattern::PerLayer(sparsity), weights)
}

/// Scores of a layer, a block number, and a shape.
#[derive(Debug, Clone)]
struct Scored {
    block: usize,
    scores: Array2<f32>,
}

impl Scored {
    /// Scores of many sizes, some zero, and more or fewer of them large.
    fn random(block: usize, (rows, columns): (usize, usize), seed: u64) -> Self {
        let mut random = Random::new(seed);
        let outliers = random.unit() * 0.1;
        let scale = 4.0 * random.unit() + 0.1;
        let scores = Array2::from_shape_simple_fn((rows, columns), || {
            let score = match random.unit() {
                unit if unit < 0.05 => 0.0,
                unit if unit < 0.05 + outliers => 20.0 + random.unit(),
                _ => random.normal().abs(),
            };
            num_traits::cast::<f64, f32>(score * scale).expect("a small number")
        });
        Self { block, scores }
    }

    fn summary(&self) -> LayerSummary {
        LayerSummary::new(self.block, &self.scores).expect("fine scores")
    }
}

fn summaries(layers: &[Scored]) -> Vec<LayerSummary> {
    layers.iter().map(Scored::summary).collect()
}

fn model(most: usize) -> impl Strategy<Value = Vec<Scored>> {
    let layer = (0..4_usize, 0..most, 0..most, any::<u64>());
    let layer = layer.prop_map(|(block, m, n, seed)| Scored::random(block, (m, n), seed));
    vec(layer, 0..9)
}

/// Layers that all have at least 100 weights.
fn model_of_large_layers() -> impl Strategy<Value = Vec<Scored>> {
    let layer = (0..4_usize, 10..40_usize, 10..40_usize, any::<u64>());
    let layer = layer.prop_map(|(block, m, n, seed)| Scored::random(block, (m, n), seed));
    vec(layer, 1..9)
}

proptest! {
    #![proptest_config(few_cases())]

    #[test]
    fn the_total_is_exact_and_a_pattern_prunes_the_shares(
        layers in model(30), sparsity in 0.0..1.0_f64, unscored in vec(0..500_usize, 0..3),
    ) {
        let mut summaries = summaries(&layers);
        summaries.extend(unscored.into_iter().map(LayerSummary::unscored));
        let total = summaries.iter().map(LayerSummary::weights).sum();
        for allocation in all() {
            match allocate(&*allocation, &summaries, sparsity) {
                Ok(shares) => {
                    prop_assert_eq!(
                        pruned(&shares).iter().sum::<usize>(), quota(total, sparsity)
                    );
                    for (share, layer) in shares.iter().zip(&summaries) {
                        prop_assert!((0.0..1.0).contains(&share.sparsity()));
                        prop_assert_eq!(quota(layer.weights(), share.sparsity()), share.pruned());
                        prop_assert!(share.pruned() < layer.weights().max(1));
                    }
                }
                // A weight of each layer stays.
                Err(Error::OutOfReach { total, most, .. }) => {
                    prop_assert!(total > most);
                    let leaves = |layer: &LayerSummary| {
                        layer.weights() as f64 * (1.0 - sparsity.max(0.99))
                    };
                    prop_assert!(summaries.iter().any(|layer| leaves(layer) < 1.0));
                }
                Err(error) => return Err(TestCaseError::fail(error.to_string())),
            }
        }
    }

    #[test]
    fn layers_that_are_large_enough_can_always_be_shared_out(
        layers in model_of_large_layers(), sparsity in 0.0..0.999_f64,
    ) {
        let summaries = summaries(&layers);
        for allocation in all() {
            // More than 0.99 may leave less than one weight of a layer.
            let sparsity = sparsity.min(0.99);
            let shares = allocate(&*allocation, &summaries, sparsity);
            let sum: Option<usize> = shares.map(|shares| pruned(&shares).iter().sum()).ok();
            let total = summaries.iter().map(LayerSummary::weights).sum();
            prop_assert_eq!(sum, Some(quota(total, sparsity)), "{}", allocation.name());
        }
    }

    #[test]
    fn equal_layers_get_equal_sparsities(
        seed in any::<u64>(), copies in 1..9_usize, own_blocks: bool, sparsity in 0.0..0.99_f64,
    ) {
        let layers: Vec<Scored> = (0..copies)
            .map(|i| Scored::random(if own_blocks { i } else { 0 }, (17, 23), seed))
            .collect();
        for allocation in all() {
            let shares = allocate(&*allocation, &summaries(&layers), sparsity).expect("fine layers");
            for share in &shares {
                let exact = 17.0 * 23.0 * sparsity;
                prop_assert!((share.pruned() as f64 - exact).abs() < 1.0, "{}", allocation.name());
            }
        }
    }

    #[test]
    fn all_targets_are_moved_alike_and_limits_kept_to_the_weight(
        layers in vec((1..2000_usize, -0.5..1.5_f64, 0.0..1.0_f64, 0.0..1.0_f64), 1..9),
        sparsity in 0.0..1.0_f64,
    ) {
        let targets: Vec<Target> = layers
            .iter()
            .map(|&(_, target, a, b)| Target::within(target, a.min(b)..=a.max(b)))
            .collect();
        let sizes: Vec<usize> = layers.iter().map(|layer| layer.0).collect();
        let summaries: Vec<_> = sizes.iter().copied().map(LayerSummary::unscored).collect();
        let total = quota(sizes.iter().sum(), sparsity);
        let allowed = |limit: fn(&Target) -> f64| -> f64 {
            sizes.iter().zip(&targets).map(|(&n, target)| n as f64 * limit(target)).sum()
        };
        let low = allowed(|target| *target.limits().start());
        let high = allowed(|target| *target.limits().end());
        match allocate(&Given(targets.clone()), &summaries, sparsity) {
            Err(Error::OutOfReach { least, most, total: asked }) => {
                prop_assert_eq!(asked, total);
                prop_assert!(!(least..=most).contains(&total));
                prop_assert!((total as f64) < low || total as f64 > high - sizes.len() as f64);
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
            Ok(shares) => {
                prop_assert_eq!(pruned(&shares).iter().sum::<usize>(), total);
                // One shift explains all layers, each to within a weight.
                let (mut from, mut to) = (f64::NEG_INFINITY, f64::INFINITY);
                for ((share, target), &n) in shares.iter().zip(&targets).zip(&sizes) {
                    let n = n as f64;
                    let (low, high) = target.limits().clone().into_inner();
                    let high = high.min((n - 1.0) / n);
                    let low = low.min(high);
                    let (weight, found) = (1.0 / n + 1e-9, share.pruned() as f64 / n);
                    prop_assert!(found >= low - weight && found <= high + weight);
                    let clipped = target.sparsity().clamp(low, high);
                    if found + weight < high {
                        to = to.min(found + weight - clipped);
                    }
                    if found - weight > low {
                        from = from.max(found - weight - clipped);
                    }
                }
                prop_assert!(from <= to, "from {from} to {to}");
            }
        }
    }

    #[test]
    fn a_score_counts_as_the_middle_of_its_bin(seed in any::<u64>()) {
        let layer = Scored::random(0, (7, 9), seed).scores;
        let histogram = ScoreHistogram::of(&layer).expect("fine scores");
        let mut found = Vec::new();
        for (score, count) in histogram.bins() {
            found.extend(vec![score; count]);
        }
        let mut expected: Vec<f64> = layer.iter().map(|&score| f64::from(score)).collect();
        expected.sort_by(f64::total_cmp);
        for (&score, &found) in expected.iter().zip(&found) {
            prop_assert!((found - score).abs() <= score / 128.0);
            prop_assert_eq!(found.to_bits(), coarse(score).to_bits());
        }
        prop_assert_eq!(found.len(), 63);
    }

    #[test]
    fn owl_is_the_oracles(layers in model_of_large_layers(), sparsity in 0.2..0.8_f64) {
        let outliers = |scores: &[f64]| {
            let mean = scores.iter().sum::<f64>() / scores.len() as f64;
            scores.iter().filter(|&&score| score > 5.0 * mean).count() as f64 / scores.len() as f64
        };
        by_blocks(&Owl::default(), 0.08, outliers, &layers, sparsity)?;
    }

    #[test]
    fn dlp_is_the_oracles(layers in model_of_large_layers(), sparsity in 0.3..0.69_f64) {
        by_blocks(&Dlp::default(), 0.15, |sorted| -median(sorted), &layers, sparsity)?;
    }

    #[test]
    fn the_global_budget_prunes_the_lowest_of_all_but_for_one_bin(
        layers in model_of_large_layers(), sparsity in 0.05..0.95_f64,
    ) {
        // Without limits that matter.
        let shares = allocate(&GlobalBudget { limit: 1.0 }, &summaries(&layers), sparsity);
        let shares = shares.expect("fine layers");
        let mut all: Vec<f32> = layers.iter().flat_map(|layer| layer.scores.clone()).collect();
        all.sort_by(f32::total_cmp);
        let threshold = all[quota(all.len(), sparsity)];
        let near = threshold / 64.0;
        let count = |layer: &Scored, limit: f32| {
            layer.scores.iter().filter(|&&score| score <= limit).count() as f64
        };
        let clipped = |x: f64, n: usize| x.min(0.99 * n as f64);
        let any_clipped = layers.iter().any(|layer| {
            count(layer, threshold + near) > 0.98 * layer.scores.len() as f64
        });
        // The others are moved where one is.
        if any_clipped {
            return Ok(());
        }
        for (share, layer) in shares.iter().zip(&layers) {
            let n = layer.scores.len();
            let surely = if threshold > 0.0 { count(layer, threshold - near) } else { 0.0 };
            let perhaps = count(layer, threshold + near);
            let found = share.pruned() as f64;
            prop_assert!(found > clipped(surely, n) - 1.0 && found < clipped(perhaps, n) + 1.0);
        }
    }

    #[test]
    fn the_global_budget_keeps_its_limit(
        layers in model_of_large_layers(), sparsity in 0.0..0.99_f64, limit in 0.0..0.5_f64,
    ) {
        let shares = allocate(&GlobalBudget { limit }, &summaries(&layers), sparsity);
        for (share, layer) in shares.expect("fine layers").iter().zip(&layers) {
            let n = layer.scores.len() as f64;
            let weight = 1.0 / n + 1e-9;
            prop_assert!((share.pruned() as f64 / n - sparsity).abs() <= limit + weight);
            prop_assert!(share.pruned() as f64 <= 0.99 * n + 1.0);
        }
    }
}

/// Targets that are there already.
#[derive(Debug)]
struct Given(Vec<Target>);

impl Allocation for Given {
    fn targets(&self, _: &[LayerSummary], _: f64) -> Result<Vec<Target>> {
        Ok(self.0.clone())
    }
}

/// What a score counts as: the middle of one of the 64 parts of its octave.
fn coarse(score: f64) -> f64 {
    if score == 0.0 {
        return 0.0;
    }
    let octave = score.log2().floor().exp2();
    let part = ((score / octave - 1.0) * 64.0).floor();
    octave * (1.0 + (part + 0.5) / 64.0)
}

/// The lower median of sorted scores.
fn median(sorted: &[f64]) -> f64 {
    sorted[(sorted.len() - 1) / 2]
}

/// Checks an allocation by blocks against the formulas, with what each score counts as.
fn by_blocks(
    allocation: &dyn Allocation,
    width: f64,
    importance: impl Fn(&[f64]) -> f64,
    layers: &[Scored],
    sparsity: f64,
) -> Result<(), TestCaseError> {
    let weights = |layer: &Scored| layer.scores.len() as f64;
    let x: Vec<f64> = layers
        .iter()
        .map(|layer| {
            let of_block = layers.iter().filter(|other| other.block == layer.block);
            let scores = of_block.flat_map(|other| other.scores.iter().copied());
            let mut scores: Vec<f64> = scores.map(|score| coarse(f64::from(score))).collect();
            scores.sort_by(f64::total_cmp);
            importance(&scores)
        })
        .collect();
    let least = x.iter().copied().fold(f64::INFINITY, f64::min);
    let most = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let range = if most > least { most - least } else { 1.0 };
    let k: Vec<f64> = x
        .iter()
        .map(|x| (x - least) / range * 2.0 * width)
        .collect();
    let all: f64 = layers.iter().map(weights).sum();
    let mean = k
        .iter()
        .zip(layers)
        .map(|(k, l)| k * weights(l))
        .sum::<f64>()
        / all;

    let shares = allocate(allocation, &summaries(layers), sparsity).expect("fine layers");
    for ((share, layer), k) in shares.iter().zip(layers).zip(k) {
        let target = weights(layer) * (sparsity - (k - mean));
        // Nothing to clip, as the sparsity is more than 2a from 0 and 0.99.
        prop_assert!((share.pruned() as f64 - target).abs() < 1.0 + 1e-6);
    }
    Ok(())
}

/// A layer with so many outliers in a hundred, far from the other scores.
fn with_outliers(block: usize, outliers: usize) -> LayerSummary {
    let score = |(_, j)| if j < outliers { 1000.0_f32 } else { 1.0 };
    let scores = Array2::from_shape_fn((30, 100), score);
    LayerSummary::new(block, &scores).expect("fine scores")
}

#[test]
fn the_more_outliers_the_denser() {
    let layers: Vec<LayerSummary> = (0..5).map(|i| with_outliers(i, i)).collect();
    for sparsity in [0.3, 0.5, 0.7, 0.97] {
        let pruned = pruned(&allocate(&Owl::default(), &layers, sparsity).expect("fine layers"));
        assert!(pruned.is_sorted_by(|a, b| a >= b), "{pruned:?}");
        assert!(pruned[0] > pruned[4], "{pruned:?}");
    }
    // As published, where nothing is clipped.
    let shares = allocate(&Owl::default(), &layers, 0.7).expect("fine layers");
    assert_eq!(pruned(&shares), [2340, 2220, 2100, 1980, 1860]);
}

#[test]
fn layers_of_a_block_share_its_target() {
    // Together the layers of block 7 have as many outliers as the one of block 3.
    let layers = [
        with_outliers(7, 0),
        with_outliers(3, 1),
        with_outliers(7, 2),
        with_outliers(9, 3),
    ];
    let shares = allocate(&Owl::default(), &layers, 0.5).expect("fine layers");
    // k = 0 but for the last, where it is 0.16; its mean is 0.04.
    assert_eq!(pruned(&shares), [1620, 1620, 1620, 1140]);
}

#[test]
fn targets_beyond_the_limit_are_clipped_and_the_others_moved() {
    let layers: Vec<LayerSummary> = (0..2).map(|i| with_outliers(i, i)).collect();
    let shares = allocate(&Owl::default(), &layers, 0.95).expect("fine layers");
    // 1.03 and 0.87 were wanted.
    assert_eq!(pruned(&shares), [2970, 2730]);
    let shares = allocate(&Owl::default(), &layers, 0.02).expect("fine layers");
    assert_eq!(pruned(&shares), [120, 0]);
    // Where more is asked for than the limit, that is the limit.
    let shares = allocate(&Owl::default(), &layers, 0.995).expect("fine layers");
    assert_eq!(pruned(&shares), [2985, 2985]);
}

#[test]
fn layers_without_scores_stay() {
    let layers = [
        LayerSummary::unscored(1001),
        with_outliers(0, 0),
        with_outliers(1, 3),
        LayerSummary::new(2, &Array2::<f32>::zeros((0, 5))).expect("no scores"),
    ];
    for allocation in &all()[1..] {
        let shares = allocate(&**allocation, &layers, 0.5).expect("fine layers");
        assert_eq!(shares[0].pruned(), 500, "{}", allocation.name());
        assert_eq!(shares[3].pruned(), 0, "{}", allocation.name());
        assert_eq!(pruned(&shares).iter().sum::<usize>(), 3500);
    }
    let unscored = [1001, 1001, 1001].map(LayerSummary::unscored);
    for allocation in all() {
        let shares = allocate(&*allocation, &unscored, 0.5).expect("fine layers");
        assert_eq!(pruned(&shares), [501, 500, 500], "{}", allocation.name());
    }
}

#[test]
fn nothing_to_allocate_is_no_error() {
    let empty = LayerSummary::new(0, &Array2::<f64>::zeros((3, 0))).expect("no scores");
    assert_eq!(empty.weights(), 0);
    for allocation in all() {
        assert_eq!(allocate(&*allocation, &[], 0.5), Ok(Vec::new()));
        let shares = allocate(&*allocation, &[empty.clone(), empty.clone()], 0.5);
        let shares = shares.expect("empty layers");
        assert_eq!(pruned(&shares), [0, 0]);
        assert!(shares.iter().all(|share| share.sparsity() == 0.0));
    }
}

#[test]
fn equal_scores_are_never_not_a_number() {
    for score in [0.0, 1.0, f64::MIN_POSITIVE, f64::from_bits(1), f64::MAX] {
        let scores = Array2::from_elem((10, 10), score);
        let layers: Vec<LayerSummary> = (0..4)
            .map(|block| LayerSummary::new(block, &scores).expect("fine scores"))
            .collect();
        for allocation in all() {
            let shares = allocate(&*allocation, &layers, 0.5).expect("fine layers");
            assert_eq!(pruned(&shares), [50; 4], "{} {score}", allocation.name());
        }
    }
}

#[test]
fn scores_of_any_size_are_allocated() {
    let scores = array![
        [0.0, f64::MAX, f64::MIN_POSITIVE, 1.0],
        [1e300, 1e-300, 3.0, 0.0]
    ];
    let layers = [
        LayerSummary::new(0, &scores).expect("fine scores"),
        LayerSummary::new(1, &scores.mapv(f64::sqrt)).expect("fine scores"),
        LayerSummary::new(2, &Array2::<f64>::ones((2, 4))).expect("fine scores"),
    ];
    for allocation in all() {
        let shares = allocate(&*allocation, &layers, 0.5).expect("fine layers");
        assert_eq!(pruned(&shares).iter().sum::<usize>(), 12);
    }
}

#[test]
fn the_order_and_the_shape_of_scores_do_not_matter() {
    // Many tasks' worth of scores.
    let layer = Scored::random(0, (300, 5000), 5).scores;
    let histogram = ScoreHistogram::of(&layer).expect("fine scores");
    assert_eq!(histogram.len(), 1_500_000);
    assert_eq!(ScoreHistogram::of(&layer.t()), Ok(histogram.clone()));
    assert_eq!(ScoreHistogram::of(&layer.mapv(f64::from)), Ok(histogram));
}

#[test]
fn a_share_is_what_a_pattern_prunes() {
    let w = Array2::from_shape_fn((30, 101), |(i, j)| ((i * 101 + j) as f32).sin());
    let layers = [
        with_outliers(0, 2),
        LayerSummary::new(1, &w.mapv(f32::abs)).expect("fine"),
    ];
    let share = allocate(&Dlp::default(), &layers, 0.37).expect("fine layers")[1];
    let mask = |pattern| Pruner::new(Magnitude, pattern).mask(&w, &NoStats);
    let count = |mask: Result<Mask>| mask.expect("fine weights").count();
    assert_eq!(
        count(mask(Pattern::PerLayer(share.sparsity()))),
        share.pruned()
    );
    let short = share.pruned() - count(mask(Pattern::PerOutput(share.sparsity())));
    assert!(short < 30, "{short}");
}

#[test]
fn invalid_scores_are_named_by_place() {
    let mut scores = Array2::<f32>::ones((3, 5000));
    for invalid in [
        f32::NAN,
        f32::INFINITY,
        -1.0,
        f32::NEG_INFINITY,
        -f32::MIN_POSITIVE,
    ] {
        scores[[1, 4999]] = invalid;
        scores[[2, 0]] = invalid;
        let error = LayerSummary::new(0, &scores).expect_err("an invalid score");
        let Error::InvalidScore {
            row, column, score, ..
        } = error
        else {
            panic!("{error}");
        };
        assert_eq!((row, column), (1, 4999));
        assert_eq!(score.to_string(), f64::from(invalid).to_string());
    }
    scores.fill(-0.0);
    assert!(LayerSummary::new(0, &scores).is_ok());
}

/// Says that it is larger than it is.
struct Boasting(usize, usize);

impl Rows<f32> for Boasting {
    fn dim(&self) -> (usize, usize) {
        (self.0, self.1)
    }

    fn read(&self, row: usize, start: usize, out: &mut [f32]) -> Result<()> {
        array![[0.0_f32]].read(row, start, out)
    }
}

#[test]
fn scores_that_are_not_there_are_errors() {
    for (rows, columns) in [(2, 1), (1, 2), (1, usize::MAX), (usize::MAX, 1)] {
        assert!(
            matches!(
                LayerSummary::new(0, &Boasting(rows, columns)),
                Err(Error::OutOfBounds { .. } | Error::TooLarge { .. })
            ),
            "{rows} x {columns}"
        );
    }
    let too_large = Error::TooLarge {
        rows: usize::MAX,
        columns: 2,
    };
    assert_eq!(
        LayerSummary::new(0, &Boasting(usize::MAX, 2)),
        Err(too_large)
    );
    assert_eq!(
        LayerSummary::new(0, &Boasting(usize::MAX, 0)).map(|l| l.weights()),
        Ok(0)
    );
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let layers = [with_outliers(0, 0), with_outliers(1, 2)];
    for allocation in all() {
        for sparsity in [-0.1, 1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                allocate(&*allocation, &layers, sparsity),
                Err(Error::InvalidSparsity { .. })
            ));
        }
    }
    for value in [-1.0, f64::NAN, f64::INFINITY] {
        let owl = Owl::default();
        let wrong: [(Box<dyn Allocation>, &str); 4] = [
            (
                Box::new(Owl {
                    threshold: value,
                    ..owl
                }),
                "threshold",
            ),
            (
                Box::new(Owl {
                    width: value,
                    ..owl
                }),
                "width",
            ),
            (Box::new(Dlp { width: value }), "width"),
            (Box::new(GlobalBudget { limit: value }), "limit"),
        ];
        for (allocation, named) in wrong {
            let error = allocate(&*allocation, &layers, 0.5).expect_err("a wrong parameter");
            let Error::InvalidAllocation { parameter, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(parameter, named);
        }
    }
    let many = [
        LayerSummary::unscored(usize::MAX),
        LayerSummary::unscored(usize::MAX),
    ];
    let error = allocate(&Uniform, &many, 0.5).expect_err("too many weights");
    assert_eq!(error, Error::TooManyWeights { most: 1 << 51 });
}

#[test]
fn a_layer_keeps_a_weight() {
    let layers = [1, 1, 4].map(LayerSummary::unscored);
    let shares = allocate(&Uniform, &layers, 0.5).expect("within reach");
    assert_eq!(pruned(&shares), [0, 0, 3]);
    let error = allocate(&Uniform, &layers, 0.7).expect_err("out of reach");
    let expected = Error::OutOfReach {
        total: 4,
        least: 0,
        most: 3,
    };
    assert_eq!(error, expected);
    assert_eq!(
        error.to_string(),
        "4 weights were to be pruned, but the limits of the layers allow 0 to 3; every layer keeps \
         at least 1"
    );
}

#[test]
fn targets_that_make_no_sense_are_refused() {
    let layers = [LayerSummary::unscored(100)];
    let wrong = [
        vec![],
        vec![Target::fixed(0.5); 2],
        vec![Target::fixed(f64::NAN)],
        vec![Target::fixed(1.5)],
        vec![Target::within(f64::NAN, 0.0..=1.0)],
        vec![Target::within(0.5, 0.0..=f64::NAN)],
        vec![Target::within(0.5, 0.7..=0.6)],
    ];
    for targets in wrong {
        let error = allocate(&Given(targets), &layers, 0.5).expect_err("no targets");
        assert!(matches!(error, Error::Custom { .. }), "{error}");
    }
    let infinite = Given(vec![Target::within(f64::INFINITY, 0.0..=0.99)]);
    let shares = allocate(&infinite, &layers, 0.5).expect("clipped and moved");
    assert_eq!(pruned(&shares), [50]);
}

#[test]
fn public_types_can_be_sent_shared_and_shown() {
    fn check<T: Send + Sync + Debug + ?Sized>() {}
    check::<dyn Allocation>();
    check::<LayerSummary>();
    check::<LayerShare>();
    check::<ScoreHistogram>();
    check::<Target>();
}
