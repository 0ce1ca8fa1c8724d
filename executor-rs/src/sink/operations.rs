//! What `complete` does in the same breath as it finishes an entry, as values. Pure: turns them into KEYS and ARGV.
//!
//! The order of the arguments is documented in `complete.lua`.

use contracts::keys::LaneKeys;

use crate::source::{Entry, Standing};

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
    /// Another worker has it; ours is discarded.
    Stale,
    Gone,
    Released,
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
            Self::Stale => "stale",
            Self::Gone => "gone",
            Self::Released => "released",
            Self::Abandoned => "abandoned",
        }
    }

    /// For what a script answered instead of doing it.
    #[must_use]
    pub fn of(standing: Standing) -> Self {
        match standing {
            Standing::Gone => Self::Gone,
            _ => Self::Stale,
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

    /// `complete` for one entry.
    #[must_use]
    pub fn complete(
        lane: &LaneKeys,
        group: &str,
        consumer: &str,
        entry: &Entry,
        ending: &Ending,
    ) -> Self {
        let mut call = Self::default();
        call.key(&lane.live());
        call.arg(consumer);
        call.arg(1);
        call.key_arg(&entry.stream);
        call.arg(group);
        call.arg(&entry.id);
        call.arg(entry.delivery);
        call.arg(&ending.live);
        call.arg(ending.operations.len());
        for operation in &ending.operations {
            call.operation(lane, operation);
        }
        call
    }

    fn operation(&mut self, lane: &LaneKeys, operation: &Operation) {
        match operation {
            Operation::Add {
                stream,
                live,
                fields,
            } => {
                self.arg("add");
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
                self.arg("delay");
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
    use super::{Call, Ending, Entry, LaneKeys, Operation, Outcome};

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
        let call = Call::complete(&LaneKeys::new("l0"), "executor", "me", &entry, &ending);
        assert_eq!(
            call.keys,
            [
                "{l0}:live-steps",
                "{l0}:arm.executor:low",
                "{l0}:steps.done",
                "{l0}:schedule",
                "{l0}:schedule:messages"
            ]
        );
        let words: Vec<&str> = call
            .args
            .iter()
            .map(|arg| std::str::from_utf8(arg).unwrap_or("?"))
            .collect();
        let expected = "me 1 2 executor 5-0 2 t.1.s.0 2 add 3 t.1.s.0 1 type x delay 4 5 2 7  m 0";
        assert_eq!(words, expected.split(' ').collect::<Vec<_>>());
    }
}
