//! Progress bars with the time left on a terminal, and a line for every block in a log file.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fmt::Display,
    io::{IsTerminal, Write, stderr},
};

/// How progress is shown, on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// For a terminal.
    Bars,
    /// For a pipe or a log file.
    Lines,
    Hidden,
}

impl Default for Progress {
    /// Bars on a terminal, lines in a pipe or a log file.
    fn default() -> Self {
        if stderr().is_terminal() {
            Self::Bars
        } else {
            Self::Lines
        }
    }
}

impl Progress {
    /// Whether bars are shown, for libraries with bars of their own.
    pub fn has_bars(self) -> bool {
        self == Self::Bars
    }

    /// A bar of `steps` steps, gone when dropped; none where there is nothing to do.
    pub fn bar(self, what: &'static str, steps: usize) -> ProgressBar {
        if !self.has_bars() || steps == 0 {
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
    pub fn note(self, what: impl Display) {
        if self != Self::Hidden {
            tell(what);
        }
    }

    /// One line for each finished block of a model, where no bar is shown.
    pub fn finished(self, blocks: usize, of: usize) {
        if self == Self::Lines {
            tell(format_args!("block {blocks} of {of} is finished"));
        }
    }
}

/// A closed standard error does not stop the work.
fn tell(what: impl Display) {
    let _ = writeln!(stderr(), "{what}");
}
