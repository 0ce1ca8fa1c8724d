//! Strict JSON by `schemas/vectors/strict_json.json` (Python reads the same file), its depth, and hostile sizes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::path::Path;

use contracts::{strict_json, Reason};
use serde::Deserialize;

#[derive(Deserialize)]
struct Cases {
    good: Vec<String>,
    bad: BTreeMap<String, String>,
    /// In hexadecimal.
    bad_bytes: BTreeMap<String, String>,
}

fn cases() -> Cases {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors/strict_json.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn bytes(hexadecimal: &str) -> Vec<u8> {
    let digits: Vec<char> = hexadecimal.chars().collect();
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap())
        .collect()
}

fn refused(data: &[u8], name: &str) {
    let error = strict_json::check(data).expect_err(name);
    assert_eq!(error.reason, Reason::Malformed, "{name}");
}

#[test]
fn strict_json_is_taken() {
    for text in cases().good {
        strict_json::check(text.as_bytes()).unwrap_or_else(|error| panic!("{text:?}: {error}"));
    }
}

#[test]
fn anything_else_is_refused() {
    let cases = cases();
    for (name, text) in &cases.bad {
        refused(text.as_bytes(), name);
    }
    for (name, text) in &cases.bad_bytes {
        refused(&bytes(text), name);
    }
}

#[test]
fn nesting_is_bounded_and_needs_no_stack() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = |levels: usize| open.repeat(levels) + "1" + &close.repeat(levels);
        strict_json::check(deep(64).as_bytes()).unwrap();
        for levels in [65, 200_000] {
            let error = strict_json::check(deep(levels).as_bytes()).unwrap_err();
            assert!(error.message.contains("64 levels"), "{error}");
        }
    }
    refused("[".repeat(200_000).as_bytes(), "never closed");
    assert!(strict_json::check_depth(b"[[1]]", 2).is_ok());
    assert!(strict_json::check_depth(b"[[1]]", 1).is_err());
}

/// What serde writes of a value.
fn by_serde(text: &str) -> String {
    serde_json::from_str::<serde_json::Value>(text)
        .unwrap()
        .to_string()
}

#[test]
fn the_canonical_form_is_what_serde_writes() {
    let more = [
        " [ 1 , { \"a\" : [ ] , \"b\" : { } } ]\n",
        "[0.5, 1.50, 1e2, -0.0, 1E-7, 3.0, 123456789012345678901234567890.0]",
        r#"["\u0041\u00e9\ud83d\ude00\u001f\u007f\/\b", "\"\\"]"#,
        r#"{"\u006b": 1, "z": 2, "a": 3}"#,
    ];
    let good = cases().good;
    for text in good.iter().map(String::as_str).chain(more) {
        let mut texts = 0;
        let written =
            strict_json::canonicalize(text.as_bytes(), strict_json::MAX_DEPTH, |_| texts += 1);
        assert_eq!(
            String::from_utf8(written.unwrap()).unwrap(),
            by_serde(text),
            "{text}"
        );
        let quotes = by_serde(text).replace(r"\\", "").replace(r#"\""#, "");
        assert_eq!(quotes.matches('"').count(), 2 * texts, "{text}");
    }
}

#[test]
fn repeated_keys_are_found_however_many_keys_an_object_has() {
    for count in [1, 15, 16, 17, 18, 40, 1000] {
        let keys: Vec<String> = (0..count)
            .map(|key| format!("\"k{key}\": {{\"k0\": 1}}"))
            .collect();
        let text = format!("{{{}}}", keys.join(", "));
        strict_json::check(text.as_bytes()).unwrap();
        for repeated in [0, count / 2, count - 1] {
            let text = format!("{{{}, \"\\u006b{repeated}\": 2}}", keys.join(", "));
            refused(text.as_bytes(), &text);
        }
    }
}
