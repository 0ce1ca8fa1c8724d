//! One output stream of a step: keeps its beginning and a little of its end, counts the rest, never stops draining.

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::job::Captured;

/// Times its limit that a stream may write before the step is ended.
pub const FLOOD: u64 = 16;
/// What is kept of the end, to tell causes by.
const TAIL: usize = 2048;

fn take(captured: &mut Captured, chunk: &[u8], limit: usize) {
    captured.total += chunk.len() as u64;
    let left = limit.saturating_sub(captured.head.len()).min(chunk.len());
    captured.head.extend_from_slice(&chunk[..left]);
    captured.tail.extend_from_slice(chunk);
    let surplus = captured.tail.len().saturating_sub(TAIL);
    captured.tail.drain(..surplus);
}

/// Reads to the end; calls `flooded` once when the stream exceeds its limit by far.
pub async fn drain(
    mut from: impl AsyncRead + Unpin,
    limit: u64,
    flooded: impl FnOnce(),
) -> Captured {
    let mut captured = Captured::default();
    let mut flooded = Some(flooded);
    let mut chunk = vec![0; 16 * 1024];
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    // A read error of a pipe is its end.
    while let Ok(count @ 1..) = from.read(&mut chunk).await {
        take(&mut captured, &chunk[..count], most);
        if captured.total > limit.saturating_mul(FLOOD) {
            if let Some(flooded) = flooded.take() {
                flooded();
            }
        }
    }
    captured
}

#[cfg(test)]
mod tests {
    use super::drain;
    use std::cell::Cell;

    #[tokio::test]
    async fn keeps_head_and_tail_and_reports_a_flood_once() {
        let reports = Cell::new(0);
        let text = [b"a".repeat(20_000), b"end".to_vec()].concat();
        let captured = drain(text.as_slice(), 10, || reports.set(reports.get() + 1)).await;
        assert_eq!(captured.head, b"a".repeat(10));
        assert!(captured.tail.ends_with(b"aend") && captured.tail.len() == 2048);
        assert_eq!((captured.total, reports.get()), (20_003, 1));
        assert!(captured.truncated());
    }

    #[tokio::test]
    async fn exactly_the_limit_is_not_truncated() {
        let captured = drain(b"1234".as_slice(), 4, || ()).await;
        assert!(!captured.truncated());
    }
}
