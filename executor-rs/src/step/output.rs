//! The output of a step: its outcome, its streams as text, its parsed result. Limited as a whole.

use contracts::strict_json::check_depth;
use serde::Serialize;
use serde_json::Value;

use super::kinds::StepKind;
use crate::job::{Captured, Cause, Finished, Tier};

/// Of the whole output as JSON; leaves space below the 64 KiB that travel in a message.
pub const MAX_BYTES: usize = 48 * 1024;
/// Nesting of a result: it is some levels deep in the events that carry it, which allow 64.
const MAX_DEPTH: usize = 48;

/// How the step's own code ended. The step has succeeded in all five cases: the judge looks at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    Failed,
    Timeout,
    Memory,
    Output,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Isolation {
    pub tier: Tier,
    /// What was really active.
    pub features: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepOutput {
    pub outcome: Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub stdout_truncated: bool,
    pub stderr_truncated: bool,
    pub duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub isolation: Isolation,
}

/// Turn a finished run into the output of its step. `parse_json`: standard output becomes the result.
#[must_use]
pub fn from_run(finished: Finished, kind: &dyn StepKind, parse_json: bool) -> StepOutput {
    let mut outcome = outcome(&finished, kind);
    let (mut result, mut error) = (None, None);
    if parse_json && outcome == Outcome::Ok {
        match parse(&finished.stdout) {
            Ok(value) => result = Some(value),
            Err(why) => {
                outcome = Outcome::Failed;
                error = Some(why);
            }
        }
    }
    let mut output = StepOutput {
        outcome,
        exit_code: finished.code,
        signal: finished.signal,
        stdout_truncated: finished.stdout.truncated(),
        stderr_truncated: finished.stderr.truncated(),
        stdout: readable(&finished.stdout.head),
        stderr: readable(&finished.stderr.head),
        duration_ms: u64::try_from(finished.duration.as_millis()).unwrap_or(u64::MAX),
        result,
        error,
        isolation: Isolation {
            tier: finished.tier,
            features: finished.features,
        },
    };
    shrink(&mut output);
    output
}

fn outcome(finished: &Finished, kind: &dyn StepKind) -> Outcome {
    if finished.flooded {
        return Outcome::Output;
    }
    match finished.cause {
        Cause::Memory => Outcome::Memory,
        Cause::Wall | Cause::Cpu => Outcome::Timeout,
        Cause::Exited | Cause::Stopped if finished.code == Some(0) => Outcome::Ok,
        Cause::Exited | Cause::Stopped => {
            let out_of_cpu = |code| kind.child_ran_out_of_cpu(code);
            if finished.code.is_some_and(out_of_cpu) {
                Outcome::Timeout
            } else if finished.code.is_some() && out_of_memory(&finished.stderr.tail) {
                Outcome::Memory
            } else {
                Outcome::Failed
            }
        }
    }
}

/// An allocation refused by the limit ends the program with its own message, as one of its last lines.
fn out_of_memory(tail: &[u8]) -> bool {
    let text = String::from_utf8_lossy(tail);
    let mut last = text
        .lines()
        .rev()
        .filter(|line| !line.trim().is_empty())
        .take(2);
    last.any(|line| line.starts_with("MemoryError") || line.ends_with("Cannot allocate memory"))
}

fn parse(stdout: &Captured) -> Result<Value, String> {
    if stdout.truncated() {
        return Err(
            "standard output is longer than limits.output_bytes, so it cannot be parsed as JSON"
                .to_owned(),
        );
    }
    check_depth(&stdout.head, MAX_DEPTH)
        .map_err(|error| format!("standard output is not JSON: {error}"))?;
    serde_json::from_slice(&stdout.head)
        .map_err(|error| format!("standard output is not JSON: {error}"))
}

/// Text that every reader of the events accepts: UTF-8 without NUL.
fn readable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}")
}

/// Escapes can make JSON six times as long as the text; the longer stream is cut first.
fn shrink(output: &mut StepOutput) {
    loop {
        let bytes = size(output);
        if bytes <= MAX_BYTES {
            return;
        }
        let out_first = size(&output.stdout) >= size(&output.stderr);
        let (text, truncated) = if out_first {
            (&mut output.stdout, &mut output.stdout_truncated)
        } else {
            (&mut output.stderr, &mut output.stderr_truncated)
        };
        if text.is_empty() {
            // Only a result is left that is too large by itself.
            output.result = None;
            output.outcome = Outcome::Failed;
            output.error = Some(format!(
                "the result is longer than {MAX_BYTES} bytes of JSON"
            ));
            return;
        }
        let mut keep = text.len() - (text.len() / 8).max(1);
        while !text.is_char_boundary(keep) {
            keep -= 1;
        }
        text.truncate(keep);
        *truncated = true;
    }
}

fn size<T: Serialize>(value: &T) -> usize {
    // Plain data always serializes.
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use crate::step::kinds::{StepKind, KINDS};

    use super::{from_run, size, Captured, Cause, Finished, Outcome, Tier, MAX_BYTES};

    const PYTHON: &dyn StepKind = KINDS[0];
    const SHELL: &dyn StepKind = KINDS[1];

    fn captured(bytes: &[u8]) -> Captured {
        Captured {
            head: bytes.to_vec(),
            tail: bytes.to_vec(),
            total: bytes.len() as u64,
        }
    }

    fn finished(cause: Cause, code: Option<i32>, stdout: &[u8], stderr: &[u8]) -> Finished {
        Finished {
            tier: Tier::Namespaces,
            features: vec!["seccomp".to_owned()],
            cause,
            code,
            signal: code.is_none().then_some(9),
            flooded: false,
            stdout: captured(stdout),
            stderr: captured(stderr),
            duration: Duration::from_millis(5),
        }
    }

    fn outcome_of(cause: Cause, code: Option<i32>, stderr: &[u8]) -> Outcome {
        from_run(finished(cause, code, b"", stderr), PYTHON, false).outcome
    }

    #[test]
    fn each_ending_has_its_outcome() {
        assert_eq!(
            outcome_of(Cause::Exited, Some(0), b"MemoryError"),
            Outcome::Ok
        );
        assert_eq!(
            outcome_of(Cause::Exited, Some(1), b"Traceback\n"),
            Outcome::Failed
        );
        assert_eq!(outcome_of(Cause::Exited, None, b""), Outcome::Failed);
        assert_eq!(
            outcome_of(Cause::Exited, Some(1), b"Traceback\nMemoryError\n"),
            Outcome::Memory
        );
        assert_eq!(outcome_of(Cause::Memory, None, b""), Outcome::Memory);
        assert_eq!(outcome_of(Cause::Wall, None, b""), Outcome::Timeout);
        assert_eq!(outcome_of(Cause::Cpu, None, b""), Outcome::Timeout);
        let mut flood = finished(Cause::Stopped, None, b"", b"");
        flood.flooded = true;
        assert_eq!(from_run(flood, PYTHON, false).outcome, Outcome::Output);
        let shell = finished(Cause::Exited, Some(152), b"", b"");
        assert_eq!(from_run(shell, SHELL, false).outcome, Outcome::Timeout);
    }

    #[test]
    fn json_is_parsed_strictly_or_the_step_failed() {
        let good = from_run(
            finished(Cause::Exited, Some(0), b"{\"a\": [1]}\n", b""),
            PYTHON,
            true,
        );
        assert_eq!(
            (good.outcome, good.result),
            (Outcome::Ok, Some(json!({"a": [1]})))
        );
        for text in [&b"not json"[..], b"", b"NaN", b"{\"a\":1,\"a\":2}", b"1 2"] {
            let bad = from_run(finished(Cause::Exited, Some(0), text, b""), PYTHON, true);
            assert_eq!(
                (bad.outcome, bad.result.is_none(), bad.error.is_some()),
                (Outcome::Failed, true, true)
            );
        }
    }

    #[test]
    fn text_is_always_readable() {
        let output = from_run(
            finished(Cause::Exited, Some(0), b"a\0\xffb", b""),
            PYTHON,
            false,
        );
        assert_eq!(output.stdout, "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn the_whole_stays_within_its_bound() {
        let output = from_run(
            finished(
                Cause::Exited,
                Some(0),
                &vec![1; 24_576],
                &vec![b'"'; 24_576],
            ),
            PYTHON,
            false,
        );
        assert!(size(&output) <= MAX_BYTES, "{}", size(&output));
        assert!(output.stdout_truncated && !output.stdout.is_empty() && !output.stderr.is_empty());
    }
}
