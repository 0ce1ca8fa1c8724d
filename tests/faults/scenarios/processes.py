"""Processes that are killed at named moments, frozen, or asked to stop.

The moments of an arm: before its effect, after its effect, after its completion is written, after it knows so. Of the
orchestrator, the archive and memory: before the transaction, before the commit, after the commit, after what follows
is published. Of the reflex: before the task is in Redis, after, and after it knows so.
"""

import asyncio
import signal
from collections.abc import Callable
from functools import partial
from typing import Any

from octollm.protocol.scripts import source
from tests.faults.instance import Instance
from tests.faults.ledger import lines, now, runs
from tests.faults.proxy import COMMIT, STORES, Moment, Trap
from tests.faults.scenarios import TIMEOUT_S, Landed, MissedError, Ring, scenario
from tests.faults.scenarios.helpers import restart, send
from tests.faults.stage import LEASE_S

_FIRST = ("one", "run")
"""The first step of the recipes, by the role that runs it."""
_TASKS = "SELECT id FROM tasks WHERE idempotency_key = ANY ($1::text[])"


def sha_of(script: str) -> bytes:
    """How a client names a script."""
    import hashlib  # noqa: PLC0415

    return hashlib.sha1(source(script).encode()).hexdigest().encode()  # noqa: S324  Redis' own name for it


async def _trapped(ring: Ring, role: str, server: str, pattern: bytes, moment: Moment) -> Landed:
    """Kill whichever process of the role first sends `pattern`, at that moment; wait until it is back.

    Of the orchestrator's commits only one that stores what follows from a message is meant.
    """
    killed: list[tuple[Instance, int]] = []

    def kill(one: Instance) -> None:
        if not killed:  # one of them is enough
            killed.append((one, one.starts))
            one.kill()

    traps = []
    for one in ring.stage.of(role):
        trap = Trap(
            pattern, moment, partial(kill, one), STORES if role == "orchestrator" and pattern == COMMIT else None
        )
        getattr(one, server).traps.append(trap)
        traps.append((getattr(one, server), trap))
    _feed(ring, role)
    try:
        await ring.stage.until(lambda: killed, f"a {role} at {moment}", TIMEOUT_S)
    finally:
        for proxy, trap in traps:
            proxy.traps.remove(trap)
    one, starts = killed[0]
    await ring.stage.again(one, starts)
    return Landed(f"killed {one.name} {moment} {pattern[:12]!r}")


def _feed(ring: Ring, role: str) -> None:
    """Something for the role to do."""
    kind = "sandbox" if role == "executor" else "ledger"
    for _ in range(4):
        ring.load.send(ring.load.unreadable() if role == "archive" else ring.load.order(kind=kind))


def _register() -> None:
    """One scenario for each role and moment that can be distinguished from outside."""
    moments: dict[str, list[tuple[str, str, bytes, Moment]]] = {
        "reflex": [
            ("before_effect", "redis", sha_of("admit"), "before_request"),
            ("after_effect", "redis", sha_of("admit"), "after_request"),
            ("after_acknowledge", "redis", sha_of("admit"), "before_reply"),
        ],
        "orchestrator": [
            ("before_effect", "postgres", b"BEGIN;", "before_request"),
            ("after_effect", "postgres", COMMIT, "before_request"),
            ("after_commit", "postgres", COMMIT, "before_reply"),
            ("after_acknowledge", "redis", sha_of("complete"), "before_reply"),
        ],
        "effect": [
            ("after_commit", "redis", sha_of("complete"), "before_reply"),
            ("after_acknowledge", "redis", sha_of("complete"), "after_reply"),
        ],
        "judge": [
            ("before_commit", "redis", sha_of("complete"), "before_request"),
            ("after_commit", "redis", sha_of("complete"), "before_reply"),
        ],
        "executor": [
            ("before_commit", "redis", sha_of("complete"), "before_request"),
            ("after_commit", "redis", sha_of("complete"), "before_reply"),
        ],
    }
    # Both store what they take in, and send nothing on.
    for role in ("archive", "memory"):
        moments[role] = [
            ("before_effect", "postgres", b"BEGIN;", "before_request"),
            ("after_effect", "postgres", COMMIT, "before_request"),
            ("after_commit", "postgres", COMMIT, "before_reply"),
            ("after_acknowledge", "redis", sha_of("complete"), "before_reply"),
        ]
    for role, of_role in moments.items():
        for name, server, pattern, moment in of_role:

            async def run(ring: Ring, role=role, server=server, pattern=pattern, moment=moment) -> Landed:
                return await _trapped(ring, role, server, pattern, moment)

            scenario(f"kill_{role}_{name}")(run)


_register()


def _crash(when: str) -> Callable[[Ring], object]:
    async def run(ring: Ring) -> Landed:
        """An arm that dies by its own hand, once, before or after it has done what it was asked."""
        arms = ring.stage.of("effect")
        starts = {one.name: one.starts for one in arms}
        token = ring.stage.folder / f"token-{when}-{ring.rng.random()}"
        token.touch()
        ring.load.send(ring.load.order({"crash": when, "token": str(token), "sleep_ms": 50}))
        await ring.stage.until(lambda: any(one.starts > starts[one.name] for one in arms), "the crash", TIMEOUT_S)
        return Landed(f"an arm died {when} its effect")

    return run


scenario("kill_effect_before_effect")(_crash("before"))  # type: ignore[arg-type]
scenario("kill_effect_after_effect")(_crash("after"))  # type: ignore[arg-type]


@scenario("freeze_arm")
async def freeze_arm(ring: Ring) -> Landed:
    """SIGSTOP in the middle of a step, until another has taken it over; who wakes up then must not commit."""
    return await _freeze_until_reclaimed(ring, "effect", "ledger", lambda: lines(ring.stage.effects))


@scenario("freeze_executor")
async def freeze_executor(ring: Ring) -> Landed:
    """The same with steps in the sandbox, which end while their executor stands still."""

    def begun() -> list[dict[str, Any]]:
        return [line for one in ring.stage.of("executor") for line in runs(ring.stage.folder / f"{one.name}.log")]

    return await _freeze_until_reclaimed(ring, "executor", "sandbox", begun)


async def _freeze_until_reclaimed(
    ring: Ring, role: str, kind: str, calls: Callable[[], list[dict[str, Any]]]
) -> Landed:
    """`calls` returns the steps that processes of the role have begun, as effects."""
    orders = [ring.load.order({"sleep_ms": 6000}, kind=kind) for _ in range(3)]
    keys = [order.key for order in orders]
    send(ring, orders)
    tasks: set[str] = set()

    def begun() -> list[dict[str, Any]]:
        return [one for one in calls() if one["task"] in tasks and one["step"] in _FIRST]

    async def begun_by_one() -> bool:
        tasks.update(row["id"] for row in await ring.stage.rows(_TASKS, keys))
        return bool(begun())

    await ring.stage.until(begun_by_one, "a long step", TIMEOUT_S)
    first = begun()[-1]
    frozen = next((one for one in ring.stage.of(role) if one.runs and one.ran(first["worker"])), None)
    if frozen is None:
        raise MissedError(f"{first['worker']} is no more")
    frozen.kill(signal.SIGSTOP)
    at = now()
    try:
        await ring.stage.until(
            lambda: any(one["task"] == first["task"] and one["worker"] != first["worker"] for one in begun()),
            "somebody who takes it over",
            TIMEOUT_S,
        )
    finally:
        frozen.kill(signal.SIGCONT)
    return Landed(f"{frozen.name} was frozen for {now() - at:.1f} s, until its step was reclaimed")


@scenario("freeze_orchestrator")
async def freeze_orchestrator(ring: Ring) -> Landed:
    """SIGSTOP past the lease with transactions under way."""
    one = ring.rng.choice(ring.stage.of("orchestrator"))
    send(ring, [ring.load.order({"sleep_ms": 500}) for _ in range(6)])
    await asyncio.sleep(0.7)
    one.kill(signal.SIGSTOP)
    try:
        await asyncio.sleep(LEASE_S * 2 + 1)
    finally:
        one.kill(signal.SIGCONT)
    await asyncio.sleep(0.5)
    return Landed(f"{one.name} stood still for {LEASE_S * 2 + 1} s")


@scenario("rolling_restart")
async def rolling_restart(ring: Ring) -> Landed:
    """SIGTERM to every process, one after the other, under load."""
    for one in ring.stage.instances:
        await restart(ring, one)
    return Landed("every process was restarted in order", count=len(ring.stage.instances))
