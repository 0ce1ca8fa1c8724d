//! The sandbox's walls for real: what a step can do, what it cannot see, and what it is refused.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;

use common::{place, python, step};
use octollm_executor::job::Tier;
use octollm_executor::step::output::Outcome;

const TIERS: [Tier; 2] = [Tier::Namespaces, Tier::Landlock];

#[tokio::test]
async fn python_and_shell_run_with_files_arguments_and_input() {
    for tier in TIERS {
        let place = place(tier).await;
        let mut python = python(
            "import sys, lib.sums\nprint(lib.sums.add(2, 3), sys.argv[1:], sys.stdin.read())",
        );
        python.files.insert(
            "lib/sums.py".to_owned(),
            "def add(a, b): return a + b\n".to_owned(),
        );
        python.args = vec!["-x".to_owned(), "a b".to_owned()];
        python.stdin = Some("hällo".to_owned());
        let output = place.run(&python).await;
        assert_eq!(
            (output.outcome, output.exit_code),
            (Outcome::Ok, Some(0)),
            "{output:?}"
        );
        assert_eq!(output.stdout, "5 ['-x', 'a b'] hällo\n");
        let shell = place
            .run(&step("shell", "echo out; echo err >&2; cat; exit 3"))
            .await;
        assert_eq!((shell.outcome, shell.exit_code), (Outcome::Failed, Some(3)));
        assert_eq!(
            (shell.stdout.as_str(), shell.stderr.as_str()),
            ("out\n", "err\n")
        );
        assert_eq!(place.left_behind(), 0);
    }
}

#[tokio::test]
async fn the_features_are_those_that_can_be_seen_inside() {
    let output = place(Tier::Namespaces)
        .await
        .run(&step(
            "shell",
            "cat /proc/self/status; id -u; hostname; ls /proc",
        ))
        .await;
    for feature in [
        "pid_ns",
        "mount_ns",
        "net_ns",
        "ipc_ns",
        "uts_ns",
        "seccomp",
        "rlimits",
        "no_new_privs",
    ] {
        assert!(
            output.isolation.features.iter().any(|one| one == feature),
            "{feature} is not in {output:?}"
        );
    }
    let has = |line: &str| output.stdout.lines().any(|one| one == line);
    assert!(
        has("NoNewPrivs:\t1") && has("Seccomp:\t2") && has("CapEff:\t0000000000000000"),
        "{}",
        output.stdout
    );
    assert!(
        has("CapBnd:\t0000000000000000") && has("sandbox") && has("1000"),
        "{}",
        output.stdout
    );
    let low = place(Tier::Landlock)
        .await
        .run(&step("shell", "true"))
        .await;
    assert!(
        low.isolation
            .features
            .iter()
            .all(|one| !one.ends_with("_ns")),
        "{low:?}"
    );
    assert!(low.isolation.features.iter().any(|one| one == "landlock"));
}

#[tokio::test]
async fn there_is_no_network_not_even_to_this_machine() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let code = format!(
        "import socket\ntry:\n    socket.create_connection(('127.0.0.1', {}), 2)\nexcept OSError as error:\n    print('no', type(error).__name__)",
        listener.local_addr().unwrap().port()
    );
    for tier in TIERS {
        let output = place(tier).await.run(&python(&code)).await;
        assert_eq!(output.stdout, "no PermissionError\n", "{output:?}");
        assert!(listener.accept().is_err(), "a step reached this machine");
    }
}

#[tokio::test]
async fn only_local_sockets_can_be_made() {
    let code = "
import socket
for family, kind in ((2, 2), (10, 1), (16, 3), (17, 3), (40, 1), (38, 5)):
    try:
        socket.socket(family, kind)
        print(family, 'made')
    except OSError as error:
        print(family, error.errno)
a, b = socket.socketpair()
a.send(b'pair'); print(b.recv(9))
";
    for tier in TIERS {
        let output = place(tier).await.run(&python(code)).await;
        let expected = "2 1\n10 1\n16 1\n17 1\n40 1\n38 1\nb'pair'\n";
        assert_eq!(output.stdout, expected, "{output:?}");
    }
}

#[tokio::test]
async fn the_network_namespace_alone_has_no_way_out() {
    let output = place(Tier::Namespaces)
        .await
        .run(&step("shell", "cat /proc/net/dev"))
        .await;
    let interfaces: Vec<&str> = output
        .stdout
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, _)| name.trim())
        .collect();
    assert!(
        interfaces.iter().all(|name| [
            "lo", "tunl0", "sit0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0",
            "ip6gre0"
        ]
        .contains(name)),
        "{interfaces:?}"
    );
}

#[tokio::test]
async fn the_host_s_files_and_environment_are_out_of_sight() {
    std::env::set_var("OCTOLLM_TEST_SECRET", "sesame");
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "sesame").unwrap();
    std::fs::set_permissions(
        secret.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o644),
    )
    .unwrap();
    let code = format!(
        "cat {} /etc/shadow /etc/hostname /proc/1/environ /proc/*/environ; ls /home /var; echo x > /usr/x; echo x > /etc/x; env",
        secret.path().display()
    );
    for tier in TIERS {
        let output = place(tier).await.run(&step("shell", &code)).await;
        assert!(
            !output.stdout.contains("sesame") && !output.stdout.contains("root:"),
            "{output:?}"
        );
        let names: Vec<&str> = output
            .stdout
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, _)| name)
            .collect();
        assert!(
            names.iter().all(|name| [
                "PATH",
                "HOME",
                "LANG",
                "TMPDIR",
                "PYTHONHASHSEED",
                "PWD",
                "OLDPWD"
            ]
            .contains(name)),
            "{names:?}"
        );
        assert!(names.contains(&"PATH"), "it ran to its end: {output:?}");
        assert!(
            !std::path::Path::new("/usr/x").exists() && !std::path::Path::new("/etc/x").exists()
        );
    }
}

#[tokio::test]
async fn the_first_process_is_closed_to_the_step() {
    // Its pipe to the launcher sets the wall time and names the features.
    let code = "
import os
for name in ('fd', 'root', 'cwd', 'environ', 'mem', 'exe'):
    path = '/proc/1/' + name
    try:
        os.listdir(path) if name == 'fd' else os.readlink(path) if name in ('root', 'cwd', 'exe') else open(path)
        print(name, 'open')
    except PermissionError:
        pass
print('end')
";
    let output = place(Tier::Namespaces).await.run(&python(code)).await;
    assert_eq!(output.stdout, "end\n", "{output:?}");
}

#[tokio::test]
async fn the_host_s_files_keep_their_modes() {
    use std::os::unix::fs::{chown, MetadataExt};
    const NOBODY: u32 = 65_534;
    let place = place(Tier::Landlock).await;
    // A file of the step's own user, who is nobody where root runs the executor.
    let file = place.parent.path().join("file");
    std::fs::write(&file, "").unwrap();
    if file.metadata().unwrap().uid() == 0 {
        chown(&file, Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).unwrap();
    let code = format!(
        "
import os
path = {file:?}
for change in (lambda: os.chmod(path, 0o777), lambda: os.setxattr(path, 'user.x', b'1'), lambda: os.chown(path, -1, -1)):
    try:
        change()
        print('changed')
    except PermissionError:
        pass
print('end')
"
    );
    let output = place.run(&python(&code)).await;
    assert_eq!(output.stdout, "end\n", "{output:?}");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
}

// The numbers are this processor's.
#[cfg(target_arch = "x86_64")]
#[tokio::test]
async fn forbidden_calls_are_refused() {
    let code = "
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def tried(name, result):
    print(name, result if result >= 0 else os.strerror(ctypes.get_errno()))
tried('unshare', libc.unshare(0x10000000))
tried('mount', libc.mount(b'x', b'/tmp', b'tmpfs', 0, None))
tried('ptrace', libc.ptrace(16, 1, 0, 0))
tried('keyctl', libc.syscall(250, 0, 0, 0, 0, 0))
tried('clone', libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0))
tried('clone3', libc.syscall(435, 0, 0))
tried('x32', libc.syscall(0x40000000 + 39))
";
    for tier in TIERS {
        let output = place(tier).await.run(&python(code)).await;
        let refused = "Operation not permitted";
        let missing = "Function not implemented";
        let expected: String = ["unshare", "mount", "ptrace", "keyctl", "clone"]
            .map(|name| format!("{name} {refused}\n"))
            .concat();
        assert_eq!(
            output.stdout,
            format!("{expected}clone3 {missing}\nx32 {missing}\n"),
            "{output:?}"
        );
    }
}

#[tokio::test]
async fn what_cannot_start_is_refused_with_its_cause() {
    for tier in TIERS {
        let mut place = place(tier).await;
        place.runner.runtimes.python.program = "/nowhere/python".into();
        let error = place.try_run(&python("1")).await.unwrap_err();
        assert!(error.to_string().contains("/nowhere/python"), "{error}");
        assert_eq!(place.left_behind(), 0);
    }
}
