//! One output stream of a step: keeps its beginning and a little of its end, counts the rest, never stops draining.

use tokio::io::{AsyncRead, AsyncReadExt};

/// Times its limit that a stream may write before the step is ended.
pub const FLOOD: u64 = 16;
/// What is kept of the end, to tell causes by.
const TAIL: usize = 2048;

/// What a stream held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// At most the limit.
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
    pub total: u64,
}

impl Captured {
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.total > self.head.len() as u64
    }

    fn take(&mut self, chunk: &[u8], limit: usize) {
        self.total += chunk.len() as u64;
        let room = limit.saturating_sub(self.head.len()).min(chunk.len());
        self.head.extend_from_slice(&chunk[..room]);
        self.tail.extend_from_slice(chunk);
        let surplus = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..surplus);
    }
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
        captured.take(&chunk[..count], most);
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
    async fn keeps_head_and_tail_and_tells_of_a_flood_once() {
        let told = Cell::new(0);
        let text = [b"a".repeat(20_000), b"end".to_vec()].concat();
        let captured = drain(text.as_slice(), 10, || told.set(told.get() + 1)).await;
        assert_eq!(captured.head, b"a".repeat(10));
        assert!(captured.tail.ends_with(b"aend") && captured.tail.len() == 2048);
        assert_eq!((captured.total, told.get()), (20_003, 1));
        assert!(captured.truncated());
    }

    #[tokio::test]
    async fn exactly_the_limit_is_not_truncated() {
        let captured = drain(b"1234".as_slice(), 4, || ()).await;
        assert!(!captured.truncated());
    }
}
