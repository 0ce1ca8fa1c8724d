//! Shared by the integration tests: sandboxes of both tiers around the real program.
#![allow(dead_code)] // each test file uses its part
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken set-up ends the test

use std::collections::BTreeMap;
use std::path::PathBuf;

use octollm_executor::isolation::probe;
use octollm_executor::job::{Limits, Tier};
use octollm_executor::sandbox::{Sandbox, SandboxError};
use octollm_executor::step::input::StepInput;
use octollm_executor::step::kinds::{self, Runtimes};
use octollm_executor::step::output::StepOutput;
use octollm_executor::step::run::StepRunner;
use tokio::sync::watch;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_octollm-executor");

pub struct TestWorkspace {
    pub runner: StepRunner,
    pub parent: tempfile::TempDir,
}

pub async fn place(tier: Tier) -> TestWorkspace {
    let parent = tempfile::Builder::new()
        .prefix("octollm-test-")
        .tempdir()
        .unwrap();
    // Landlock alone leaves file permissions as they are: the step's unprivileged user must reach everything.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(parent.path(), mode).unwrap();
    let mut runner = StepRunner {
        sandbox: Sandbox {
            launcher: PathBuf::from(PROGRAM),
            tier,
            workspace_dir: parent.path().to_owned(),
        },
        runtimes: Runtimes::find("").await.unwrap(),
    };
    // The interpreter of the PATH may be in a private home, which only namespaces can show to the step's user.
    if tier == Tier::Landlock && probe(&runner).await.is_err() {
        runner.runtimes = Runtimes::find("/usr/bin/python3")
            .await
            .expect("a Python that every user can read");
    }
    TestWorkspace { runner, parent }
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

pub fn step(kind: &str, code: &str) -> StepInput {
    StepInput {
        kind: kinds::find(kind).unwrap(),
        code: code.to_owned(),
        files: BTreeMap::new(),
        args: Vec::new(),
        stdin: None,
        limits: limits(),
        parse_json: false,
    }
}

pub fn python(code: &str) -> StepInput {
    step("python", code)
}

impl TestWorkspace {
    pub async fn try_run(&self, step: &StepInput) -> Result<StepOutput, SandboxError> {
        let (_stop, never) = watch::channel(false);
        self.runner.run(step, never).await
    }

    pub async fn run(&self, step: &StepInput) -> StepOutput {
        self.try_run(step).await.unwrap()
    }

    pub fn left_behind(&self) -> usize {
        std::fs::read_dir(self.parent.path()).unwrap().count()
    }
}
