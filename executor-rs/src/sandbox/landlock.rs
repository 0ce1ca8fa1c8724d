//! Landlock: which files a step may touch, no TCP, no signals and no abstract sockets to the outside.
//!
//! The only wall of the lower tier, a second one inside the namespaces.

use std::path::Path;

use landlock::{
    path_beneath_rules, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetError, RulesetStatus, Scope, ABI,
};

use super::spec::Spec;
use crate::job::Tier;

const NEWEST: ABI = ABI::V6;
const SYSTEM: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix"];
const ETC: [&str; 3] = ["/etc/ld.so.cache", "/etc/alternatives", "/etc/localtime"];
const DEVICES: [&str; 4] = ["/dev/null", "/dev/full", "/dev/random", "/dev/urandom"];

/// What the kernel made of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Locked {
    pub files: bool,
    /// Signals and abstract sockets stay inside (Linux 6.12).
    pub scoped: bool,
}

/// Locks this process and everything it starts. `no_new_privs` must be set.
pub fn lock(spec: &Spec) -> Result<Locked, RulesetError> {
    let set = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    let read = AccessFs::from_read(NEWEST);
    let write = AccessFs::from_all(NEWEST);
    let device = AccessFs::from_file(NEWEST) & !AccessFs::Execute;
    let set = match spec.tier {
        // The tree is small already; this keeps everything but three places from being written.
        Tier::Namespaces => set
            .add_rules(path_beneath_rules(["/"], read))?
            .add_rules(path_beneath_rules(["/work", "/tmp"], write))?
            .add_rules(path_beneath_rules(DEVICES, device))?,
        Tier::Landlock => set
            .add_rules(path_beneath_rules(SYSTEM, read))?
            .add_rules(path_beneath_rules(ETC, read))?
            .add_rules(path_beneath_rules(&spec.read_only, read))?
            .add_rules(path_beneath_rules(DEVICES, device))?
            .add_rules(path_beneath_rules([Path::new(&spec.workspace)], write))?,
    };
    let status = set.restrict_self()?.ruleset;
    Ok(Locked {
        files: status != RulesetStatus::NotEnforced,
        scoped: abi() >= 6,
    })
}

/// Version of Landlock in this kernel; 0: none.
#[must_use]
pub fn abi() -> i64 {
    const VERSION: libc::c_uint = 1;
    // SAFETY: asks for the version; no memory is passed.
    let found = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            VERSION,
        )
    };
    found.max(0)
}
