//! What refuses to start, and says which setting to correct.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a broken assumption ends the test

mod common;
#[path = "common/stage.rs"]
mod stage;

use stage::Stage;

#[test]
fn a_rule_that_is_none_is_refused_at_the_start() {
    let stage = Stage::new();
    for (name, value, key) in [
        (
            "OCTOLLM_WORKER_CIRCUIT_BREAKER_TASKS",
            "1001",
            "worker.circuit_breaker_tasks",
        ),
        (
            "OCTOLLM_WORKER_CIRCUIT_BREAKER_COOLDOWN_S",
            "0",
            "worker.circuit_breaker_cooldown_s",
        ),
    ] {
        let said = stage.refused(&[(name, value)]);
        assert!(
            said.contains(key) && said.contains("must be from"),
            "{said}"
        );
    }
}

#[test]
fn a_workspace_folder_that_is_not_there_is_a_wrong_setting() {
    let stage = Stage::new();
    let absent = stage.workspaces().join("mistyped");
    let said = stage.refused(&[("OCTOLLM_EXECUTOR_WORKSPACE_DIR", absent.to_str().unwrap())]);
    assert!(
        said.contains("mistyped is no folder") && said.contains("OCTOLLM_EXECUTOR_WORKSPACE_DIR"),
        "{said}"
    );
    assert!(!absent.exists());
}
