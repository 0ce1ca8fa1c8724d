//! The command line, and what prevents the start.

#![allow(clippy::unwrap_used)] // a broken assumption ends the test

mod common;

use common::{run, until, Redis, Reflex};

#[test]
fn help_and_version_are_printed_and_other_arguments_refused() {
    let help = run(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout)
        .unwrap()
        .contains("OCTOLLM_REDIS_URL"));
    let version = run(&["--version"], &[]);
    let shown = String::from_utf8(version.stdout).unwrap();
    assert_eq!(
        shown,
        format!("octollm-reflex {}\n", env!("CARGO_PKG_VERSION"))
    );
    let unknown = run(&["--port"], &[]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8(unknown.stderr)
        .unwrap()
        .contains("unexpected argument '--port'"));
}

#[test]
fn invalid_settings_prevent_the_start_and_the_error_says_what_to_correct() {
    let (_folder, gap) = common::topology(&[("group: reflex", "grop: reflex")]);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (name, value, code, says) in [
        ("OCTOLLM_REFLEX_ANONYMOUS", "perhaps", 2, "reflex.anonymous"),
        ("OCTOLLM_REFLEX_LISTEN", "somewhere:80", 2, "reflex.listen"),
        (
            "OCTOLLM_REFLEX_LISTEN",
            taken.as_str(),
            1,
            "OCTOLLM_REFLEX_LISTEN",
        ),
        ("OCTOLLM_REDIS_URL", "redis://:pw@:x/", 2, "redis.url"),
        (
            "OCTOLLM_REFLEX_DURABILITY",
            "always",
            2,
            "reflex.durability",
        ),
        (
            "OCTOLLM_REFLEX_DURABILITY_REPLICAS",
            "17",
            2,
            "from 1 to 16",
        ),
        (
            "OCTOLLM_REFLEX_DURABILITY_WAIT_S",
            "0",
            2,
            "reflex.durability_wait_s",
        ),
        ("OCTOLLM_REFLEX_SURPLUS", "1", 2, "OCTOLLM_REFLEX_SURPLUS"),
        ("OCTOLLM_LOG_LEVEL", "loud", 2, "log.level"),
        (
            "OCTOLLM_TOPOLOGY_FILE",
            "/nowhere/streams.yaml",
            2,
            "/nowhere/streams.yaml",
        ),
        ("OCTOLLM_TOPOLOGY_FILE", gap.as_str(), 2, "grop"),
    ] {
        let ended = run(&[], &[(name, value)]);
        let error = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{name}={value}: {error}");
        assert!(error.contains(says), "{name}={value}: {error}");
        assert!(
            !error.contains("panicked") && !error.contains(":pw@"),
            "{error}"
        );
    }
}

#[test]
fn a_reflex_beyond_loopback_is_checked_and_warns_of_anonymous_access() {
    let redis = Redis::start();
    let port = common::free_port();
    let listen = format!("0.0.0.0:{port}");
    let open = [
        ("OCTOLLM_REFLEX_LISTEN", listen.as_str()),
        ("OCTOLLM_REFLEX_ANONYMOUS", "on"),
    ];
    let checked = run(&["--healthcheck"], &open);
    let error = String::from_utf8(checked.stderr).unwrap();
    assert_eq!(checked.status.code(), Some(1), "{error}");
    assert!(
        error.contains("no answer from http://127.0.0.1:"),
        "{error}"
    );

    let mut reflex = Reflex::start_with(&redis.url(), &open);
    reflex.until_ready();
    let warned = reflex.log();
    assert!(
        warned
            .iter()
            .any(|line| line.contains("reflex.anonymous is")),
        "{warned:?}"
    );
    let ready = run(&["--healthcheck"], &open);
    assert_eq!(ready.status.code(), Some(0));
    assert_eq!(ready.stdout, b"{\"ready\":true,\"reasons\":[]}\n");

    drop(redis);
    until("it is not ready without Redis", || {
        let checked = run(&["--healthcheck"], &open);
        let error = String::from_utf8(checked.stderr).unwrap();
        (checked.status.code() == Some(1) && error.contains("answers 503")).then_some(())
    });

    let without_port = run(&["--healthcheck"], &[]);
    let error = String::from_utf8(without_port.stderr).unwrap();
    assert!(error.contains("port 0"), "{error}");
}

#[test]
fn the_shared_files_are_found_next_to_the_installed_program() {
    let folder = tempfile::tempdir().unwrap();
    let (bin, share) = (
        folder.path().join("bin"),
        folder.path().join("share/octollm"),
    );
    std::fs::create_dir(&bin).unwrap();
    let program = bin.join("octollm-reflex");
    std::fs::copy(env!("CARGO_BIN_EXE_octollm-reflex"), &program).unwrap();
    // An address in use ends the program right after it has read the topology.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let start = || {
        std::process::Command::new(&program)
            .env_clear()
            .env(
                "OCTOLLM_REFLEX_LISTEN",
                taken.local_addr().unwrap().to_string(),
            )
            .current_dir(folder.path())
            .output()
            .unwrap()
    };
    let lost = start();
    let error = String::from_utf8(lost.stderr).unwrap();
    assert_eq!(lost.status.code(), Some(2), "{error}");
    assert!(error.contains(share.to_str().unwrap()), "{error}");
    std::fs::create_dir_all(share.join("schemas/events")).unwrap();
    std::fs::copy(
        common::root().join("streams.yaml"),
        share.join("streams.yaml"),
    )
    .unwrap();
    std::fs::copy(
        common::root().join("webhooks.yaml"),
        share.join("webhooks.yaml"),
    )
    .unwrap();
    for file in std::fs::read_dir(common::root().join("schemas/events")).unwrap() {
        let file = file.unwrap();
        std::fs::copy(
            file.path(),
            share.join("schemas/events").join(file.file_name()),
        )
        .unwrap();
    }
    let found = start();
    let error = String::from_utf8(found.stderr).unwrap();
    assert_eq!(found.status.code(), Some(1), "{error}");
}

#[test]
fn the_configuration_can_be_checked_without_starting() {
    // The port is in use and nothing answers at the address of Redis: neither is looked at.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let nowhere = format!("redis://127.0.0.1:{}/0", common::free_port());
    let check = |settings: &[(&str, &str)]| {
        let base = [
            ("OCTOLLM_REFLEX_LISTEN", taken.as_str()),
            ("OCTOLLM_REDIS_URL", nowhere.as_str()),
        ];
        let output = run(&["--check-config"], &[&base, settings].concat());
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (
            output.status.code(),
            text(output.stdout),
            text(output.stderr),
        )
    };
    let (code, said, faults) = check(&[("GITHUB_WEBHOOK_SECRET", "It's a Secret to Everybody")]);
    assert_eq!((code, faults.as_str()), (Some(0), ""));
    assert_eq!(said, "configuration is valid\n");
    let (code, said, _) = check(&[]);
    assert_eq!(code, Some(0));
    assert!(said.contains("github is disabled"), "{said}");
    assert!(said.contains("GITHUB_WEBHOOK_SECRET"), "{said}");

    let (_folder, gap) = common::topology(&[("group: reflex", "grop: reflex")]);
    let folder = tempfile::tempdir().unwrap();
    let sources = folder.path().join("webhooks.yaml");
    std::fs::write(&sources, "version: 1\nsources:\n  a:\n    scheme: odd\n").unwrap();
    let sources = sources.to_str().unwrap();
    let config = folder.path().join("octollm.toml");
    std::fs::write(&config, "[reflex]\nbody_limit = 1\n").unwrap();
    let config = config.to_str().unwrap();
    for (settings, named) in [
        (
            &[
                ("OCTOLLM_TOPOLOGY_FILE", gap.as_str()),
                ("OCTOLLM_WEBHOOKS_FILE", sources),
                ("OCTOLLM_REDIS_URL", "redis://:hunter2@:x/"),
            ][..],
            &["grop", sources, "redis.url"][..],
        ),
        (
            &[("OCTOLLM_CONFIG", config)],
            &["reflex.body_limit", config],
        ),
        (&[("OCTOLLM_REFLEX_DRAIN_S", "0")], &["reflex.drain_s"]),
        (
            &[("GITHUB_WEBHOOK_SECRET", "hunter2")],
            &["GITHUB_WEBHOOK_SECRET"],
        ),
    ] {
        let (code, said, faults) = check(settings);
        assert_eq!((code, said.as_str()), (Some(1), ""), "{faults}");
        for name in named {
            assert!(faults.contains(name), "{name}: {faults}");
        }
        assert!(
            !faults.contains("hunter2") && !faults.contains("panicked"),
            "{faults}"
        );
    }
}
