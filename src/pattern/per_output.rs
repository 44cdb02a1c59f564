//! Single weights, compared within an output.

use std::fmt::{self, Display};

use super::parts::{Parsed, parse_sparsity};
use super::{ComparisonGroup, Form, Pattern, SparsityPattern, check_sparsity, quota};
use crate::element::Real;
use crate::error::Result;

/// Prunes the same number of weights of every row.
#[derive(Debug)]
pub(super) struct PerOutput {
    pub(super) sparsity: f64,
}

impl<T: Real> SparsityPattern<T> for PerOutput {
    fn name(&self) -> String {
        self.to_string()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        check_sparsity(self.sparsity)
    }

    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Row)
    }

    fn count(&self, size: usize) -> usize {
        quota(size, self.sparsity)
    }
}

impl<T: Real> Form<T> for PerOutput {
    fn with_sparsity(&self, sparsity: f64) -> Option<Pattern> {
        Some(Pattern::PerOutput(sparsity))
    }
}

impl Display for PerOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sparsity)
    }
}

/// Reads the text of the pattern, in parts; `None` if it is of another one.
pub(super) fn parse(parts: &[&str]) -> Option<Parsed> {
    match parts {
        [s] | ["per-output", s] => Some(parse_sparsity(s).map(Pattern::PerOutput)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_text;
    use super::*;

    #[test]
    fn its_count_is_rounded_down_and_its_text_can_be_read() {
        let pattern = PerOutput { sparsity: 0.29 };
        assert_eq!(SparsityPattern::<f32>::count(&pattern, 10), 2);
        check_text("0.5", Pattern::PerOutput(0.5));
    }
}
