//! Statistics that users gathered in some other way.

use wanda::ndarray::array;
use wanda::{ActivationStats, Error, Magnitude, Pattern, Pruner, Wanda, prune_layer};

use crate::common::layer::gathered;
use crate::common::refusal::refuses;
use crate::{HALF, weights};

/// Statistics that a user gathered in some other way.
#[derive(Debug)]
struct Foreign {
    sums: Vec<f64>,
    tokens: u64,
}

impl ActivationStats for Foreign {
    fn features(&self) -> usize {
        self.sums.len()
    }

    fn tokens(&self) -> u64 {
        self.tokens
    }

    fn sums_of_squares(&self) -> &[f64] {
        &self.sums
    }
}

#[test]
fn a_users_statistics_do_as_well() {
    let own = gathered(&array![[1.0_f32, 2.0, 30.0, 1.0]]);
    let foreign = Foreign {
        sums: own.sums_of_squares().to_vec(),
        tokens: 1,
    };
    let pruner = Pruner::new(Wanda, HALF);
    assert_eq!(
        pruner.mask(&weights(), &foreign),
        pruner.mask(&weights(), &own)
    );
}

#[cfg(feature = "second-order")]
#[test]
fn a_users_statistics_need_no_gram_matrix() {
    let foreign = Foreign {
        sums: vec![1.0; 4],
        tokens: 1,
    };
    assert!(foreign.gram().is_none());
}

#[test]
fn invalid_statistics_are_an_error_naming_the_feature() {
    for bad in [f64::NAN, f64::INFINITY, -1.0] {
        let stats = Foreign {
            sums: vec![1.0, 1.0, bad, 1.0],
            tokens: 5,
        };
        let error = refuses(&Pruner::new(Wanda, HALF), &weights(), &stats);
        assert!(
            matches!(&error, Error::InvalidStatistic { feature: 2, .. }),
            "{error:?}"
        );
    }
}

#[test]
fn statistics_that_contradict_themselves_are_no_reason_to_panic() {
    /// Claims more features than it has sums.
    #[derive(Debug)]
    struct Torn(Vec<f64>);

    impl ActivationStats for Torn {
        fn features(&self) -> usize {
            4
        }

        fn tokens(&self) -> u64 {
            1
        }

        fn sums_of_squares(&self) -> &[f64] {
            &self.0
        }
    }

    for sums in [vec![], vec![1.0], vec![1.0; 3], vec![1.0; 5]] {
        let torn = Torn(sums);
        let mut w = weights();
        assert!(prune_layer(&mut w, &torn, HALF).is_err());
        assert_eq!(w, weights());
        let pruner = Pruner::new(Magnitude, Pattern::PerLayer(0.5));
        // Decided or refused, but not a panic.
        let before = pruner.mask(&w, &torn).is_ok();
        assert_eq!(pruner.prune(&mut w, &torn).is_ok(), before);
    }
}
