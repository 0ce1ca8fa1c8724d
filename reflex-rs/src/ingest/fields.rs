//! The fields of an entry on an ingest stream: `body` and the optional ones.

use contracts::events::{Event, TaskSubmission};
use contracts::ContractError;

use crate::admission::idempotency_key;

/// Bytes of a field's name in a message.
const MAX_SHOWN_NAME: usize = 100;

/// The fields of an entry. The body is not parsed yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fields<'a> {
    pub body: &'a [u8],
    pub idempotency_key: Option<&'a str>,
    /// Whether the entry names another tenant than its stream. The stream decides, and such an entry is refused.
    pub tenant_mismatch: bool,
}

/// Reads the fields of an entry; `tenant` is the stream's. The error names the wrong field.
pub(super) fn read<'a>(
    entry: &'a [(Vec<u8>, Vec<u8>)],
    tenant: &str,
) -> Result<Fields<'a>, ContractError> {
    let mut seen: Vec<&[u8]> = Vec::new();
    let (mut body, mut key, mut tenant_mismatch) = (None, None, false);
    for (name, value) in entry {
        if seen.contains(&name.as_slice()) {
            return Err(refused(name, "is repeated; write it once"));
        }
        seen.push(name);
        match name.as_slice() {
            b"body" => body = Some(value.as_slice()),
            b"type" if value == TaskSubmission::TYPE.as_bytes() => {}
            b"type" => return Err(refused(name, "must be task.submission.v1, or absent")),
            b"tenant" => tenant_mismatch = value != tenant.as_bytes(),
            b"idempotency_key" => {
                key = Some(idempotency_key(value).ok_or_else(|| {
                    refused(name, "must be 1 to 255 visible ASCII characters")
                })?);
            }
            // Never refused: an invalid value is replaced.
            b"traceparent" => {}
            _ => {
                return Err(refused(
                    name,
                    "is not a field of an ingest entry; the fields are body, type, tenant, traceparent, idempotency_key",
                ))
            }
        }
    }
    let body = body.ok_or_else(|| refused(b"body", "is missing; it holds the task as JSON"))?;
    Ok(Fields {
        body,
        idempotency_key: key,
        tenant_mismatch,
    })
}

/// The name can be anything a producer wrote, so it is made printable. A long one is not shown: a part of it could hide
/// personal data from the rules.
fn refused(name: &[u8], what: &str) -> ContractError {
    if name.len() > MAX_SHOWN_NAME {
        let message = format!("a field with a name of {} bytes {what}", name.len());
        return ContractError::schema("", message);
    }
    let shown: String = String::from_utf8_lossy(name)
        .chars()
        .map(|character| {
            if character.is_control() {
                '?'
            } else {
                character
            }
        })
        .collect();
    ContractError::schema(shown.as_str(), format!("the field {shown} {what}"))
}

#[cfg(test)]
mod tests {
    use super::read;

    fn entry(pairs: &[(&str, &str)]) -> Vec<(Vec<u8>, Vec<u8>)> {
        pairs
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect()
    }

    #[test]
    fn only_the_body_is_required() {
        let minimal = entry(&[("body", "{}")]);
        assert_eq!(read(&minimal, "acme").unwrap().body, b"{}");
        let complete = entry(&[
            ("type", "task.submission.v1"),
            ("tenant", "acme"),
            ("idempotency_key", "k-1"),
            ("traceparent", "odd"),
            ("body", "{}"),
        ]);
        let fields = read(&complete, "acme").unwrap();
        assert_eq!(fields.idempotency_key, Some("k-1"));
        assert!(!fields.tenant_mismatch);
    }

    #[test]
    fn another_tenants_name_is_detected() {
        let other = entry(&[("body", "{}"), ("tenant", "other")]);
        assert!(read(&other, "acme").unwrap().tenant_mismatch);
    }

    #[test]
    fn a_wrong_field_is_refused_by_name_if_that_is_short() {
        let long = "x".repeat(101);
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
            (vec![("body", "{}"), (&long, "1")], ""),
        ] {
            let error = read(&entry(&pairs), "acme").unwrap_err();
            assert_eq!(error.field, named);
            assert!(!error.message.contains(&long), "{error}");
        }
    }
}
