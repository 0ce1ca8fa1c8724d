//! Which isolation this machine gives: found by running a real, tiny step in each tier.

use std::path::PathBuf;

use contracts::settings::{Executor, MinIsolation};
use tokio::sync::watch;

use super::spec::{Cause, Limits, Tier};
use super::{interpreter, workspace, Job, Language, Sandbox, SandboxError};

/// A sandbox that works here.
#[derive(Debug, Clone)]
pub struct Found {
    pub sandbox: Sandbox,
    pub features: Vec<String>,
    /// Why the stronger tier does not work, where it does not.
    pub weaker_because: Option<String>,
}

/// The strongest tier that works and is at least what the settings ask for.
pub async fn find(settings: &Executor) -> Result<Found, SandboxError> {
    let python = interpreter::find(&settings.python).await?;
    let workspace_dir =
        workspace::parent(&settings.workspace_dir).map_err(SandboxError::Refused)?;
    let sandbox = Sandbox {
        launcher: PathBuf::from("/proc/self/exe"),
        tier: Tier::Namespaces,
        python,
        workspace_dir,
    };
    strongest(sandbox, settings.min_isolation).await
}

async fn strongest(mut sandbox: Sandbox, least: MinIsolation) -> Result<Found, SandboxError> {
    let refused = match works(&sandbox).await {
        Ok(features) => {
            return Ok(Found {
                sandbox,
                features,
                weaker_because: None,
            })
        }
        Err(error) => error.to_string(),
    };
    sandbox.tier = Tier::Landlock;
    match works(&sandbox).await {
        Ok(_) if least == MinIsolation::Namespaces => Err(SandboxError::Refused(format!(
            "namespaces do not work here ({refused}); allow user namespaces, or accept less with OCTOLLM_EXECUTOR_MIN_ISOLATION=landlock"
        ))),
        Ok(features) => Ok(Found {
            sandbox,
            features,
            weaker_because: Some(refused),
        }),
        Err(error) => Err(SandboxError::Refused(format!(
            "neither namespaces ({refused}) nor Landlock ({error}) work here; allow user namespaces or run a kernel with Landlock"
        ))),
    }
}

/// Runs one step; the features that were active.
pub async fn works(sandbox: &Sandbox) -> Result<Vec<String>, SandboxError> {
    let job = Job {
        language: Language::Python,
        code: "print(6 * 7)".to_owned(),
        files: std::collections::BTreeMap::new(),
        args: Vec::new(),
        stdin: None,
        limits: Limits {
            wall_s: 20,
            cpu_s: 10,
            memory_mb: 256,
            processes: 8,
            output_bytes: 4096,
        },
    };
    let (_stop, never) = watch::channel(false);
    let finished = sandbox.run(&job, never).await?;
    if finished.cause == Cause::Exited
        && finished.code == Some(0)
        && finished.stdout.head == b"42\n"
    {
        return Ok(finished.features);
    }
    let last = String::from_utf8_lossy(&finished.stderr.tail)
        .lines()
        .last()
        .unwrap_or_default()
        .to_owned();
    Err(SandboxError::Refused(format!(
        "the Python interpreter {} does not run inside ({last}); set OCTOLLM_EXECUTOR_PYTHON to one that every user can read",
        sandbox.python.program.display()
    )))
}
