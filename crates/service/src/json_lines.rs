//! Formats log events as JSON lines, like the formatter of tracing-subscriber and at a fraction of its cost.
//!
//! A submission logs one line, so this is a part of what each one costs. Events within a span are left to the library.

use std::cell::RefCell;
use std::fmt::{self, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use contracts::ids;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Json, Writer};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::registry::LookupSpan;

/// The formatter of events.
pub(crate) struct JsonLines {
    within_spans: Format<Json>,
}

impl Default for JsonLines {
    fn default() -> Self {
        Self {
            within_spans: Format::default().json().flatten_event(true),
        }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        if context.parent_span().is_some() {
            return self.within_spans.format_event(context, out, event);
        }
        let about = event.metadata();
        out.write_str("{\"timestamp\":\"")?;
        write_time(&mut out)?;
        out.write_str("\",\"level\":\"")?;
        out.write_str(about.level().as_str())?;
        out.write_char('"')?;
        let mut fields = Fields {
            out: &mut out,
            result: Ok(()),
        };
        event.record(&mut fields);
        fields.result?;
        out.write_str(",\"target\":\"")?;
        Escaped(&mut out).write_str(about.target())?;
        out.write_str("\"}\n")
    }
}

/// Writes the fields of an event, each with a comma before it.
struct Fields<'a, W> {
    out: &'a mut W,
    /// The first error; what follows it is not written.
    result: fmt::Result,
}

impl<W: Write> Fields<'_, W> {
    fn add(&mut self, field: &Field, write_value: impl FnOnce(&mut W) -> fmt::Result) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.result = self.result.and_then(|()| {
            self.out.write_str(",\"")?;
            Escaped(self.out).write_str(name)?;
            self.out.write_str("\":")?;
            write_value(self.out)
        });
    }

    fn add_text(&mut self, field: &Field, text: fmt::Arguments<'_>) {
        self.add(field, |out| {
            out.write_char('"')?;
            Escaped(out).write_fmt(text)?;
            out.write_char('"')
        });
    }
}

impl<W: Write> Visit for Fields<'_, W> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.add(field, |out| write!(out, "{value:?}"));
        } else {
            self.add(field, |out| out.write_str("null"));
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, |out| write!(out, "{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, |out| write!(out, "{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, |out| {
            out.write_str(if value { "true" } else { "false" })
        });
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, |out| {
            out.write_char('"')?;
            Escaped(out).write_str(value)?;
            out.write_char('"')
        });
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add_text(field, format_args!("{value:?}"));
    }
}

/// Escapes what is written as a part of a JSON string.
struct Escaped<'a, W>(&'a mut W);

impl<W: Write> Write for Escaped<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut written = 0;
        for (at, byte) in text.bytes().enumerate() {
            if byte >= 0x20 && byte != b'"' && byte != b'\\' {
                continue;
            }
            self.0.write_str(&text[written..at])?;
            written = at + 1;
            match byte {
                b'"' => self.0.write_str("\\\"")?,
                b'\\' => self.0.write_str("\\\\")?,
                b'\n' => self.0.write_str("\\n")?,
                b'\r' => self.0.write_str("\\r")?,
                b'\t' => self.0.write_str("\\t")?,
                _ => write!(self.0, "\\u{byte:04x}")?,
            }
        }
        self.0.write_str(&text[written..])
    }
}

/// Writes the time now in UTC with microseconds. The calendar is asked once a second.
fn write_time(out: &mut impl Write) -> fmt::Result {
    thread_local! {
        /// A second since 1970, and its time as text without the fraction.
        static SECOND: RefCell<(u64, String)> = const { RefCell::new((u64::MAX, String::new())) };
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    SECOND.with_borrow_mut(|(second, text)| {
        if *second != now.as_secs() {
            *second = now.as_secs();
            *text = ids::timestamp(now.as_secs().saturating_mul(1000));
            text.truncate(text.find('.').unwrap_or(text.len()));
        }
        write!(out, "{text}.{:06}Z", now.subsec_micros())
    })
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex, PoisonError};

    use contracts::ids::timestamp_ms;
    use serde_json::Value;
    use tracing_subscriber::fmt::MakeWriter;
    use tracing_subscriber::layer::SubscriberExt;

    use super::JsonLines;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Lines {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The lines that `log` writes, without their time.
    fn lines_of(ours: bool, log: impl Fn()) -> Vec<String> {
        let lines = Lines::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(lines.clone())
            .json()
            .flatten_event(true);
        let subscriber = tracing_subscriber::registry();
        if ours {
            let subscriber = subscriber.with(layer.event_format(JsonLines::default()));
            tracing::subscriber::with_default(subscriber, log);
        } else {
            tracing::subscriber::with_default(subscriber.with(layer), log);
        }
        let written = lines.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8(written.clone()).unwrap();
        let without_time = |line: &str| {
            let parsed: Value = serde_json::from_str(line).unwrap();
            let time = parsed["timestamp"].as_str().unwrap().to_owned();
            let millis = format!("{}Z", &time[..time.len() - 4]);
            assert!(timestamp_ms(&millis).is_some(), "{time}");
            line.replacen(&time, "", 1)
        };
        text.lines().map(without_time).collect()
    }

    #[test]
    fn every_event_becomes_the_line_that_the_library_writes() {
        let log = || {
            let (none, cause): (Option<&str>, _) = (None, io::Error::other("no \"space\""));
            tracing::info!("plain");
            tracing::warn!(
                none,
                some = Some("x"),
                r#type = "t",
                count = 7_u64,
                minus = -3,
                yes = true,
                "a submission {}",
                "ended"
            );
            tracing::error!(error = %cause, debug = ?["a\\b", "\n\t\r\0\u{7f}"], text = "\u{8}\u{c}\u{1f}ü😀", "x\ny");
            tracing::info!(half = 0.5, whole = 2.0, huge = 1e300, odd = f64::NAN);
            let error: &(dyn std::error::Error + 'static) = &cause;
            tracing::debug!(error, "a cause");
            tracing::info_span!("step", run = 1)
                .in_scope(|| tracing::info!(in_span = true, "within"));
        };
        let (ours, theirs) = (lines_of(true, log), lines_of(false, log));
        assert_eq!(ours.len(), 6);
        for (ours, theirs) in ours.iter().zip(&theirs) {
            let value = |line: &str| serde_json::from_str::<Value>(line).unwrap();
            assert_eq!(value(ours), value(theirs));
        }
        assert_eq!(ours[1], theirs[1]);
    }
}
