//! What was read, and where it is said that it need not be worked on.

use contracts::ids::parse_message_id;
use contracts::keys::LaneKeys;

/// An entry as it was read: its fields untouched, so that one bad entry is judged alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub stream: String,
    pub id: String,
    /// With the consumer's name the fence of every later write.
    pub delivery: u64,
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    #[must_use]
    pub fn field(&self, name: &str) -> &[u8] {
        self.fields
            .iter()
            .find(|(known, _)| known == name.as_bytes())
            .map_or(&[], |(_, value)| value)
    }
}

/// Where it is said that a step's task is cancelled: the key, and the tenant it has to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    pub key: String,
    pub tenant: String,
    /// The step's field in the hash of live steps.
    pub live: String,
}

impl Marker {
    /// None where the entry cannot be attributed to a step.
    #[must_use]
    pub fn of(entry: &Entry, keys: &LaneKeys) -> Option<Self> {
        let step = parse_message_id(std::str::from_utf8(entry.field("id")).ok()?).ok()?;
        Some(Self {
            key: keys.cancel(step.task.as_str()),
            tenant: String::from_utf8_lossy(entry.field("tenant")).into_owned(),
            live: step.live_field(),
        })
    }
}
