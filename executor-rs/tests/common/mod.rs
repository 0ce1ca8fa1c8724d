//! Shared by the integration tests: sandboxes of both tiers around the real program.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken set-up ends the test

use std::collections::BTreeMap;
use std::path::PathBuf;

use octollm_executor::policy::output::{self, StepOutput};
use octollm_executor::sandbox::interpreter;
use octollm_executor::sandbox::spec::{Limits, Tier};
use octollm_executor::sandbox::{probe, Job, Language, Sandbox, SandboxError};
use tokio::sync::watch;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_octollm-executor");

pub struct Place {
    pub sandbox: Sandbox,
    pub parent: tempfile::TempDir,
}

pub async fn place(tier: Tier) -> Place {
    let parent = tempfile::Builder::new()
        .prefix("octollm-test-")
        .tempdir()
        .unwrap();
    // Landlock alone leaves file permissions as they are: the step's unprivileged user must reach everything.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(parent.path(), mode).unwrap();
    let mut sandbox = Sandbox {
        launcher: PathBuf::from(PROGRAM),
        tier,
        python: interpreter::find("").await.unwrap(),
        workspace_dir: parent.path().to_owned(),
    };
    // The interpreter of the PATH may lie in a private home, which only namespaces can show to the step's user.
    if tier == Tier::Landlock && probe::works(&sandbox).await.is_err() {
        sandbox.python = interpreter::find("/usr/bin/python3")
            .await
            .expect("a Python that every user can read");
    }
    Place { sandbox, parent }
}

pub fn limits() -> Limits {
    Limits {
        wall_s: 20,
        cpu_s: 20,
        memory_mb: 256,
        processes: 32,
        output_bytes: 16 * 1024,
    }
}

pub fn job(language: Language, code: &str) -> Job {
    Job {
        language,
        code: code.to_owned(),
        files: BTreeMap::new(),
        args: Vec::new(),
        stdin: None,
        limits: limits(),
    }
}

pub fn python_job(code: &str) -> Job {
    job(Language::Python, code)
}

impl Place {
    pub async fn try_run(&self, job: &Job) -> Result<StepOutput, SandboxError> {
        let (_stop, never) = watch::channel(false);
        let finished = self.sandbox.run(job, never).await?;
        Ok(output::of(finished, job.language, false))
    }

    pub async fn run(&self, job: &Job) -> StepOutput {
        self.try_run(job).await.unwrap()
    }

    pub fn left_behind(&self) -> usize {
        std::fs::read_dir(self.parent.path()).unwrap().count()
    }
}
