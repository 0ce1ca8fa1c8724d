//! The only module with processes and `unsafe`: runs a job apart from the host, within limits, and says what was active.
//!
//! ```text
//! executor ── spec ──► launcher (this program again, one thread) ──► first process ──► the step
//!          ◄─ report ─     watches time and memory                    walls, reaps
//! ```
//! Each dies with the one before it, so killing the executor leaves nothing behind.

mod capture;
mod init;
pub mod landlock;
pub mod launcher;
mod limits;
mod mounts;
mod namespaces;
mod runner;
mod seccomp;
mod spec;
mod syscall;
pub mod workspace;

use std::path::PathBuf;

use tokio::sync::watch;

use crate::job::{Finished, Job, Tier};

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

/// Where and how jobs run here.
#[derive(Debug, Clone)]
pub struct Sandbox {
    /// This program, to be started again as the launcher.
    pub launcher: PathBuf,
    pub tier: Tier,
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
        runner::run(self, job, stop).await
    }
}
