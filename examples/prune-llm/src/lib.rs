//! Prunes language models, Llama and its relatives, on a CPU with [`wanda`] and candle.
//!
//! The program is a thin layer over this library, so that its parts can be tested. Each part imports
//! from those below it only:
//!
//! - [`job`] does what the command line ([`cli`]) asks for, from the model to the report;
//! - [`report`] holds what a job gave, as JSON, a page or a table;
//! - [`calibrate`] runs texts through a model and gathers statistics, or reads them from files;
//! - [`plan`] says which layers are pruned, and how;
//! - [`model`] reads, runs and writes models, with one file for each family of them.

#![allow(
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    reason = "errors are messages to the program's user, and only the program and its tests call this"
)]

pub mod calibrate;
pub mod cli;
pub mod job;
pub mod model;
pub mod plan;
pub mod report;
mod util;

pub use util::{Progress, matrix::with_rows};
