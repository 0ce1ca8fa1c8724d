//! The command line, and the answers that need no Redis.

use std::io::Read;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use contracts::events::Object;
use contracts::{settings, strict_json};
use serde_json::Value;
use service::console::{print_error, print_line};
use service::Supervisor;
use tokio::sync::watch;

use crate::isolation;
use crate::sandbox::SandboxError;
use crate::step::input;

const ABOUT: &str = "\
Runs Python and shell steps of OctoLLM in a sandbox without network or secrets.
Without a command it runs the steps that wait in Redis, until SIGTERM.";
const AFTER_HELP: &str = "\
Settings come from OCTOLLM_CONFIG and OCTOLLM_<SECTION>_<KEY>; see octollm.default.toml.";
const RUN_HELP: &str = "\
A step input is an object with language (python or shell) and code, and optionally files {path: text}, args, stdin,
parse (\"json\": standard output becomes the result) and limits (wall_s, cpu_s, memory_mb, processes, output_bytes):
  {\"language\": \"python\", \"code\": \"print(6 * 7)\", \"limits\": {\"wall_s\": 5}}

Exit codes: 0 when the step was run, whatever its outcome; 2 for invalid input; 3 without a sandbox.";

/// Exit code for invalid input.
const INVALID: u8 = 2;
const NO_SANDBOX: u8 = 3;
/// Longest wall time of a local run; the same as the topic's.
const MAX_WALL_S: u64 = 300;
/// Largest input file; events have the same limit.
const MAX_INPUT_BYTES: u64 = 16 * 1024 * 1024;

/// The arguments.
#[derive(Debug, PartialEq, Eq, Parser)]
#[command(name = "octollm-executor", version, about = ABOUT, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Run one step input and print its output.
    #[command(after_help = RUN_HELP)]
    Run {
        /// The file with the step input; - for standard input.
        file: String,
    },
    /// Show which isolation this machine gives.
    Doctor {
        /// Print the facts as JSON.
        #[arg(long)]
        json: bool,
    },
}

/// `run`: one step input, locally.
pub async fn run(file: &str) -> ExitCode {
    let (code, message) = match run_step(file).await {
        Ok(text) => {
            print_line(&text);
            return ExitCode::SUCCESS;
        }
        Err(failed) => failed,
    };
    print_error(&format!("octollm-executor: {message}"));
    ExitCode::from(code)
}

async fn run_step(file: &str) -> Result<String, (u8, String)> {
    let invalid = |message: String| (INVALID, message);
    let object = read_object(file).map_err(invalid)?;
    let step = input::parse(object, MAX_WALL_S)
        .map_err(|error| invalid(format!("the input is invalid: {error}")))?;
    let settings = settings::load().map_err(|error| invalid(error.to_string()))?;
    let refused = |error: SandboxError| (NO_SANDBOX, format!("the step was not run: {error}"));
    let isolation = isolation::find(&settings.executor).await.map_err(refused)?;
    let (interrupt, interrupted) = watch::channel(false);
    Supervisor::default().spawn_task("interrupt", async move {
        // Without a handler the signal's default action ends this process, and the step with it.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupt.send_replace(true);
        }
    });
    let output = isolation.runner.run(&step, interrupted).await;
    serde_json::to_string_pretty(&output.map_err(refused)?)
        .map_err(|error| (1, format!("the output cannot be written: {error}")))
}

fn read_object(file: &str) -> Result<Object, String> {
    let mut bytes = Vec::new();
    let source: Box<dyn Read> = if file == "-" {
        Box::new(std::io::stdin())
    } else {
        Box::new(
            std::fs::File::open(file).map_err(|error| format!("{file} cannot be read: {error}"))?,
        )
    };
    source
        .take(MAX_INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{file} cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_INPUT_BYTES {
        return Err(format!("{file} is larger than {MAX_INPUT_BYTES} bytes"));
    }
    strict_json::check(&bytes).map_err(|error| format!("{file} is {error}"))?;
    match serde_json::from_slice(&bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(format!("{file} must hold one JSON object, a step's input")),
        Err(error) => Err(format!("{file} is not JSON: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Cli, Command};

    fn parse(arguments: &str) -> Result<Option<Command>, clap::Error> {
        let words = std::iter::once("octollm-executor").chain(arguments.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.command)
    }

    #[test]
    fn it_knows_its_commands_and_nothing_else() {
        let file = "-".to_owned();
        assert_eq!(parse("").unwrap(), None);
        assert_eq!(parse("run -").unwrap(), Some(Command::Run { file }));
        let doctor = Command::Doctor { json: true };
        assert_eq!(parse("doctor --json").unwrap(), Some(doctor));
        for wrong in [
            "run",
            "run a b",
            "run --fast",
            "doctor --xml",
            "work",
            "--versio",
        ] {
            assert!(parse(wrong).unwrap_err().use_stderr(), "{wrong}");
        }
        for shown in ["--help", "run --help", "doctor -h", "--version"] {
            assert!(!parse(shown).unwrap_err().use_stderr(), "{shown}");
        }
    }
}
