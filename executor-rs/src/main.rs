//! Starts what the command line asks for.

use std::process::ExitCode;

use clap::Parser as _;
use contracts::settings;
use octollm_executor::cli::{self, Cli, Command};
use octollm_executor::{doctor, sandbox, worker};
use service::console::print_error;
use service::logging;

fn main() -> ExitCode {
    // Before anything starts a thread: the launcher must have one only.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|first| first == sandbox::SUBCOMMAND)
    {
        return ExitCode::from(u8::try_from(sandbox::launcher::main()).unwrap_or(1));
    }
    match start(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            print_error(&format!("octollm-executor cannot start: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    match cli.command {
        Some(Command::Run { file }) => Ok(runtime.block_on(cli::run(&file))),
        Some(Command::Doctor { json }) => Ok(runtime.block_on(doctor::run(json))),
        None => {
            let settings = settings::load()?;
            let _flush = logging::start(&settings.log, "octollm_executor")?;
            let ended = runtime.block_on(worker::run(&settings));
            // What still runs has had its time.
            runtime.shutdown_background();
            if let Err(error) = ended {
                tracing::error!("octollm-executor stops: {error}");
                return Ok(ExitCode::FAILURE);
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
