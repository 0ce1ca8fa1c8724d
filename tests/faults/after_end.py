"""The rule that work ends with its run: no step starts after it, none runs on, and no two runs overlap. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.faults.ledger import Fault, System

_GRACE_S = 2.0
"""How long a step may run on: a handler stops within milliseconds, on two busy cores within a second."""
_RECOVERY_S = 10.0
"""How long after another fault work may still be late: a frozen worker, or one without Redis, hears of no end."""
_ORDERLY = frozenset({"cancel", "ended_runs", "ended_runs_in_sandbox", "clock_ahead", "clocks_of_reflexes"})
"""Scenarios that disturb neither workers nor stores."""


def with_ends(effects: Sequence[dict[str, Any]], ends: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the calls with the time at which each ended, as `until`. A call that was killed has none."""
    until = {line["mark"]: line["at"] for line in ends}
    return [{**one, "until": until.get(one.get("mark"))} for one in effects]


def after_end(
    system: System, effects: Sequence[Mapping[str, Any]], faults: Sequence[Fault]
) -> Iterator[tuple[str, str]]:
    """Yield each task that was worked on after its run's end, and how."""
    disturbed = [(one.began, one.ended + _RECOVERY_S) for one in faults if one.scenario not in _ORDERLY]
    last: dict[tuple[str, int], float] = defaultdict(float)
    for call in effects:
        if "at" not in call:
            continue
        run = (call["task"], call["run"])
        last[run] = max(last[run], call.get("until") or call["at"])
    for (task, number), at in last.items():
        end = system.ended_at.get((task, number))
        if end is not None and at > end + _GRACE_S and not _any_within(disturbed, end, at):
            yield task, f"run {number} was worked on for {at - end:.1f} s after its end"
    for call in effects:
        before = last.get((call["task"], call["run"] - 1), 0.0)
        if "at" in call and call["at"] < before and not _any_within(disturbed, call["at"], before):
            yield call["task"], f"step {call['step']} of run {call['run']} began while an earlier run was worked on"


def _any_within(windows: Sequence[tuple[float, float]], begin: float, end: float) -> bool:
    return any(began <= end and begin <= over for began, over in windows)
