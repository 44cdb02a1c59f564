//! Single weights, compared in the whole layer.

use std::fmt::{self, Display};

use super::parts::{Parsed, parse_sparsity};
use super::{ComparisonGroup, Form, Pattern, SparsityPattern, check_sparsity, quota};
use crate::element::Real;
use crate::error::Result;

/// Prunes a number of weights of the layer, wherever they are.
#[derive(Debug)]
pub(super) struct PerLayer {
    pub(super) sparsity: f64,
}

impl<T: Real> SparsityPattern<T> for PerLayer {
    fn name(&self) -> String {
        self.to_string()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        check_sparsity(self.sparsity)
    }

    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Layer)
    }

    fn count(&self, size: usize) -> usize {
        quota(size, self.sparsity)
    }
}

impl<T: Real> Form<T> for PerLayer {
    fn with_sparsity(&self, sparsity: f64) -> Option<Pattern> {
        Some(Pattern::PerLayer(sparsity))
    }
}

impl Display for PerLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "per-layer:{}", self.sparsity)
    }
}

/// Reads the text of the pattern, in parts; `None` if it is of another one.
pub(super) fn parse(parts: &[&str]) -> Option<Parsed> {
    match parts {
        ["per-layer", s] => Some(parse_sparsity(s).map(Pattern::PerLayer)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_text;
    use super::*;

    #[test]
    fn its_count_is_rounded_down_and_its_text_can_be_read() {
        let pattern = PerLayer { sparsity: 0.29 };
        assert_eq!(SparsityPattern::<f32>::count(&pattern, 100), 28);
        check_text("per-layer:0.5", Pattern::PerLayer(0.5));
    }
}
