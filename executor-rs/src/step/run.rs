//! Runs a checked step in the sandbox.

use tokio::sync::watch;

use super::input::StepInput;
use super::kinds::Runtimes;
use super::output::{self, StepOutput};
use crate::sandbox::{Sandbox, SandboxError};

/// A sandbox and the programs that steps need in it.
#[derive(Debug, Clone)]
pub struct StepRunner {
    pub sandbox: Sandbox,
    pub runtimes: Runtimes,
}

impl StepRunner {
    /// Run a step to its end, or until `interrupt` turns true.
    pub async fn run(
        &self,
        step: &StepInput,
        interrupt: watch::Receiver<bool>,
    ) -> Result<StepOutput, SandboxError> {
        let finished = self
            .sandbox
            .run(&self.runtimes.job(step), interrupt)
            .await?;
        Ok(output::from_run(finished, step.kind, step.parse_json))
    }
}
