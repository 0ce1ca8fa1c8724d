//! What the executor, the launcher and the sandbox's first process tell each other, as JSON lines.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::job::{Cause, Limits, Tier};

/// One run, from the executor to the launcher.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    pub tier: Tier,
    /// The step's folder on the host; `/work` inside the namespaces.
    pub workspace: PathBuf,
    /// An empty folder that becomes the new root.
    pub root: PathBuf,
    /// Folders outside `/usr` that the program needs, shown read-only.
    pub read_only: Vec<PathBuf>,
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
