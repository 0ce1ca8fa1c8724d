//! The launcher: this program started again with one thread and an empty environment. It makes the sandbox's first
//! process, watches time and memory from outside, and reports how it ended.
//!
//! Its control socket is file 3: one `Spec` comes in, one `Report` goes out. When the socket closes (the executor
//! cancelled or was killed), everything below is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::{kill_process, wait, Pid, Signal, WaitOptions};

use super::limits::{cpu_ms, descendants, exceeds_memory};
use super::namespaces::{self, CloneMode};
use super::spec::{Notice, Report, Spec};
use super::syscall::{close_on_exec_from, pipe, wait_readable, Setup, SetupError};
use super::{init, CONTROL};
use crate::job::{Cause, Tier};

/// How often memory is looked at.
const TICK_MS: u64 = 25;
/// For building the sandbox itself; never used up by a step.
const SETUP: Duration = Duration::from_secs(10);

/// The hidden subcommand. The result is the process's exit code.
#[must_use]
pub fn main() -> i32 {
    // SAFETY: by contract with `runner` file 3 is our socket; nothing else in this process knows it.
    let control = unsafe { UnixStream::from_raw_fd(CONTROL) };
    let forked = read_spec(&control).and_then(|spec| Ok((fork_first(&spec)?, spec)));
    let report = match forked {
        Ok((Forked::First(first), spec)) => {
            // Only the launcher holds the socket, so that its end is seen as such.
            drop(control);
            return init::run(&spec, first.mode, &first.own, first.status, &first.life);
        }
        Ok((Forked::Launcher(first), spec)) => Watch::new(&spec, &control, &first).until_end(),
        Err(error) => {
            let mut report = empty();
            refuse(&mut report, &error.to_string());
            report
        }
    };
    i32::from(send(control, &report).is_err())
}

fn send(mut control: UnixStream, report: &Report) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(report)?;
    line.push(b'\n');
    control.write_all(&line)
}

fn empty() -> Report {
    Report {
        refused: None,
        features: Vec::new(),
        cause: Cause::Exited,
        code: None,
        signal: None,
    }
}

enum Forked {
    Launcher(Watched),
    First(First),
}

/// What the launcher keeps.
struct Watched {
    pid: i32,
    status: OwnedFd,
    /// Closed by the kernel when the launcher ends; the first process looks at its other end.
    _life: OwnedFd,
}

/// What the first process gets.
struct First {
    mode: CloneMode,
    own: OwnedFd,
    status: OwnedFd,
    life: OwnedFd,
}

fn read_spec(control: &UnixStream) -> Setup<Spec> {
    let mut line = String::new();
    BufReader::new(control)
        .read_line(&mut line)
        .map_err(|error| SetupError::new("read the spec", error))?;
    serde_json::from_str(&line).map_err(|error| SetupError::new("read the spec", error))
}

fn fork_first(spec: &Spec) -> Setup<Forked> {
    close_on_exec_from(CONTROL)?;
    // What the step leaves behind without a pid namespace comes back to us to be killed.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| SetupError::new("become the reaper", error))?;
    let (status_from, status_to) = pipe()?;
    let (life_from, life_to) = pipe()?;
    let (pid, mode) = match spec.tier {
        Tier::Namespaces => namespaces::fork_apart()?,
        Tier::Landlock => (namespaces::fork()?, CloneMode::Plain),
    };
    if pid == 0 {
        return Ok(Forked::First(First {
            mode,
            own: namespaces::own_proc()?,
            status: status_to,
            life: life_from,
        }));
    }
    Ok(Forked::Launcher(Watched {
        pid,
        status: status_from,
        _life: life_to,
    }))
}

struct Watch<'a> {
    spec: &'a Spec,
    /// The first process.
    pid: i32,
    control: &'a UnixStream,
    status: &'a OwnedFd,
}

impl<'a> Watch<'a> {
    fn new(spec: &'a Spec, control: &'a UnixStream, first: &'a Watched) -> Self {
        Self {
            spec,
            pid: first.pid,
            control,
            status: &first.status,
        }
    }

    fn until_end(self) -> Report {
        let mut report = empty();
        let mut deadline = Instant::now() + SETUP;
        let mut running = false;
        let mut buffer = Vec::new();
        let mut stopped = false;
        loop {
            let [asked, notified] = if stopped {
                [false, wait_readable([self.status], 1000)[0]]
            } else {
                let left = deadline
                    .saturating_duration_since(Instant::now())
                    .as_millis()
                    .min(u128::from(TICK_MS));
                wait_readable(
                    [self.control, self.status],
                    u32::try_from(left).unwrap_or(0) + 1,
                )
            };
            if notified {
                if !self.read_some(&mut buffer) {
                    break;
                }
                for notice in take_notices(&mut buffer) {
                    if matches!(notice, Notice::Ready { .. }) && !running {
                        running = true;
                        deadline = Instant::now() + Duration::from_secs(self.spec.limits.wall_s);
                    }
                    note(&mut report, notice, self.spec);
                }
                continue;
            }
            if stopped {
                self.kill();
                continue;
            }
            let cause = if asked {
                Cause::Stopped
            } else if Instant::now() >= deadline {
                if running {
                    Cause::Wall
                } else {
                    refuse(&mut report, "building the sandbox took too long")
                }
            } else if let Some(cause) = running.then(|| self.too_much()).flatten() {
                cause
            } else {
                continue;
            };
            report.cause = cause;
            stopped = true;
            self.kill();
        }
        self.kill();
        reap();
        if report.refused.is_none() && !running {
            refuse(
                &mut report,
                "the sandbox's first process ended before the step began",
            );
        }
        report
    }

    /// What all processes together have used up.
    fn too_much(&self) -> Option<Cause> {
        let (processes, limits) = (descendants(std::process::id()), &self.spec.limits);
        if exceeds_memory(&processes, limits.memory_mb) {
            return Some(Cause::Memory);
        }
        // One process alone meets its own limit first, whose signal it may handle.
        (cpu_ms(&processes) > (limits.cpu_s + 1) * 1000).then_some(Cause::Cpu)
    }

    fn read_some(&self, buffer: &mut Vec<u8>) -> bool {
        let Ok(copy) = self.status.try_clone() else {
            return false;
        };
        let mut chunk = [0; 4096];
        match std::fs::File::from(copy).read(&mut chunk) {
            Ok(count) if count > 0 => {
                buffer.extend_from_slice(&chunk[..count]);
                true
            }
            _ => false,
        }
    }

    /// Everything below us. With a pid namespace the end of its first process is the end of all.
    fn kill(&self) {
        match self.spec.tier {
            // Our own child, not waited for yet, so the number is still its.
            Tier::Namespaces => kill(self.pid),
            Tier::Landlock => kill_descendants(),
        }
    }
}

fn refuse(report: &mut Report, why: &str) -> Cause {
    report.refused = Some(why.to_owned());
    Cause::Stopped
}

fn take_notices(buffer: &mut Vec<u8>) -> Vec<Notice> {
    let Some(end) = buffer.iter().rposition(|byte| *byte == b'\n') else {
        return Vec::new();
    };
    let lines: Vec<u8> = buffer.drain(..=end).collect();
    lines
        .split(|byte| *byte == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

fn note(report: &mut Report, notice: Notice, spec: &Spec) {
    match notice {
        Notice::Ready { features } => report.features = features,
        Notice::Refused { why } => report.refused = Some(why),
        Notice::Ended {
            code,
            signal,
            cpu_ms,
        } => {
            (report.code, report.signal) = (code, signal);
            let ran_out = signal == Some(libc::SIGXCPU)
                || (signal == Some(libc::SIGKILL) && cpu_ms >= spec.limits.cpu_s * 1000);
            if ran_out && report.cause == Cause::Exited {
                report.cause = Cause::Cpu;
            }
        }
    }
}

/// Without a pid namespace: kill, and look again, since what is being killed may fork.
fn kill_descendants() {
    let until = Instant::now() + Duration::from_secs(5);
    while Instant::now() < until {
        let found = descendants(std::process::id());
        if found.is_empty() {
            return;
        }
        for pid in found {
            kill(i32::try_from(pid).unwrap_or(i32::MAX));
        }
        reap_ended();
    }
}

/// Sends SIGKILL. At worst the process has just ended.
fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

fn reap_ended() {
    while matches!(wait(WaitOptions::NOHANG), Ok(Some(_))) {}
}

fn reap() {
    while matches!(wait(WaitOptions::empty()), Ok(Some(_))) {}
}
