//! Updates that solve for all weights of a layer: the joint solver, the refit, and retargeting.
#![cfg(feature = "second-order")]

mod common;

use common::layer::{Random, correlated_inputs, gram_of, normal_weights};
use wanda::half::bf16;
use wanda::ndarray::{Array2, array, s};
use wanda::{
    Admm, Backend, CrossProducts, Damping, Error, Gram, KeepWeights, LayerReport, Magnitude, Mask,
    Obs, ObsSweep, Pattern, Pruner, Refit, Result, Retarget, SparsityPattern, Target, Wanda,
    WeightUpdate,
};

/// Weights and inputs of a layer.
fn layer<A: common::element::TestElement>(
    (rows, columns): (usize, usize),
    tokens: usize,
    seed: u64,
) -> (Array2<A>, Array2<A>) {
    (
        normal_weights((rows, columns), seed),
        correlated_inputs((tokens, columns), seed ^ 0x55),
    )
}

fn value(report: &LayerReport) -> f64 {
    report.relative_error().expect("an error").value()
}

/// Solves `x · a = b` for a row, by Gauss with pivots.
fn solve(a: &Array2<f64>, b: &[f64]) -> Vec<f64> {
    let n = b.len();
    let mut a = a.t().to_owned();
    let mut x = b.to_vec();
    for k in 0..n {
        let pivot = (k..n).max_by(|&i, &j| a[[i, k]].abs().total_cmp(&a[[j, k]].abs()));
        let pivot = pivot.expect("rows are left");
        x.swap(k, pivot);
        for j in 0..n {
            a.swap([k, j], [pivot, j]);
        }
        for i in k + 1..n {
            let factor = a[[i, k]] / a[[k, k]];
            for j in k..n {
                a[[i, j]] -= factor * a[[k, j]];
            }
            x[i] -= factor * x[k];
        }
    }
    for k in (0..n).rev() {
        for j in k + 1..n {
            x[k] -= a[[k, j]] * x[j];
        }
        x[k] /= a[[k, k]];
    }
    x
}

/// G + λ diag(G), with the floor, from inputs.
fn damped(inputs: &Array2<f64>, factor: f64) -> Array2<f64> {
    let mut gram = inputs.t().dot(inputs);
    let n = gram.nrows();
    let live: Vec<f64> = (0..n).map(|j| gram[[j, j]]).filter(|&g| g != 0.0).collect();
    let mean = live.iter().sum::<f64>() / live.len() as f64;
    for j in 0..n {
        gram[[j, j]] += factor * gram[[j, j]].max(1e-4 * mean);
    }
    gram
}

/// The best weights of a row on a support: least squares, exactly.
fn best_of_row(dense: &[f64], damped: &Array2<f64>, kept: &[usize]) -> Vec<f64> {
    let n = dense.len();
    let wanted: Vec<f64> = kept
        .iter()
        .map(|&k| (0..n).map(|j| dense[j] * damped[[j, k]]).sum())
        .collect();
    let part = Array2::from_shape_fn((kept.len(), kept.len()), |(i, j)| {
        damped[[kept[i], kept[j]]]
    });
    let mut best = vec![0.0; n];
    for (&k, x) in kept.iter().zip(solve(&part, &wanted)) {
        best[k] = x;
    }
    best
}

/// `(w − v) H (w − v)ᵀ`
fn loss_of_row(dense: &[f64], weights: &[f64], gram: &Array2<f64>) -> f64 {
    let n = dense.len();
    let change: Vec<f64> = dense.iter().zip(weights).map(|(a, b)| a - b).collect();
    (0..n)
        .map(|i| {
            (0..n)
                .map(|j| change[i] * gram[[i, j]] * change[j])
                .sum::<f64>()
        })
        .sum()
}

#[test]
fn the_refit_finds_the_least_squares_of_every_row() {
    for backend in backends() {
        let (dense, inputs) = layer::<f64>((7, 12), 60, 3);
        let mask = Mask::from_fn(7, 12, |row, column| (row + 3 * column) % 2 == 0).expect("memory");
        let mut w = dense.clone();
        let update = Refit::new().steps(200).backend(backend);
        let report = Pruner::new(Magnitude, mask.clone())
            .update(update)
            .prune(&mut w, &gram_of(&inputs))
            .expect("a layer that can be refitted");
        let damped = damped(&inputs, 0.1);
        for (row, weights) in w.rows().into_iter().enumerate() {
            let kept: Vec<usize> = (0..12)
                .filter(|&column| mask.get(row, column) == Some(false))
                .collect();
            let best = best_of_row(&dense.row(row).to_vec(), &damped, &kept);
            for (column, (&found, best)) in weights.iter().zip(best).enumerate() {
                assert!(
                    (found - best).abs() < 1e-8,
                    "{row}, {column}: {found}, {best}"
                );
            }
        }
        let solved = report.solved().expect("an iterative solver");
        assert_eq!(solved.iterations(), 200);
        assert!(solved.residual() < 1e-10 && !solved.is_discarded());
        assert_eq!(report.damping(), Some(0.1));
    }
}

fn backends() -> Vec<Backend> {
    vec![
        Backend::Faer,
        #[cfg(feature = "lapack")]
        Backend::Lapack,
    ]
}

/// The error of a layer after an update, and its mask.
fn pruned<A: common::element::TestElement, U>(
    (dense, gram): (&Array2<A>, &Gram),
    pattern: Pattern,
    update: U,
) -> (f64, Array2<A>)
where
    U: WeightUpdate<A::Compute>,
    Wanda: wanda::ImportanceMetric<A::Compute>,
    Pattern: SparsityPattern<A::Compute>,
{
    let mut w = dense.clone();
    let pruner = Pruner::new(Wanda, pattern).update(update);
    let report = pruner
        .prune(&mut w, gram)
        .expect("a layer that can be pruned");
    (value(&report), w)
}

#[test]
fn the_joint_solver_beats_the_sweep_and_a_refit_never_harms() {
    let (dense, inputs) = layer::<f32>((64, 96), 500, 11);
    let gram = gram_of(&inputs);
    let of = (&dense, &gram);
    for text in [
        "0.5",
        "per-layer:0.5",
        "per-layer:0.7",
        "2:4",
        "4:8",
        "block:4x1:0.5",
        "per-input:0.5",
    ] {
        let pattern: Pattern = text.parse().expect("a pattern");
        let (plain, _) = pruned(of, pattern, KeepWeights);
        let (swept, _) = pruned(of, pattern, ObsSweep::new());
        let (refitted, _) = pruned(of, pattern, Refit::after(ObsSweep::new()));
        let (kept, _) = pruned(of, pattern, Refit::new());
        let (joint, w) = pruned(of, pattern, Admm::new());
        assert!(
            refitted <= swept && kept <= plain,
            "{text}: {refitted} {swept} {kept} {plain}"
        );
        assert!(
            joint <= swept && joint <= plain,
            "{text}: {joint} {swept} {plain}"
        );
        wanda::validate(&w, &pattern).expect("the pattern");
    }
}

#[test]
fn counts_protected_weights_and_zeros_hold_with_every_solver() {
    let (mut dense, inputs) = layer::<bf16>((16, 24), 100, 5);
    dense[[3, 4]] = bf16::ZERO;
    dense[[7, 23]] = bf16::NEG_ZERO;
    let mut inputs = inputs;
    inputs.slice_mut(s![.., 9]).fill(bf16::ZERO);
    let gram = gram_of(&inputs);
    let protected =
        Mask::from_fn(16, 24, |row, column| (row * 24 + column) % 11 == 0).expect("memory");
    let products = cross(&inputs, &inputs);
    let target = || Target::inputs(&products, 0.5);
    let updates: [(&str, &dyn WeightUpdate); 5] = [
        ("joint", &Admm::new()),
        ("stages", &Admm::new().stages(&[(0.3, 2), (0.6, 2)])),
        ("refit", &Refit::after(ObsSweep::new())),
        ("retarget", &Retarget::to(target())),
        ("retarget, joint", &Retarget::to(target()).then(Admm::new())),
    ];
    for (name, update) in updates {
        for text in ["0.5", "per-layer:0.6", "2:4"] {
            let pattern: Pattern = text.parse().expect("a pattern");
            let mut w = dense.clone();
            let pruner = Pruner::new(Wanda, pattern)
                .update(update)
                .protect(protected.clone());
            let mask = pruner.mask(&w, &gram).expect("a mask");
            let report = pruner.prune(&mut w, &gram).expect("a pruned layer");
            let expected = match text {
                "0.5" | "2:4" => 16 * 12,
                _ => 230,
            };
            assert_eq!(report.pruned(), expected, "{name}, {text}");
            assert_eq!(report.pruned(), mask.count(), "{name}, {text}");
            assert_eq!(
                mask.differences(&pruner.mask(&dense, &gram).expect("a mask")),
                Ok(0)
            );
            for (row, column) in mask.iter() {
                assert_eq!(w[[row, column]].to_bits(), 0, "{name}, {text}");
                assert_eq!(protected.get(row, column), Some(false), "{name}, {text}");
            }
            for place in [[3, 4], [7, 23]] {
                assert!(w[place] == bf16::ZERO, "{name}, {text}");
            }
        }
    }
}

/// How far a solver is above the best of all masks, on average over tiny rows.
fn mean_above_best(update: &Admm) -> f64 {
    let mut ratios = Vec::new();
    for seed in 0..60 {
        let (dense, inputs) = layer::<f64>((3, 8), 40, 100 + seed);
        let damped = damped(&inputs, 0.1);
        let mut w = dense.clone();
        let pruner = Pruner::new(Wanda, Pattern::PerOutput(0.5)).update(update);
        let _ = pruner.prune(&mut w, &gram_of(&inputs)).expect("a layer");
        for row in 0..3 {
            let dense = dense.row(row).to_vec();
            let masks = (0_u32..256).filter(|mask| mask.count_ones() == 4);
            let best = masks.map(|mask| {
                let kept: Vec<usize> = (0..8).filter(|j| mask >> j & 1 == 1).collect();
                loss_of_row(&dense, &best_of_row(&dense, &damped, &kept), &damped)
            });
            let best = best.fold(f64::INFINITY, f64::min);
            ratios.push(loss_of_row(&dense, &w.row(row).to_vec(), &damped) / best);
        }
    }
    assert!(ratios.iter().all(|&ratio| ratio > 1.0 - 1e-9), "{ratios:?}");
    ratios.iter().sum::<f64>() / ratios.len() as f64
}

#[test]
fn the_joint_solver_is_near_the_best_of_all_masks() {
    let staged = Admm::new()
        .stages(&[(0.3, 5), (0.6, 5), (1.2, 5)])
        .refit_steps(10);
    let mean = mean_above_best(&staged);
    assert!(mean < 1.05, "{mean}");
    let mean = mean_above_best(&Admm::new());
    assert!(mean < 1.15, "{mean}");
}

/// `YᵀX` of some tokens.
fn cross<A: common::element::TestElement>(y: &Array2<A>, x: &Array2<A>) -> CrossProducts {
    let mut products = CrossProducts::new(y.ncols(), x.ncols());
    products.update(y, x).expect("tokens");
    products
}

#[test]
fn products_are_sums_over_tokens_however_they_are_cut() {
    let x = correlated_inputs::<f32>((5000, 7), 1);
    let y = correlated_inputs::<f32>((5000, 4), 2);
    let weights: Vec<f32> = (0..5000).map(|t| [1.0, 0.0, 2.5][t % 3]).collect();
    let mut whole = CrossProducts::new(4, 7);
    whole.update_weighted(&y, &x, &weights).expect("tokens");
    let mut cut = CrossProducts::new(4, 7);
    for (from, to) in [(0, 1), (1, 2047), (2047, 4500), (4500, 5000)] {
        let [y, x] = [&y, &x].map(|all| all.slice(s![from..to, ..]).to_owned());
        cut.update_weighted(&y, &x, &weights[from..to])
            .expect("tokens");
    }
    assert_eq!(whole, cut);
    let (mut first, mut second) = (CrossProducts::new(4, 7), CrossProducts::new(4, 7));
    first
        .update_weighted(
            &y.slice(s![..3000, ..]).to_owned(),
            &x.slice(s![..3000, ..]).to_owned(),
            &weights[..3000],
        )
        .expect("tokens");
    second
        .update_weighted(
            &y.slice(s![3000.., ..]).to_owned(),
            &x.slice(s![3000.., ..]).to_owned(),
            &weights[3000..],
        )
        .expect("tokens");
    first.merge(&second).expect("the same streams");
    assert_eq!(first.tokens(), whole.tokens());
    let expected = Array2::from_shape_fn((4, 7), |(i, j)| {
        let terms =
            (0..5000).map(|t| f64::from(weights[t]) * f64::from(y[[t, i]]) * f64::from(x[[t, j]]));
        terms.sum::<f64>()
    });
    for found in [whole.to_array(), first.to_array()] {
        let found = found.expect("memory");
        for (found, expected) in found.iter().zip(&expected) {
            assert!(
                (found - expected).abs() < 1e-3 * expected.abs().max(10.0),
                "{found} {expected}"
            );
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut products = CrossProducts::new(2, 3);
    let (y, x) = (Array2::<f32>::ones((4, 2)), Array2::<f32>::ones((4, 3)));
    let before = products.clone();
    assert_eq!(
        products.update(&x, &x),
        Err(Error::BatchShape {
            features: 2,
            columns: 3
        })
    );
    assert_eq!(
        products.update(&Array2::ones((5, 2)), &x),
        Err(Error::TokenWeightCount {
            tokens: 5,
            weights: 4
        }),
    );
    let mut nan = x.clone();
    nan[[1, 2]] = f32::NAN;
    assert!(matches!(
        products.update(&y, &nan),
        Err(Error::NonFiniteActivation {
            token: 1,
            feature: 2,
            ..
        }),
    ));
    assert_eq!(products, before);
    products.update(&y, &x).expect("tokens");

    let gram = gram_of(&x);
    let mut w = array![[1.0_f32, 2.0, 3.0]];
    let dense = w.clone();
    let update = Retarget::to(Target::inputs(&products, 0.5));
    let result = Pruner::new(Wanda, Pattern::PerOutput(0.5))
        .update(update)
        .prune(&mut w, &gram);
    assert_eq!(
        result.map(|_| ()),
        Err(Error::UpdateShape {
            weights: (3, 3),
            update: (2, 3)
        }),
    );
    for damping in [Damping::Diagonal(-0.1), Damping::Mean(f64::NAN)] {
        let updates: [&dyn WeightUpdate; 3] = [
            &Admm::new().damping(damping),
            &Refit::new().damping(damping),
            &ObsSweep::new().damping(damping),
        ];
        for update in updates {
            let result = Pruner::new(Wanda, Pattern::PerOutput(0.5))
                .update(update)
                .prune(&mut w, &gram);
            assert!(
                matches!(result, Err(Error::InvalidDamping { .. })),
                "{update:?}"
            );
        }
    }
    for update in [
        Admm::new().relaxation(0.0),
        Admm::new().stages(&[(f64::INFINITY, 1)]),
    ] {
        let result = Pruner::new(Wanda, Pattern::PerOutput(0.5))
            .update(update)
            .prune(&mut w, &gram);
        assert!(matches!(result, Err(Error::InvalidDamping { .. })));
    }
    assert_eq!(w, dense);
}

#[test]
fn retargeted_weights_are_those_of_the_formula() {
    let (rows, columns, tokens) = (5, 9, 80);
    let dense = normal_weights::<f64>((rows, columns), 1);
    let x = correlated_inputs::<f64>((tokens, columns), 2);
    let mut random = Random::new(9);
    let dense_x = x.mapv(|x| x + 0.1 * random.normal());
    let wanted = correlated_inputs::<f64>((tokens, rows), 4);
    let lacking = correlated_inputs::<f64>((tokens, rows), 5);
    let none = Mask::none(rows, columns).expect("memory");
    let gram = gram_of(&x);
    let (inputs, outputs, differences) =
        (cross(&dense_x, &x), cross(&wanted, &x), cross(&lacking, &x));
    let own = dense.dot(&x.t());
    let towards_inputs = (dense.dot(&dense_x.t()) - &own) * 0.6;
    let towards_outputs = (wanted.t().to_owned() - &own) * 0.4 + &lacking.t() * 0.3;
    let cases = [
        (Target::inputs(&inputs, 0.6), towards_inputs),
        (
            Target::outputs(&outputs, 0.4).and_differences(&differences, 0.3),
            towards_outputs,
        ),
    ];
    let damped = damped(&x, 0.1);
    for (target, wanted) in cases {
        let error = wanted.dot(&x);
        let mut w = dense.clone();
        let pruner = Pruner::new(Magnitude, &none).update(Retarget::to(target));
        let report = pruner.prune(&mut w, &gram).expect("a layer");
        for row in 0..rows {
            let change = solve(&damped, &error.row(row).to_vec());
            for column in 0..columns {
                let expected = dense[[row, column]] + change[column];
                assert!((w[[row, column]] - expected).abs() < 1e-9);
            }
        }
        assert!(report.target_error().expect("a target").value() < 1e-20);
        assert!(value(&report) > 1e-4);
    }
}

/// With no strength nothing changes, whatever the update, and one factor does for both.
#[test]
fn without_strength_retargeting_changes_nothing() -> Result<()> {
    let (dense, inputs) = layer::<f32>((16, 32), 200, 21);
    let gram = gram_of(&inputs);
    let products = cross(&inputs.mapv(|x| x * 1.1), &inputs);
    let updates: [(&dyn WeightUpdate, &dyn WeightUpdate); 2] = [
        (
            &ObsSweep::new(),
            &Retarget::to(Target::inputs(&products, 0.0)).then(ObsSweep::new()),
        ),
        (
            &Admm::new(),
            &Retarget::to(Target::inputs(&products, 0.0)).then(Admm::new()),
        ),
    ];
    for (alone, retargeted) in updates {
        let (mut a, mut b) = (dense.clone(), dense.clone());
        let _ = Pruner::new(Obs::new(), Pattern::PerLayer(0.5))
            .update(alone)
            .prune(&mut a, &gram)?;
        let _ = Pruner::new(Obs::new(), Pattern::PerLayer(0.5))
            .update(retargeted)
            .prune(&mut b, &gram)?;
        for (a, b) in a.iter().zip(&b) {
            assert!((a - b).abs() < 1e-5);
        }
    }
    Ok(())
}

/// Whole rows vanish, inputs are dead or the same, and there are fewer tokens than inputs.
#[test]
fn degenerate_layers_can_be_solved() {
    let (dense, full) = layer::<f32>((12, 20), 40, 31);
    let mut dead = full.clone();
    dead.slice_mut(s![.., ..10]).fill(0.0);
    let mut same = full.clone();
    for column in 0..10 {
        let source = full.column(0).to_owned();
        same.column_mut(column).assign(&source);
    }
    let few = full.slice(s![..3, ..]).to_owned();
    for inputs in [dead, same, few] {
        let gram = gram_of(&inputs);
        for text in ["per-layer:0.9", "0.7", "2:4", "per-layer:0.0"] {
            let pattern: Pattern = text.parse().expect("a pattern");
            let products = cross(&inputs, &inputs);
            let retarget = Retarget::to(Target::inputs(&products, 0.5)).then(Admm::new());
            for update in [&Admm::new() as &dyn WeightUpdate, &Refit::new(), &retarget] {
                let mut w = dense.clone();
                let pruner = Pruner::new(Wanda, pattern).update(update);
                let report = pruner.prune(&mut w, &gram).expect("a pruned layer");
                assert!(w.iter().all(|w| w.is_finite()), "{text}, {update:?}");
                assert_eq!(
                    report.pruned(),
                    expected_count(&pattern, 12, 20),
                    "{text}, {update:?}"
                );
            }
        }
    }
}

fn expected_count(pattern: &Pattern, rows: usize, columns: usize) -> usize {
    match pattern {
        Pattern::PerLayer(s) => common::oracle::quota(rows * columns, *s),
        Pattern::PerOutput(s) => rows * common::oracle::quota(columns, *s),
        _ => rows * columns / 2,
    }
}
