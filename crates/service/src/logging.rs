//! Log lines on standard error, as the settings ask. They never hold bodies, code or secrets.
//!
//! A line that cannot be written never stops or slows work: a thread of its own writes, the queue before it is bounded,
//! and what does not fit or cannot be written is dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use contracts::settings::{Format, Level, Log};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::Layer;

use crate::json_lines::JsonLines;

/// Lines that wait to be written.
const QUEUE_LINES: usize = 8192;
/// How long the end of the process may wait for the last lines.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(500);
/// How long lines are collected before the next system call.
const BATCH_INTERVAL: Duration = Duration::from_millis(2);
/// How much one system call writes, so that a reader is not flooded.
const MAX_BATCH_BYTES: usize = 64 * 1024;
/// Crates of this workspace that both programs share.
const SHARED_CRATES: [&str; 3] = ["bus", "contracts", "service"];

static DROPPED: LazyLock<Counter<u64, AtomicU64>> = LazyLock::new(Counter::default);

/// Add the counter of dropped lines to a program's metrics, whose names have the prefix `octollm`.
pub fn register_metrics(registry: &mut Registry) {
    registry.register(
        "log_lines_dropped",
        "Log lines that could not be written to standard error",
        DROPPED.clone(),
    );
}

/// Start logging and report panics as log lines; `program` is the name of the program's own crate.
///
/// Keep the result until the process ends: dropping it writes what is still queued.
pub fn start(settings: &Log, program: &'static str) -> io::Result<Flush> {
    let (sender, lines) = sync_channel(QUEUE_LINES);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || write_lines(&lines, &mut io::stderr()))?;
    let terminal = io::stderr().is_terminal();
    let console = match settings.format {
        Format::Console => true,
        Format::Json => false,
        Format::Auto => terminal,
    };
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(Queue(sender.clone()))
        // It would report a failed write with `eprintln!`, which panics where standard error is closed.
        .log_internal_errors(false);
    let layer = if console {
        layer.with_ansi(terminal).boxed()
    } else {
        layer.json().event_format(JsonLines::default()).boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(targets(settings.level, program)))
        .init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
    Ok(Flush(sender))
}

/// Libraries report only warnings and errors: at lower levels they would write what travels through them.
fn targets(level: Level, program: &'static str) -> Targets {
    let own = match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warning => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    let crates = SHARED_CRATES.into_iter().chain([program]);
    Targets::new()
        .with_default(own.min(LevelFilter::WARN))
        .with_targets(crates.map(|name| (name, own)))
}

enum Message {
    Line(Vec<u8>),
    /// Answer once everything before this is written.
    Flush(SyncSender<()>),
}

/// Runs until every sender is gone.
fn write_lines(lines: &Receiver<Message>, out: &mut impl Write) {
    let mut batch = Batch::default();
    for first in lines {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => batch.add(&line, out),
                Message::Flush(answer) => {
                    batch.write(out);
                    let _ = answer.try_send(());
                }
            }
            next = lines.try_recv().ok();
        }
        batch.write(out);
        // Meanwhile lines are queued, and their senders need not wake this thread for each.
        std::thread::sleep(BATCH_INTERVAL);
    }
}

/// Lines that are written by one system call.
#[derive(Default)]
struct Batch {
    text: Vec<u8>,
    lines: u64,
}

impl Batch {
    fn add(&mut self, line: &[u8], out: &mut impl Write) {
        self.text.extend_from_slice(line);
        self.lines += 1;
        if self.text.len() >= MAX_BATCH_BYTES {
            self.write(out);
        }
    }

    fn write(&mut self, out: &mut impl Write) {
        if self.lines > 0 && out.write_all(&self.text).is_err() {
            DROPPED.inc_by(self.lines);
        }
        self.text.clear();
        self.lines = 0;
    }
}

/// Takes formatted lines; never blocks, never fails.
#[derive(Clone)]
struct Queue(SyncSender<Message>);

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.try_send(Message::Line(line.to_vec())).is_err() {
            DROPPED.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Writes the queued lines when dropped, but waits no longer than half a second.
#[must_use = "lines are lost at the end of the process when this is dropped early"]
pub struct Flush(SyncSender<Message>);

impl Drop for Flush {
    fn drop(&mut self) {
        let deadline = Instant::now() + FLUSH_TIMEOUT;
        let (answer, written) = sync_channel(1);
        while self.0.try_send(Message::Flush(answer.clone())).is_err() {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = written.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::mpsc::sync_channel;

    use contracts::settings::Level as Setting;
    use tracing::Level;

    use super::{targets, write_lines, Message, Queue, DROPPED};

    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_and_a_closed_stream_drop_lines_and_never_fail() {
        let (sender, lines) = sync_channel::<Message>(2);
        let mut queue = Queue(sender);
        let before = DROPPED.get();
        for _ in 0..5 {
            assert!(queue.write_all(b"line\n").is_ok());
        }
        assert_eq!(DROPPED.get() - before, 3);
        drop(queue);
        write_lines(&lines, &mut Closed);
        assert_eq!(DROPPED.get() - before, 5);
    }

    #[test]
    fn libraries_report_warnings_and_errors_only() {
        for (setting, own, library) in [
            (Setting::Debug, Level::DEBUG, Level::WARN),
            (Setting::Warning, Level::WARN, Level::WARN),
            (Setting::Error, Level::ERROR, Level::ERROR),
        ] {
            let targets = targets(setting, "octollm_reflex");
            for (name, level) in [
                ("octollm_reflex::http", own),
                ("bus::client", own),
                ("redis::aio", library),
            ] {
                assert!(targets.would_enable(name, &level), "{name} {level}");
                let below = [
                    Level::ERROR,
                    Level::WARN,
                    Level::INFO,
                    Level::DEBUG,
                    Level::TRACE,
                ];
                let louder = below.iter().find(|one| **one > level);
                assert!(louder.is_none_or(|one| !targets.would_enable(name, one)));
            }
        }
    }
}
