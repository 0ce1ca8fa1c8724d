//! New namespaces, the unprivileged user inside them, and the loss of every capability.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::syscall::{check, is_root, prctl, text, Setup, SetupError, NOBODY};

/// The step's user and group as it sees itself.
pub const INSIDE: u32 = 1000;

const APART: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// How the first process came to be, which decides what it must do to lose its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneMode {
    /// By root: namespaces are made as root, the user namespace comes last.
    Privileged,
    /// By an ordinary user, this one: the user namespace came first.
    OwnUser { user: u32, group: u32 },
    /// Without namespaces.
    Plain,
}

/// Forks into new namespaces; like `fork`, returns twice (child: 0).
pub fn fork_apart() -> Setup<(i32, CloneMode)> {
    if is_root() {
        match clone(APART) {
            Ok(pid) => return Ok((pid, CloneMode::Privileged)),
            Err(error) if error.code() == Some(libc::EPERM) => {
                // Root of a container without the capability: go on as an ordinary user would.
                become_nobody()?;
            }
            Err(error) => return Err(error),
        }
    }
    // Asked before: inside, until the map is written, everybody is the overflow user.
    let (user, group) = identity();
    let pid = clone(APART | libc::CLONE_NEWUSER)?;
    Ok((pid, CloneMode::OwnUser { user, group }))
}

/// A plain fork. Only for single-threaded processes.
pub fn fork() -> Setup<i32> {
    clone(0)
}

fn clone(flags: i32) -> Setup<i32> {
    let flags = i64::from(flags | libc::SIGCHLD);
    let zero: libc::c_long = 0;
    // SAFETY: without a new stack this is fork; launcher and first process have one thread, so no lock is held.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, zero, zero, zero, zero) };
    let pid = check(pid, || "make new namespaces".to_owned())?;
    Ok(i32::try_from(pid).unwrap_or(i32::MAX))
}

/// This process's folder in the host's /proc; still usable after the root has changed.
pub fn own_proc() -> Setup<OwnedFd> {
    let path = text("/proc/self")?;
    // SAFETY: a valid C string; the descriptor is owned by nobody else.
    let found = unsafe {
        libc::open(
            path.as_ptr(),
            libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC,
        )
    };
    check(i64::from(found), || "open /proc/self".to_owned())?;
    // SAFETY: just opened.
    Ok(unsafe { OwnedFd::from_raw_fd(found) })
}

/// Maps the step's user to `outside` of the parent namespace. Needs a user namespace made just before.
pub fn map_user(own: &OwnedFd, user: u32, group: u32) -> Setup<()> {
    put(own, "setgroups", "deny")?;
    put(own, "uid_map", &format!("{INSIDE} {user} 1"))?;
    put(own, "gid_map", &format!("{INSIDE} {group} 1"))
}

fn put(own: &OwnedFd, name: &str, content: &str) -> Setup<()> {
    let path = text(name)?;
    let flags = libc::O_WRONLY | libc::O_CLOEXEC;
    // SAFETY: a valid descriptor and C string; the result is owned by nobody else.
    let found = unsafe { libc::openat(own.as_raw_fd(), path.as_ptr(), flags) };
    check(i64::from(found), || format!("open {name}"))?;
    // SAFETY: just opened.
    let mut file = unsafe { File::from_raw_fd(found) };
    file.write_all(content.as_bytes())
        .map_err(|error| SetupError::new(format!("write {name}"), error))
}

/// A user namespace for who has become nobody already.
pub fn enter_user(own: &OwnedFd) -> Setup<()> {
    // Changing the user made our own files in /proc root's; the map must be ours to write.
    prctl(libc::PR_SET_DUMPABLE, 1, "keep /proc/self")?;
    // SAFETY: takes flags only.
    let result = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
    check(i64::from(result), || "make a user namespace".to_owned())?;
    map_user(own, NOBODY, NOBODY)
}

/// Root becomes nobody for good, without supplementary groups.
pub fn become_nobody() -> Setup<()> {
    // SAFETY: an empty list; then plain numbers.
    let result = unsafe { libc::setgroups(0, std::ptr::null()) };
    check(i64::from(result), || "drop groups".to_owned())?;
    // SAFETY: plain numbers.
    let result = unsafe { libc::setresgid(NOBODY, NOBODY, NOBODY) };
    check(i64::from(result), || "become group 65534".to_owned())?;
    // SAFETY: plain numbers.
    let result = unsafe { libc::setresuid(NOBODY, NOBODY, NOBODY) };
    check(i64::from(result), || "become user 65534".to_owned())?;
    prctl(libc::PR_SET_DUMPABLE, 1, "keep /proc/self")
}

/// The user and group by which the kernel knows this process now.
#[must_use]
pub fn identity() -> (u32, u32) {
    // SAFETY: cannot fail.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: i32,
}

/// Gives up every capability, also for programs started later.
pub fn drop_capabilities() -> Setup<()> {
    for capability in 0..64_u64 {
        // SAFETY: takes numbers only. Fails beyond the kernel's last capability and without CAP_SETPCAP, where an
        // ordinary user has none to lose; no_new_privs and the empty sets below hold in any case.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
    }
    let clear = libc::PR_CAP_AMBIENT_CLEAR_ALL as u64;
    prctl(libc::PR_CAP_AMBIENT, clear, "clear ambient capabilities")?;
    let header = CapHeader {
        version: 0x2008_0522,
        pid: 0,
    };
    let none = [0_u32; 6];
    // SAFETY: header and the six words of version 3 outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    check(result, || "drop capabilities".to_owned())?;
    Ok(())
}

/// A name of its own in the uts namespace.
pub fn name_host() -> Setup<()> {
    let name = "sandbox";
    // SAFETY: pointer and length of the text above.
    let result = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    check(i64::from(result), || "set the host name".to_owned())?;
    Ok(())
}
