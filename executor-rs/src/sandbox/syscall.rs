//! The few system calls the sandbox needs, each wrapped once: errors become `SetupError` with what was tried.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

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
    let mut ends = [0; 2];
    // SAFETY: the array holds two descriptors.
    let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
    check(i64::from(result), || "make a pipe".to_owned())?;
    // SAFETY: the kernel just gave us these two, nobody else owns them.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// Makes sure that no descriptor from `first` on outlives an exec.
pub fn close_on_exec_from(first: RawFd) -> Setup<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC as libc::c_uint;
    // SAFETY: only flags are changed, no descriptor is closed under its owner.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    check(result, || "mark inherited files".to_owned())?;
    Ok(())
}

/// `prctl` with plain numbers.
pub fn prctl(option: i32, value: u64, what: &str) -> Setup<()> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers only.
    let result = unsafe { libc::prctl(option, value as libc::c_ulong, zero, zero, zero) };
    check(i64::from(result), || what.to_owned())?;
    Ok(())
}

/// Whether this process is root and may become another user. Root of a user namespace with one user may not; there it
/// is treated as the ordinary user it really is.
#[must_use]
pub fn is_root() -> bool {
    // SAFETY: cannot fail.
    let root = unsafe { libc::geteuid() == 0 };
    root && std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| maps(&map, NOBODY))
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
pub fn wait_readable<const N: usize>(files: [&dyn AsRawFd; N], timeout_ms: i32) -> [bool; N] {
    let mut polls = files.map(|file| libc::pollfd {
        fd: file.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    });
    // SAFETY: the array outlives the call and its length is given.
    let found = unsafe { libc::poll(polls.as_mut_ptr(), polls.len() as libc::nfds_t, timeout_ms) };
    polls.map(|one| found > 0 && one.revents != 0)
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
