//! What the program does when it is run, one file a job, and what the jobs share.

mod blocks;
mod calibrate;
mod compare;
mod dry_run;
mod perplexity;
mod prune;
mod resume;
mod settings;
mod setup;

pub use calibrate::calibrate;
pub use compare::compare;
pub use dry_run::dry_run;
pub use prune::prune;
pub use setup::Texts;
