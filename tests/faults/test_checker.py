"""The checker on histories made by hand: one that keeps every promise, and for each promise one that breaks it."""

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults.checker import Verdict, check
from tests.faults.ledger import Asked, Fault, Keyless, Log, System, asked, keyless, lines, runs

TASK, POISON = "l0-a", "l0-b"


def _asked(key: str, task: str, expected: str = "succeeded", answer: Any = 7) -> Asked:
    return Asked(key, "default", "http0", expected, answer, 1.0, "ok", 2.0, task)


def _task(task: str, key: str, state: str = "succeeded", reason: str | None = None, answer: Any = 7) -> dict[str, Any]:
    return {
        "id": task, "tenant": "default", "state": state, "reason": reason, "detail": None, "run": 1,
        "idempotency_key": key, "answer": answer,
    }  # fmt: skip


def _work(task: str, **more: Any) -> dict[str, Any]:
    return {"task": task, "run": 1, "step": "one", "round": 0, "attempt": 1, **more}


@dataclass
class History:
    """Everything the checker compares."""

    asked: dict[str, Asked] = field(
        default_factory=lambda: {
            "k1": _asked("k1", TASK),
            "k2": _asked("k2", POISON, "dead", None),
            "k3": Asked("k3", "default", "stream", "dead_letter", None, 1.0, "ok", 2.0, None, "5-0"),
            "k4": Asked("k4", "default", "http0", "succeeded", 9, 1.0),
        }
    )
    effects: list[dict[str, Any]] = field(
        default_factory=lambda: [
            _work(TASK, tenant="default", mark="a", of=[]),
            _work(TASK, tenant="default", step="two", mark="b", of=["a"]),
            _work(TASK, tenant="default", step="verdict"),
        ]
    )
    system: System = field(
        default_factory=lambda: System(
            tasks=[_task(TASK, "k1"), _task(POISON, "k2", "failed", "step_dead", None)],
            finished={(TASK, 1): 1, (POISON, 1): 1},
            attempts=[
                _work(TASK, delivery=1, outcome="succeeded"),
                _work(POISON, delivery=5, outcome="dead"),
                _work(TASK, step="verdict", delivery=1, outcome="succeeded"),
            ],
            steps=[
                _work(TASK, state="succeeded", mark="a"),
                _work(POISON, state="dead", mark=None),
                _work(TASK, step="two", state="succeeded", mark="b"),
                _work(TASK, step="verdict", state="succeeded", mark=None),
            ],
            dead_letters=[{"entry": "5-0", "stream": "ingest:default"}],
            left={"stream": 0},
            ended_at={(TASK, 1): 20.0, (POISON, 1): 20.0},
            statuses={TASK: "succeeded", POISON: "failed"},
        )
    )
    faults: list[Fault] = field(default_factory=lambda: [Fault("poison", 1.5, 2.5, landed=True)])

    def judged(self) -> Verdict:
        return check(self.asked, self.effects, self.system, self.faults)


def test_a_history_that_keeps_every_promise_is_clean():
    found = History().judged()
    assert found.offences == []
    assert (found.accepted, found.terminal) == (3, 3)


def _lose(history: History) -> None:
    history.system.tasks = [task for task in history.system.tasks if task["id"] != TASK]


def _answered_with_another(history: History) -> None:
    history.asked["k1"].task = POISON


def _stuck(history: History) -> None:
    history.system.tasks[0]["state"] = "running"


def _dead_letter_lost(history: History) -> None:
    history.system.dead_letters = []


def _twice(history: History) -> None:
    history.system.tasks.append(_task("l0-c", "k1"))
    history.system.finished["l0-c", 1] = 1


def _committed_twice(history: History) -> None:
    history.system.attempts.append(_work(TASK, delivery=2, outcome="succeeded"))
    history.effects.append(history.effects[0])


def _ran_twice(history: History) -> None:
    history.effects.append(copy.copy(history.effects[0]))


def _sent_again(history: History) -> None:
    history.system.steps[0]["attempt"] = 2


def _judged_twice_in_one_delivery(history: History) -> None:
    history.effects.append(copy.copy(history.effects[2]))


def _judge_sent_again(history: History) -> None:
    history.system.steps[3]["attempt"] = 2


def _began_after_the_end(history: History) -> None:
    history.effects[0] |= {"at": 23.0, "until": 23.1}


def _ran_on(history: History) -> None:
    history.effects[0] |= {"at": 15.0, "until": 23.0}


def _two_runs_at_once(history: History) -> None:
    history.effects[0] |= {"at": 15.0, "until": 19.0}
    history.effects.append(_work(TASK, tenant="default", mark="c", of=[], at=18.0, until=18.5) | {"run": 2})


def _made_of_another(history: History) -> None:
    history.effects.append(_work(TASK, tenant="default", attempt=2, mark="c", of=[]))
    history.system.attempts[0]["attempt"] = history.system.steps[0]["attempt"] = 2
    history.system.steps[0]["mark"] = "c"


def _made_by_nobody(history: History) -> None:
    history.system.steps[2]["mark"] = "d"


def _taken_from_another_step(history: History) -> None:
    history.system.steps[2]["mark"] = "a"


def _ended_twice(history: History) -> None:
    history.system.finished[TASK, 1] = 2


def _ended_silently(history: History) -> None:
    history.system.finished.pop((TASK, 1))


def _swapped(history: History) -> None:
    history.system.tasks[0]["tenant"] = "other"


def _worked_for_another(history: History) -> None:
    history.effects[0]["tenant"] = "other"


def _unasked(history: History) -> None:
    history.system.tasks.append(_task("l0-x", "nobody"))
    history.system.finished["l0-x", 1] = 1


def _wrong_answer(history: History) -> None:
    history.system.tasks[0]["answer"] = 8


def _neighbour_charged(history: History) -> None:
    history.system.tasks[0] |= {"state": "failed", "reason": "step_dead"}


def _left_over(history: History) -> None:
    history.system.left["stream"] = 1


def _still_out(history: History) -> None:
    history.system.steps[0]["state"] = "sent"


def _not_indexed(history: History) -> None:
    history.system.unindexed = [TASK]


def _reported_otherwise(history: History) -> None:
    history.system.statuses[TASK] = "running"


def _not_reported(history: History) -> None:
    history.system.statuses.pop(TASK)


def _seen_by_the_scenario(history: History) -> None:
    history.faults[0].broken = ("a result waited",)


def _slowed_down(history: History) -> None:
    history.faults[0].throughput = (10.0, 7.9)


def _ran_again_after_a_deploy_that_was_none(history: History) -> None:
    history.effects += [history.effects[0], {**history.effects[0], "stopped": True}, history.effects[0]]


def test_a_crash_may_cost_a_fifth_and_a_deploy_may_stop_a_step():
    history = History()
    history.faults[0].throughput = (10.0, 8.0)
    history.effects += [{**history.effects[0], "stopped": True}, history.effects[0]]
    assert history.judged().broken == []


def test_only_what_has_ended_may_be_evicted():
    history = History()
    history.faults[0].excuses = ("evicted",)
    _not_reported(history)
    assert history.judged().broken == []
    history.system.tasks[0]["state"] = "running"
    assert "wrong_ends" in {one.kind for one in history.judged().broken}


@pytest.mark.parametrize(
    ("break_it", "kind"),
    [
        (_lose, "lost"),
        (_answered_with_another, "unnamed"),
        (_stuck, "lost"),
        (_dead_letter_lost, "lost"),
        (_twice, "duplicate_effects"),
        (_committed_twice, "duplicate_effects"),
        (_ran_twice, "duplicate_effects"),
        (_sent_again, "duplicate_effects"),
        (_judged_twice_in_one_delivery, "duplicate_effects"),
        (_judge_sent_again, "duplicate_effects"),
        (_made_of_another, "mixed_results"),
        (_made_by_nobody, "mixed_results"),
        (_taken_from_another_step, "mixed_results"),
        (_ended_twice, "second_terminals"),
        (_ended_silently, "second_terminals"),
        (_swapped, "unauthorised"),
        (_worked_for_another, "unauthorised"),
        (_unasked, "unauthorised"),
        (_wrong_answer, "unauthorised"),
        (_neighbour_charged, "wrong_ends"),
        (_left_over, "undrained"),
        (_still_out, "undrained"),
        (_not_indexed, "undrained"),
        (_reported_otherwise, "wrong_ends"),
        (_not_reported, "wrong_ends"),
        (_seen_by_the_scenario, "wrong_ends"),
        (_began_after_the_end, "work_after_end"),
        (_ran_on, "work_after_end"),
        (_two_runs_at_once, "work_after_end"),
        (_slowed_down, "costly_crash"),
        (_ran_again_after_a_deploy_that_was_none, "duplicate_effects"),
    ],
)
def test_each_broken_promise_is_found(break_it: Callable[[History], None], kind: str):
    history = History()
    break_it(history)
    found = history.judged()
    assert kind in {one.kind for one in found.broken}


def test_what_only_redis_knew_may_be_gone_with_it_and_nothing_else():
    history = History(faults=[Fault("flushall", 2.1, 2.2, landed=True, loss="redis")])
    _lose(history)
    _dead_letter_lost(history)
    found = history.judged()
    assert found.broken == []
    assert found.count("unprotected") == 2
    later = History(faults=[Fault("flushall", 1.1, 1.2, landed=True, loss="redis")])
    _lose(later)
    assert [one.kind for one in later.judged().broken] == ["lost"]


@pytest.mark.parametrize("break_it", [_ran_twice, _sent_again, _judge_sent_again])
def test_a_loss_excuses_what_was_there_and_not_what_was_asked_for_later(break_it: Callable[[History], None]):
    for ended, kinds in ((1.5, set()), (0.5, {"duplicate_effects"})):
        history = History(faults=[Fault("flushall", ended - 0.1, ended, landed=True, loss="redis")])
        history.system.tasks = history.system.tasks[:1]
        history.asked.pop("k2")
        break_it(history)
        assert {one.kind for one in history.judged().broken} == kinds


@pytest.mark.parametrize(
    ("mode", "spares", "kind"),
    [
        ("redis", ("replicated",), "unprotected"),
        ("fsync", ("replicated",), "unprotected"),
        ("replicated(2)", (), "unprotected"),
        ("replicated(2)", ("replicated",), "lost"),
        ("fsync+replicated(1)", ("fsync",), "lost"),
        ("stored", (), "lost"),
    ],
)
def test_what_a_202_promised_outlasts_the_loss_that_it_was_promised_for(mode: str, spares: tuple[str, ...], kind: str):
    history = History(faults=[Fault("some loss", 2.1, 2.2, landed=True, loss="redis", spares=spares)])
    history.asked["k1"].mode = mode
    _lose(history)
    assert [one.kind for one in history.judged().offences] == [kind]


def test_a_submission_without_an_answer_may_have_become_a_task_or_not():
    history = History()
    assert history.asked["k4"].outcome == "unknown"
    history.system.tasks.append(_task("l0-d", "k4", answer=9))
    history.system.finished["l0-d", 1] = 1
    history.system.statuses["l0-d"] = "succeeded"
    assert history.judged().broken == []


@pytest.mark.parametrize("break_it", [_began_after_the_end, _ran_on, _two_runs_at_once])
def test_work_after_an_end_is_excused_by_a_fault_that_kept_workers_from_hearing_of_it(break_it):
    for scenario, kinds in (("freeze_arm", set()), ("ended_runs", {"work_after_end"})):
        history = History(faults=[Fault(scenario, 14.0, 19.0, landed=True)])
        break_it(history)
        assert {one.kind for one in history.judged().broken} == kinds


def test_what_never_ran_may_be_sent_again():
    history = History()
    history.system.attempts[0]["attempt"] = history.effects[0]["attempt"] = 2
    _sent_again(history)
    assert history.judged().broken == []


def test_a_retry_is_no_second_sending():
    history = History()
    history.system.attempts.append(_work(TASK, delivery=1, outcome="retrying"))
    history.system.attempts[0]["attempt"] = history.effects[0]["attempt"] = 2
    _sent_again(history)
    assert history.judged().broken == []


def test_the_producers_log_is_read_by_key_and_a_torn_line_is_left_out(tmp_path):
    log = Log(tmp_path / "log", sync=True)
    about = {"tenant": "default", "source": "http0", "expected": "succeeded", "answer": 1}
    log.write(what="invoke", key="a", **about)
    log.write(what="unknown", key="a", error="ReadError")
    log.write(what="invoke", key="a", **about)
    log.write(what="ok", key="a", task="l0-a", mode="stored")
    log.write(what="invoke", key="b", **about)
    log.close()
    with log.path.open("ab") as file:
        file.write(b'{"what": "ok", "key": "b"')
    found = asked(log.path)
    assert (found["a"].outcome, found["a"].task, found["a"].tries) == ("ok", "l0-a", 2)
    assert found["a"].mode == "stored"
    assert found["b"].outcome == "unknown"
    assert len(lines(log.path)) == 5


def test_what_the_executor_says_it_begins_is_read_from_its_log(tmp_path):
    log = tmp_path / "executor-0.log"
    begins = {"message": "started a step", **_work(TASK, tenant="default")}
    log.write_text("\n".join(json.dumps(line) for line in (begins, {"message": "ran a step", "task": TASK})))
    assert runs(log) == [_work(TASK, tenant="default", worker="executor-0")]


def test_a_stored_task_without_a_key_must_have_been_named(tmp_path):
    log = Log(tmp_path / "producers.jsonl", sync=False)
    for key in ("o1", "o2", "o3"):
        log.write(what="keyless", key=key)
    log.write(what="answered", key="o1", task="l0-named")
    log.write(what="answered", key="o2", task=None)
    log.close()
    answers = keyless(log.path)
    assert (answers, asked(log.path)) == (Keyless({"l0-named"}, 1), {})

    def unnamed(*tasks: str) -> list[str]:
        history = History()
        for task in tasks:
            history.system.tasks.append(_task(task, task))
            history.system.finished[task, 1] = 1
            history.system.statuses[task] = "succeeded"
        found = check(history.asked, history.effects, history.system, history.faults, answers)
        assert {one.kind for one in found.offences} <= {"unnamed"}
        return [one.about for one in found.offences]

    # One producer was not answered at all, so one task may be unknown to everybody.
    assert unnamed("l0-named", "l0-x") == []
    assert unnamed("l0-named", "l0-x", "l0-y") == ["l0-x", "l0-y"]
