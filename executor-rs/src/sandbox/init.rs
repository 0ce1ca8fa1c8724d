//! The sandbox's first process: builds its walls, gives up its rights, then starts the step and reaps what it leaves.
//!
//! When it ends, the kernel kills the rest of its pid namespace.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;

use rustix::process::{set_parent_process_death_signal, DumpableBehavior, Signal};

use super::namespaces::{self, CloneMode};
use super::spec::{Notice, Spec};
use super::syscall::{check, is_root, text, wait_readable, Setup, SetupError, NOBODY};
use super::{landlock, limits, mounts, seccomp};
use crate::job::Tier;

/// Runs to the end of the step; the result is the exit code of the first process.
pub fn run(spec: &Spec, mode: CloneMode, own: &OwnedFd, status: OwnedFd, life: &OwnedFd) -> i32 {
    let mut status = File::from(status);
    let outcome = build(spec, mode, own, life).and_then(|features| {
        tell(&mut status, &Notice::Ready { features })?;
        start_and_reap(spec, &mut status)
    });
    let Err(error) = outcome else { return 0 };
    // Without a listener there is nobody left to tell.
    let _ = tell(
        &mut status,
        &Notice::Refused {
            why: error.to_string(),
        },
    );
    1
}

fn tell(status: &mut File, notice: &Notice) -> Setup<()> {
    let mut line =
        serde_json::to_vec(notice).map_err(|error| SetupError::new("write a notice", error))?;
    line.push(b'\n');
    status
        .write_all(&line)
        .map_err(|error| SetupError::new("tell the launcher", error))
}

/// All walls; answers the names of those that really stand.
fn build(spec: &Spec, mode: CloneMode, own: &OwnedFd, life: &OwnedFd) -> Setup<Vec<String>> {
    let mut features: Vec<&str> = Vec::new();
    // Fails only for a group leader, which a fresh child is not.
    let _ = rustix::process::setsid();
    die_with_parent(life)?;
    if let CloneMode::OwnUser { user, group } = mode {
        namespaces::map_user(own, user, group)?;
    }
    // Counted while the host's /proc is what we see.
    let others = if matches!(mode, CloneMode::OwnUser { .. }) {
        0
    } else {
        limits::threads_of(step_user())
    };
    if mode == CloneMode::Plain {
        enter_workspace(spec)?;
    } else {
        features.extend(["pid_ns", "mount_ns", "net_ns", "ipc_ns", "uts_ns"]);
        namespaces::name_host()?;
        if mounts::enter(spec)? {
            features.push("proc");
        }
        std::env::set_current_dir("/work")
            .map_err(|error| SetupError::new("enter /work", error))?;
    }
    let alone = drop_privileges(mode, own, &mut features)?;
    limits::apply(&spec.limits, if alone { 0 } else { others })?;
    features.push("rlimits");
    rustix::thread::set_no_new_privs(true)
        .map_err(|error| SetupError::new("set no_new_privs", error))?;
    features.push("no_new_privs");
    lock(spec, &mut features)?;
    // A change of user clears this.
    die_with_parent(life)?;
    // The step runs as the same user: through /proc it could open our pipe and write notices of its own. What it
    // starts is its own again after exec.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|error| SetupError::new("close /proc/self to the step", error))?;
    Ok(features.into_iter().map(str::to_owned).collect())
}

fn enter_workspace(spec: &Spec) -> Setup<()> {
    std::env::set_current_dir(&spec.workspace)
        .map_err(|error| SetupError::new("enter the workspace", error))
}

/// Who the step will be on the host.
fn step_user() -> u32 {
    if is_root() {
        NOBODY
    } else {
        namespaces::identity().0
    }
}

/// Becomes an unprivileged user without capabilities. Answers whether the kernel counts the step's processes alone,
/// in a user namespace of its own.
fn drop_privileges(mode: CloneMode, own: &OwnedFd, features: &mut Vec<&str>) -> Setup<bool> {
    let mut alone = matches!(mode, CloneMode::OwnUser { .. });
    // With the new root in place /proc may be missing, but only root can have made that root.
    if mode == CloneMode::Privileged || (mode == CloneMode::Plain && is_root()) {
        namespaces::become_nobody()?;
        // Where the host forbids it, nobody without rights is what remains, in all the other namespaces.
        alone = mode == CloneMode::Privileged && namespaces::enter_user(own).is_ok();
    }
    if alone {
        features.push("user_ns");
    }
    namespaces::drop_capabilities()?;
    Ok(alone)
}

fn lock(spec: &Spec, features: &mut Vec<&str>) -> Setup<()> {
    let locked = landlock::lock(spec)
        .map_err(|error| SetupError::new("Landlock", std::io::Error::other(error)))?;
    if locked.files {
        features.push("landlock");
    } else if spec.tier == Tier::Landlock {
        let none = std::io::Error::from(std::io::ErrorKind::Unsupported);
        return Err(SetupError::new("Landlock is not in this kernel", none));
    }
    seccomp::install(spec.tier, locked.scoped)
        .map_err(|error| SetupError::new("seccomp", std::io::Error::other(error)))?;
    features.push("seccomp");
    Ok(())
}

/// Killed by the kernel as soon as the launcher is gone, also if that happened just now.
fn die_with_parent(life: &OwnedFd) -> Setup<()> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|error| SetupError::new("die with the launcher", error))?;
    if wait_readable([life], 0)[0] {
        return Err(SetupError::new(
            "the launcher is gone",
            std::io::ErrorKind::BrokenPipe,
        ));
    }
    Ok(())
}

fn start_and_reap(spec: &Spec, status: &mut File) -> Setup<()> {
    let step = namespaces::fork()?;
    if step == 0 {
        let error = execute(spec);
        let _ = tell(
            status,
            &Notice::Refused {
                why: error.to_string(),
            },
        );
        // SAFETY: ends at once, without running what belongs to the parent.
        unsafe { libc::_exit(127) };
    }
    loop {
        let mut ended = 0;
        // SAFETY: zeroes are a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: both pointers outlive the call.
        let pid = unsafe { libc::wait4(-1, &raw mut ended, 0, &raw mut usage) };
        let pid = check(i64::from(pid), || "wait for the step".to_owned())?;
        if pid == i64::from(step) {
            let ms = |time: libc::timeval| {
                time.tv_sec.unsigned_abs() * 1000 + time.tv_usec.unsigned_abs() / 1000
            };
            let notice = Notice::Ended {
                code: libc::WIFEXITED(ended).then(|| libc::WEXITSTATUS(ended)),
                signal: libc::WIFSIGNALED(ended).then(|| libc::WTERMSIG(ended)),
                cpu_ms: ms(usage.ru_utime) + ms(usage.ru_stime),
            };
            return tell(status, &notice);
        }
    }
}

/// Becomes the step's program; returns only when that fails.
fn execute(spec: &Spec) -> SetupError {
    let prepared = (|| {
        set_parent_process_death_signal(Some(Signal::KILL))
            .map_err(|error| SetupError::new("die with the first process", error))?;
        let program = text(&spec.program)?;
        let mut args = vec![program.clone()];
        for one in &spec.args {
            args.push(text(one)?);
        }
        let env = spec
            .env
            .iter()
            .map(|(name, value)| text(format!("{name}={value}")))
            .collect::<Setup<Vec<_>>>()?;
        Ok((program, args, env))
    })();
    let (program, args, env) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return error,
    };
    let list = |texts: &[std::ffi::CString]| -> Vec<*const libc::c_char> {
        texts
            .iter()
            .map(|one| one.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (args, env) = (list(&args), list(&env));
    // SAFETY: the default action and an empty mask, as every program expects; Rust ignores SIGPIPE, which is inherited.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
    // SAFETY: null-terminated lists of C strings that outlive the call.
    unsafe { libc::execve(program.as_ptr(), args.as_ptr(), env.as_ptr()) };
    SetupError::last(format!("start {}", spec.program.display()))
}
