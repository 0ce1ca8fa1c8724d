//! A step: what a message asks for, how it runs, and what is reported about it.
//!
//! `request`, `input`, `limits`, `output`, `report` and `retry` are pure; clock, chance and results are passed in.

pub mod input;
pub mod kinds;
pub mod limits;
pub mod outcome;
pub mod output;
pub mod report;
pub mod request;
pub mod retry;
pub mod run;
