//! A wrong file of webhook sources refuses to load and says what to change; `tests/contract/test_webhooks.py` judges the
//! same files.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

use contracts::webhooks::{self, Scheme, Secret};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn each_file_is_judged_as_its_first_line_says() {
    let (mut refused, mut accepted, mut wrong) = (0, 0, Vec::new());
    for entry in std::fs::read_dir(root().join("tests/contract/webhooks")).unwrap() {
        let file = entry.unwrap().path();
        let text = std::fs::read_to_string(&file).unwrap();
        let found = webhooks::load(&file);
        let first = text.lines().next().unwrap();
        if let Some(wanted) = first.strip_prefix("# refused: ") {
            refused += 1;
            let said = found.map_or_else(|error| error.message, |_| "nothing".to_owned());
            if !said.contains(wanted) || said.contains("hunter2") {
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
fn the_file_that_ships_has_github() {
    let sources = webhooks::load(&root().join("webhooks.yaml")).unwrap();
    let github = &sources["github"];
    assert_eq!(github.scheme, Scheme::Github);
    assert_eq!(
        github.secrets,
        [Secret::Env("GITHUB_WEBHOOK_SECRET".to_owned())]
    );
    let input: Vec<&str> = github.events["issues"]
        .input
        .keys()
        .map(String::as_str)
        .collect();
    assert_eq!(
        input,
        [
            "action",
            "repository",
            "number",
            "title",
            "body",
            "author",
            "url"
        ]
    );
}

#[test]
fn a_file_that_cannot_be_read_names_the_setting() {
    let error = webhooks::load(Path::new("/nowhere/webhooks.yaml")).unwrap_err();
    assert!(error.to_string().contains("OCTOLLM_WEBHOOKS_FILE"));
}
