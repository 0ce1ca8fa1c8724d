//! The kinds of steps that this executor can run. A new kind is one file here and one line in `KINDS`.

mod python;
mod shell;

pub use python::Python;

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::{Path, PathBuf};

use super::input::StepInput;
use crate::job::Job;
use crate::sandbox::SandboxError;

/// How the code of a step becomes a program.
pub trait StepKind: Debug + Send + Sync {
    /// The value of the input's `language`, also the label of its metrics.
    fn name(&self) -> &'static str;

    /// The file that the code is written to.
    fn main_file(&self) -> &'static str;

    /// The program that runs the main file, and its arguments before those of the step.
    fn command(&self, runtimes: &Runtimes) -> (PathBuf, Vec<String>);

    /// Whether this exit code means that a child process ran out of CPU time.
    fn child_ran_out_of_cpu(&self, _exit_code: i32) -> bool {
        false
    }
}

/// Every kind, in the order in which errors name them.
pub const KINDS: [&dyn StepKind; 2] = [&python::PythonKind, &shell::ShellKind];

/// The kind with that name.
#[must_use]
pub fn find(name: &str) -> Option<&'static dyn StepKind> {
    KINDS.into_iter().find(|kind| kind.name() == name)
}

/// The names of all kinds, for messages.
#[must_use]
pub fn names() -> String {
    KINDS.map(StepKind::name).join(" or ")
}

/// The programs on this machine that kinds need.
#[derive(Debug, Clone)]
pub struct Runtimes {
    pub python: Python,
}

impl Runtimes {
    /// Look them up outside the sandbox; `python` is the configured interpreter, empty for `python3` from the PATH.
    pub async fn find(python: &str) -> Result<Self, SandboxError> {
        Ok(Self {
            python: Python::find(python).await?,
        })
    }

    /// The job that runs a step.
    #[must_use]
    pub fn job(&self, step: &StepInput) -> Job {
        let (program, mut args) = step.kind.command(self);
        args.extend(step.args.iter().cloned());
        let mut files: BTreeMap<String, String> = step.files.clone();
        files.insert(step.kind.main_file().to_owned(), step.code.clone());
        Job {
            program,
            args,
            env: self.env(),
            files,
            read_only: self.python.prefixes.clone(),
            stdin: step.stdin.clone(),
            limits: step.limits,
        }
    }

    /// Every kind may call Python, so that its folder comes first.
    fn env(&self) -> Vec<(String, String)> {
        let python = self.python.program.parent();
        let python = python.unwrap_or(Path::new("/usr/bin")).display();
        vec![
            (
                "PATH".to_owned(),
                format!("{python}:/usr/local/bin:/usr/bin:/bin"),
            ),
            ("PYTHONHASHSEED".to_owned(), "0".to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::{find, names, StepKind, KINDS};

    #[test]
    fn a_kind_is_found_by_its_name() {
        for kind in KINDS {
            assert_eq!(find(kind.name()).map(StepKind::name), Some(kind.name()));
        }
        assert!(find("perl").is_none());
        assert_eq!(names(), "python or shell");
    }
}
