//! Logs: JSON or readable, on standard error, by the settings. Never bodies, code or secrets.

use std::io::IsTerminal;

use contracts::settings::{Format, Level, Log};
use tracing_subscriber::filter::LevelFilter;

pub fn start(settings: &Log) {
    let level = match settings.level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    let console = match settings.format {
        Format::Json => false,
        Format::Console => true,
        Format::Auto => std::io::stderr().is_terminal(),
    };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr);
    // Set twice only by tests in one process; the first one stays.
    let _ = if console {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
}
