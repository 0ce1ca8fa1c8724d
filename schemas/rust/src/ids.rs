//! Identifiers: task ids, step fields, message ids, lanes, and the time as text. Pure: clock and randomness come in.

use jiff::fmt::temporal::DateTimePrinter;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use std::cell::RefCell;
use std::time::{SystemTime, UNIX_EPOCH};
use ulid::Ulid;

use crate::error::ContractError;
use crate::events::{Name, TaskId};

const FORMAT: DateTimePrinter = DateTimePrinter::new().precision(Some(3));

/// A lower-case ULID of a time in milliseconds (48 bits) and 80 random bits.
#[must_use]
pub fn ulid(now_ms: u64, random: [u8; 10]) -> String {
    let mut bits = [0; 16];
    bits[6..].copy_from_slice(&random);
    let mut text = Ulid::from_parts(now_ms, u128::from_be_bytes(bits)).to_string();
    text.make_ascii_lowercase();
    text
}

/// Random bytes that the system is asked for at once.
const RANDOM_BYTES: usize = 1024;

/// Fresh random bytes, for ids. The system is asked once for many ids.
pub fn random<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    thread_local! {
        static UNUSED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    }
    UNUSED.with_borrow_mut(|unused| {
        if unused.len() < N {
            unused.resize(RANDOM_BYTES.max(N), 0);
            if let Err(error) = getrandom::fill(unused) {
                unused.clear();
                return Err(error);
            }
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&unused[unused.len() - N..]);
        unused.truncate(unused.len() - N);
        Ok(bytes)
    })
}

/// `<lane>-<ulid>`.
pub fn task_id(lane: &str, ulid: &str) -> Result<TaskId, ContractError> {
    format!("{lane}-{ulid}").try_into()
}

/// The lane that a task id carries.
#[must_use]
pub fn lane_of(task: &TaskId) -> &str {
    task.as_str().split_once('-').map_or("", |(lane, _)| lane)
}

/// Index of the lane of a tenant's idempotency key (the ULID of the task where there is none).
#[must_use]
pub fn lane_index(tenant: &str, key: &str, lanes: usize) -> usize {
    let digest = Sha256::digest(format!("{tenant}\n{key}").as_bytes());
    let number = digest
        .iter()
        .take(8)
        .fold(0_u64, |sum, byte| (sum << 8) | u64::from(*byte));
    usize::try_from(number % (lanes.max(1) as u64)).unwrap_or(0)
}

/// SHA-256 as lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(data: &[u8]) -> String {
    hex::encode(Sha256::digest(data))
}

/// Identity of one attempt at a step; the `id` field of its messages.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StepIdent {
    pub task: TaskId,
    pub run: i64,
    pub step: Name,
    pub round: i64,
    pub attempt: i64,
}

impl StepIdent {
    /// `<task>.<run>.<step>.<round>`: the field in the in-flight index.
    #[must_use]
    pub fn in_flight_field(&self) -> String {
        in_flight_field(&self.task, self.run, &self.step, self.round)
    }

    /// The in-flight field and the attempt.
    #[must_use]
    pub fn message_id(&self) -> String {
        format!("{}.{}", self.in_flight_field(), self.attempt)
    }
}

/// `<task>.<run>.<step>.<round>`.
#[must_use]
pub fn in_flight_field(task: &TaskId, run: i64, step: &Name, round: i64) -> String {
    format!("{task}.{run}.{step}.{round}")
}

/// `<task>.<run>.<step>.<round>.<attempt>`.
#[must_use]
pub fn message_id(task: &TaskId, run: i64, step: &Name, round: i64, attempt: i64) -> String {
    format!("{}.{attempt}", in_flight_field(task, run, step, round))
}

/// Reads a message id back, so that even an unreadable body can be attributed.
pub fn parse_message_id(text: &str) -> Result<StepIdent, ContractError> {
    let parts: Vec<&str> = text.split('.').collect();
    let [task, run, step, round, attempt] = parts[..] else {
        return Err(ContractError::schema(
            "id",
            "must be <task>.<run>.<step>.<round>.<attempt>",
        ));
    };
    let number = |text: &str, least: i64, most: i64| {
        let plain = !text.is_empty()
            && text.bytes().all(|byte| byte.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        text.parse::<i64>()
            .ok()
            .filter(|value| plain && (least..=most).contains(value))
            .ok_or_else(|| ContractError::schema("id", "has a number out of range"))
    };
    Ok(StepIdent {
        task: task.parse()?,
        run: number(run, 1, 2_147_483_647)?,
        step: step.parse()?,
        round: number(round, 0, 1000)?,
        attempt: number(attempt, 1, 2_147_483_647)?,
    })
}

/// Milliseconds since 1970 by this machine's clock.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// UTC, RFC 3339 with exactly milliseconds and `Z`. A time too late for jiff is written as its last one, in 9999.
#[must_use]
pub fn timestamp(now_ms: u64) -> String {
    let time = i64::try_from(now_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok())
        .unwrap_or(Timestamp::MAX);
    FORMAT.timestamp_to_string(&time)
}

/// Milliseconds since 1970 of a time as `timestamp` writes it; none for any other text and before 1970.
#[must_use]
pub fn timestamp_ms(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    // jiff also reads offsets, other precisions, and 60 seconds.
    (FORMAT.timestamp_to_string(&time) == text).then_some(())?;
    u64::try_from(time.as_millisecond()).ok()
}

/// The time now, as text.
#[must_use]
pub fn utc_now() -> String {
    timestamp(now_ms())
}

#[cfg(test)]
mod tests {
    use super::{random, timestamp, timestamp_ms};

    #[test]
    fn random_bytes_are_used_once() {
        let drawn: std::collections::HashSet<[u8; 10]> =
            (0..1000).map(|_| random().unwrap()).collect();
        assert_eq!(drawn.len(), 1000);
    }

    #[test]
    fn a_time_survives_being_written_and_read() {
        for ms in [
            0,
            1,
            951_782_399_999,
            951_782_400_000,
            1_767_225_599_999,
            4_102_444_800_123,
        ] {
            assert_eq!(timestamp_ms(&timestamp(ms)), Some(ms));
        }
        assert_eq!(
            timestamp_ms("2000-02-29T00:00:00.000Z"),
            Some(951_782_400_000)
        );
        assert_eq!(timestamp(u64::MAX), timestamp(253_402_207_200_999));
        for wrong in [
            "",
            "1969-12-31T23:59:59.999Z",
            "2000-13-01T00:00:00.000Z",
            "2000-0a-01T00:00:00.000Z",
            "2001-02-29T00:00:00.000Z",
            "2000-01-01T24:00:00.000Z",
            "2000-01-01T23:59:60.000Z",
            "2000-01-01T00:00:00Z",
            "2000-01-01T00:00:00.000000Z",
            "2000-01-01T00:00:00.000+00:00",
            "2000-01-01 00:00:00.000Z",
            "2000-01-01T00:00:00.000z",
            "2000-01-01T00:00:00.000Z ",
            "2000-01-01T00:00:00.000Z[UTC]",
        ] {
            assert_eq!(timestamp_ms(wrong), None, "{wrong}");
        }
    }
}
