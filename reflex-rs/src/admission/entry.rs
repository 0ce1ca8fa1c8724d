//! The fields of an entry on an ingest stream: `body`, and what else a producer may write beside it.

use contracts::events::{Event, TaskSubmission};
use contracts::ContractError;

/// What a producer wrote, each field once. Still nothing is known about the body.
#[derive(Debug, PartialEq, Eq)]
pub struct Fields<'a> {
    pub body: &'a [u8],
    pub key: Option<&'a str>,
    /// It names another tenant than its stream does. The stream decides; such an entry is refused.
    pub foreign: bool,
}

/// Reads an entry's fields; `tenant` is the stream's.
pub fn fields<'a>(
    entry: &'a [(Vec<u8>, Vec<u8>)],
    tenant: &str,
) -> Result<Fields<'a>, ContractError> {
    let mut seen: Vec<&[u8]> = Vec::new();
    let (mut body, mut key, mut foreign) = (None, None, false);
    for (name, value) in entry {
        if seen.contains(&name.as_slice()) {
            return Err(refused(name, "stands twice; write it once"));
        }
        seen.push(name);
        match name.as_slice() {
            b"body" => body = Some(value.as_slice()),
            b"type" if value == TaskSubmission::TYPE.as_bytes() => {}
            b"type" => return Err(refused(name, "must be task.submission.v1, or absent")),
            b"tenant" => foreign = value != tenant.as_bytes(),
            b"idempotency_key" => {
                key = Some(idempotency_key(value).ok_or_else(|| {
                    refused(name, "must be 1 to 255 visible ASCII characters")
                })?);
            }
            // Never refused: an invalid one is replaced.
            b"traceparent" => {}
            _ => {
                return Err(refused(
                    name,
                    "is no field of an ingest entry; the fields are body, type, tenant, traceparent, idempotency_key",
                ))
            }
        }
    }
    let body = body.ok_or_else(|| refused(b"body", "is missing; it holds the task as JSON"))?;
    Ok(Fields { body, key, foreign })
}

/// A key as both doors take it.
#[must_use]
pub fn idempotency_key(raw: &[u8]) -> Option<&str> {
    let fits = (1..=255).contains(&raw.len()) && raw.iter().all(u8::is_ascii_graphic);
    std::str::from_utf8(raw).ok().filter(|_| fits)
}

/// The field's name may be anything a producer wrote, so it is made fit for a terminal and cut.
fn refused(name: &[u8], what: &str) -> ContractError {
    let shown: String = String::from_utf8_lossy(name)
        .chars()
        .take(100)
        .map(|letter| if letter.is_control() { '?' } else { letter })
        .collect();
    ContractError::schema(shown.as_str(), format!("the field {shown} {what}"))
}

#[cfg(test)]
mod tests {
    use super::fields;

    fn entry(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn only_the_body_is_required() {
        let least = entry(&[("body", "{}")]);
        assert_eq!(fields(&least, "acme").unwrap().body, b"{}");
        let most = entry(&[
            ("type", "task.submission.v1"),
            ("tenant", "acme"),
            ("idempotency_key", "k-1"),
            ("traceparent", "odd"),
            ("body", "{}"),
        ]);
        let read = fields(&most, "acme").unwrap();
        assert_eq!(read.key, Some("k-1"));
        assert!(!read.foreign);
    }

    #[test]
    fn another_tenants_name_is_noticed() {
        let other = entry(&[("body", "{}"), ("tenant", "other")]);
        assert!(fields(&other, "acme").unwrap().foreign);
    }

    #[test]
    fn a_wrong_field_is_refused_by_name() {
        for (pairs, named) in [
            (vec![("type", "task.submission.v1")], "body"),
            (vec![("body", "{}"), ("type", "step.done.v1")], "type"),
            (
                vec![("body", "{}"), ("idempotency_key", "")],
                "idempotency_key",
            ),
            (
                vec![("body", "{}"), ("idempotency_key", "a b")],
                "idempotency_key",
            ),
            (vec![("body", "{}"), ("body", "{}")], "body"),
            (vec![("body", "{}"), ("surplus", "1")], "surplus"),
        ] {
            assert_eq!(fields(&entry(&pairs), "acme").unwrap_err().field, named);
        }
    }
}
