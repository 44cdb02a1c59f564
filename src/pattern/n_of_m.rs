//! At most N weights kept in every M consecutive columns.

use std::fmt::{self, Display};

use super::parts::{Parsed, parse_size};
use super::{ComparisonGroup, Form, Pattern, SparsityPattern};
use crate::element::Real;
use crate::error::{Error, Result};

/// Prunes all but the `keep` highest of every run of `of` columns.
#[derive(Debug)]
pub(super) struct NOfM {
    pub(super) keep: usize,
    pub(super) of: usize,
}

impl<T: Real> SparsityPattern<T> for NOfM {
    fn name(&self) -> String {
        self.to_string()
    }

    fn check(&self, _: usize, _: usize) -> Result<()> {
        let Self { keep, of } = *self;
        if (1..=of).contains(&keep) {
            Ok(())
        } else {
            Err(Error::InvalidGroup { keep, of })
        }
    }

    fn comparison(&self) -> Option<ComparisonGroup> {
        Some(ComparisonGroup::Run(self.of))
    }

    fn count(&self, size: usize) -> usize {
        size.saturating_sub(self.keep)
    }
}

impl<T: Real> Form<T> for NOfM {
    fn with_sparsity(&self, _: f64) -> Option<Pattern> {
        None
    }
}

impl Display for NOfM {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.keep, self.of)
    }
}

/// Reads the text of the pattern, in parts; `None` if it is of another one.
pub(super) fn parse(parts: &[&str]) -> Option<Parsed> {
    let [keep, of] = parts else { return None };
    let pattern = parse_size(keep).and_then(|keep| {
        let of = parse_size(of)?;
        Ok(Pattern::NOfM { keep, of })
    });
    Some(pattern)
}

#[cfg(test)]
mod tests {
    use super::super::tests::check_text;
    use super::*;

    #[test]
    fn a_short_run_may_keep_as_many_and_its_text_can_be_read() {
        let pattern = NOfM { keep: 2, of: 4 };
        let counts = [4, 3, 2, 1].map(|size| SparsityPattern::<f32>::count(&pattern, size));
        assert_eq!(counts, [2, 1, 0, 0]);
        check_text("2:4", Pattern::NOfM { keep: 2, of: 4 });
    }
}
