//! The limits of a step: what it asks for, within what this executor allows.

use contracts::events::{from_object, Object};
use serde::Deserialize;

use super::input::InvalidInput;
use crate::job::Limits;

const DEFAULTS: Limits = Limits {
    wall_s: 10,
    cpu_s: 10,
    memory_mb: 256,
    processes: 32,
    output_bytes: 16 * 1024,
};
const MIN_MEMORY_MB: u64 = 16;
const MAX_MEMORY_MB: u64 = 2048;
const MAX_PROCESSES: u64 = 256;
/// Two streams of this size and the rest still fit the limit of the whole output.
const MAX_OUTPUT_BYTES: u64 = 24 * 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    wall_s: Option<u64>,
    cpu_s: Option<u64>,
    memory_mb: Option<u64>,
    processes: Option<u64>,
    output_bytes: Option<u64>,
}

/// Check the input's `limits`; absent ones get their defaults. `max_s`: the longest time that is allowed.
pub fn parse(raw: Option<Object>, max_s: u64) -> Result<Limits, InvalidInput> {
    let mut limits = Limits {
        wall_s: DEFAULTS.wall_s.min(max_s),
        cpu_s: DEFAULTS.cpu_s.min(max_s),
        ..DEFAULTS
    };
    let Some(raw) = raw else { return Ok(limits) };
    let raw: RawLimits = from_object(raw)
        .map_err(|error| InvalidInput::new(format!("limits.{}", error.field), error.message))?;
    let times = 1..=max_s;
    let (memory, output) = (MIN_MEMORY_MB..=MAX_MEMORY_MB, 0..=MAX_OUTPUT_BYTES);
    for (name, value, limit, range) in [
        ("wall_s", raw.wall_s, &mut limits.wall_s, times.clone()),
        ("cpu_s", raw.cpu_s, &mut limits.cpu_s, times),
        ("memory_mb", raw.memory_mb, &mut limits.memory_mb, memory),
        (
            "processes",
            raw.processes,
            &mut limits.processes,
            1..=MAX_PROCESSES,
        ),
        (
            "output_bytes",
            raw.output_bytes,
            &mut limits.output_bytes,
            output,
        ),
    ] {
        let Some(value) = value else { continue };
        if !range.contains(&value) {
            return Err(InvalidInput::new(
                format!("limits.{name}"),
                format!("must be from {} to {}", range.start(), range.end()),
            ));
        }
        *limit = value;
    }
    Ok(limits)
}
