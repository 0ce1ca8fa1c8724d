//! Resource limits: rlimits for what the kernel counts per process, and the memory of the whole process tree.

use std::fs;
use std::path::Path;

use rustix::process::{getrlimit, setrlimit, Resource, Rlimit};

use super::syscall::{Setup, SetupError};
use crate::job::Limits;

const MB: u64 = 1024 * 1024;
/// Largest file a step may write.
const FILE_BYTES: u64 = 64 * MB;
const OPEN_FILES: u64 = 256;

/// Sets all rlimits of this process and what it starts. `others`: processes of the same user outside the sandbox that
/// the kernel counts as well (none where the sandbox has a user namespace of its own).
pub fn apply(limits: &Limits, others: u64) -> Setup<()> {
    // Writable private memory is what `memory_mb` means. Address space gets headroom: reserved but unusable ranges
    // (malloc's arenas, thread guards) count there.
    set(Resource::Data, limits.memory_mb * MB, limits.memory_mb * MB)?;
    let space = (limits.memory_mb * 4 + 512) * MB;
    set(Resource::As, space, space)?;
    // The soft limit names the cause by SIGXCPU, the hard one kills who ignores it.
    set(Resource::Cpu, limits.cpu_s, limits.cpu_s + 1)?;
    // One more for the sandbox's first process.
    let processes = others + limits.processes + 1;
    set(Resource::Nproc, processes, processes)?;
    set(Resource::Fsize, FILE_BYTES, FILE_BYTES)?;
    set(Resource::Nofile, OPEN_FILES, OPEN_FILES)?;
    set(Resource::Core, 0, 0)?;
    set(Resource::Memlock, 0, 0)?;
    set(Resource::Msgqueue, 0, 0)
}

fn set(which: Resource, soft: u64, hard: u64) -> Setup<()> {
    // The host may be stricter; raising is not ours.
    let hard = getrlimit(which).maximum.map_or(hard, |most| hard.min(most));
    let new = Rlimit {
        current: Some(soft.min(hard)),
        maximum: Some(hard),
    };
    setrlimit(which, new)
        .map_err(|error| SetupError::new(format!("set the limit {which:?}"), error))
}

/// All processes below `pid`, by the host's /proc.
#[must_use]
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let mut open = vec![pid];
    while let Some(parent) = open.pop() {
        let Ok(threads) = fs::read_dir(format!("/proc/{parent}/task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let text = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            let children = text
                .split_ascii_whitespace()
                .filter_map(|word| word.parse::<u32>().ok());
            for child in children {
                found.push(child);
                open.push(child);
            }
        }
    }
    found
}

/// Processor time of the processes, with that of their children which they waited for. The kernel's own limit counts
/// each process anew.
#[must_use]
pub fn cpu_ms(processes: &[u32]) -> u64 {
    let a_second = rustix::param::clock_ticks_per_second().max(1);
    let ticks: u64 = processes.iter().map(|one| cpu_ticks(*one)).sum();
    ticks * 1000 / a_second
}

fn cpu_ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may hold anything, also brackets; behind it utime, stime, cutime, cstime are the 12th to 15th.
    let numbers = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let words = numbers.split_ascii_whitespace().skip(11).take(4);
    words.filter_map(|word| word.parse::<u64>().ok()).sum()
}

/// Whether the processes hold more memory of their own than allowed.
#[must_use]
pub fn exceeds_memory(processes: &[u32], memory_mb: u64) -> bool {
    let rough: u64 = processes
        .iter()
        .map(|one| own_kb(*one, "status", &["RssAnon:", "RssShmem:"]))
        .sum();
    if rough <= memory_mb * 1024 {
        return false;
    }
    // Pages shared after a fork were counted once per process; the proportional count is exact, but slow.
    let exact: u64 = processes
        .iter()
        .map(
            |one| match own_kb(*one, "smaps_rollup", &["Pss_Anon:", "Pss_Shmem:"]) {
                0 => own_kb(*one, "status", &["RssAnon:", "RssShmem:"]),
                kb => kb,
            },
        )
        .sum();
    exact > memory_mb * 1024
}

fn own_kb(pid: u32, file: &str, names: &[&str]) -> u64 {
    let text =
        fs::read_to_string(Path::new("/proc").join(pid.to_string()).join(file)).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (name, rest) = line.split_once(char::is_whitespace)?;
            names
                .contains(&name)
                .then(|| rest.split_whitespace().next()?.parse::<u64>().ok())?
        })
        .sum()
}

/// Threads of a user on this host: what `RLIMIT_NPROC` counts where there is no user namespace.
#[must_use]
pub fn threads_of(user: u32) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(processes) = fs::read_dir("/proc") else {
        return 0;
    };
    processes
        .flatten()
        .filter(|one| one.metadata().is_ok_and(|found| found.uid() == user))
        .filter_map(|one| Some(fs::read_dir(one.path().join("task")).ok()?.count() as u64))
        .sum()
}
