//! Where the files are that ship with `OctoLLM`.

use std::path::{Path, PathBuf};

use super::SettingsError;

/// The folder with `streams.yaml` and `schemas/`: where this program was installed, the checkout that it was built in, or
/// the checkout that it was started in.
pub fn share_dir() -> Result<PathBuf, SettingsError> {
    let mut searched = Vec::new();
    if let Ok(program) = std::env::current_exe() {
        for folder in program.ancestors().skip(1) {
            searched.push(folder.join("share/octollm"));
            searched.push(folder.to_owned());
        }
    }
    if let Ok(current) = std::env::current_dir() {
        searched.extend(current.ancestors().map(Path::to_owned));
    }
    find_share(&searched)
}

/// The first of the candidates that holds what is needed.
fn find_share(candidates: &[PathBuf]) -> Result<PathBuf, SettingsError> {
    let complete = |folder: &&PathBuf| {
        folder.join("streams.yaml").is_file() && folder.join("schemas/events").is_dir()
    };
    candidates
        .iter()
        .find(complete)
        .cloned()
        .ok_or_else(|| {
            let shown: Vec<String> = candidates
                .iter()
                .map(|folder| folder.display().to_string())
                .collect();
            SettingsError(format!(
                "no folder with streams.yaml and schemas/events was found; looked at {}; \
                 install OctoLLM again, or set OCTOLLM_TOPOLOGY_FILE to a streams.yaml next to its schemas",
                shown.join(", ")
            ))
        })
}
