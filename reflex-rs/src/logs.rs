//! Logging as the settings say. Lines go to stderr; they never hold bodies or secrets.

use std::io::{stderr, IsTerminal};

use contracts::settings::{Format, Level, Log};
use tracing_subscriber::EnvFilter;

/// Starts logging; call it once.
pub fn start(log: &Log) {
    let own = match log.level {
        Level::Debug => "debug",
        Level::Info => "info",
        Level::Warning => "warn",
        Level::Error => "error",
    };
    // Libraries say only what is wrong: at debug they would write what travels through them.
    let others = if log.level == Level::Error {
        "error"
    } else {
        "warn"
    };
    let filter = EnvFilter::new(format!("{others},octollm_reflex={own}"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr);
    let console = match log.format {
        Format::Console => true,
        Format::Json => false,
        Format::Auto => stderr().is_terminal(),
    };
    if console {
        lines.with_ansi(stderr().is_terminal()).init();
    } else {
        lines.json().flatten_event(true).init();
    }
}
