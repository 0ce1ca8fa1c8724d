//! What a sandbox runs, and what came of it. Pure data.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How strongly a step is isolated from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// Own user, pid, mount, network, ipc and uts namespaces with a small root of its own.
    Namespaces,
    /// The host's file tree, narrowed by Landlock; no sockets at all.
    Landlock,
}

impl Tier {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespaces => "namespaces",
            Self::Landlock => "landlock",
        }
    }
}

/// What one step may use. Every number is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub wall_s: u64,
    pub cpu_s: u64,
    pub memory_mb: u64,
    pub processes: u64,
    /// Of each stream; more is cut off, and sixteen times as much ends the step.
    pub output_bytes: u64,
}

/// A program to run in the sandbox, with everything that it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// Added to the sandbox's own variables; nothing is inherited from the host.
    pub env: Vec<(String, String)>,
    /// By path relative to the workspace; the paths were checked.
    pub files: BTreeMap<String, String>,
    /// Folders outside `/usr` that the program needs, shown read-only.
    pub read_only: Vec<PathBuf>,
    pub stdin: Option<String>,
    pub limits: Limits,
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Exited,
    Wall,
    Cpu,
    Memory,
    /// The executor asked for it (cancelled, too much output) or is gone.
    Stopped,
}

/// What one output stream held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// At most the limit.
    pub head: Vec<u8>,
    /// The last bytes, to tell causes by.
    pub tail: Vec<u8>,
    pub total: u64,
}

impl Captured {
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.total > self.head.len() as u64
    }
}

/// How a job ended.
#[derive(Debug, Clone)]
pub struct Finished {
    pub tier: Tier,
    /// The layers of isolation that were really active.
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
