//! Pure decisions: what a step's input must be, what its output says, whether a failure is tried again.
//!
//! No I/O; chance and results are passed in.

pub mod ending;
pub mod fuse;
pub mod input;
pub mod output;
pub mod retry;
