"""Planted bugs in the two Rust programs and in the Lua scripts that are compiled into them."""

from collections.abc import Mapping

from octollm.runtime.programs import EXECUTOR, REFLEX
from tests.faults.mutants.mutant import Change, Mutant

_SUBMIT = "reflex-rs/src/submit/service.rs"
_STORE = "                Ok(prepared) => service.store(&prepared).await,\n"

RUST_MUTANTS: Mapping[str, Mutant] = {
    "answer_before_store": Mutant(
        "the reflex answers 202 and stores the task afterwards",
        ("kill_reflex_before_effect",) * 2,  # it may be killed with an entry of an ingest stream, which loses nothing
        ("lost",),
        (
            Change(
                _SUBMIT,
                _STORE,
                "                Ok(prepared) => {\n"
                "                    let accepted = Accepted {\n"
                "                        task: prepared.task.task.clone(),\n"
                "                        duplicate: false,\n"
                "                        state: Some(TaskState::Accepted),\n"
                "                        refused: None,\n"
                "                        durability: requirements.durability,\n"
                "                    };\n"
                "                    tokio::spawn(async move {\n"
                "                        tokio::time::sleep(Duration::from_secs(1)).await;\n"
                "                        record.finish(&final_outcome(&service.store(&prepared).await));\n"
                "                    });\n"
                "                    return Ok(accepted);\n"
                "                }\n",
            ),
        ),
        program=REFLEX,
    ),
    "refusal_accepted": Mutant(
        "the reflex answers 202 although Redis has refused to store the task",
        ("redis_full",),
        ("lost",),
        (
            Change(
                _SUBMIT,
                _STORE,
                "                Ok(prepared) => match service.store(&prepared).await {\n"
                "                    Err(SubmitError::Store(StoreError::OutOfMemory(_))) => Ok(Accepted {\n"
                "                        task: prepared.task.task.clone(),\n"
                "                        duplicate: false,\n"
                "                        state: Some(TaskState::Accepted),\n"
                "                        refused: None,\n"
                "                        durability: requirements.durability,\n"
                "                    }),\n"
                "                    stored => stored,\n"
                "                },\n",
            ),
        ),
        program=REFLEX,
    ),
    "unconfirmed_denied": Mutant(
        "the reflex says that nothing was stored when Redis has not answered in time",
        ("redis_hung",),
        ("unnamed",),
        (
            Change(
                _SUBMIT,
                "fn unconfirmed(task: TaskId, required: Durability) -> SubmitError {\n"
                "    SubmitError::Unconfirmed { task, required }\n",
                "fn unconfirmed(_task: TaskId, _required: Durability) -> SubmitError {\n"
                '    SubmitError::NotDurable("Redis does not answer")\n',
            ),
        ),
        program=REFLEX,
    ),
    "received_by_own_clock": Mutant(
        "the reflex takes the time of a submission from its own clock",
        ("clocks_of_reflexes",),
        ("wrong_ends",),
        (
            Change(
                "reflex-rs/src/store/redis/mod.rs",
                "        self.redis.now_ms()\n",
                "        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);\n"
                "        Ok(now.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)))\n",
            ),
        ),
        program=REFLEX,
    ),
    "answers_mixed_up": Mutant(
        "the reflex gives the answers of submissions that were stored together to each other's requests",
        ("overload", "overload"),
        ("unnamed",),
        (
            Change(
                "reflex-rs/src/store/redis/group_commit.rs",
                "batch.into_iter().zip(answers)",
                "batch.into_iter().rev().zip(answers)",
            ),
        ),
        program=REFLEX,
    ),
    "executor_without_fence": Mutant(
        "an executor may finish an entry whose lease another one holds",
        ("freeze_executor",),
        ("duplicate_effects",),
        (
            Change(
                "lua/lease.lua",
                "  if holder[2] ~= consumer or holder[4] ~= delivery then return 'stale' end\n",
                "",
            ),
        ),
        program=EXECUTOR,
    ),
    "executor_runs_on": Mutant(
        "the executor hears of no ended run and runs its steps to their end",
        ("ended_runs_in_sandbox",),
        ("wrong_ends",),
        (
            Change(
                "executor-rs/src/worker/execution.rs",
                "        () = lease.until_revoked() => {\n",
                "        () = std::future::pending() => {\n",
            ),
            Change(
                "executor-rs/src/worker/execution.rs",
                "        () = sleep_until(deadline) => {\n",
                "        () = sleep_until(None) => {\n",
            ),
        ),
        program=EXECUTOR,
    ),
}
