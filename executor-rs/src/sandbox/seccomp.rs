//! System calls that no step needs: refused with EPERM, or ENOSYS where programs know how to go without.

use std::collections::BTreeMap;

use seccompiler::{
    apply_filter, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use crate::job::Tier;

/// A filter that could not be made or installed.
#[derive(Debug, thiserror::Error)]
pub enum SeccompError {
    #[error("no seccomp filter for this processor: {0}")]
    Make(#[from] seccompiler::BackendError),
    #[error("seccomp filter refused by the kernel: {0}")]
    Install(#[from] seccompiler::Error),
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Changes of the system, other processes' insides, and interfaces known for holes.
const REFUSED: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_open_by_handle_at,
    libc::SYS_name_to_handle_at,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_lookup_dcookie,
    libc::SYS_fanotify_init,
    libc::SYS_vhangup,
    // Memory that no process need have mapped, so that no process' share of it can be counted.
    libc::SYS_memfd_create,
    libc::SYS_memfd_secret,
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_msgget,
    libc::SYS_semget,
];

/// Ways to reach other processes of the same user, which only namespaces hide.
const REFUSED_WITHOUT_NAMESPACES: &[i64] = &[libc::SYS_socket, libc::SYS_mq_open];

/// Landlock decides who opens a file, not who changes its mode, owner or attributes: where the step's user owns files of
/// the host, these would reach them.
const CHANGES_OF_FILES: &[i64] = &[
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    463, // setxattrat
    466, // removexattrat
    469, // file_setattr
];

/// Signals to others; refused where Landlock cannot keep them inside.
const SIGNALS: &[i64] = &[
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
];

const NEW_NAMESPACES: [i32; 8] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    0x80, // CLONE_NEWTIME
];

/// Installs the filters, for ever and for everything started later. `no_new_privs` must be set.
pub fn install(tier: Tier, signals_scoped: bool) -> Result<(), SeccompError> {
    for program in [refused(tier, signals_scoped)?, unknown()?] {
        apply_filter(&program)?;
    }
    #[cfg(target_arch = "x86_64")]
    apply_filter(&foreign_numbers())?;
    Ok(())
}

fn refused(tier: Tier, signals_scoped: bool) -> Result<BpfProgram, SeccompError> {
    let mut rules: Rules = REFUSED.iter().map(|call| (*call, Vec::new())).collect();
    // Only local sockets; a network needs a family the step cannot open, also where a namespace is missing.
    let other_family = vec![rule(
        0,
        SeccompCmpOp::Ne,
        i64::from(libc::AF_UNIX).unsigned_abs(),
    )?];
    rules.insert(libc::SYS_socket, other_family.clone());
    rules.insert(libc::SYS_socketpair, other_family);
    let namespaces = NEW_NAMESPACES
        .iter()
        .map(|flag| {
            let flag = u64::from(flag.unsigned_abs());
            rule(0, SeccompCmpOp::MaskedEq(flag), flag)
        })
        .collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_clone, namespaces);
    rules.insert(
        libc::SYS_ioctl,
        vec![rule(1, SeccompCmpOp::Eq, libc::TIOCSTI)?],
    );
    // Shared memory without a file stays when its pages are unmapped (MADV_DONTNEED) and then counts for nobody.
    let unnamed = u64::from((libc::MAP_SHARED | libc::MAP_ANONYMOUS).unsigned_abs());
    rules.insert(
        libc::SYS_mmap,
        vec![rule(3, SeccompCmpOp::MaskedEq(unnamed), unnamed)?],
    );
    if tier == Tier::Landlock {
        rules.extend(
            REFUSED_WITHOUT_NAMESPACES
                .iter()
                .chain(CHANGES_OF_FILES)
                .map(|call| (*call, Vec::new())),
        );
        // Limits of other processes.
        rules.insert(libc::SYS_prlimit64, vec![rule(0, SeccompCmpOp::Ne, 0)?]);
        if !signals_scoped {
            rules.extend(SIGNALS.iter().map(|call| (*call, Vec::new())));
        }
    }
    compile(rules, libc::EPERM)
}

/// The flags of clone3 lie in memory where a filter cannot look; the C library falls back to clone.
fn unknown() -> Result<BpfProgram, SeccompError> {
    compile(Rules::from([(libc::SYS_clone3, Vec::new())]), libc::ENOSYS)
}

fn rule(argument: u8, compare: SeccompCmpOp, value: u64) -> Result<SeccompRule, SeccompError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value)?;
    Ok(SeccompRule::new(vec![condition])?)
}

fn compile(rules: Rules, error: i32) -> Result<BpfProgram, SeccompError> {
    let arch: TargetArch = std::env::consts::ARCH.try_into()?;
    let matched = SeccompAction::Errno(error.unsigned_abs());
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, matched, arch)?.try_into()?)
}

/// Second numbers for the same calls (the x32 interface) would walk around the filters above.
#[cfg(target_arch = "x86_64")]
fn foreign_numbers() -> BpfProgram {
    // The classes and modes of BPF, as the kernel's header spells them.
    const LOAD: u16 = 0x20;
    const JUMP_IF_GE: u16 = 0x35;
    const RETURN: u16 = 0x06;
    let op = |code: u16, jt: u8, jf: u8, k: u32| seccompiler::sock_filter { code, jt, jf, k };
    vec![
        op(LOAD, 0, 0, 0),
        op(JUMP_IF_GE, 0, 1, 0x4000_0000),
        op(
            RETURN,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs(),
        ),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
