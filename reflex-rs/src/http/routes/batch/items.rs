//! The items of a batch: a JSON array of submissions, or one submission in each line. Pure.

use std::borrow::Cow;

use axum::body::Bytes;
use contracts::{strict_json, ContractError};
use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::admission;
use crate::byte_order::without_mark;

/// Items in one batch.
const MAX_ITEMS: usize = 1000;
/// The member of an item that is not part of the submission.
const KEY: &str = "idempotency_key";

/// How the items are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Array,
    /// One item in each line; empty lines are ignored.
    Lines,
}

/// One submission.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// Its JSON, without its key. Not checked yet.
    pub body: Bytes,
    pub idempotency_key: Option<String>,
}

/// Reads the items. The error is about the batch as a whole; an item that cannot be read is an error of its own.
pub(super) fn read(
    body: &Bytes,
    form: Form,
) -> Result<Vec<Result<Item, ContractError>>, ContractError> {
    let text = without_mark(body)?;
    let parts = match form {
        Form::Array => array(text)?,
        Form::Lines => lines(text),
    };
    if parts.is_empty() || parts.len() > MAX_ITEMS {
        let rule = format!(
            "a batch has 1 to {MAX_ITEMS} items, and this one has {}",
            parts.len()
        );
        return Err(ContractError::schema("", rule));
    }
    let read = |part: &[u8]| {
        if form == Form::Lines {
            strict_json::check(part)?;
        }
        item(body, part)
    };
    Ok(parts.into_iter().map(read).collect())
}

fn array(text: &[u8]) -> Result<Vec<&[u8]>, ContractError> {
    strict_json::check(text)?;
    let items: Vec<&RawValue> = serde_json::from_slice(text).map_err(|_| {
        let rule = "must be an array of submissions; with one in each line, send Content-Type: application/x-ndjson";
        ContractError::schema("", rule)
    })?;
    Ok(items.iter().map(|item| item.get().as_bytes()).collect())
}

fn lines(text: &[u8]) -> Vec<&[u8]> {
    text.split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .filter(|line| !line.is_empty())
        .collect()
}

/// Takes the key from a part of the body that is strict JSON.
fn item(body: &Bytes, part: &[u8]) -> Result<Item, ContractError> {
    let members: Option<IndexMap<Cow<'_, str>, &RawValue>> = serde_json::from_slice(part).ok();
    let key = members.as_ref().and_then(|members| members.get(KEY));
    let (Some(members), Some(key)) = (&members, key) else {
        // Something else than an object is refused when it is admitted.
        return Ok(Item {
            body: body.slice_ref(part),
            idempotency_key: None,
        });
    };
    let key: Option<String> = serde_json::from_str(key.get()).ok();
    let key = key
        .filter(|key| admission::idempotency_key(key.as_bytes()).is_some())
        .ok_or_else(|| {
            let rule = "must be a text of 1 to 255 visible ASCII characters";
            ContractError::schema(KEY, rule)
        })?;
    let others = members.iter().filter(|(name, _)| *name != KEY);
    let rest: IndexMap<_, _> = others.collect();
    let rest =
        serde_json::to_vec(&rest).map_err(|error| ContractError::malformed(error.to_string()))?;
    Ok(Item {
        body: rest.into(),
        idempotency_key: Some(key),
    })
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::{read, Form, MAX_ITEMS};

    /// The items of a batch, each as its body and its key, or as the field of its error.
    fn items(text: &str, form: Form) -> Vec<(String, String)> {
        let body = Bytes::copy_from_slice(text.as_bytes());
        let shown = |item: Result<super::Item, contracts::ContractError>| match item {
            Ok(item) => {
                let body = String::from_utf8(item.body.to_vec()).unwrap();
                (body, item.idempotency_key.unwrap_or_default())
            }
            Err(error) => ("error".to_owned(), error.field),
        };
        read(&body, form).unwrap().into_iter().map(shown).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(body, key): &(&str, &str)| ((*body).to_owned(), (*key).to_owned());
        expected.iter().map(owned).collect()
    }

    #[test]
    fn an_array_and_lines_have_the_same_items() {
        let expected = pairs(&[
            (r#"{"goal": "a"}"#, ""),
            (r#"{"goal":"b","input":{"n": 1.50}}"#, "k-1"),
            ("7", ""),
        ]);
        let array = r#" [{"goal": "a"} , {"goal": "b", "idempotency_key": "k-1", "input": {"n": 1.50}}, 7] "#;
        assert_eq!(items(array, Form::Array), expected);
        let lines = "{\"goal\": \"a\"}\r\n\n{\"goal\": \"b\", \"\\u0069dempotency_key\": \"k-1\", \"input\": {\"n\": 1.50}}\n 7\n";
        assert_eq!(items(lines, Form::Lines), expected);
        assert_eq!(items(&format!("\u{feff}{array}"), Form::Array), expected);
    }

    #[test]
    fn an_item_that_cannot_be_read_leaves_the_others() {
        let lines = "{\"goal\": \"a\"}\n{\"goal\n{\"a\": 1, \"a\": 2}\n{\"goal\": \"b\", \"idempotency_key\": \"a b\"}\n{}";
        let expected = pairs(&[
            (r#"{"goal": "a"}"#, ""),
            ("error", ""),
            ("error", ""),
            ("error", "idempotency_key"),
            ("{}", ""),
        ]);
        assert_eq!(items(lines, Form::Lines), expected);
        for key in ["7", "null", "\"\"", "[]"] {
            let array = format!(r#"[{{"idempotency_key": {key}}}]"#);
            assert_eq!(items(&array, Form::Array)[0].1, "idempotency_key", "{key}");
        }
    }

    #[test]
    fn a_batch_that_is_no_batch_is_refused() {
        let refused =
            |text: &str, form| read(&Bytes::copy_from_slice(text.as_bytes()), form).is_err();
        for text in [
            "",
            "[",
            "{}",
            "[]",
            "7",
            "[{\"a\": 1, \"a\": 2}]",
            "[{}] {}",
        ] {
            assert!(refused(text, Form::Array), "{text}");
        }
        assert!(refused("\n \n", Form::Lines));
        let many = |count| format!("[{}]", vec!["{}"; count].join(","));
        assert!(!refused(&many(MAX_ITEMS), Form::Array));
        assert!(refused(&many(MAX_ITEMS + 1), Form::Array));
    }
}
