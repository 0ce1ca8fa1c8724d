//! Judges the Rust types by `schemas/vectors`; `tests/contract/test_vectors.py` is the twin.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use contracts::events::{self, Event};
use contracts::{read, write, ContractError, Reason};

type Trip = fn(&[u8]) -> Result<Vec<u8>, ContractError>;

fn trip<T: Event>(data: &[u8]) -> Result<Vec<u8>, ContractError> {
    write(&read::<T>(data)?)
}

fn readers() -> Vec<(&'static str, Trip)> {
    use events::*;
    vec![
        (TaskSubmission::TYPE, trip::<TaskSubmission>),
        (TaskSubmitted::TYPE, trip::<TaskSubmitted>),
        (TaskRejected::TYPE, trip::<TaskRejected>),
        (StepRequested::TYPE, trip::<StepRequested>),
        (StepDone::TYPE, trip::<StepDone>),
        (TaskResult::TYPE, trip::<TaskResult>),
        (TaskEvent::TYPE, trip::<TaskEvent>),
        (DeadLetter::TYPE, trip::<DeadLetter>),
        (TaskStatus::TYPE, trip::<TaskStatus>),
        (TaskCancel::TYPE, trip::<TaskCancel>),
        (TaskRedrive::TYPE, trip::<TaskRedrive>),
        (DeadDrop::TYPE, trip::<DeadDrop>),
    ]
}

/// Every vector of one kind, with the reader that should judge it.
fn vectors(kind: &str) -> Vec<(PathBuf, Trip)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    let mut found = Vec::new();
    for (event, reader) in readers() {
        let before = found.len();
        for entry in std::fs::read_dir(root.join(event).join(kind)).unwrap() {
            found.push((entry.unwrap().path(), reader));
        }
        assert!(found.len() > before, "no {kind} vectors of {event}");
    }
    found
}

fn refusal(file: &Path, reader: Trip) -> ContractError {
    match reader(&std::fs::read(file).unwrap()) {
        Ok(_) => panic!("{} was accepted", file.display()),
        Err(error) => error,
    }
}

/// Whether `word` is in `text` as a whole word.
fn says(text: &str, word: &str) -> bool {
    text.split(|character: char| !character.is_alphanumeric() && character != '_')
        .any(|part| part == word)
}

#[test]
fn every_event_has_a_reader() {
    let names: Vec<_> = readers().into_iter().map(|(name, _)| name).collect();
    let mut schemas: Vec<_> =
        std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../events"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
    schemas.sort();
    let mut wanted: Vec<_> = names
        .iter()
        .map(|name| format!("{name}.schema.json"))
        .collect();
    wanted.sort();
    assert_eq!(schemas, wanted);
    assert_eq!(names, events::TYPES);
}

#[test]
fn a_valid_vector_survives_the_round_trip() {
    for (file, reader) in vectors("valid") {
        let data = std::fs::read(&file).unwrap();
        let back = reader(&data).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let value = |data: &[u8]| serde_json::from_slice::<serde_json::Value>(data).unwrap();
        assert_eq!(value(&data), value(&back), "{}", file.display());
        assert_eq!(back, reader(&back).unwrap(), "{}", file.display());
    }
}

#[test]
fn an_invalid_vector_is_refused_by_the_name_of_its_field() {
    for (file, reader) in vectors("invalid") {
        let error = refusal(&file, reader);
        assert_eq!(error.reason, Reason::Schema, "{}", file.display());
        let name = file.file_name().unwrap().to_str().unwrap();
        let field = name.rsplit('.').nth(2).unwrap();
        let field = if field == "document" { "object" } else { field };
        assert!(
            says(&error.to_string(), field),
            "{}: {error}",
            file.display()
        );
    }
}

#[test]
fn a_codec_vector_never_gets_as_far_as_its_schema() {
    for (file, reader) in vectors("codec") {
        let error = refusal(&file, reader);
        assert_eq!(error.reason, Reason::Malformed, "{}", file.display());
    }
}

#[test]
fn a_refusal_never_quotes_the_value() {
    let cases: [(Trip, &str); 8] = [
        (
            trip::<events::TaskSubmission>,
            r#"{"goal":"x","priority":"SECRET"}"#,
        ),
        (trip::<events::TaskSubmission>, r#"{"goal":["SECRET"]}"#),
        (
            trip::<events::TaskSubmission>,
            r#"{"goal":"x","deadline_s":"SECRET"}"#,
        ),
        (
            trip::<events::TaskSubmission>,
            r#"{"goal":"x","input":"SECRET, expected SECRET at line SECRET"}"#,
        ),
        (
            trip::<events::TaskSubmission>,
            r#"{"goal":"x","SECRET":1,"SECRET":2}"#,
        ),
        (trip::<events::StepDone>, r#"{"outcome":"SECRET"}"#),
        (trip::<events::TaskSubmission>, r#"{"goal":SECRET}"#),
        (
            trip::<events::TaskStatus>,
            r#"{"result":{"steps":[{"step":"SECRET"}]}}"#,
        ),
    ];
    for (reader, text) in cases {
        let message = reader(text.as_bytes()).unwrap_err().to_string();
        assert!(!message.contains("SECRET"), "{message}");
    }
}
