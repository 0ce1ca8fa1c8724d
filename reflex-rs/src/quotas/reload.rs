//! Reads the file of quotas again when it changes. A file that is refused changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use contracts::quotas::{self, QuotasError};

use super::Quotas;

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a file must have been unchanged before it is read: it may still be being written.
const SETTLE: Duration = Duration::from_millis(100);

/// What tells one version of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Version {
    modified: Option<SystemTime>,
    bytes: u64,
    /// An editor or a container platform puts a new file in the place of the old one.
    file: u64,
}

impl Version {
    async fn of(path: &Path) -> Result<Self, io::ErrorKind> {
        use std::os::unix::fs::MetadataExt;
        let found = tokio::fs::metadata(path).await;
        let found = found.map_err(|error| error.kind())?;
        Ok(Self {
            modified: found.modified().ok(),
            bytes: found.len(),
            file: found.ino(),
        })
    }
}

/// Runs as long as the process. Once a second it also removes idle tenants.
pub(super) async fn watch(quotas: Arc<Quotas>, path: PathBuf, body_limit: usize) {
    // The first version is unknown: it may have changed since the start read it.
    let mut known = None;
    loop {
        let mut found = Version::of(&path).await;
        if Some(found) != known {
            tokio::time::sleep(SETTLE).await;
            let settled = Version::of(&path).await;
            if settled == found {
                apply(&quotas, &path, body_limit, known.is_none()).await;
                // A version that was written meanwhile is read the next time.
                found = settled;
                known = Some(found);
            }
        }
        quotas.prune();
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn apply(quotas: &Quotas, path: &Path, body_limit: usize, first: bool) {
    match read(path, body_limit).await {
        Ok(file) => {
            quotas.metrics.quotas_file(true);
            if quotas.current.load().file != file {
                tracing::info!(
                    tenants = file.tenants.len(),
                    keys = file.keys.len(),
                    "the quotas have changed"
                );
                quotas.replace(file);
            } else if !first {
                tracing::info!("the file of quotas was read again and says the same");
            }
        }
        Err(error) => {
            quotas.metrics.quotas_file(false);
            tracing::error!(%error, "the new file of quotas is refused; the quotas before it stay in force");
        }
    }
}

async fn read(path: &Path, body_limit: usize) -> Result<quotas::Quotas, QuotasError> {
    let of = path.to_owned();
    let load = tokio::task::spawn_blocking(move || quotas::load(&of, body_limit));
    load.await.unwrap_or_else(|error| {
        Err(QuotasError {
            path: path.to_owned(),
            message: error.to_string(),
        })
    })
}
