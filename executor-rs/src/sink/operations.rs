//! What `complete` does in the same breath as it finishes an entry, as values. Pure: turns them into KEYS and ARGV.
//!
//! The order of the arguments is documented in `complete.lua`.

use contracts::fairness::Described;
use contracts::keys::LaneKeys;

use crate::source::{Entry, Marker, Standing};

/// Names and values of a message.
pub type Fields = Vec<(&'static str, Vec<u8>)>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Put a message on a stream.
    Add {
        stream: String,
        /// Live field that shall name the new entry; empty: none.
        live: String,
        fields: Fields,
    },
    /// Put a message on the schedule; `promote` moves it to `stream` when it is due.
    Delay {
        stream: String,
        delay_ms: u64,
        live: String,
        id: String,
        fields: Fields,
    },
}

/// How an entry ends, also the label of the metric; the same words as in Python.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    Done,
    Failed,
    Retrying,
    Dead,
    /// Its task was cancelled; nothing was sent.
    Cancelled,
    /// Another worker has it; ours is discarded.
    Stale,
    Gone,
    /// Read but not started; given back.
    Released,
    /// The step broke and the fuse is out: given back as if it had not been begun.
    Held,
    /// Left pending; it is taken over when its lease ends.
    Abandoned,
}

impl Outcome {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Retrying => "retrying",
            Self::Dead => "dead",
            Self::Cancelled => "cancelled",
            Self::Stale => "stale",
            Self::Gone => "gone",
            Self::Released => "released",
            Self::Held => "valid",
            Self::Abandoned => "abandoned",
        }
    }

    /// For what a script answered instead of doing it.
    #[must_use]
    pub fn of(standing: Standing) -> Self {
        match standing {
            Standing::Gone => Self::Gone,
            Standing::Cancelled => Self::Cancelled,
            Standing::Released => Self::Released,
            Standing::Held => Self::Abandoned,
            Standing::Done | Standing::Stale => Self::Stale,
        }
    }
}

/// What a step leads to: how it ended and what is written as its entry is finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub outcome: Outcome,
    pub operations: Vec<Operation>,
    /// The step's live field; empty where the entry cannot be attributed to a step.
    pub live: String,
}

impl Ending {
    /// Of a step that was stopped because its task is cancelled: ends the entry only if that is so.
    #[must_use]
    pub fn cancelled(live: String) -> Self {
        Self {
            outcome: Outcome::Cancelled,
            operations: Vec::new(),
            live,
        }
    }
}

/// KEYS and ARGV of one script call.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Call {
    pub keys: Vec<String>,
    pub args: Vec<Vec<u8>>,
}

impl Call {
    /// The key's index in KEYS, from 1; each key stands there once.
    pub fn key(&mut self, name: &str) -> usize {
        if let Some(at) = self.keys.iter().position(|key| key == name) {
            return at + 1;
        }
        self.keys.push(name.to_owned());
        self.keys.len()
    }

    #[allow(clippy::needless_pass_by_value)] // numbers and texts alike, also by reference
    pub fn arg(&mut self, value: impl ToString) {
        self.args.push(value.to_string().into_bytes());
    }

    fn key_arg(&mut self, name: &str) {
        let index = self.key(name);
        self.arg(index);
    }

    fn fields(&mut self, fields: &Fields) {
        self.arg(fields.len());
        for (name, value) in fields {
            self.arg(name);
            self.args.push(value.clone());
        }
    }

    /// `complete` for one entry. A cancelled step's ending counts only while the marker says so; every other one only
    /// while it does not.
    #[must_use]
    pub fn complete(
        lane: &LaneKeys,
        group: &str,
        consumer: &str,
        entry: &Entry,
        marker: Option<&Marker>,
        ending: &Ending,
    ) -> Self {
        let mut call = Self::default();
        call.key(&lane.in_flight());
        call.arg(consumer);
        call.arg(1);
        call.key_arg(&entry.stream);
        call.arg(group);
        call.arg(&entry.id);
        call.arg(entry.delivery);
        call.arg(&ending.live);
        call.arg(ending.operations.len() + usize::from(marker.is_some()));
        if let Some(marker) = marker {
            let only = ending.outcome == Outcome::Cancelled;
            call.arg(if only {
                "only_if_cancelled"
            } else {
                "unless_cancelled"
            });
            call.key_arg(&marker.key);
            call.arg(&marker.tenant);
        }
        for operation in &ending.operations {
            call.operation(lane, operation);
        }
        call
    }

    /// Describes the topic whose window and cap the call has to keep; nothing may be added afterwards.
    pub fn describe(&mut self, topic: &Described) {
        for word in topic.args(self.keys.len()) {
            self.arg(word);
        }
        self.keys.extend_from_slice(topic.keys());
    }

    fn operation(&mut self, lane: &LaneKeys, operation: &Operation) {
        match operation {
            Operation::Add {
                stream,
                live,
                fields,
            } => {
                self.arg("publish");
                self.key_arg(stream);
                self.arg(live);
                self.fields(fields);
            }
            Operation::Delay {
                stream,
                delay_ms,
                live,
                id,
                fields,
            } => {
                self.arg("schedule");
                self.key_arg(&lane.schedule());
                self.key_arg(&lane.messages());
                self.key_arg(stream);
                self.arg(delay_ms);
                self.arg(live);
                self.arg(id);
                self.fields(fields);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Ending, Entry, LaneKeys, Marker, Operation, Outcome};

    #[test]
    fn complete_is_spelled_as_its_script_reads_it() {
        let entry = Entry {
            stream: "{l0}:arm.executor:low".to_owned(),
            id: "5-0".to_owned(),
            delivery: 2,
            fields: Vec::new(),
        };
        let add = Operation::Add {
            stream: "{l0}:steps.done".to_owned(),
            live: "t.1.s.0".to_owned(),
            fields: vec![("type", b"x".to_vec())],
        };
        let delay = Operation::Delay {
            stream: entry.stream.clone(),
            delay_ms: 7,
            live: String::new(),
            id: "m".to_owned(),
            fields: vec![],
        };
        let ending = Ending {
            outcome: Outcome::Done,
            operations: vec![add, delay],
            live: "t.1.s.0".to_owned(),
        };
        let marker = Marker {
            key: "{l0}:cancel:t".to_owned(),
            tenant: "default".to_owned(),
            live: "t.1.s.0".to_owned(),
        };
        let words = |marker: Option<&Marker>, ending: &Ending| {
            let lane = LaneKeys::new("l0");
            let call = Call::complete(&lane, "executor", "me", &entry, marker, ending);
            let words = call.args.iter().map(|arg| String::from_utf8_lossy(arg));
            (call.keys.clone(), words.collect::<Vec<_>>().join(" "))
        };
        let (keys, said) = words(Some(&marker), &ending);
        assert_eq!(
            keys,
            [
                "{l0}:in-flight",
                "{l0}:arm.executor:low",
                "{l0}:cancel:t",
                "{l0}:steps.done",
                "{l0}:schedule",
                "{l0}:schedule:messages"
            ]
        );
        let expected = "me 1 2 executor 5-0 2 t.1.s.0 3 unless 3 default add 4 t.1.s.0 1 type x delay 5 6 2 7  m 0";
        assert_eq!(said, expected);
        let (_, said) = words(Some(&marker), &Ending::cancelled("t.1.s.0".to_owned()));
        assert_eq!(said, "me 1 2 executor 5-0 2 t.1.s.0 1 only 3 default");
        let (_, said) = words(None, &ending);
        assert!(
            said.starts_with("me 1 2 executor 5-0 2 t.1.s.0 2 add 3 "),
            "{said}"
        );
    }
}
