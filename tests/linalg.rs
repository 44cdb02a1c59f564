//! What updates compute with a Gram matrix, against the slow, obvious way in `f64`.

#![cfg(feature = "second-order")]

mod common;

use wanda::half::{bf16, f16};
use wanda::ndarray::{Array2, s};
use wanda::{Backend, Error, ErrorBasis, Factor, Gram, Real};

use common::element::TestElement;
use common::layer::{Laid, Layout, Random, correlated_inputs, normal_weights};
use common::oracle_obs::{self, Cost};

/// Everything that computes.
const BACKENDS: &[Backend] = &[
    Backend::Faer,
    #[cfg(feature = "lapack")]
    Backend::Lapack,
];

/// One input, a few, and more than the 192 columns of G that are taken together, or fewer.
const SIZES: [usize; 4] = [1, 5, 130, 200];

/// Small whole numbers, whose products and sums are exact in either type.
fn whole_numbers<A: TestElement>(dim: (usize, usize), seed: u64) -> Array2<A> {
    let mut random = Random::new(seed);
    let number = || random.pick(&[-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0]);
    Array2::from_shape_simple_fn(dim, number).mapv(A::round)
}

/// Inputs of which every seventh is dead, if there are so many.
fn inputs(n: usize) -> Array2<f64> {
    let mut inputs = correlated_inputs::<f64>((n + 60, n), 3);
    for mut dead in inputs.columns_mut().into_iter().skip(3).step_by(7) {
        dead.fill(0.0);
    }
    inputs
}

fn gram_by(backend: Backend, inputs: &Array2<f64>) -> Gram {
    let mut gram = Gram::new(inputs.ncols()).backend(backend);
    gram.update(inputs).expect("finite inputs");
    gram
}

/// A Gram matrix, damped, and what it is scaled by before it is factored.
struct Damped {
    /// G + λI, with ones, scaled back, for dead inputs.
    matrix: Array2<f64>,
    scale: f64,
}

impl Damped {
    fn new(inputs: &Array2<f64>, damping: f64) -> Self {
        let mut matrix = oracle_obs::gram(inputs);
        let live: Vec<f64> = matrix.diag().iter().copied().filter(|&x| x > 0.0).collect();
        let mean = live.iter().sum::<f64>() / live.len() as f64;
        let scale = (-mean.log2().floor()).exp2();
        for entry in matrix.diag_mut() {
            if *entry == 0.0 {
                *entry = 1.0 / scale;
            }
            *entry += damping * mean;
        }
        Self { matrix, scale }
    }

    /// The upper triangular R with R Rᵀ = s (G + λI), column by column from the last.
    fn upper(&self) -> Array2<f64> {
        let n = self.matrix.nrows();
        let mut r = Array2::<f64>::zeros((n, n));
        for j in (0..n).rev() {
            for i in (0..=j).rev() {
                let done = r.slice(s![i, j + 1..]).dot(&r.slice(s![j, j + 1..]));
                let rest = self.scale * self.matrix[[i, j]] - done;
                r[[i, j]] = if i == j {
                    rest.sqrt()
                } else {
                    rest / r[[j, j]]
                };
            }
        }
        r
    }

    /// Every row b times the inverse of G + λI: y R Rᵀ = s b.
    fn solve(&self, rows: &Array2<f64>) -> Array2<f64> {
        let (r, n) = (self.upper(), self.matrix.nrows());
        let mut solved = rows * self.scale;
        for mut row in solved.rows_mut() {
            // z Rᵀ = s b, from the last to the first.
            for j in (0..n).rev() {
                let done = r.slice(s![j, j + 1..]).dot(&row.slice(s![j + 1..]));
                row[j] = (row[j] - done) / r[[j, j]];
            }
            // y R = z
            for j in 0..n {
                let done = r.slice(s![..j, j]).dot(&row.slice(s![..j]));
                row[j] = (row[j] - done) / r[[j, j]];
            }
        }
        solved
    }
}

/// The largest difference, relative to the largest expected value.
fn difference<T: TestElement>(found: &Array2<T>, expected: &Array2<f64>) -> f64 {
    assert_eq!(found.dim(), expected.dim());
    let largest = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
    let differences = found
        .iter()
        .zip(expected)
        .map(|(x, y)| (x.exact() - y).abs());
    differences.fold(0.0_f64, f64::max) / largest.max(f64::MIN_POSITIVE)
}

fn products_are_exact<T: Real + TestElement>(backend: Backend) {
    for n in SIZES {
        let inputs = whole_numbers::<f64>((n + 20, n), 1);
        let gram = gram_by(backend, &inputs);
        let expected_gram = oracle_obs::gram(&inputs);
        for rows in [0, 1, 2, 37] {
            let a = whole_numbers::<T>((rows, n), 2);
            let expected = a.mapv(TestElement::exact).dot(&expected_gram);
            for layout in Layout::ALL {
                let laid = Laid::new(&a, layout);
                let product = gram.multiply(&laid.view()).expect("the right shape");
                let product = product.mapv(TestElement::exact);
                assert_eq!(product, expected, "{rows} x {n}, {layout:?}, {backend:?}");
            }
        }
    }
}

#[test]
fn products_with_the_gram_matrix_are_exact_where_sums_are() {
    for &backend in BACKENDS {
        products_are_exact::<f32>(backend);
        products_are_exact::<f64>(backend);
    }
}

fn products_are_near<T: Real + TestElement>(tolerance: f64) {
    for (&backend, n) in BACKENDS
        .iter()
        .flat_map(|backend| SIZES.map(|n| (backend, n)))
    {
        let inputs = inputs(n);
        let a = normal_weights::<T>((9, n), 5);
        let product = gram_by(backend, &inputs)
            .multiply(&a)
            .expect("the right shape");
        let expected = a.mapv(TestElement::exact).dot(&oracle_obs::gram(&inputs));
        let difference = difference(&product, &expected);
        assert!(difference < tolerance, "{difference}, {n}, {backend:?}");
    }
}

#[test]
fn products_with_the_gram_matrix_are_near_those_in_double_precision() {
    products_are_near::<f32>(1e-5);
    products_are_near::<f64>(1e-12);
}

fn factor<T: Real>(backend: Backend, gram: &Gram, damping: f64) -> Factor<T> {
    let factor = gram.factor(backend, damping);
    factor.expect("a positive definite matrix")
}

fn factors_solve<T: Real + TestElement>(tolerance: f64) {
    for (&backend, n) in BACKENDS
        .iter()
        .flat_map(|backend| SIZES.map(|n| (backend, n)))
    {
        let inputs = inputs(n);
        let gram = gram_by(backend, &inputs);
        let mut again = None;
        for damping in [0.01, 1.0, 0.1] {
            let case = format!("{n} inputs, damped by {damping}, {backend:?}");
            let damped = Damped::new(&inputs, damping);
            let factor = factor::<T>(backend, &gram, damping);
            assert_eq!(factor.features(), n, "{case}");
            assert_eq!(
                factor.damping().factor().to_bits(),
                damping.to_bits(),
                "{case}"
            );

            let expected = damped
                .upper()
                .into_diag()
                .insert_axis(wanda::ndarray::Axis(0));
            let diagonal = Array2::from_shape_vec((1, n), factor.diagonal()).expect("a row");
            let found = difference(&diagonal, &expected);
            assert!(
                found < tolerance,
                "{case}: a diagonal that differs by {found}"
            );

            let b = normal_weights::<T>((6, n), 11);
            let mut solved = b.clone();
            factor.solve(&mut solved).expect("the right shape");
            let expected = damped.solve(&b.mapv(TestElement::exact));
            let found = difference(&solved, &expected);
            assert!(
                found < tolerance,
                "{case}: a solution that differs by {found}"
            );
            for layout in Layout::ALL {
                let mut laid = Laid::new(&b, layout);
                let gaps = laid.gaps();
                factor.solve(&mut laid.view_mut()).expect("the right shape");
                assert_eq!(laid.view(), solved, "{case}, {layout:?}");
                assert_eq!(laid.untouched_gaps(), gaps, "{case}, {layout:?}");
            }

            // In the memory of another, it is the same.
            let other = again
                .take()
                .unwrap_or_else(|| self::factor(backend, &gram, 3.0));
            let other: Factor<T> = gram.factor_again(other, damping).expect("as before");
            assert_eq!(
                other.damping().factor().to_bits(),
                damping.to_bits(),
                "{case}"
            );
            assert_eq!(other.features(), n, "{case}");
            assert_eq!(other.diagonal(), factor.diagonal(), "{case}");
            let mut by_other = b.clone();
            other.solve(&mut by_other).expect("the right shape");
            assert_eq!(by_other, solved, "{case}");
            again = Some(other);
        }
    }
}

#[test]
fn factors_solve_as_elimination_does() {
    factors_solve::<f32>(2e-3);
    factors_solve::<f64>(1e-10);
}

/// Two inputs that are the same have no factor without damping, and a little is raised until it
/// suffices.
#[test]
fn the_damping_of_a_factor_is_what_was_needed() {
    let same = Array2::from_shape_fn((50, 6), |(token, _)| 1.0 + token as f64);
    for &backend in BACKENDS {
        let gram = gram_by(backend, &same);
        let none = gram.factor::<f64>(backend, 0.0).map(|_| ());
        assert!(
            matches!(none, Err(Error::NotPositiveDefinite { .. })),
            "{none:?}"
        );
        let raised = factor::<f32>(backend, &gram, 1e-9).damping().factor();
        let times = (raised / 1e-9).log10();
        assert!((times - times.round()).abs() < 1e-6, "{raised}");
        assert!((1.0..=4.0).contains(&times.round()), "{raised}");
        for damping in [-1.0, f64::NAN, f64::INFINITY] {
            let refused = gram.factor::<f64>(backend, damping).map(|_| ());
            assert!(matches!(refused, Err(Error::InvalidDamping { .. })));
            let old = factor::<f64>(backend, &gram, 0.1);
            let refused = gram.factor_again(old, damping).map(|_| ());
            assert!(matches!(refused, Err(Error::InvalidDamping { .. })));
        }
    }
}

fn errors_are_near<A: TestElement>(tolerance: f64) {
    for (&backend, n) in BACKENDS
        .iter()
        .flat_map(|backend| SIZES.map(|n| (backend, n)))
    {
        let inputs = inputs(n);
        let gram = gram_by(backend, &inputs);
        let dense = normal_weights::<A>((9, n), 5);
        let candidates = [
            dense.mapv(|w| A::round(0.75 * w.exact())),
            dense.mapv(|w| if w.exact().abs() < 0.5 { A::ZERO } else { w }),
            Array2::from_elem((9, n), A::ZERO),
            dense.clone(),
        ];
        for candidate in candidates {
            let expected = Cost::of(&dense, &candidate, &oracle_obs::gram(&inputs), 0.0);
            let expected = expected.expect("an output");
            for layout in Layout::ALL {
                let (dense, candidate) = (Laid::new(&dense, layout), Laid::new(&candidate, layout));
                let found = gram.relative_error(&dense.view(), &candidate.view());
                let found = found.expect("the right shape").expect("an output");
                assert_eq!(found.basis(), ErrorBasis::Gram);
                let difference = (found.value() - expected.relative_error).abs();
                let allowed = tolerance * (1.0 + expected.cancellation);
                assert!(difference <= allowed, "{difference}, {n}, {backend:?}");
            }
        }
    }
}

#[test]
fn relative_errors_are_near_those_in_double_precision() {
    errors_are_near::<f32>(1e-6);
    errors_are_near::<f64>(1e-13);
    errors_are_near::<f16>(1e-6);
    errors_are_near::<bf16>(1e-6);
}

#[test]
fn relative_errors_of_what_is_no_number_are_none_or_numbers() {
    let gram = gram_by(Backend::Faer, &inputs(5));
    let odd = [
        f64::NAN,
        f64::INFINITY,
        -f64::INFINITY,
        f64::MAX,
        5e-324,
        0.0,
    ];
    for dense in odd {
        for candidate in odd {
            let of = |x| Array2::from_elem((2, 5), x);
            let found = gram.relative_error(&of(dense), &of(candidate));
            if let Some(error) = found.expect("the right shape") {
                assert!(error.value().is_finite(), "{dense} to {candidate}");
            }
        }
    }
}

#[test]
fn without_tokens_there_is_nothing_to_factor() {
    let dead = Array2::zeros((3, 4));
    for &backend in BACKENDS {
        let seen_nothing = [(Gram::new(4), 0), (gram_by(backend, &dead), 3)];
        for (gram, tokens) in seen_nothing {
            let refused = Error::NoCalibration {
                metric: "a factor of the Gram matrix".to_owned(),
                tokens,
            };
            let found = gram.factor::<f32>(backend, 0.01).map(|_| ());
            assert_eq!(found, Err(refused.clone()));
            let old = factor::<f32>(backend, &gram_by(backend, &inputs(4)), 0.01);
            assert_eq!(gram.factor_again(old, 0.01).map(|_| ()), Err(refused));
            let ones = Array2::<f32>::ones((2, 4));
            assert_eq!(gram.multiply(&ones), Ok(Array2::zeros((2, 4))));
            let error = gram.relative_error(&ones, &Array2::zeros((2, 4)));
            assert_eq!(error, Ok(None));
        }
    }
}

#[test]
fn layers_without_inputs_or_outputs_are_no_reason_to_panic() {
    for &backend in BACKENDS {
        let nothing = gram_by(backend, &Array2::zeros((3, 0)));
        for gram in [&Gram::new(0), &nothing] {
            let product = gram.multiply(&Array2::<f32>::zeros((2, 0)));
            assert_eq!(product, Ok(Array2::zeros((2, 0))));
            let error = gram.relative_error(&Array2::<f32>::zeros((2, 0)), &Array2::zeros((2, 0)));
            assert_eq!(error, Ok(None));
            assert!(gram.factor::<f32>(backend, 0.01).is_err());
        }
        let gram = gram_by(backend, &inputs(5));
        let mut none = Array2::<f64>::zeros((0, 5));
        assert_eq!(gram.multiply(&none), Ok(none.clone()));
        assert_eq!(gram.relative_error(&none, &none), Ok(None));
        assert_eq!(factor::<f64>(backend, &gram, 0.01).solve(&mut none), Ok(()));
    }
}

#[test]
fn another_number_of_inputs_is_an_error() {
    let shape = |columns, features| Error::StatsShape {
        rows: 2,
        columns,
        features,
    };
    for &backend in BACKENDS {
        let gram = gram_by(backend, &inputs(5));
        for columns in [0, 1, 4, 6] {
            let mut w = Array2::<f32>::ones((2, columns));
            let expected = shape(columns, 5);
            assert_eq!(gram.multiply(&w), Err(expected.clone()));
            let old = factor::<f32>(backend, &gram, 0.01);
            assert_eq!(old.solve(&mut w), Err(expected.clone()));
            assert_eq!(w, Array2::<f32>::ones((2, columns)));
            assert_eq!(gram.relative_error(&w, &w), Err(expected));
            let update = gram.relative_error(&Array2::ones((2, 5)), &w);
            let expected = Error::UpdateShape {
                weights: (2, 5),
                update: (2, columns),
            };
            assert_eq!(update, Err(expected));
        }
        for n in [1, 4, 6] {
            let old = factor::<f32>(backend, &gram_by(backend, &inputs(n)), 0.01);
            let found = gram.factor_again(old, 0.01).map(|_| ());
            assert!(
                matches!(found, Err(Error::StatsShape { features: 5, columns, .. }) if columns == n),
                "{found:?}"
            );
        }
    }
}
