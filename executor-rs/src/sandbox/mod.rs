//! The only room with processes and `unsafe`: runs a job apart from the host, within limits, and says what was active.
//!
//! ```text
//! executor ── spec ──► launcher (this program again, one thread) ──► first process ──► the step
//!          ◄─ report ─     watches time and memory                    walls, reaps
//! ```
//! Each dies with the one before it, so killing the executor leaves nothing behind.

pub mod capture;
pub mod child;
mod init;
pub mod interpreter;
pub mod landlock;
mod limits;
mod mounts;
mod namespaces;
pub mod probe;
mod seccomp;
pub mod spec;
mod supervise;
mod system;
pub mod workspace;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use capture::Captured;
use interpreter::Python;
use spec::{Cause, Limits, Tier};

/// The hidden subcommand that is the launcher.
pub const SUBCOMMAND: &str = "__sandbox";
/// The launcher's control socket.
const CONTROL: i32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The sandbox cannot be made here; nothing of the step has run.
    #[error("{0}")]
    Refused(String),
    #[error("{what}: {source}")]
    Internal {
        what: String,
        source: std::io::Error,
    },
}

impl SandboxError {
    fn internal(what: impl Into<String>, source: std::io::Error) -> Self {
        Self::Internal {
            what: what.into(),
            source,
        }
    }
}

/// What a step is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Language {
    Python,
    Shell,
}

impl Language {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Shell => "shell",
        }
    }

    /// The file that the code becomes.
    #[must_use]
    pub fn main_file(self) -> &'static str {
        match self {
            Self::Python => "main.py",
            Self::Shell => "main.sh",
        }
    }
}

/// Code to run, checked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub language: Language,
    pub code: String,
    /// By relative path, beside the code.
    pub files: BTreeMap<String, String>,
    pub args: Vec<String>,
    pub stdin: Option<String>,
    pub limits: Limits,
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct Finished {
    pub tier: Tier,
    pub features: Vec<String>,
    pub cause: Cause,
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// It was ended because it wrote far more than allowed.
    pub flooded: bool,
    pub stdout: Captured,
    pub stderr: Captured,
    pub duration: Duration,
}

/// Where and how jobs run here.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// This program, to be started again as the launcher.
    pub launcher: PathBuf,
    pub tier: Tier,
    pub python: Python,
    /// Parent of the fresh workspaces.
    pub workspace_dir: PathBuf,
}

impl Sandbox {
    /// Runs the job to its end, or until `stop` turns true.
    pub async fn run(
        &self,
        job: &Job,
        stop: watch::Receiver<bool>,
    ) -> Result<Finished, SandboxError> {
        supervise::run(self, job, stop).await
    }
}
