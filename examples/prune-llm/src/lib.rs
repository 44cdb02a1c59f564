//! Prunes language models, Llama and its relatives, on a CPU with [`wanda`] and candle.
//!
//! The program is a thin layer over this library, so that its parts can be tested and borrowed:
//! [`model`] reads, runs and writes models, [`prune`](mod@prune) calibrates and prunes them block
//! by block, [`run`](mod@run) does the whole job and [`compare`](mod@compare) does it with several
//! methods, side by side. [`statistics`] has what calibration gathered as files, and [`html`] the
//! report to look at.

pub mod cli;
pub mod compare;
pub mod dry_run;
pub mod fetch;
pub mod hidden;
pub mod html;
pub mod input;
pub mod json;
pub mod matrix;
pub mod model;
pub mod perplexity;
pub mod plan;
pub mod progress;
pub mod prune;
pub mod recipe;
pub mod report;
pub mod resume;
pub mod run;
pub mod sample;
pub mod settings;
pub mod setup;
pub mod staging;
pub mod statistics;
pub mod text;
pub mod tokenizer;
