//! Files of quotas, and what a client sees of a quota.

use std::path::PathBuf;

use super::{Answer, Redis, Reflex};

pub const BODY: &[u8] = br#"{"goal": "x"}"#;

/// A file of quotas that a test may change.
pub struct File {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl File {
    pub fn new(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = Self {
            path: folder.path().join("quotas.yaml"),
            _folder: folder,
        };
        file.write(text);
        file
    }

    pub fn write(&self, text: &str) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, format!("version: 1\n{text}\n")).unwrap();
        std::fs::rename(new, &self.path).unwrap();
    }

    pub fn start(&self, redis: &Redis) -> Reflex {
        let path = self.path.to_str().unwrap();
        Reflex::ready(redis, &[("OCTOLLM_QUOTAS_FILE", path)])
    }
}

/// The value of a header; empty if there is none.
pub fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let lines = answer.head.lines();
    let mut values = lines.filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    values.next().unwrap_or("")
}

/// Submits this often; returns the statuses that are not 202.
pub fn refusals(reflex: &Reflex, count: usize) -> Vec<u16> {
    let statuses = (0..count).map(|_| reflex.post(BODY, "").status);
    statuses.filter(|status| *status != 202).collect()
}
