//! Steps in Python: which interpreter runs them, and which folders outside `/usr` it needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use super::{Runtimes, StepKind};
use crate::sandbox::SandboxError;

/// Run once at start, outside the sandbox. `python3` may be a shim; this tells the program behind it.
const QUERY: &str = "import json, sys
named = [sys.executable, sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix]
base = [getattr(sys, '_base_executable', '') or sys.executable, sys.base_prefix, sys.base_exec_prefix]
print(json.dumps({'named': named, 'base': base}))";
const TIMEOUT: Duration = Duration::from_secs(20);
/// Shown in every sandbox anyway.
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix"];

/// An interpreter that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    pub program: PathBuf,
    pub prefixes: Vec<PathBuf>,
}

#[derive(Debug)]
pub(super) struct PythonKind;

impl StepKind for PythonKind {
    fn name(&self) -> &'static str {
        "python"
    }

    fn main_file(&self) -> &'static str {
        "main.py"
    }

    fn command(&self, runtimes: &Runtimes) -> (PathBuf, Vec<String>) {
        // -I would hide the step's own files from its imports; -s and the environment keep everything else out.
        let args = ["-B", "-s", self.main_file()].map(str::to_owned);
        (runtimes.python.program.clone(), args.to_vec())
    }
}

impl Python {
    /// Look the interpreter up; `configured` empty means `python3` from the PATH.
    pub async fn find(configured: &str) -> Result<Self, SandboxError> {
        let name = if configured.is_empty() {
            "python3"
        } else {
            configured
        };
        let failed = |why: String| {
            SandboxError::Refused(format!(
            "the Python interpreter {name} does not run ({why}); install Python 3 or set OCTOLLM_EXECUTOR_PYTHON to its path"
        ))
        };
        let asked = tokio::process::Command::new(name)
            .args(["-I", "-c", QUERY])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(TIMEOUT, asked)
            .await
            .map_err(|_| failed(format!("no answer within {} s", TIMEOUT.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(failed(output.status.to_string()));
        }
        let mut answer: BTreeMap<String, Vec<PathBuf>> =
            serde_json::from_slice(&output.stdout).map_err(|error| failed(error.to_string()))?;
        // The PATH may lead into a virtual environment, whose packages are not meant for steps; a configured one is.
        let which = if configured.is_empty() {
            "base"
        } else {
            "named"
        };
        let answer = answer.remove(which).unwrap_or_default();
        let [program, prefixes @ ..] = answer.as_slice() else {
            return Err(failed("it does not report its location".to_owned()));
        };
        if !program.is_absolute() {
            return Err(failed("its path is not absolute".to_owned()));
        }
        Ok(Self {
            program: program.clone(),
            prefixes: outside_system(prefixes),
        })
    }
}

fn outside_system(prefixes: &[PathBuf]) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    let mut sorted = prefixes.to_vec();
    sorted.sort();
    for prefix in sorted {
        let shown = SYSTEM.iter().any(|system| prefix.starts_with(system));
        let within = kept.iter().any(|other| prefix.starts_with(other));
        if !shown && !within && prefix != Path::new("/") && prefix.is_absolute() {
            kept.push(prefix);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{outside_system, PathBuf};

    #[test]
    fn only_prefixes_outside_the_system_are_shown_and_each_once() {
        let prefixes = [
            "/usr",
            "/opt/py/venv",
            "/opt/py",
            "/opt/py",
            "/",
            "relative",
        ]
        .map(PathBuf::from);
        assert_eq!(outside_system(&prefixes), [PathBuf::from("/opt/py")]);
    }
}
