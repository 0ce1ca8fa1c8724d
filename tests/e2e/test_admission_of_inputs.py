"""The reflex and the orchestrator give the same verdict on an input: what the one admits, the other can plan."""

import asyncio
import os
import random
from collections.abc import AsyncIterator, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from octollm.devstack.embedded.ports import Ports
from octollm.orchestrator.intake import TaskMessage, parse_message
from octollm.orchestrator.planning import Planning, Unplannable
from octollm.orchestrator.state import TaskState
from octollm.plans.recipes import load_recipes
from octollm.protocol.handoff import Entry
from octollm.protocol.kinds import publish
from octollm.runtime.programs import REFLEX, find_program
from octollm.settings.files import recipes_path
from octollm.settings.loader import load_settings
from tests.helpers.consumers import topology
from tests.helpers.decisions import fresh
from tests.helpers.random_inputs import almost, fitting
from tests.helpers.waiting import until

_STREAM = "{l0}:tasks:normal"
_ROUNDS = 30
"""Random inputs of either sort per kind."""


@pytest.fixture(scope="module")
def planning() -> Planning:
    """What an orchestrator with the shipped recipes plans without a model."""
    arms = frozenset(topology().arms)
    return Planning(load_recipes(recipes_path(load_settings()), arms), arms)


@pytest.fixture
async def reflex(redis_server, client, planning: Planning, tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a reflex that knows the shipped recipes."""
    await publish(client, planning.schemas)
    with Ports() as ports:
        listen = f"127.0.0.1:{ports.take()}"
        environment = os.environ | {"OCTOLLM_REDIS_URL": redis_server.url, "OCTOLLM_REFLEX_LISTEN": listen}
        with (tmp_path / "reflex.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                find_program(REFLEX), env=environment, stdout=log, stderr=log
            )
        async with httpx.AsyncClient(base_url=f"http://{listen}", trust_env=False, timeout=60) as made:

            async def knows_the_kinds() -> bool:
                try:
                    answer = await made.post("/v1/tasks", json={"goal": "x", "kind": "unheard-of"})
                except httpx.TransportError:
                    return False
                return answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY

            try:
                await until(knows_the_kinds, "the reflex to know the kinds")
                await client.delete(_STREAM)
                yield made
            finally:
                process.terminate()
                assert await process.wait() == 0, (tmp_path / "reflex.log").read_text()[-3000:]


def inputs(schema: dict[str, Any], rng: random.Random) -> Iterator[dict[str, Any]]:
    """Inputs that fit a schema, and as many that break one of its rules or nearly do."""
    for _ in range(_ROUNDS):
        yield fitting(schema, rng)
        yield almost(schema, rng)


async def test_reflex_and_orchestrator_give_the_same_verdict(reflex, client, planning: Planning):
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    seen = {HTTPStatus.ACCEPTED: 0, HTTPStatus.UNPROCESSABLE_ENTITY: 0}
    for kind in (*planning.book.kinds, "unheard-of", None):
        schema = planning.book.schemas.get(kind or "", {"type": "object"})
        for value in inputs(dict(schema), rng):
            submission = {"goal": "x", "input": value} | ({} if kind is None else {"kind": kind})
            content = orjson.dumps(submission)
            answer = await reflex.post("/v1/tasks", content=content, headers={"Content-Type": "application/json"})
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
    ((entry, fields),) = await client.xrange(_STREAM)
    await client.xdel(_STREAM, entry)
    message = parse_message(Entry(_STREAM, str(entry, "ascii"), 1, fields), planning)
    assert isinstance(message, TaskMessage), message
    assert message.first_state is not None
    return message.first_state
