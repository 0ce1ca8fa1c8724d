//! A step's folder on the host: fresh, private, and gone afterwards whatever happened.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{chown, DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{flock, FlockOperation};

use super::syscall::{is_root, NOBODY};

const PREFIX: &str = "octollm-step-";

/// Removed when dropped. By then every process of the step must have ended.
#[derive(Debug)]
pub struct Workspace {
    folder: PathBuf,
    /// Locked while the folder is in use: what is unlocked was left behind by an executor that was killed.
    _lock: File,
}

impl Workspace {
    /// Makes `<parent>/octollm-step-<random>/{work,root}` and writes the files; their paths were checked before.
    pub fn create(parent: &Path, files: &BTreeMap<String, String>) -> io::Result<Self> {
        let random =
            contracts::ids::random().map_err(|error| io::Error::other(error.to_string()))?;
        let folder = parent.join(format!(
            "{PREFIX}{}",
            contracts::ids::ulid(contracts::ids::now_ms(), random)
        ));
        make_private(&folder)?;
        let lock = File::open(&folder)?;
        lock_now(&lock)?;
        let made = Self {
            folder,
            _lock: lock,
        };
        let work = made.work();
        make_private(&work)?;
        make_private(&made.root())?;
        make_private(&work.join("tmp"))?;
        for (name, content) in files {
            let path = work.join(name);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::write(&path, content)?;
        }
        if is_root() {
            give_to_nobody(&made.folder)?;
        }
        Ok(made)
    }

    /// What the step sees as its own.
    #[must_use]
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    /// Where its root is put together.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "a step's folder could not be removed; remove it by hand");
        }
    }
}

/// The folder that workspaces are made in: the configured one, or the system's temporary folder. It has to be there: one that
/// was mistyped would be made in silence, on whatever disk that is.
pub fn parent(configured: &str) -> Result<PathBuf, String> {
    let folder = if configured.is_empty() {
        std::env::temp_dir()
    } else {
        PathBuf::from(configured)
    };
    match folder.canonicalize() {
        Ok(found) if found.is_dir() => Ok(found),
        _ => Err(format!(
            "the workspace folder {} is no folder; make it, or set OCTOLLM_EXECUTOR_WORKSPACE_DIR to one that is",
            folder.display()
        )),
    }
}

/// Removes what executors that were killed left behind; says how many folders that were.
#[must_use]
pub fn remove_leftovers(parent: &Path) -> usize {
    let Ok(found) = fs::read_dir(parent) else {
        return 0;
    };
    let ours = found.flatten().filter(|one| {
        one.file_name().to_string_lossy().starts_with(PREFIX)
            && one.file_type().is_ok_and(|kind| kind.is_dir())
    });
    ours.filter(|one| {
        let path = one.path();
        File::open(&path).is_ok_and(|lock| lock_now(&lock).is_ok() && remove(&path).is_ok())
    })
    .count()
}

fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().mode(0o700).create(path)
}

fn lock_now(file: &File) -> io::Result<()> {
    Ok(flock(file, FlockOperation::NonBlockingLockExclusive)?)
}

fn give_to_nobody(path: &Path) -> io::Result<()> {
    chown(path, Some(NOBODY), Some(NOBODY))?;
    if fs::symlink_metadata(path)?.is_dir() {
        for one in fs::read_dir(path)? {
            give_to_nobody(&one?.path())?;
        }
    }
    Ok(())
}

/// One folder open at a time, every path short: a step may nest folders deeper than paths, open files and our stack go.
/// It may also have taken its own folders' permissions away. None of its processes runs, so nothing changes meanwhile.
fn remove(folder: &Path) -> io::Result<()> {
    let mut moved = 0_u64;
    fs::set_permissions(folder, private())?;
    loop {
        let mut empty = true;
        for one in fs::read_dir(folder)? {
            let one = one?;
            if one.file_type()?.is_dir() {
                empty = false;
                flatten(&one.path(), folder, &mut moved)?;
            } else {
                fs::remove_file(one.path())?;
            }
        }
        if empty {
            return fs::remove_dir(folder);
        }
    }
}

/// Removes `from`; the folders in it are moved next to it.
fn flatten(from: &Path, folder: &Path, moved: &mut u64) -> io::Result<()> {
    fs::set_permissions(from, private())?;
    for one in fs::read_dir(from)? {
        let one = one?;
        if one.file_type()?.is_dir() {
            // A folder that changes its parent is written to.
            fs::set_permissions(one.path(), private())?;
            fs::rename(one.path(), folder.join(format!("moved-{moved}")))?;
            *moved += 1;
        } else {
            fs::remove_file(one.path())?;
        }
    }
    fs::remove_dir(from)
}

fn private() -> Permissions {
    Permissions::from_mode(0o700)
}
