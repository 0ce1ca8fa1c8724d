//! Reads a topic's streams by priority, so that none of them starves.

use std::future::Future;

use bus::{ConsumerGroup, Entry, Reader, StoreError};

/// How often it has read, and from where it reads next.
#[derive(Debug, Default)]
pub struct PriorityReader {
    reader: Reader,
    /// How often the streams were read one after the other.
    rounds: usize,
    /// More than one priority filled its share at the last read.
    contended: bool,
}

impl PriorityReader {
    /// Read about `capacity` new entries; waits in Redis for a moment where there are none.
    ///
    /// Redis counts entries per stream. So where the capacity is small or there is much work, one stream is read after
    /// the other: high first, but now and then another. When all are empty, one entry per stream may come at once.
    pub async fn read<F: Future<Output = ()>>(
        &mut self,
        group: &ConsumerGroup,
        capacity: usize,
        stop: impl Fn() -> F,
    ) -> Result<Vec<Entry>, StoreError> {
        let streams = &group.streams;
        let share = capacity / streams.len();
        if share > 0 && !self.contended {
            let found = self
                .reader
                .read(group, streams, share, true, stop())
                .await?;
            let is_full = |stream: &&String| {
                found.iter().filter(|one| one.stream == **stream).count() == share
            };
            self.contended = streams.iter().filter(is_full).count() > 1;
            return Ok(found);
        }
        let first = first_stream(self.rounds, streams.len());
        self.rounds = self.rounds.wrapping_add(1);
        let (later, sooner) = streams.split_at(first);
        for stream in sooner.iter().chain(later) {
            let stream = std::slice::from_ref(stream);
            let found = self
                .reader
                .read(group, stream, capacity, false, stop())
                .await?;
            if !found.is_empty() {
                self.contended = self.contended && found.len() == capacity;
                return Ok(found);
            }
        }
        self.contended = false;
        self.reader.read(group, streams, 1, true, stop()).await
    }
}

/// Which stream is read first: of eight rounds one begins with the last, one with the one before it, six with the first.
fn first_stream(round: usize, streams: usize) -> usize {
    match round % 8 {
        3 => streams.saturating_sub(2),
        7 => streams.saturating_sub(1),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::first_stream;

    #[test]
    fn each_stream_comes_first_now_and_then() {
        let order: Vec<usize> = (0..8).map(|round| first_stream(round, 3)).collect();
        assert_eq!(order, [0, 0, 0, 1, 0, 0, 0, 2]);
        assert!((0..8).all(|round| first_stream(round, 1) == 0));
    }
}
