//! Judges the Rust types by `schemas/vectors`, and strict JSON by hostile texts.

use std::path::{Path, PathBuf};

use contracts::events::{self, Event};
use contracts::{read, strict_json, write, ContractError, Reason};

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
    ]
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).map_or_else(
        |_| Vec::new(),
        |found| found.map(|entry| entry.unwrap().path()).collect(),
    )
}

#[test]
fn the_shared_vectors_are_judged_as_their_folder_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    for (name, reader) in readers() {
        let folder = root.join(name);
        let valid = files(&folder.join("valid"));
        assert!(!valid.is_empty(), "no valid vectors for {name}");
        for file in valid {
            let data = std::fs::read(&file).unwrap();
            let back = reader(&data).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
            let value = |data: &[u8]| serde_json::from_slice::<serde_json::Value>(data).unwrap();
            assert_eq!(value(&data), value(&back), "{}", file.display());
        }
        for file in files(&folder.join("invalid")) {
            assert!(
                reader(&std::fs::read(&file).unwrap()).is_err(),
                "{} was accepted",
                file.display()
            );
        }
        for file in files(&folder.join("codec")) {
            let refused = reader(&std::fs::read(&file).unwrap())
                .err()
                .map(|error| error.reason);
            assert_eq!(refused, Some(Reason::Unreadable), "{}", file.display());
        }
    }
}

#[test]
fn strict_json_refuses_what_it_must_and_takes_the_rest() {
    let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    for good in [
        deep(64).as_str(),
        "{\"a\":1,\"b\":{\"a\":1}}",
        "18446744073709551615",
        "\"\\ud83d\\ude00\"",
        "1e308",
        " [] ",
    ] {
        assert!(strict_json::check(good.as_bytes()).is_ok(), "{good:.40}");
    }
    let bad = [
        deep(65),
        "[".repeat(200_000),
        deep(200_000),
        "{\"a\":1,\"\\u0061\":2}".into(),
        "NaN".into(),
        "1e400".into(),
        "18446744073709551616".into(),
        "\"\\u0000\"".into(),
        "\"\\ud800\"".into(),
        "1 2".into(),
        "01".into(),
        "[1,]".into(),
        "{\"a\":1,}".into(),
        String::new(),
        "\"\u{1}\"".into(),
        "[1}".into(),
        "-".into(),
    ];
    for text in bad {
        assert!(strict_json::check(text.as_bytes()).is_err(), "{text:.40}");
    }
    assert!(strict_json::check(b"\"\xff\"").is_err());
}

#[test]
fn the_topology_that_ships_is_accepted_and_a_short_lease_is_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let text = std::fs::read_to_string(root.join("streams.yaml")).unwrap();
    let schemas = root.join("schemas/events");
    contracts::topology::parse(&text, &schemas).unwrap();
    let short = text.replacen("lease_s: 30", "lease_s: 14", 1);
    assert!(contracts::topology::parse(&short, &schemas)
        .unwrap_err()
        .contains("three heartbeats"));
}
