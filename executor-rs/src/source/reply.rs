//! What Redis and the scripts answer, as values of this program.

use redis::Value;

use super::Entry;

/// What a script says about a held entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Done,
    Held,
    /// Its task was cancelled: `complete` has removed it and sent nothing, `renew` keeps it no longer.
    Cancelled,
    Released,
    /// Another consumer has it, or this one got it again: the lease was lost.
    Stale,
    /// Not pending any more.
    Gone,
}

/// The answers of `complete`, `renew` and `release`, in order.
#[must_use]
pub fn standings(answer: &Value) -> Vec<Standing> {
    items(answer)
        .iter()
        .map(|one| match bytes(one) {
            b"done" => Standing::Done,
            b"valid" => Standing::Held,
            b"cancelled" => Standing::Cancelled,
            b"released" => Standing::Released,
            b"stale" => Standing::Stale,
            _ => Standing::Gone,
        })
        .collect()
}

pub(super) fn entry(stream: &str, value: &Value, delivery: u64) -> Option<Entry> {
    let [id, fields] = items(value) else {
        return None;
    };
    Some(Entry {
        stream: stream.to_owned(),
        id: text(id),
        delivery,
        fields: pairs(fields),
    })
}

pub(super) fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        _ => &[],
    }
}

fn bytes(value: &Value) -> &[u8] {
    match value {
        Value::BulkString(bytes) => bytes,
        Value::SimpleString(text) => text.as_bytes(),
        _ => &[],
    }
}

pub(super) fn text(value: &Value) -> String {
    String::from_utf8_lossy(bytes(value)).into_owned()
}

pub(super) fn pairs(value: &Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    items(value)
        .chunks_exact(2)
        .map(|pair| (bytes(&pair[0]).to_vec(), bytes(&pair[1]).to_vec()))
        .collect()
}
