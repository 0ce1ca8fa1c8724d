//! What was read from a stream. Pure data.

use contracts::ids::parse_message_id;
use contracts::keys::LaneKeys;

/// An entry as it was delivered; its fields are untouched, so that one bad entry is judged alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub stream: String,
    pub id: String,
    /// How often it was delivered, this time included. With the consumer's name it fences every later write.
    pub delivery: u64,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// The value of a field; empty where the entry has no such field.
    #[must_use]
    pub fn field(&self, name: &str) -> &[u8] {
        self.fields
            .iter()
            .find(|(known, _)| known == name.as_bytes())
            .map_or(&[], |(_, value)| value)
    }

    /// `fields`: names and values in turn, as Redis sends them.
    pub(crate) fn new(stream: &str, id: String, delivery: u64, fields: Vec<Vec<u8>>) -> Self {
        let mut pairs = Vec::with_capacity(fields.len() / 2);
        let mut fields = fields.into_iter();
        while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
            pairs.push((name, value));
        }
        Self {
            stream: stream.to_owned(),
            id,
            delivery,
            fields: pairs,
        }
    }
}

/// The run that a step belongs to. `lua/ended_runs.lua` describes how Redis knows that it has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepRun {
    /// Key of the lane's ended runs.
    pub ended_runs: String,
    /// `<task>.<run>`.
    pub run: String,
    pub tenant: String,
    /// The step's field in the in-flight index.
    pub in_flight: String,
}

impl StepRun {
    /// `None` where the entry cannot be attributed to a step.
    #[must_use]
    pub fn of(entry: &Entry, keys: &LaneKeys) -> Option<Self> {
        let step = parse_message_id(std::str::from_utf8(entry.field("id")).ok()?).ok()?;
        Some(Self {
            ended_runs: keys.ended_runs(),
            run: format!("{}.{}", step.task.as_str(), step.run),
            tenant: String::from_utf8_lossy(entry.field("tenant")).into_owned(),
            in_flight: step.in_flight_field(),
        })
    }
}
