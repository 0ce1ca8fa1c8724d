//! The command line: what was asked for, and the answers that need no Redis.

use std::io::Read;
use std::io::Write as _;
use std::process::ExitCode;

use contracts::events::Object;
use contracts::{settings, strict_json};
use serde_json::Value;
use tokio::sync::watch;

use crate::policy::{input, output};
use crate::sandbox::{probe, SandboxError};

pub const HELP: &str = "\
Runs Python and shell steps of OctoLLM in a sandbox without network or secrets.

Usage: octollm-executor                  work on the steps that wait in Redis, until SIGTERM
       octollm-executor run FILE.json    run one step input (- reads it from standard input), print its output
       octollm-executor doctor [--json]  say which isolation this machine gives
       octollm-executor --version | --help

A step input is an object with language (python or shell) and code, and if wanted files {path: text}, args, stdin,
parse (\"json\": standard output becomes the result) and limits (wall_s, cpu_s, memory_mb, processes, output_bytes):
  {\"language\": \"python\", \"code\": \"print(6 * 7)\", \"limits\": {\"wall_s\": 5}}

Settings come from OCTOLLM_CONFIG and OCTOLLM_<SECTION>_<KEY>; see octollm.default.toml.
run exits with 0 when the step could be run (whatever its outcome), 2 for invalid input, 3 without a sandbox.";

/// Exit code for what the caller got wrong.
const INVALID: u8 = 2;
const NO_SANDBOX: u8 = 3;
/// Longest wall time of a local run; the same as the topic's.
const LONGEST_S: u64 = 300;
/// Largest input file; events are bounded alike.
const INPUT_BYTES: u64 = 16 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Work,
    Run { file: String },
    Doctor { json: bool },
    Version,
    Help,
}

/// Reads the arguments after the program's name; an error is a sentence for people.
pub fn parse(arguments: &[String]) -> Result<Command, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        [] => Ok(Command::Work),
        ["--version" | "-V"] => Ok(Command::Version),
        ["--help" | "-h" | "help"] | ["run" | "doctor", "--help" | "-h"] => Ok(Command::Help),
        ["run", file] if file == "-" || !file.starts_with('-') => Ok(Command::Run {
            file: file.to_owned(),
        }),
        ["run", ..] => {
            Err("run needs one file with a step input, or - for standard input".to_owned())
        }
        ["doctor"] => Ok(Command::Doctor { json: false }),
        ["doctor", "--json"] => Ok(Command::Doctor { json: true }),
        ["doctor", other, ..] => Err(format!(
            "doctor does not know {other:?}; it takes --json only"
        )),
        [other, ..] => Err(format!(
            "unknown argument {other:?}; see octollm-executor --help"
        )),
    }
}

/// A line on standard output. A reader that has seen enough and is gone (`| head`) is no failure of ours.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// `run`: one step input, locally.
pub async fn run(file: &str) -> ExitCode {
    let (code, message) = match run_step(file).await {
        Ok(text) => {
            say(&text);
            return ExitCode::SUCCESS;
        }
        Err(failed) => failed,
    };
    eprintln!("octollm-executor: {message}");
    ExitCode::from(code)
}

async fn run_step(file: &str) -> Result<String, (u8, String)> {
    let invalid = |message: String| (INVALID, message);
    let object = read_object(file).map_err(invalid)?;
    let step = input::read(object, LONGEST_S)
        .map_err(|error| invalid(format!("the input is invalid: {error}")))?;
    let settings = settings::load().map_err(|error| invalid(error.to_string()))?;
    let refused = |error: SandboxError| (NO_SANDBOX, format!("the step was not run: {error}"));
    let found = probe::find(&settings.executor).await.map_err(refused)?;
    let (interrupt, order) = watch::channel(false);
    tokio::spawn(async move {
        // Without a handler the signal's own action ends us, and the step with us.
        if tokio::signal::ctrl_c().await.is_ok() {
            interrupt.send_replace(true);
        }
    });
    let finished = found.sandbox.run(&step.job, order).await.map_err(refused)?;
    let output = output::of(finished, step.job.language, step.parse_json);
    serde_json::to_string_pretty(&output)
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
        .take(INPUT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("{file} cannot be read: {error}"))?;
    if bytes.len() as u64 > INPUT_BYTES {
        return Err(format!("{file} is larger than {INPUT_BYTES} bytes"));
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
    use super::{parse, Command};

    fn words(text: &str) -> Result<Command, String> {
        parse(
            &text
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn knows_its_commands_and_nothing_else() {
        assert_eq!(words(""), Ok(Command::Work));
        assert_eq!(
            words("run -"),
            Ok(Command::Run {
                file: "-".to_owned()
            })
        );
        assert_eq!(words("doctor --json"), Ok(Command::Doctor { json: true }));
        assert_eq!(words("--version"), Ok(Command::Version));
        for help in ["--help", "run --help", "doctor -h"] {
            assert_eq!(words(help), Ok(Command::Help), "{help}");
        }
        for wrong in [
            "run",
            "run a b",
            "run --fast",
            "doctor --xml",
            "work",
            "--versio",
        ] {
            assert!(words(wrong).is_err(), "{wrong}");
        }
    }
}
