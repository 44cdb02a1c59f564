//! Every error can be provoked, says what is wrong and where, and changes nothing. Odd input is an
//! error or fine, but never a panic.

#[path = "../common/mod.rs"]
mod common;

mod masks;
mod patterns;
mod scores;
mod sizes;
mod statistics;
#[cfg(feature = "second-order")]
mod updates;
mod validation;
mod weights;

use wanda::Pattern;

const HALF: Pattern = Pattern::PerOutput(0.5);
