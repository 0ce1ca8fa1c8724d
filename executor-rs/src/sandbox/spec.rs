//! What the executor, the launcher and the sandbox's first process tell each other, as JSON lines.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// How strongly a step is kept apart from the host.
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

/// What one step may use. Every number is enforced, none is advice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    pub wall_s: u64,
    pub cpu_s: u64,
    pub memory_mb: u64,
    pub processes: u64,
    /// Per stream; what is beyond is cut off, sixteen times as much ends the step.
    pub output_bytes: u64,
}

/// One run, from the executor to the launcher.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub tier: Tier,
    /// The step's folder on the host; `/work` inside the namespaces.
    pub workspace: PathBuf,
    /// An empty folder that becomes the new root.
    pub root: PathBuf,
    /// Where the interpreter lives outside `/usr`, shown read-only.
    pub prefixes: Vec<PathBuf>,
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(String, String)>,
    pub limits: Limits,
}

/// From the sandbox's first process to the launcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Notice {
    /// Everything is locked; the step's program starts now.
    Ready { features: Vec<String> },
    /// The sandbox could not be made; nothing of the step has run.
    Refused { why: String },
    /// The step's program ended.
    Ended {
        code: Option<i32>,
        signal: Option<i32>,
        cpu_ms: u64,
    },
}

/// Why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Exited,
    Wall,
    Cpu,
    Memory,
    /// The executor asked for it (cancelled, output flood) or is gone.
    Stopped,
}

/// From the launcher to the executor, once, at the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Set when the sandbox could not be made.
    pub refused: Option<String>,
    /// What was really active.
    pub features: Vec<String>,
    pub cause: Cause,
    pub code: Option<i32>,
    pub signal: Option<i32>,
}
