//! Progress bars with the time left on a terminal, and a line for every block in a log file.

use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fmt::Display,
    io::{IsTerminal, Write, stderr},
};

/// How progress is told of, on standard error.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    show: Show,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// For a terminal.
    Bars,
    /// For a pipe or a log file.
    Lines,
    Nothing,
}

impl Progress {
    /// Bars on a terminal, lines in a pipe or a log file.
    #[must_use]
    pub fn new() -> Self {
        let show = if stderr().is_terminal() {
            Show::Bars
        } else {
            Show::Lines
        };
        Self { show }
    }

    /// Silent everywhere.
    #[must_use]
    pub fn hidden() -> Self {
        Self {
            show: Show::Nothing,
        }
    }

    /// Whether bars are shown, for libraries with bars of their own.
    #[must_use]
    pub fn has_bars(self) -> bool {
        self.show == Show::Bars
    }

    /// A bar of `steps` steps, gone when dropped; none where there is nothing to do.
    #[must_use]
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
        if self.show != Show::Nothing {
            tell(what);
        }
    }

    /// One line for each finished block of a model, where no bar is shown.
    pub fn finished(self, blocks: usize, of: usize) {
        if self.show == Show::Lines {
            tell(format_args!("block {blocks} of {of} is finished"));
        }
    }
}

/// A closed standard error does not stop the work.
fn tell(what: impl Display) {
    let _ = writeln!(stderr(), "{what}");
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}
