"""The verdict: compares what producers asked with what the system says and what its arms did. Pure.

A rule that finds nothing wrong proves nothing until it has found something: `test_checker.py` and the mutants do that.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.faults.after_end import after_end
from tests.faults.ledger import Asked, Fault, Keyless, System

Kind = Literal[
    "lost",
    "unprotected",
    "duplicate_effects",
    "second_terminals",
    "unauthorised",
    "mixed_results",
    "wrong_ends",
    "undrained",
    "work_after_end",
    "costly_crash",
    "unnamed",
]
TERMINAL = {"succeeded", "failed", "rejected", "cancelled", "expired"}
SHOWN = 8
_KEPT = 0.8
"""What a crash must leave of the throughput of those who survive it."""
_WANTED = {
    "succeeded": "succeeded",
    "dead": "failed: step_dead",
    "failed": "failed: step_failed",
    "plan_invalid": "failed: plan_invalid",
    "cancelled": "cancelled: requested",
    "expired": "expired: deadline",
    "judged": "failed: judged",
}
"""The end of a task by what its producer expects."""


@dataclass(frozen=True)
class Offence:
    """One broken promise."""

    kind: Kind
    about: str
    """Key, task or Redis key."""
    text: str


@dataclass
class Verdict:
    """What came of a campaign."""

    accepted: int = 0
    terminal: int = 0
    offences: list[Offence] = field(default_factory=list)

    @property
    def broken(self) -> list[Offence]:
        """All but what the durability mode allows."""
        return [one for one in self.offences if one.kind != "unprotected"]

    def count(self, kind: Kind) -> int:
        """Offences of one kind."""
        return sum(one.kind == kind for one in self.offences)


def check(
    asked: Mapping[str, Asked],
    effects: Sequence[Mapping[str, Any]],
    system: System,
    faults: Sequence[Fault],
    keyless: Keyless | None = None,
) -> Verdict:
    """Every rule on everything."""
    verdict = Verdict()
    losses = [fault for fault in faults if fault.loss == "redis"]
    excuses = {excuse for fault in faults for excuse in fault.excuses}
    by_key: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for task in system.tasks:
        by_key[task["tenant"], task["idempotency_key"]].append(task)
    made = {task for fault in faults for task in fault.made}
    without_key = [
        task["id"] for task in system.tasks if task["id"] == task["idempotency_key"] and task["id"] not in made
    ]
    made.update(without_key)
    verdict.offences += _unnamed(without_key, keyless or Keyless())
    verdict.offences += _unasked(asked.values(), (task for task in system.tasks if task["id"] not in made))
    for one in asked.values():
        rows = by_key.get((one.tenant, one.key), [])
        _one(verdict, one, rows, system, losses, excuses)
    verdict.offences += _ends(system)
    verdict.offences += _reported(system, losses, excuses)
    verdict.offences += _work(system, effects, _excused(asked.values(), system, losses))
    verdict.offences += _made_of(system, effects)
    verdict.offences += [Offence("work_after_end", task, text) for task, text in after_end(system, effects, faults)]
    verdict.offences += [Offence("undrained", key, f"{count} left") for key, count in system.left.items() if count]
    verdict.offences += [Offence("undrained", task, "memory never took its result") for task in system.unindexed]
    verdict.offences += [Offence("wrong_ends", fault.scenario, text) for fault in faults for text in fault.broken]
    verdict.offences += _costs(faults)
    return verdict


def _costs(faults: Iterable[Fault]) -> list[Offence]:
    """A crash may cost the others a fifth of their throughput, counted over more than a lease."""
    found = []
    for fault in faults:
        before, after = fault.throughput or (0, 0)
        if after < _KEPT * before:
            text = f"the survivors did {after:.1f} steps/s after the crash, and {before:.1f} before"
            found.append(Offence("costly_crash", fault.scenario, text))
    return found


def _one(
    verdict: Verdict, one: Asked, rows: list[dict[str, Any]], system: System, losses: list[Fault], excuses: set[str]
) -> None:
    """What became of one submission."""
    if one.outcome == "ok":
        verdict.accepted += 1
    if one.expected == "dead_letter":
        stream = f"ingest:{one.tenant}"
        known = any(
            dead_letter["entry"] == one.entry and dead_letter["stream"] == stream for dead_letter in system.dead_letters
        )
        verdict.terminal += known
        if one.outcome == "ok" and not known:
            kind: Kind = "unprotected" if _may_be_gone(one, losses) else "lost"
            verdict.offences.append(Offence(kind, one.key, "no dead letter for what could not be read"))
        return
    real = [row for row in rows if row["reason"] != "duplicate"]
    if len(real) > 1:
        verdict.offences.append(
            Offence("duplicate_effects", one.key, f"one submission became tasks {[row['id'] for row in real]}")
        )
    if one.outcome == "ok" and not real:
        kind = "unprotected" if _may_be_gone(one, losses) else "lost"
        verdict.offences.append(Offence(kind, one.key, f"accepted as {one.task} and nowhere in Postgres"))
    elif one.outcome == "ok" and one.task not in {None, *(row["id"] for row in rows)} and not _may_be_gone(one, losses):
        verdict.offences.append(Offence("unnamed", one.key, f"was answered as {one.task}, and is {real[0]['id']}"))
    for row in real:
        _row(verdict, one, row, excuses)


def _row(verdict: Verdict, one: Asked, row: Mapping[str, Any], excuses: set[str]) -> None:
    if row["state"] not in TERMINAL:
        verdict.offences.append(Offence("lost", one.key, f"task {row['id']} is still {row['state']} after the drain"))
        return
    verdict.terminal += 1
    wanted = _WANTED[one.expected]
    end = ": ".join(part for part in (row["state"], row["reason"]) if part)
    if end != wanted and end not in excuses:
        verdict.offences.append(
            Offence("wrong_ends", one.key, f"task {row['id']} ended as {end}, not {wanted}: {row['detail']}")
        )
    if row["state"] == "succeeded" and one.answer is not None and row["answer"] != one.answer:
        text = f"task {row['id']} answered {row['answer']!r}, not {one.answer!r}"
        verdict.offences.append(Offence("unauthorised", one.key, text))


def _may_be_gone(one: Asked, losses: Iterable[Fault]) -> bool:
    """Accepted before Redis itself lost data, perhaps not yet in Postgres then, and nothing more was promised."""
    if one.accepted_at is None or one.mode == "stored":
        return False
    promised = {mode.partition("(")[0] for mode in one.mode.split("+")}
    return any(one.accepted_at <= fault.ended and promised.isdisjoint(fault.spares) for fault in losses)


def _unnamed(tasks: Iterable[str], keyless: Keyless) -> list[Offence]:
    """Every stored task is known to its client, or was named to it as unconfirmed.

    A client whose answer says that nothing was stored submits again, and its task runs twice.
    """
    unnamed = [task for task in tasks if task not in keyless.named]
    if len(unnamed) <= keyless.unanswered:
        return []
    return [Offence("unnamed", task, "is stored, and every answer said that nothing was") for task in unnamed]


def _unasked(asked: Iterable[Asked], tasks: Iterable[Mapping[str, Any]]) -> list[Offence]:
    """Tasks that nobody asked for, or that belong to somebody else."""
    known = {(one.tenant, one.key) for one in asked}
    keys = {key: tenant for tenant, key in known}
    found = []
    for task in tasks:
        if (task["tenant"], task["idempotency_key"]) in known:
            continue
        owner = keys.get(task["idempotency_key"])
        text = f"belongs to {task['tenant']}, asked by {owner}" if owner else "nobody asked for it"
        found.append(Offence("unauthorised", task["id"], text))
    return found


def _ends(system: System) -> list[Offence]:
    twice = [
        Offence("second_terminals", task, f"run {run} ended {count} times")
        for (task, run), count in system.finished.items()
        if count > 1
    ]
    return twice + [
        Offence("second_terminals", task["id"], "ended without an event that says so")
        for task in system.tasks
        if task["state"] in TERMINAL and not system.finished.get((task["id"], task["run"]))
    ]


def _reported(system: System, losses: list[Fault], excuses: set[str]) -> list[Offence]:
    """A producer that asks gets the true state, or nothing once Redis has lost something.

    When Redis has run full, it may have no status of tasks that have ended.
    """
    found = []
    evicted = "evicted" in excuses
    for task in system.tasks:
        reported = system.statuses.get(task["id"])
        may_be_absent = losses or (evicted and task["state"] in TERMINAL)
        if reported != task["state"] and not (reported is None and may_be_absent):
            text = f"reported as {reported}, and it is {task['state']}"
            found.append(Offence("wrong_ends", task["id"], text))
    return found


def _excused(asked: Iterable[Asked], system: System, losses: list[Fault]) -> set[str]:
    """Tasks that were there, or may have been, when Redis lost something: what they have lost is sent again."""
    over = max((fault.ended for fault in losses), default=None)
    if over is None:
        return set()
    later = {(one.tenant, one.key) for one in asked if one.invoked_at > over}
    return {task["id"] for task in system.tasks if (task["tenant"], task["idempotency_key"]) not in later}


def _made_of(system: System, effects: Sequence[Mapping[str, Any]]) -> list[Offence]:
    """Each committed output is what some call gave, and was made from outputs that are committed, too."""
    given = {effect["mark"]: effect for effect in effects if "mark" in effect}
    committed = {step["mark"] for step in system.steps if step["state"] == "succeeded"}
    found = []
    for step in system.steps:
        if step["state"] != "succeeded" or step["mark"] is None:
            continue
        call = given.get(step["mark"])
        if call is None or _step(call) != _step(step):
            text = f"step {step['step']} has an output that none of its calls gave"
            found.append(Offence("mixed_results", step["task"], text))
        elif not committed.issuperset(call["of"]):
            text = f"step {step['step']} was made from an output that is not the one committed"
            found.append(Offence("mixed_results", step["task"], text))
    return found


def _work(system: System, effects: Sequence[Mapping[str, Any]], excused: set[str]) -> list[Offence]:
    """Each step is committed once, by its lease's holder, runs once a delivery, and is sent again only after a loss.

    `excused`: tasks of which Redis may have lost something.
    """
    found = []
    tenants = {task["id"]: task["tenant"] for task in system.tasks}
    ended = {task["id"] for task in system.tasks if task["state"] in TERMINAL}
    calls: Counter[tuple[Any, ...]] = Counter()
    for effect in effects:
        if "stopped" in effect:  # by a deploy: the step was given back, which charges no delivery
            calls[_attempt(effect)] -= 1
            continue
        calls[_attempt(effect)] += 1
        if effect["task"] in tenants and effect["tenant"] != tenants[effect["task"]]:
            text = f"step {effect['step']} ran for {effect['tenant']}, its task is {tenants[effect['task']]}'s"
            found.append(Offence("unauthorised", effect["task"], text))
    committed: Counter[tuple[Any, ...]] = Counter()
    retried: set[tuple[Any, ...]] = set()
    for attempt in system.attempts:
        if attempt["outcome"] == "retrying":
            retried.add((*_step(attempt), attempt["attempt"] + 1))
        if attempt["outcome"] != "succeeded":
            continue
        committed[_step(attempt)] += 1
        ran = calls[_attempt(attempt)]
        if attempt["task"] not in excused and ran > attempt["delivery"]:
            text = (
                f"step {attempt['step']} ran {ran} times in {attempt['delivery']} deliveries, or a lost lease committed"
            )
            found.append(Offence("duplicate_effects", attempt["task"], text))
    found += [
        Offence("duplicate_effects", step[0], f"step {step[2]} was committed {count} times")
        for step, count in committed.items()
        if count > 1
    ]
    for step in system.steps:
        # What never ran may be sent again: its sender died, and the reconciler was quicker than the reclaimer.
        before = [one for one in range(1, step["attempt"]) if calls[(*_step(step), one)]]
        if step["task"] not in excused and any((*_step(step), one + 1) not in retried for one in before):
            text = (
                f"step {step['step']} is at attempt {step['attempt']}, and {ran} have run: sent again, nothing was lost"
            )
            found.append(Offence("duplicate_effects", step["task"], text))
        if step["state"] == "sent" and step["task"] in ended:
            found.append(Offence("undrained", step["task"], f"step {step['step']} is still out after its task's end"))
    return found


def _step(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["task"], row["run"], row["step"], row["round"]


def _attempt(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*_step(row), row["attempt"])
