"""An arm's output that no one could read: the step's own failure, not the poisoning of its task."""

from typing import Any

import pytest

from octollm.contracts import StepDone, read
from octollm.errors import PermanentError
from tests.helpers.consumers import KEYS, consuming, fields, judge, step
from tests.helpers.waiting import until


def deep(levels):
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize("output", [{"stdout": "a\0b"}, deep(70), deep(62)], ids=["nul", "deep", "deep in message"])
async def test_an_output_that_breaks_the_contract_fails_its_step(redis_server, client, output):
    await client.xadd(KEYS.stream(judge()), fields(step()))

    async def work(_one):
        return output

    async def done():
        return await client.xlen(KEYS.done) == 1

    async with consuming(redis_server.url, client, judge(), work):
        await until(done)
    ((_, entry),) = await client.xrange(KEYS.done)
    body = read(StepDone, entry[b"body"]).root
    assert (body.outcome, body.error.code) == ("failed", "output_not_json")


async def test_an_arms_error_that_no_message_could_carry_still_fails_its_step(redis_server, client):
    await client.xadd(KEYS.stream(judge()), fields(step()))

    async def work(_one):
        raise PermanentError("Not A Code", "half \ud800 a pair, and \0")

    async def done():
        return await client.xlen(KEYS.done) == 1

    async with consuming(redis_server.url, client, judge(), work):
        await until(done)
    ((_, entry),) = await client.xrange(KEYS.done)
    body = read(StepDone, entry[b"body"]).root
    assert body.outcome == "failed"
