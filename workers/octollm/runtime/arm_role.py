"""An arm as a handler of the bus: its class is loaded by the topology's name, its large outputs go to Postgres."""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog

from octollm.arms.base import Arm, ArmContext
from octollm.consumer.consumer import Handler
from octollm.contracts import StepRequested
from octollm.database.pool import Pool, transaction
from octollm.errors import TopologyError
from octollm.orchestrator import store
from octollm.plans import chain
from octollm.ports import MemoryStore, ModelClient
from octollm.resources import rules_path
from octollm.steps.runner import Onward, StepRunner
from octollm.topology import LaneKeys, Topic, Topology

GetPool = Callable[[], Awaitable[Pool]]
GetMind = Callable[[], ModelClient]


def arm_handler(
    topic: Topic,
    lane: str,
    consumer: str,
    get_pool: GetPool,
    get_mind: GetMind,
    memory_store: MemoryStore | None,
    onward: Onward,
) -> Handler:
    """The handler. `get_pool` is only called for the first output that is too large for a message, `get_mind` only
    for an arm whose class says that it uses_model; the latter may raise SettingsError. `onward`: see `hand_on`.
    """
    arm = load_arm(topic)
    log = structlog.get_logger(f"octollm.arms.{topic.group}")
    mind = get_mind() if uses_model(arm) else None
    context = ArmContext(log=log, worker=consumer, rules_dir=rules_path(), memory=memory_store, model=mind)

    async def work(step: StepRequested) -> dict[str, Any]:
        return await arm.handle(step, context)

    async def keep(tenant: str, sha256: str, raw: bytes) -> None:
        async with transaction(await get_pool()) as connection:
            await store.keep_output(connection, tenant, sha256, raw)

    return StepRunner(topic, LaneKeys(lane), consumer, work, keep, onward)


def hand_on(topology: Topology, lane: str) -> Onward:
    """Sends the next step of a linear stretch to its arm."""

    def onward(step: StepRequested, output: dict[str, Any]) -> tuple[str, StepRequested] | None:
        message = chain.onward(step, output)
        topic = None if message is None else topology.arm(message.arm)
        # An arm that only the orchestrator's topology has is served by whoever has it.
        return None if message is None or topic is None else (LaneKeys(lane).stream(topic, message.priority), message)

    return onward


def uses_model(arm: Arm) -> bool:
    """Whether an arm asks models."""
    return bool(getattr(arm, "uses_model", False))


def load_arm(topic: Topic) -> Arm:
    """An instance of the class the topology names. Raises TopologyError that says what to change."""
    module, _, name = topic.handler.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise TopologyError(f"topic {topic.name}: handler {topic.handler} cannot be imported ({error})") from error
    if not isinstance(found, type) or not callable(getattr(found, "handle", None)):
        raise TopologyError(f"topic {topic.name}: {topic.handler} is no class with a method handle(step, ctx)")
    return cast("Arm", found())
