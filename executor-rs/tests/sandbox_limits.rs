//! The sandbox's limits for real: time, memory, processes, output and disk, and that nothing of a step stays.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;

use std::time::{Duration, Instant};

use common::{place, python, step};
use octollm_executor::job::{Cause, Tier};
use octollm_executor::step::output::Outcome;
use tokio::sync::watch;

const TIERS: [Tier; 2] = [Tier::Namespaces, Tier::Landlock];
/// Held by tests that fork: without a user namespace the limit on processes counts all of the user's.
static FORKS: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test]
async fn a_fork_bomb_is_bounded_and_nothing_survives() {
    let _alone = FORKS.lock().await;
    let code = "
import os, time
made = 0
try:
    while made < 500:
        if os.fork() == 0:
            os.setsid()
            time.sleep(120)
        made += 1
except BlockingIOError:
    print('bounded', 4 < made < 40, flush=True)
    time.sleep(3)  # until the test has seen them all from outside
";
    for tier in TIERS {
        let place = place(tier).await;
        let mut bomb = python(code);
        let mark = format!("bomb-{}-{}", std::process::id(), tier.as_str());
        bomb.args = vec![mark.clone()];
        // Seen at work from outside, so that seeing nothing later means something.
        let (output, ()) = tokio::join!(place.run(&bomb), wait_until(|| running(&mark) > 4));
        assert_eq!(output.stdout, "bounded True\n", "{output:?}");
        assert_eq!(running(&mark), 0);
    }
}

#[tokio::test]
async fn memory_is_limited_for_one_process_and_for_all_together() {
    let _alone = FORKS.lock().await;
    let one = "x = bytearray(600 * 1024 * 1024)";
    let all = "
import os, time
for _ in range(6):
    if os.fork() == 0:
        x = bytearray(os.urandom(1)) * (100 << 20)
        time.sleep(60)
time.sleep(60)
";
    for tier in TIERS {
        let place = place(tier).await;
        for code in [one, all] {
            let output = place.run(&python(code)).await;
            assert_eq!(
                (output.outcome, output.stdout.as_str()),
                (Outcome::Memory, ""),
                "{output:?}"
            );
        }
        assert_eq!(place.left_behind(), 0);
    }
}

#[tokio::test]
async fn memory_that_counts_for_no_process_is_refused() {
    let code = "
import ctypes, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, make):
    try:
        if make() == -1:
            raise OSError(ctypes.get_errno(), '')
        print(name, 'had it')
    except OSError:
        pass
tried('memfd', lambda: os.memfd_create('x'))
tried('shared', lambda: mmap.mmap(-1, 4096))
tried('zero', lambda: mmap.mmap(os.open('/dev/zero', os.O_RDWR), 4096))
tried('shm', lambda: libc.shmget(0, 4096, 0o1600))
tried('sem', lambda: libc.semget(0, 1, 0o1600))
tried('msg', lambda: libc.msgget(0, 0o1600))
with open('file', 'w+b') as file:
    file.write(b'x' * 4096)
    file.flush()
    print('of a file', mmap.mmap(file.fileno(), 4096)[:1])
print('private', len(mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)))
";
    for tier in TIERS {
        let output = place(tier).await.run(&python(code)).await;
        assert_eq!(
            output.stdout, "of a file b'x'\nprivate 4096\n",
            "{output:?}"
        );
    }
    let zeros = place(Tier::Namespaces)
        .await
        .run(&step("shell", "head -c 5 /dev/zero | tr '\\0' 0"))
        .await;
    assert_eq!(zeros.stdout, "00000", "{zeros:?}");
}

#[tokio::test]
async fn wall_and_processor_time_are_limited() {
    for tier in TIERS {
        let place = place(tier).await;
        let mut sleeper = step("shell", "echo before; sleep 60 & sleep 60; echo after");
        sleeper.limits.wall_s = 1;
        let began = Instant::now();
        let output = place.run(&sleeper).await;
        assert_eq!(
            (output.outcome, output.stdout.as_str()),
            (Outcome::Timeout, "before\n"),
            "{output:?}"
        );
        assert!(began.elapsed() < Duration::from_secs(40));
        let mut spinner = python("while True: pass");
        spinner.limits.cpu_s = 1;
        spinner.limits.wall_s = 120;
        let output = place.run(&spinner).await;
        assert_eq!(
            (output.outcome, output.signal),
            (Outcome::Timeout, Some(24)),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn processor_time_is_that_of_all_processes_together() {
    let code = "
import os, time
while True:
    if os.fork() == 0:
        while time.process_time() < 0.3:
            pass
        os._exit(0)
    os.wait()
";
    for tier in TIERS {
        let mut many = python(code);
        many.limits.cpu_s = 1;
        many.limits.wall_s = 120;
        let began = Instant::now();
        let output = place(tier).await.run(&many).await;
        assert_eq!(output.outcome, Outcome::Timeout, "{output:?}");
        assert!(began.elapsed() < Duration::from_secs(60), "{output:?}");
    }
}

#[tokio::test]
async fn much_output_is_cut_and_a_flood_ends_the_step() {
    for tier in TIERS {
        let place = place(tier).await;
        let mut much = python("print('y' * 5000); print('end')");
        much.limits.output_bytes = 1000;
        let output = place.run(&much).await;
        assert_eq!(
            (output.outcome, output.stdout.len(), output.stdout_truncated),
            (Outcome::Ok, 1000, true)
        );
        let output = place.run(&step("shell", "yes >&2")).await;
        assert_eq!(
            (output.outcome, output.stderr_truncated),
            (Outcome::Output, true),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn a_workspace_that_resists_is_removed_too() {
    for tier in TIERS {
        let place = place(tier).await;
        let output = place
            .run(&step("shell",
                // Without namespaces a step cannot change modes, only make folders that have none.
                "mkdir -p a/b; echo x > a/b/c; (umask 777; mkdir a/e); chmod 000 a/b a; chmod 000 .; true",
            ))
            .await;
        assert_eq!(output.outcome, Outcome::Ok, "{output:?}");
        assert_eq!(place.left_behind(), 0);
    }
}

#[tokio::test]
async fn folders_deeper_than_any_path_are_removed_too() {
    // More than this process may have open, where removing keeps one open per level.
    let files = libc::rlimit {
        rlim_cur: 512,
        rlim_max: 512,
    };
    // SAFETY: reads from the struct above. The limit holds for this test's process; no test needs more.
    assert_eq!(
        unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const files) },
        0
    );
    let code = "
import os
for _ in range(2500):
    os.mkdir('d')
    os.chdir('d')
open('end', 'w').close()
os.symlink('/usr', 'link')
print('made')
";
    for tier in TIERS {
        let place = place(tier).await;
        let output = place.run(&python(code)).await;
        assert_eq!(output.stdout, "made\n", "{output:?}");
        assert_eq!(place.left_behind(), 0);
    }
}

#[tokio::test]
async fn the_workspace_is_bounded_as_a_whole() {
    let bytes = "
made = 0
try:
    for name in range(8):
        with open(str(name), 'wb', buffering=0) as file:
            for _ in range(60):
                made += file.write(bytes(1 << 20))
except OSError as error:
    print(error.errno, 200 << 20 < made < 300 << 20)
";
    let names = "
try:
    for name in range(20000):
        open(str(name), 'w').close()
except OSError as error:
    print(error.errno, name > 10000)
";
    let place = place(Tier::Namespaces).await;
    for code in [bytes, names] {
        let output = place.run(&python(code)).await;
        assert_eq!(output.stdout, "28 True\n", "{output:?}");
    }
}

#[tokio::test]
async fn a_step_is_stopped_on_order() {
    for tier in TIERS {
        let place = place(tier).await;
        let (order, ordered) = watch::channel(false);
        let mut step = step("shell", "echo here; sleep 60");
        step.limits.wall_s = 120;
        let job = place.runner.runtimes.job(&step);
        let running = place.runner.sandbox.run(&job, ordered);
        let give_order = async {
            // As soon as the step itself runs, which its workspace cannot tell: the order works at any moment.
            while place.left_behind() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            order.send_replace(true);
        };
        let began = Instant::now();
        let (finished, ()) = tokio::join!(running, give_order);
        match finished {
            Ok(finished) => assert_eq!(finished.cause, Cause::Stopped),
            // Stopped before its walls stood.
            Err(error) => assert!(
                error.to_string().contains("before the step began"),
                "{error}"
            ),
        }
        assert!(began.elapsed() < Duration::from_secs(40));
        assert_eq!(place.left_behind(), 0);
    }
}

#[tokio::test]
async fn killing_the_executor_kills_the_step() {
    use std::io::Write;
    let place = place(Tier::Namespaces).await;
    let mut executor = std::process::Command::new(common::PROGRAM)
        .args(["run", "-"])
        .env("OCTOLLM_EXECUTOR_WORKSPACE_DIR", place.parent.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mark = format!("{}.5", 7000 + std::process::id() % 1000);
    let input = serde_json::json!({"language": "shell", "code": format!("sleep {mark}"), "limits": {"wall_s": 60}});
    executor
        .stdin
        .take()
        .unwrap()
        .write_all(input.to_string().as_bytes())
        .unwrap();
    wait_until(|| running(&mark) > 0).await;
    executor.kill().unwrap();
    executor.wait().unwrap();
    wait_until(|| running(&mark) == 0).await;
    assert_eq!(
        octollm_executor::sandbox::workspace::remove_leftovers(place.parent.path()),
        1
    );
    assert_eq!(place.left_behind(), 0);
}

/// Processes of this machine with that argument.
fn running(mark: &str) -> usize {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|one| std::fs::read(one.path().join("cmdline")).ok())
        .filter(|line| {
            line.split(|byte| *byte == 0)
                .any(|argument| argument == mark.as_bytes())
        })
        .count()
}

async fn wait_until(holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it never came to hold"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
