"""A campaign: the real stack, a known load, faults from a seed, a drain, and a verdict.

Usage: python -m tests.faults.campaign [--seed N] [--tasks N] [--minutes N] [--scenario all|NAME,...] [--mutant NAME]
    [--direct] [--durability auto|stored]
The last line is one JSON object; exit code 0 only on `valid`. Loopback only; all files are in one folder, which
is deleted at the end.
"""

import argparse
import asyncio
import json
import random
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from octollm.errors import StartError
from tests.faults import checker, system
from tests.faults.after_end import with_ends
from tests.faults.ledger import Fault, Log, asked, keyless, lines, now, runs
from tests.faults.load import Load
from tests.faults.mutants import MUTANTS
from tests.faults.mutants.planting import Planted, plant
from tests.faults.scenarios import MissedError, Ring, Scenario, load_all
from tests.faults.stage import Stage

_DRAIN_S = 240.0
_PROBE_S = 60.0
_SOURCES = {"auto": ("http0", "http1", "stream"), "stored": ("http0", "http1")}
"""By durability, the sources that keep it: on a stream Redis itself answers, and promises no more than it can."""
_LONGEST_S = 900.0
"""After that a scenario has failed."""
_FOR_GOOD: frozenset[checker.Kind] = frozenset(
    {"duplicate_effects", "second_terminals", "unauthorised", "mixed_results"}
)
"""Offences that no waiting heals."""


@dataclass
class Plan:
    """What a campaign does."""

    seed: int
    tasks: int
    minutes: float
    scenarios: list[str]
    mutant: str | None = None
    direct: bool = False
    """Whether linear chains go from arm to arm."""
    durability: str = "auto"
    """What the deployment needs for a 202."""
    keep: Path | None = None
    """Where logs go when the verdict is not valid."""


@dataclass
class Outcome:
    """What came of it."""

    verdict: str
    found: checker.Verdict
    faults: list[Fault]
    missed: dict[str, str]
    offenders: list[dict[str, Any]] = field(default_factory=list)


async def run(plan: Plan, folder: Path, say: Any = print) -> Outcome:
    """One campaign in an empty folder."""
    rng = random.Random(plan.seed)
    known = load_all()
    order = [name for name in plan.scenarios if name in known]
    rng.shuffle(order)
    planted = plant(MUTANTS[plan.mutant], folder) if plan.mutant else Planted()
    producers, nemesis = Log(folder / "producers.jsonl", sync=True), Log(folder / "faults.jsonl", sync=True)
    faults: list[Fault] = []
    missed: dict[str, str] = {}
    (folder / "stage").mkdir()
    began = now()
    # The mark is low, so that an overload reaches it with a load that two cores can make.
    async with Stage(
        folder / "stage",
        package=planted.package,
        programs=planted.programs,
        high_water=100,
        direct=plan.direct,
        durability=plan.durability,
    ) as stage:
        how = "with direct hand-off, " if plan.direct else ""
        say(f"the stack runs after {now() - began:.1f} s; {how}seed {plan.seed}, scenarios: {', '.join(order)}")
        load = Load(stage, producers, rng, _SOURCES[plan.durability])
        ring = Ring(stage, load, rng)
        over = asyncio.Event()
        rate = plan.tasks / (plan.minutes * 60)
        steady = asyncio.create_task(load.steady(rate, over.is_set, plan.tasks))
        try:
            for name in order:
                fault = await _inject(name, known[name], ring, missed, say)
                faults.append(fault)
                nemesis.write(**asdict(fault))
            await _whole_load(steady, plan, over)
            await load.settle()

            async def caught() -> bool:
                """Whether a planted bug has done damage that cannot be undone."""
                shown = _FOR_GOOD.intersection(MUTANTS[plan.mutant].shows) if plan.mutant else ()
                found = await _judged(stage, producers, faults)
                return any(found.count(kind) for kind in shown)

            took = await system.drained(stage, _DRAIN_S, caught if plan.mutant else None)
            say(f"drained within {took:.1f} s")
        finally:
            steady.cancel()
            await load.close()
        found = await _judged(stage, producers, faults)
        offenders = [
            {**asdict(one), "history": await system.history(stage, one.about)} for one in found.broken[: checker.SHOWN]
        ]
    verdict = "invalid" if found.broken else "unknown" if missed or not found.accepted else "valid"
    return Outcome(verdict, found, faults, missed, offenders)


async def _judged(stage: Stage, producers: Log, faults: list[Fault]) -> checker.Verdict:
    """By all logs as they are now."""
    drained = [one for one in stage.instances if one.drained]
    effects = [
        line
        for line in lines(stage.effects)
        if "stopped" not in line or any(one.was_drained(line["worker"]) for one in drained)
    ]
    effects = with_ends(effects, lines(stage.effects.with_name(f"{stage.effects.name}.ends")))
    for one in stage.of("executor"):
        effects += runs(stage.folder / f"{one.name}.log")
    return checker.check(
        asked(producers.path), effects, await system.read_system(stage), faults, keyless(producers.path)
    )


async def _whole_load(steady: asyncio.Task[int], plan: Plan, over: asyncio.Event) -> None:
    """The rest of the load, no longer than the campaign may take."""
    try:
        await asyncio.wait_for(asyncio.shield(steady), plan.minutes * 60)
    except TimeoutError:
        over.set()
        await steady


async def _inject(name: str, scenario: Scenario, ring: Ring, missed: dict[str, str], say: Any) -> Fault:
    """One scenario, and how long it takes until a task that is sent afterwards has ended."""
    began = now()
    fault = Fault(name, began, began, landed=False)
    try:
        landed = await asyncio.wait_for(scenario(ring), _LONGEST_S)
        fault = Fault(name, began, began, landed=True, **vars(landed))
    except (MissedError, StartError, TimeoutError) as error:
        missed[name] = fault.detail = str(error) or "it took too long"
    fault.ended = now()
    fault.recovery_s = await _probe(ring)
    landing = "landed" if fault.landed else "MISSED"
    took = f"{fault.ended - began:.1f} s, recovered in {fault.recovery_s} s"
    say(f"  {name}: {landing}, {fault.detail}; {took}")
    return fault


async def _probe(ring: Ring) -> float | None:
    """Seconds until a task that is sent now has ended; None when it has not."""
    order = ring.load.order({}, source="both")
    began = now()
    ring.load.send(order)

    async def ended() -> bool:
        return bool(
            await ring.stage.value(
                "SELECT 1 FROM tasks WHERE idempotency_key = $1 AND result IS NOT NULL "
                "AND reason IS DISTINCT FROM 'duplicate'",
                order.key,
            )
        )

    try:
        await ring.stage.until(ended, "the probe's end", _PROBE_S)
    except StartError:  # the ledger says what became of it
        return None
    return round(now() - began, 2)


def summary(plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """The last line."""
    found = outcome.found
    recoveries = [fault.recovery_s for fault in outcome.faults if fault.recovery_s is not None]
    landed: dict[str, int] = dict.fromkeys((name for name in plan.scenarios), 0)
    for fault in outcome.faults:
        landed[fault.scenario] = landed.get(fault.scenario, 0) + (fault.count if fault.landed else 0)
    kinds = (
        *("lost", "unprotected", "duplicate_effects", "second_terminals", "unauthorised"),
        *("mixed_results", "wrong_ends", "undrained", "work_after_end", "costly_crash", "unnamed"),
    )
    return {
        "verdict": outcome.verdict,
        "accepted": found.accepted,
        "terminal": found.terminal,
        **{kind: found.count(kind) for kind in kinds},  # type: ignore[arg-type]  # the kinds of Offence
        "faults_injected": sum(landed.values()),
        "scenarios": landed,
        "missed": outcome.missed,
        "recovered_s": {fault.scenario: fault.recovery_s for fault in outcome.faults},
        "recovery_p50_s": round(statistics.median(recoveries), 2) if recoveries else None,
        "recovery_max_s": max(recoveries) if recoveries else None,
        "seed": plan.seed,
        "direct": plan.direct,
        "mutant": plan.mutant,
        "durability": plan.durability,
        "caught": any(found.count(kind) for kind in MUTANTS[plan.mutant].shows) if plan.mutant else None,
    }


def _plan(arguments: list[str]) -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--tasks", type=int, default=2000)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--scenario", default="all", help="all, or names with commas between them")
    parser.add_argument(
        "--mutant", choices=sorted(MUTANTS), help="a planted bug; its own scenarios unless others are named"
    )
    parser.add_argument("--direct", action="store_true", help="linear chains go from arm to arm (handoff.direct)")
    parser.add_argument(
        "--durability", choices=sorted(_SOURCES), default="auto", help="what the deployment needs for a 202"
    )
    parser.add_argument("--keep", type=Path, help="a folder for the logs of a campaign that is not valid")
    options = parser.parse_args(arguments)
    if not 1 <= options.tasks <= 1_000_000 or not 0 < options.minutes <= 24 * 60:
        parser.error("--tasks must be from 1 to 1000000 and --minutes above 0 and at most 1440")
    known = load_all()
    if options.scenario == "all":
        names = list(MUTANTS[options.mutant].scenarios) if options.mutant else list(known)
    else:
        names = options.scenario.split(",")
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"unknown scenario {', '.join(unknown)}; there are {', '.join(known)}")
    direct = options.direct or (options.mutant is not None and MUTANTS[options.mutant].direct)
    return Plan(
        options.seed, options.tasks, options.minutes, names, options.mutant, direct, options.durability, options.keep
    )


def main(arguments: list[str]) -> int:
    """0 only when the verdict is `valid`."""
    plan = _plan(arguments)
    folder = Path(tempfile.mkdtemp(prefix="octollm-faults-"))
    try:
        try:
            outcome = uvloop.run(run(plan, folder))
        except StartError as error:
            print(error.message)
            _keep(plan, folder)
            print(json.dumps({"verdict": "unknown", "why": error.message, "seed": plan.seed, "mutant": plan.mutant}))
            return 1
        for offender in outcome.offenders:
            print(json.dumps(offender, indent=1))
        if outcome.verdict != "valid":
            _keep(plan, folder)
        print(json.dumps(summary(plan, outcome)))
        return 0 if outcome.verdict == "valid" else 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _keep(plan: Plan, folder: Path) -> None:
    """The logs, where they were asked for."""
    if plan.keep is not None:
        shutil.rmtree(plan.keep, ignore_errors=True)  # what an earlier campaign has left
        left_out = shutil.ignore_patterns("*.s.PGSQL*", "package", "programs")
        shutil.copytree(folder, plan.keep, symlinks=True, ignore=left_out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
