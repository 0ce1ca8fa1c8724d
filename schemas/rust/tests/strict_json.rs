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
