//! Starts what the command line asks for.

use std::process::ExitCode;

use octollm_executor::cli::{self, Command};
use octollm_executor::{doctor, sandbox, worker};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|argument| argument.to_string_lossy().into_owned())
        .collect();
    // Before anything starts a thread: the launcher must have one only.
    if arguments
        .first()
        .is_some_and(|first| first == sandbox::SUBCOMMAND)
    {
        return ExitCode::from(u8::try_from(sandbox::child::main()).unwrap_or(1));
    }
    let command = match cli::parse(&arguments) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("octollm-executor: {message}");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("octollm-executor: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match command {
        Command::Version => {
            cli::say(concat!("octollm-executor ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        Command::Help => {
            cli::say(cli::HELP);
            ExitCode::SUCCESS
        }
        Command::Run { file } => runtime.block_on(cli::run(&file)),
        Command::Doctor { json } => runtime.block_on(doctor::run(json)),
        Command::Work => runtime.block_on(worker::run()),
    }
}
