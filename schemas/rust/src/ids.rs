//! Identifiers: task ids, step fields, message ids, lanes, and the time as text. Pure: clock and randomness come in.

use sha2::{Digest, Sha256};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::error::ContractError;
use crate::events::{Name, TaskId};

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A lower-case ULID of a time in milliseconds and 80 random bits.
#[must_use]
pub fn ulid(now_ms: u64, random: [u8; 10]) -> String {
    let noise = random
        .iter()
        .fold(0_u128, |sum, byte| (sum << 8) | u128::from(*byte));
    let number = (u128::from(now_ms & 0xffff_ffff_ffff) << 80) | noise;
    (0..26)
        .rev()
        .map(|place| char::from(CROCKFORD[((number >> (5 * place)) & 31) as usize]))
        .collect()
}

/// Fresh random bits for `ulid`.
pub fn random() -> Result<[u8; 10], getrandom::Error> {
    let mut bytes = [0; 10];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
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
    use std::fmt::Write as _;
    Sha256::digest(data)
        .iter()
        .fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
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
    /// `<task>.<run>.<step>.<round>`: the field in the hash of live steps.
    #[must_use]
    pub fn in_flight_field(&self) -> String {
        in_flight_field(&self.task, self.run, &self.step, self.round)
    }

    /// The live field and the attempt.
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

/// UTC, RFC 3339 with exactly milliseconds and `Z`.
#[must_use]
pub fn timestamp(now_ms: u64) -> String {
    let (seconds, millis) = (now_ms / 1000, now_ms % 1000);
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Milliseconds since 1970 of a time as `timestamp` writes it; none for any other text and before 1970.
#[must_use]
pub fn timestamp_ms(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| -> Option<u64> {
        let digits = text.get(from..to)?;
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok()).flatten()
    };
    (text.len() == 24).then_some(())?;
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    let valid = (1..=12).contains(&month) && (1..=31).contains(&day);
    (valid && hour < 24 && minute < 60 && second <= 60).then_some(())?;
    let days = days(year, month, day)?;
    Some((days * 86_400 + hour * 3600 + minute * 60 + second) * 1000 + number(20, 23)?)
}

/// The opposite of `civil`.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

/// The time now, as text.
#[must_use]
pub fn utc_now() -> String {
    timestamp(now_ms())
}

/// Gregorian date of a day since 1970-01-01, by the usual shift to a year that starts in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::{timestamp, timestamp_ms};

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
        for wrong in [
            "",
            "1969-12-31T23:59:59.999Z",
            "2000-13-01T00:00:00.000Z",
            "2000-0a-01T00:00:00.000Z",
        ] {
            assert_eq!(timestamp_ms(wrong), None, "{wrong}");
        }
    }
}
