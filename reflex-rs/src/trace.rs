//! W3C trace context: keeps a producer's `traceparent` if it is valid, else generates one.

use contracts::ids;

/// Returns the producer's `traceparent` if it is valid, else a new one.
pub fn accept_or_generate(given: Option<&str>) -> Result<String, getrandom::Error> {
    match given.filter(|text| is_valid(text)) {
        Some(text) => Ok(text.to_owned()),
        None => generate(),
    }
}

/// Returns the trace id within a `traceparent`, for logs.
#[must_use]
pub fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap_or("")
}

fn is_valid(text: &str) -> bool {
    let hex = |part: &str, length| {
        part.len() == length
            && part
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else {
        return false;
    };
    version == "00"
        && hex(trace, 32)
        && hex(span, 16)
        && hex(flags, 2)
        && trace.bytes().any(|byte| byte != b'0')
        && span.bytes().any(|byte| byte != b'0')
}

fn generate() -> Result<String, getrandom::Error> {
    let digits = hex::encode(ids::random::<24>()?);
    Ok(format!("00-{}-{}-01", &digits[..32], &digits[32..]))
}

#[cfg(test)]
mod tests {
    use super::{accept_or_generate, is_valid, trace_id};

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_traceparent_is_kept_and_any_other_is_replaced() {
        assert_eq!(accept_or_generate(Some(GOOD)).unwrap(), GOOD);
        assert_eq!(trace_id(GOOD), "4bf92f3577b34da6a3ce929d0e0e4736");
        for bad in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            let made = accept_or_generate(Some(bad)).unwrap();
            assert_ne!(made, bad);
            assert!(is_valid(&made), "{made}");
        }
        assert_ne!(
            accept_or_generate(None).unwrap(),
            accept_or_generate(None).unwrap()
        );
    }
}
