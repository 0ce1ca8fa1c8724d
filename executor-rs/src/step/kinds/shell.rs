//! Steps in the language of `/bin/sh`.

use std::path::PathBuf;

use super::{Runtimes, StepKind};

/// A shell reports a child that a signal has ended with this exit code and the signal's number added.
const SIGNAL_BASE: i32 = 128;
const SIGXCPU: i32 = 24;

#[derive(Debug)]
pub(super) struct ShellKind;

impl StepKind for ShellKind {
    fn name(&self) -> &'static str {
        "shell"
    }

    fn main_file(&self) -> &'static str {
        "main.sh"
    }

    fn command(&self, _runtimes: &Runtimes) -> (PathBuf, Vec<String>) {
        ("/bin/sh".into(), vec![self.main_file().to_owned()])
    }

    fn child_ran_out_of_cpu(&self, exit_code: i32) -> bool {
        exit_code == SIGNAL_BASE + SIGXCPU
    }
}
