//! Which isolation this machine gives: found by running a real, tiny step in each tier.

use std::collections::BTreeMap;
use std::path::PathBuf;

use contracts::settings::{Executor, MinIsolation};
use tokio::sync::watch;

use crate::job::{Limits, Tier};
use crate::sandbox::{workspace, Sandbox, SandboxError};
use crate::step::input::StepInput;
use crate::step::kinds::{Runtimes, KINDS};
use crate::step::output::Outcome;
use crate::step::run::StepRunner;

/// A sandbox that works on this machine.
#[derive(Debug, Clone)]
pub struct Isolation {
    pub runner: StepRunner,
    /// The layers that were really active.
    pub features: Vec<String>,
    /// Why the stronger tier does not work, where it does not.
    pub weaker_because: Option<String>,
}

impl Isolation {
    #[must_use]
    pub fn tier(&self) -> Tier {
        self.runner.sandbox.tier
    }
}

/// Find the strongest tier that works and is at least what the settings ask for.
pub async fn find(settings: &Executor) -> Result<Isolation, SandboxError> {
    let runtimes = Runtimes::find(&settings.python).await?;
    let workspace_dir =
        workspace::parent(&settings.workspace_dir).map_err(SandboxError::Refused)?;
    let sandbox = Sandbox {
        launcher: PathBuf::from("/proc/self/exe"),
        tier: Tier::Namespaces,
        workspace_dir,
    };
    strongest(StepRunner { sandbox, runtimes }, settings.min_isolation).await
}

async fn strongest(
    mut runner: StepRunner,
    minimum: MinIsolation,
) -> Result<Isolation, SandboxError> {
    let refused = match probe(&runner).await {
        Ok(features) => {
            return Ok(Isolation {
                runner,
                features,
                weaker_because: None,
            })
        }
        Err(error) => error.to_string(),
    };
    runner.sandbox.tier = Tier::Landlock;
    match probe(&runner).await {
        Ok(_) if minimum == MinIsolation::Namespaces => Err(SandboxError::Refused(format!(
            "namespaces do not work here ({refused}); allow user namespaces, or accept less with OCTOLLM_EXECUTOR_MIN_ISOLATION=landlock"
        ))),
        Ok(features) => Ok(Isolation {
            runner,
            features,
            weaker_because: Some(refused),
        }),
        Err(error) => Err(SandboxError::Refused(format!(
            "neither namespaces ({refused}) nor Landlock ({error}) work here; allow user namespaces or run a kernel with Landlock"
        ))),
    }
}

/// Run one step; answer the features that were active.
pub async fn probe(runner: &StepRunner) -> Result<Vec<String>, SandboxError> {
    let [python, ..] = KINDS;
    let step = StepInput {
        kind: python,
        code: "print(6 * 7)".to_owned(),
        files: BTreeMap::new(),
        args: Vec::new(),
        stdin: None,
        limits: Limits {
            wall_s: 20,
            cpu_s: 10,
            memory_mb: 256,
            processes: 8,
            output_bytes: 4096,
        },
        parse_json: false,
    };
    let (_stop, never) = watch::channel(false);
    let output = runner.run(&step, never).await?;
    if output.outcome == Outcome::Ok && output.stdout == "42\n" {
        return Ok(output.isolation.features);
    }
    let last_line = output.stderr.lines().last().unwrap_or_default();
    Err(SandboxError::Refused(format!(
        "the Python interpreter {} does not run inside ({last_line}); set OCTOLLM_EXECUTOR_PYTHON to one that every user can read",
        runner.runtimes.python.program.display()
    )))
}
