//! An update of a user that is more than a toy, written with nothing but the public interface.

use wanda::half::{bf16, f16};
use wanda::ndarray::Array2;
use wanda::{
    ActivationStats, Element, Error, ErrorBasis, Gram, ImportanceMetric, Magnitude, Mask, Obs,
    Pattern, Pruner, Real, Result, SparsityPattern, UpdateTask, Updated, Wanda, WeightUpdate,
    validate,
};

use crate::common::element::TestElement;
use crate::common::layer::{bits_of, correlated_inputs, gram_of, normal_weights, seen};
use crate::common::refusal::refuses;

/// Projected gradient descent on the squared change of the output.
///
/// ```text
/// W ← project(W + η (W₀ − W) G),  η = 1 / λ,  λ no less than the largest eigenvalue of G
/// ```
///
/// For half of the steps the pattern is asked again, then the mask stays.
#[derive(Debug, Clone, Copy)]
struct ProjectedDescent {
    steps: usize,
}

/// An upper bound of the largest eigenvalue of G, nearly met: that of an eigenvector to come, found
/// by multiplying, with a margin.
fn largest_eigenvalue<T: Real>(gram: &Gram) -> Result<f64> {
    let mut vector = Array2::from_elem((1, gram.features()), T::from_f64(1.0));
    let mut largest = 0.0;
    for _ in 0..30 {
        let product = gram.multiply(&vector)?;
        let length = |of: &Array2<T>| of.iter().map(|x| x.as_f64().powi(2)).sum::<f64>().sqrt();
        largest = length(&product) / length(&vector);
        let scale = T::from_f64(1.0 / length(&product));
        vector = product.mapv(|x| x * scale);
    }
    Ok(1.2 * largest)
}

impl<T: Real> WeightUpdate<T> for ProjectedDescent {
    fn run(&self, task: &UpdateTask<'_, T>) -> Result<Option<Updated<T>>> {
        let gram = task.stats.gram().ok_or_else(|| Error::NoGram {
            what: "projected descent".to_owned(),
        })?;
        let (rows, columns) = task.weights.dim();
        let mut dense = Array2::from_elem((rows, columns), <T as Element>::ZERO);
        for (row, mut weights) in dense.rows_mut().into_iter().enumerate() {
            let weights = weights.as_slice_mut().expect("a run");
            task.weights.read(row, 0, weights)?;
        }
        let prepared = task.prepare(None)?;
        let scoring = task.scoring(&prepared);
        let step = T::from_f64(1.0 / largest_eigenvalue::<T>(gram)?);

        let mut weights = dense.clone();
        let mut mask = task.project(&scoring.of(&weights, 0), 0..columns)?;
        mask.apply(&mut weights)?;
        for done in 0..self.steps {
            let descent = gram.multiply(&(&dense - &weights))?;
            weights.zip_mut_with(&descent, |weight, &x| *weight = *weight + step * x);
            if done < self.steps / 2 {
                mask = task.project(&scoring.of(&weights, 0), 0..columns)?;
            }
            mask.apply(&mut weights)?;
        }
        if let Some(round) = task.round {
            round(weights.as_slice_mut().expect("row-major"));
        }
        let mut updated = Updated::new(&dense - &weights, mask);
        updated.relative_error = gram.relative_error(&dense, &weights)?;
        Ok(Some(updated))
    }
}

const ROWS: usize = 12;
const COLUMNS: usize = 40;

fn stats() -> Gram {
    gram_of(&correlated_inputs::<f32>((200, COLUMNS), 3))
}

fn patterns() -> [Pattern; 6] {
    [
        Pattern::PerOutput(0.5),
        Pattern::PerLayer(0.5),
        Pattern::PerInput(0.5),
        Pattern::NOfM { keep: 2, of: 4 },
        Pattern::NOfM { keep: 3, of: 8 },
        Pattern::Block {
            rows: 4,
            cols: 4,
            sparsity: 0.5,
        },
    ]
}

/// With the update less is lost than with the same mask alone, and all laws of pruning hold.
fn loses_less<A: TestElement>(tolerance: f64)
where
    Pattern: SparsityPattern<A::Compute>,
    ProjectedDescent: WeightUpdate<A::Compute>,
{
    let gram = stats();
    let dense = normal_weights::<A>((ROWS, COLUMNS), 7);
    let some = Mask::from_fn(ROWS, COLUMNS, |row, column| (3 * row + column) % 17 == 0);
    let some = some.expect("a small mask");
    let metrics: [&dyn ImportanceMetric<A::Compute>; 3] = [&Magnitude, &Wanda, &Obs::new()];
    for pattern in patterns() {
        for (metric, protected) in metrics.iter().flat_map(|&m| [(m, None), (m, Some(&some))]) {
            if protected.is_some() && matches!(pattern, Pattern::Block { .. }) {
                // Nearly every block has a protected weight.
                continue;
            }
            let case = format!("{pattern} by {}", metric.name());
            let mut pruner = Pruner::new(metric, pattern).update(ProjectedDescent { steps: 60 });
            if let Some(protected) = protected {
                pruner = pruner.protect(protected.clone());
            }
            let mut updated = dense.clone();
            let report = pruner.prune(&mut updated, &gram).expect("a fine layer");
            let mask = pruner.mask(&dense, &gram).expect("a fine layer");
            assert_eq!(report.pruned(), mask.count(), "{case}");
            assert_eq!(validate(&updated, &pattern), Ok(()), "{case}");
            for (row, column) in mask.iter() {
                assert_eq!(updated[[row, column]].bits(), 0, "{case}");
                let protected = protected.and_then(|protected| protected.get(row, column));
                assert_ne!(protected, Some(true), "{case}");
            }
            let whole = Pruner::new(Magnitude, pattern).mask(&dense, &gram);
            assert_eq!(whole.map(|whole| whole.count()), Ok(mask.count()), "{case}");

            let error = report.relative_error().expect("an output");
            assert_eq!(error.basis(), ErrorBasis::Gram);
            let measured = gram.relative_error(&dense, &updated).expect("a fine layer");
            let measured = measured.expect("an output").value();
            assert!(
                (error.value() - measured).abs() <= tolerance * measured,
                "{case}: {} is reported, {measured} is found",
                error.value()
            );

            let mut kept = dense.clone();
            let alone = Pruner::new(Magnitude, mask).prune(&mut kept, &gram);
            let alone = alone.expect("a fine layer").relative_error();
            let alone = alone.expect("an output").value();
            assert!(measured < 0.8 * alone, "{case}: {measured}, alone {alone}");
        }
    }
}

#[test]
fn a_users_update_loses_less_than_its_mask_alone() {
    loses_less::<f32>(1e-4);
    loses_less::<f64>(1e-9);
}

/// What is reported is the error of the weights as they are stored.
#[test]
fn a_users_update_rounds_to_what_is_stored() {
    loses_less::<bf16>(1e-4);
    loses_less::<f16>(1e-4);
}

#[test]
fn without_steps_a_users_update_is_the_pattern_alone() {
    let gram = stats();
    let dense = normal_weights::<f32>((ROWS, COLUMNS), 7);
    for pattern in patterns() {
        let plain = Pruner::new(Wanda, pattern);
        let (mut expected, mut w) = (dense.clone(), dense.clone());
        let expected_report = plain.prune(&mut expected, &gram).expect("a fine layer");
        let pruner = plain.update(ProjectedDescent { steps: 0 });
        let report = pruner.prune(&mut w, &gram).expect("a fine layer");
        assert_eq!(bits_of(&w), bits_of(&expected), "{pattern}");
        assert_eq!(report.pruned(), expected_report.pruned());
        let error = |report: &wanda::LayerReport| report.relative_error().map(|e| e.value());
        let (found, expected) = (error(&report), error(&expected_report));
        let (found, expected) = (found.expect("an output"), expected.expect("an output"));
        assert!((found - expected).abs() <= 1e-6 * expected, "{pattern}");
    }
}

#[test]
fn what_a_users_update_finds_wrong_leaves_the_weights_alone() {
    let w = normal_weights::<f32>((ROWS, COLUMNS), 7);
    let update = ProjectedDescent { steps: 3 };
    let half = Pattern::PerOutput(0.5);
    let pruner = Pruner::new(Wanda, half).update(update);
    let error = refuses(&pruner, &w, &seen(COLUMNS));
    assert!(matches!(error, Error::NoGram { .. }), "{error}");
    let error = refuses(&pruner, &w, &Gram::new(COLUMNS));
    assert!(matches!(error, Error::NoCalibration { .. }), "{error}");
    let everything = Mask::from_fn(ROWS, COLUMNS, |_, _| true).expect("a small mask");
    let error = refuses(&pruner.protect(everything), &w, &stats());
    assert!(matches!(error, Error::TooManyProtected { .. }), "{error}");
}
