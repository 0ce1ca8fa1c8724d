//! Wrong wiring refuses to load and says what to change; `tests/contract/test_topology.py` judges the same files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::{Path, PathBuf};

use contracts::topology;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn each_file_is_judged_as_its_first_line_says() {
    let folder = root().join("tests/contract/topologies");
    let (mut refused, mut accepted) = (0, 0);
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let found = topology::load(&file, &root().join("schemas/events"));
        let first = text.lines().next().unwrap();
        if let Some(wanted) = first.strip_prefix("# refused: ") {
            refused += 1;
            let said = found.map_or_else(|error| error.message, |_| "nothing".to_owned());
            if !said.contains(wanted) {
                wrong.push(format!("{}: {said:?} lacks {wanted:?}", file.display()));
            }
        } else {
            assert!(first.starts_with("# accepted: "), "{}", file.display());
            accepted += 1;
            wrong.extend(found.err().map(|error| error.to_string()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(refused > 0 && accepted > 0);
}

#[test]
fn the_topology_that_ships_is_taken_as_it_is_written() {
    let found =
        topology::load(&root().join("streams.yaml"), &root().join("schemas/events")).unwrap();
    assert_eq!(found.lanes, ["l0"]);
    assert_eq!(found.priorities, ["high", "normal", "low"]);
    let judge = found.arm("judge").unwrap();
    assert_eq!(
        (judge.name.as_str(), judge.lease_s, judge.timeout_s),
        ("arm.judge", 30, Some(30))
    );
    assert!(judge.priorities);
    assert!(found.arm("nobody").is_none());
}

#[test]
fn a_file_that_cannot_be_read_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    let error = topology::load(&folder.path().join("missing.yaml"), folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("OCTOLLM_TOPOLOGY_FILE"),
        "{error}"
    );
}
