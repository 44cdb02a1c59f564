//! What jobs give: reports and comparisons as JSON, pages and tables.

mod comparison;
pub mod html;
mod run;
pub mod table;

pub use comparison::{Comparison, Run, RunSeconds, recipes};
pub use run::{
    Calibration, ChosenLayers, Continuation, Layer, Report, Seconds, Text, peak_memory_bytes,
};
