//! Errors of building the sandbox, and the system calls that rustix does not have or several modules need.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::Timespec;
use rustix::pipe::{pipe_with, PipeFlags};
use rustix::process::DumpableBehavior;

/// A step of building the sandbox that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct SetupError {
    what: String,
    source: io::Error,
}

impl SetupError {
    pub fn new(what: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self {
            what: what.into(),
            source: source.into(),
        }
    }

    pub fn last(what: impl Into<String>) -> Self {
        Self::new(what, io::Error::last_os_error())
    }

    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.source.raw_os_error()
    }
}

/// Who root becomes before anything of a step runs.
pub const NOBODY: u32 = 65_534;

pub type Setup<T> = Result<T, SetupError>;

/// Turns the -1 of a call into an error.
pub fn check(result: i64, what: impl FnOnce() -> String) -> Setup<i64> {
    if result < 0 {
        Err(SetupError::last(what()))
    } else {
        Ok(result)
    }
}

/// A path or argument for the kernel.
pub fn text(path: impl AsRef<std::ffi::OsStr>) -> Setup<CString> {
    CString::new(path.as_ref().as_bytes()).map_err(|_| {
        SetupError::new(
            "a path or argument holds a NUL byte",
            io::ErrorKind::InvalidInput,
        )
    })
}

/// A pipe (reader, writer) that no program inherits.
pub fn pipe() -> Setup<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|error| SetupError::new("make a pipe", error))
}

/// Makes sure that no descriptor from `first` on outlives an exec.
pub fn close_on_exec_from(first: RawFd) -> Setup<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_uint;
    // SAFETY: only flags are changed, no descriptor is closed under its owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    check(result, || "mark inherited files".to_owned())?;
    Ok(())
}

/// Keeps this process's files in /proc its own after a change of user.
pub fn keep_own_proc() -> Setup<()> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)
        .map_err(|error| SetupError::new("keep /proc/self", error))
}

/// Whether this process is root and may become another user. Root of a user namespace with one user may not; there it
/// is treated as the ordinary user it really is.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
        && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps(&map, NOBODY))
}

/// Whether a map of lines `first outside count` holds the user.
fn maps(map: &str, user: u32) -> bool {
    map.lines().any(|line| {
        let numbers: Vec<u64> = line
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        let user = u64::from(user);
        matches!(numbers[..], [first, _, count] if first <= user && user < first + count)
    })
}

/// Waits until one of the descriptors has something (or its other end is gone); says which have.
pub fn wait_readable<const N: usize>(files: [&dyn AsFd; N], timeout_ms: u32) -> [bool; N] {
    let mut polls = files.map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN));
    let timeout = Timespec {
        tv_sec: i64::from(timeout_ms / 1000),
        tv_nsec: i64::from(timeout_ms % 1000) * 1_000_000,
    };
    let found = poll(&mut polls, Some(&timeout)).is_ok_and(|count| count > 0);
    polls.map(|one| found && !one.revents().is_empty())
}

/// Whether a path is a folder itself, not a link to one.
pub fn is_real_dir(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|found| found.is_dir())
}

#[cfg(test)]
mod tests {
    use super::{maps, NOBODY};

    #[test]
    fn a_user_is_mapped_only_within_a_range() {
        assert!(maps("         0          0 4294967295\n", NOBODY));
        assert!(!maps("0 1000 1\n", NOBODY));
        assert!(maps("0 1000 1\n1 100000 65536\n", NOBODY));
        assert!(!maps("0 100000 65534\n", NOBODY) && maps("0 100000 65535\n", NOBODY));
    }
}
