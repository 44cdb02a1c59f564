//! What the test files share: an oracle that does everything the slow, obvious way, and the
//! layers to try it on.

#![allow(dead_code, reason = "no test file uses all of it")]

pub(crate) mod element;
#[cfg(feature = "second-order")]
pub(crate) mod job;
pub(crate) mod layer;
pub(crate) mod metric;
pub(crate) mod oracle;
#[cfg(feature = "second-order")]
pub(crate) mod oracle_obs;
pub(crate) mod refusal;

use proptest::test_runner::Config;

/// A sixteenth of proptest's usual number of cases, because each test is instantiated dozens of
/// times; `PROPTEST_CASES` raises it.
pub(crate) fn few_cases() -> Config {
    let usual = Config::default();
    Config {
        cases: (usual.cases / 16).max(1),
        failure_persistence: None,
        ..usual
    }
}
