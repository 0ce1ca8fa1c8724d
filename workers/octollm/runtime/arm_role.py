"""Runs an arm as a handler: loads its class, stores its large outputs in Postgres, chains its steps."""

import importlib
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog

from octollm.arms.base import Arm, ArmContext
from octollm.consumer.executor import Handler
from octollm.contracts import StepRequested
from octollm.database.outputs import store_output
from octollm.database.pool import Pool, transaction
from octollm.errors import TopologyError
from octollm.isolation.pool import ProcessPool
from octollm.isolation.step import StepIsolation
from octollm.plans.chain import next_request
from octollm.ports import MemoryStore, ModelClient
from octollm.protocol.run_watch import RunWatch
from octollm.resources import rules_path
from octollm.steps.runner import ChainNext, StepRunner, time_limit_s
from octollm.topology import LaneKeys, Topic, Topology

GetPool = Callable[[], Awaitable[Pool]]
GetModelClient = Callable[[], ModelClient]


def arm_handler(
    topic: Topic,
    lane: str,
    consumer: str,
    get_pool: GetPool,
    get_model_client: GetModelClient,
    memory_store: MemoryStore | None,
    processes: ProcessPool,
    chain_next: ChainNext,
    watch: RunWatch | None = None,
) -> Handler:
    """Return the handler of an arm's topic.

    `get_pool` is called for the first output that is too large for a message, `get_model_client` only for an arm that
    uses models. `chain_next`: see `chain_to`. `watch`: of the lane; without it steps of ended runs
    are started, too. Raises TopologyError if the arm cannot be loaded, SettingsError if the
    model settings are wrong.
    """
    arm = load_arm(topic)
    log = structlog.get_logger(f"octollm.arms.{topic.group}")
    model = get_model_client() if uses_model(arm) else None
    rules = rules_path()

    async def work(step: StepRequested) -> dict[str, Any]:
        isolation = StepIsolation(processes, step.tenant, time_limit_s(step, topic), step.failures)
        return await arm.handle(step, ArmContext(log, consumer, rules, memory_store, model, isolation))

    async def keep(tenant: str, sha256: str, raw: bytes) -> None:
        async with transaction(await get_pool()) as connection:
            await store_output(connection, tenant, sha256, raw)

    return StepRunner(topic, LaneKeys(lane), consumer, work, keep, chain_next, watch)


def chain_to(topology: Topology, lane: str) -> ChainNext:
    """Return a function that gives the next step of a chain and its stream, or None.

    None means that the orchestrator sends the step.
    """

    def chain_next(step: StepRequested, output: dict[str, Any]) -> tuple[str, StepRequested] | None:
        request = next_request(step, output)
        topic = None if request is None else topology.arm(request.arm)
        # An arm that this process's topology does not have is left to the orchestrator.
        return None if request is None or topic is None else (LaneKeys(lane).stream(topic, request.priority), request)

    return chain_next


def uses_model(arm: Arm) -> bool:
    """Whether an arm sends requests to models."""
    return bool(getattr(arm, "uses_model", False))


def load_arm(topic: Topic) -> Arm:
    """Create an instance of the class that the topic names.

    Raises TopologyError that says what to change.
    """
    module, _, name = topic.handler.partition(":")
    try:
        found = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise TopologyError(f"topic {topic.name}: handler {topic.handler} cannot be imported ({error})") from error
    if not isinstance(found, type) or not callable(getattr(found, "handle", None)):
        raise TopologyError(f"topic {topic.name}: {topic.handler} is no class with a method handle(step, ctx)")
    return cast("Arm", found())
