//! New namespaces, the unprivileged user inside them, and the loss of every capability.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::syscall::{check, is_root, keep_own_proc, Setup, SetupError, NOBODY};

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
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self", flags, Mode::empty())
        .map_err(|error| SetupError::new("open /proc/self", error))
}

/// Maps the step's user to `outside` of the parent namespace. Needs a user namespace made just before.
pub fn map_user(own: &OwnedFd, user: u32, group: u32) -> Setup<()> {
    put(own, "setgroups", "deny")?;
    put(own, "uid_map", &format!("{INSIDE} {user} 1"))?;
    put(own, "gid_map", &format!("{INSIDE} {group} 1"))
}

fn put(own: &OwnedFd, name: &str, content: &str) -> Setup<()> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(own, name, flags, Mode::empty())
        .map_err(|error| SetupError::new(format!("open {name}"), error))?;
    let mut file = File::from(opened);
    file.write_all(content.as_bytes())
        .map_err(|error| SetupError::new(format!("write {name}"), error))
}

/// A user namespace for who has become nobody already.
pub fn enter_user(own: &OwnedFd) -> Setup<()> {
    // Changing the user made our own files in /proc root's; the map must be ours to write.
    keep_own_proc()?;
    // SAFETY: takes flags only.
    let result = unsafe { libc::unshare(libc::CLONE_NEWUSER) };
    check(i64::from(result), || "make a user namespace".to_owned())?;
    map_user(own, NOBODY, NOBODY)
}

/// Root becomes nobody for good, without supplementary groups. Only for single-threaded processes.
pub fn become_nobody() -> Setup<()> {
    let (user, group) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    rustix::thread::set_thread_groups(&[])
        .map_err(|error| SetupError::new("drop groups", error))?;
    rustix::thread::set_thread_res_gid(group, group, group)
        .map_err(|error| SetupError::new("become group 65534", error))?;
    rustix::thread::set_thread_res_uid(user, user, user)
        .map_err(|error| SetupError::new("become user 65534", error))?;
    keep_own_proc()
}

/// The user and group by which the kernel knows this process now.
#[must_use]
pub fn identity() -> (u32, u32) {
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    (user.as_raw(), group.as_raw())
}

/// Gives up every capability, also for programs started later.
pub fn drop_capabilities() -> Setup<()> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // Fails beyond the kernel's last capability and without CAP_SETPCAP, where an ordinary user has none to lose;
        // no_new_privs and the empty sets below hold in any case.
        let _ = rustix::thread::remove_capability_from_bounding_set(capability);
    }
    rustix::thread::clear_ambient_capability_set()
        .map_err(|error| SetupError::new("clear ambient capabilities", error))?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    rustix::thread::set_capabilities(None, none)
        .map_err(|error| SetupError::new("drop capabilities", error))
}

/// A name of its own in the uts namespace.
pub fn name_host() -> Setup<()> {
    rustix::system::sethostname(b"sandbox")
        .map_err(|error| SetupError::new("set the host name", error))
}
