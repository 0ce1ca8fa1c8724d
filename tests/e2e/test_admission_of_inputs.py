"""The reflex and the orchestrator give the same verdict on an input: what the one admits, the other can plan."""

import random
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from octollm.orchestrator.intake import TaskMessage, parse_message
from octollm.orchestrator.planning import Planning, Unplannable
from octollm.orchestrator.state import TaskState
from octollm.plans.recipes import load_recipes
from octollm.protocol.handoff import Entry
from octollm.protocol.kinds import publish
from octollm.settings.files import recipes_path
from octollm.settings.loader import load_settings
from tests.helpers.consumers import topology
from tests.helpers.decisions import fresh
from tests.helpers.random_inputs import almost, fitting
from tests.helpers.reflex import JSON, TASKS, reflex

_ROUNDS = 30
"""Random inputs of either sort per kind."""


@pytest.fixture(scope="module")
def planning() -> Planning:
    """What an orchestrator with the shipped recipes plans without a model."""
    arms = frozenset(topology().arms)
    return Planning(load_recipes(recipes_path(load_settings()), arms), arms)


def inputs(schema: dict[str, Any], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Inputs that fit a schema, and as many that break one of its rules or nearly do."""
    for _ in range(_ROUNDS):
        yield fitting(schema, rng)
        yield almost(schema, rng)


async def test_reflex_and_orchestrator_give_the_same_verdict(redis_server, client, planning: Planning, tmp_path: Path):
    await publish(client, planning.schemas)
    async with reflex(redis_server.url, tmp_path) as http:
        await client.delete(TASKS)
        await compare(http, client, planning)


async def compare(http: httpx.AsyncClient, client, planning: Planning) -> None:
    """Submit random inputs and ask the orchestrator's planning about each."""
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    seen = {HTTPStatus.ACCEPTED: 0, HTTPStatus.UNPROCESSABLE_ENTITY: 0}
    for kind in (*planning.book.kinds, "unheard-of", None):
        schema = planning.book.schemas.get(kind or "", {"type": "object"})
        for value in inputs(dict(schema), rng):
            submission = {"goal": "x", "input": value} | ({} if kind is None else {"kind": kind})
            content = orjson.dumps(submission)
            answer = await http.post("/v1/tasks", content=content, headers=JSON)
            case = f"seed {seed}: {content.decode()[:2000]}: {answer.text[:2000]}"
            seen[HTTPStatus(answer.status_code)] += 1
            plan = planning.plan(fresh(**({"kind": None} | submission)))
            if answer.status_code == HTTPStatus.ACCEPTED:
                assert not isinstance(plan, Unplannable), case
                # Also as it arrives there.
                assert not isinstance(planning.plan(await arrived(client, planning)), Unplannable), case
                continue
            assert isinstance(plan, Unplannable), case
            problem = answer.json()
            assert problem["type"] == f"urn:octollm:problem:{plan.reason}", case
            assert 1 <= len(problem["errors"]) <= 20, case
    assert min(seen.values()) > len(planning.book.kinds) * _ROUNDS / 2, seen


async def arrived(client, planning: Planning) -> TaskState:
    """Take the one admitted task from its stream, as the orchestrator would read it."""
    ((entry, fields),) = await client.xrange(TASKS)
    await client.xdel(TASKS, entry)
    message = parse_message(Entry(TASKS, str(entry, "ascii"), 1, fields), planning)
    assert isinstance(message, TaskMessage), message
    assert message.first_state is not None
    return message.first_state
