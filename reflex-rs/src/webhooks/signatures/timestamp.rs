//! The time that a sender signs: it must be close to the present, so that a captured delivery is soon worthless.

use contracts::webhooks::Tolerance;

use super::{Delivery, SignatureError};

/// Reads seconds since 1970 from a text that is signed. `header` is where it was.
pub(super) fn read(header: &str, text: &str) -> Result<u64, SignatureError> {
    // Digits only: the text that is signed and the number that is compared with the clock must be the same.
    Some(text)
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| SignatureError::malformed(header))
}

/// Fails if the signed time is too far from the present, in either direction.
pub(super) fn check(
    tolerance: Tolerance,
    signed_s: u64,
    delivery: &Delivery<'_>,
) -> Result<(), SignatureError> {
    let tolerance_s = tolerance.seconds;
    if signed_s.abs_diff(delivery.now_s) > tolerance_s {
        return Err(SignatureError::Expired { tolerance_s });
    }
    Ok(())
}
