//! Progress bars with the time left, and nothing at all when nobody watches a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::{IsTerminal, stderr};

/// Where progress goes: standard error, if that is a terminal.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    visible: bool,
}

impl Progress {
    /// Visible on a terminal, silent in a pipe or a log file.
    #[must_use]
    pub fn new() -> Self {
        Self {
            visible: stderr().is_terminal(),
        }
    }

    /// Silent everywhere.
    #[must_use]
    pub fn hidden() -> Self {
        Self { visible: false }
    }

    /// Whether anything is shown, for libraries with bars of their own.
    #[must_use]
    pub fn is_visible(self) -> bool {
        self.visible
    }

    /// A bar of `steps` steps, gone when dropped.
    #[must_use]
    pub fn bar(self, what: &'static str, steps: usize) -> ProgressBar {
        if !self.visible {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("{msg:>12} {wide_bar} {pos}/{len}, {eta} left")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(steps as u64)
            .with_style(style)
            .with_message(what)
            .with_finish(indicatif::ProgressFinish::AndClear);
        bar.tick();
        bar
    }

    /// One line on what is being done, for the steps that have no bar.
    pub fn note(self, what: impl std::fmt::Display) {
        if self.visible {
            eprintln!("{what}");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
