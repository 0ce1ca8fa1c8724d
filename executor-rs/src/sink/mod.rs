//! Where a step's ending goes: operations as values, and the one script call that writes them.

pub mod complete;
pub mod operations;
