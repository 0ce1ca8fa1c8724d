"""A whole consumer on a real Redis: what it reads, runs, finishes, reclaims, gives up on and gives back."""

import asyncio
from threading import Thread
from typing import Any

import orjson
import pytest
import redis.asyncio
from prometheus_client import REGISTRY

from octollm.contracts import StepRequested
from octollm.errors import NeedsPersonError, PermanentError, TransientError
from octollm.topology import Retry
from tests.helpers.consumers import KEYS, consuming, fields, has_length, judge, outcomes, renewed, step
from tests.helpers.waiting import until


@pytest.fixture
def url(redis_server) -> str:
    return str(redis_server.url)


async def test_every_step_runs_and_tells_the_orchestrator(url, client):
    topic = judge()
    for number in range(200):
        priority = ("high", "normal", "low")[number % 3]
        await client.xadd(KEYS.stream(topic, priority), fields(step(number, priority=priority)))

    async def work(one: StepRequested) -> dict[str, Any]:
        return {"seen": one.input["number"]}

    async with consuming(url, client, topic, work):
        await until(lambda: has_length(client, KEYS.done, 200))
    bodies = await outcomes(client)
    assert sorted(body["output"]["value"]["seen"] for body in bodies) == list(range(200))
    assert {body["outcome"] for body in bodies} == {"succeeded"}
    for stream in KEYS.streams(topic):
        assert await client.xlen(stream) == 0
        assert await client.xinfo_consumers(stream, "judge") == []


@pytest.mark.parametrize("concurrency", [1, 2])
async def test_fewer_slots_than_streams_still_read_all_of_them(url, client, concurrency):
    topic = judge()
    running = most = 0
    for number in range(12):
        priority = ("high", "normal", "low")[number % 3]
        await client.xadd(KEYS.stream(topic, priority), fields(step(number, priority=priority)))

    async def work(_one: StepRequested) -> dict[str, Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return {}

    async with consuming(url, client, topic, work, concurrency=concurrency):
        await until(lambda: has_length(client, KEYS.done, 12))
    assert most == concurrency
    assert len(await outcomes(client)) == 12


async def test_one_unreadable_entry_becomes_a_dead_letter_alone(url, client):
    topic = judge()
    stream = KEYS.stream(topic)
    good = step(1)
    bad = {**fields(step(2)), "body": b'{"task": "\xff"}'}
    await client.xadd(stream, bad)
    await client.xadd(stream, {b"\xff\xfe": b"\x00"})
    await client.xadd(stream, {**fields(step(3, arm="coder"))})
    await client.xadd(stream, fields(good))

    async def work(_one: StepRequested) -> dict[str, Any]:
        return {"fine": True}

    async with consuming(url, client, topic, work):
        await until(lambda: has_length(client, KEYS.dead, 3))
        await until(lambda: has_length(client, KEYS.done, 3))
    dead_letters = [orjson.loads(entry[b"body"]) for _, entry in await client.xrange(KEYS.dead)]
    assert [dead_letter["reason"] for dead_letter in dead_letters] == ["malformed", "misrouted", "misrouted"]
    originals = [entry[b"original"] for _, entry in await client.xrange(KEYS.dead)]
    assert originals[0] == bad["body"]
    # The one without any readable id cannot be attributed to a step; the other two are reported.
    assert sorted(body["outcome"] for body in await outcomes(client)) == ["dead", "dead", "succeeded"]
    assert await client.xlen(stream) == 0


async def test_a_passing_failure_is_tried_again_and_given_up_on_at_the_policys_end(url, client):
    topic = judge(retry=Retry(max_failures=3, base_ms=1, cap_ms=2))
    await client.xadd(KEYS.stream(topic), fields(step()))

    async def work(_one: StepRequested) -> dict[str, Any]:
        raise TransientError("away", "the thing is unavailable")

    async def promoted(consumer) -> bool:
        await consumer.handoff.promote()
        return int(await client.xlen(KEYS.done)) == 3

    async with consuming(url, client, topic, work) as member:
        await until(lambda: promoted(member.consumer))
    bodies = await outcomes(client)
    assert [(body["outcome"], body["attempt"]) for body in bodies] == [("retrying", 1), ("retrying", 2), ("dead", 3)]
    assert bodies[2]["reason"] == "failures_exhausted"
    assert await client.xlen(KEYS.dead) == 1


async def test_a_step_with_a_requested_delay_waits_that_long(url, client):
    topic = judge(retry=Retry(max_failures=3, base_ms=1, cap_ms=1))
    await client.xadd(KEYS.stream(topic), fields(step()))

    async def work(_one: StepRequested) -> dict[str, Any]:
        raise TransientError("busy", "come back later", retry_after_s=3600)

    async with consuming(url, client, topic, work) as member:
        await until(lambda: has_length(client, KEYS.done, 1))
        await member.consumer.handoff.promote()
    (body,) = await outcomes(client)
    assert (body["outcome"], body["delay_ms"]) == ("retrying", 3_600_000)
    assert await client.xlen(KEYS.stream(topic)) == 0


async def test_a_step_that_needs_a_person_waits_and_costs_nothing_until_nobody_came(url, client):
    topic = judge(retry=Retry(max_failures=1, base_ms=1, cap_ms=1))
    await client.xadd(KEYS.stream(topic), fields(step(1, failures=0)))
    await client.xadd(KEYS.stream(topic), fields(step(2, attempt=101, parked=100)))

    async def work(_one: StepRequested) -> dict[str, Any]:
        raise NeedsPersonError("key", "the key is refused; check SOME_KEY")

    async with consuming(url, client, topic, work):
        await until(lambda: has_length(client, KEYS.done, 2))
    waits, dead = sorted(await outcomes(client), key=lambda body: body["attempt"])
    assert (waits["outcome"], waits["failures"], waits["next_attempt"]) == ("retrying", 0, 2)
    assert 30_000 <= waits["delay_ms"] <= 60_000
    assert waits["error"] == {"code": "needs_person_key", "message": "the key is refused; check SOME_KEY"}
    assert (dead["outcome"], dead["reason"], dead["error"]["code"]) == (
        "dead",
        "failures_exhausted",
        "needs_person_key",
    )
    ((_, dead_letter),) = await client.xrange(KEYS.dead)
    assert orjson.loads(dead_letter[b"body"])["message"] == (
        "needs a person, who did not come: the key is refused; check SOME_KEY"
    )
    ((ident, _),) = await client.zrange(KEYS.schedule, 0, -1, withscores=True)
    assert orjson.loads(await client.hget(KEYS.messages, ident))["in_flight"] in {
        field.decode() for field in await client.hkeys(KEYS.in_flight)
    }
    metric = {"topic": "arm.judge", "outcome": "parked"}
    assert (REGISTRY.get_sample_value("octollm_messages_total", metric) or 0) >= 1


async def test_only_what_was_parked_counts_as_parked(url, client):
    """A lost message is published again with a higher attempt, and a chained step may begin with one."""
    await client.xadd(KEYS.stream(judge()), fields(step(1, attempt=150)))
    await client.xadd(KEYS.stream(judge()), fields(step(2, attempt=150, parked=3, failures=1)))
    await client.xadd(KEYS.stream(judge()), fields(step(3, attempt=2, parked=100)))

    async def work(_one: StepRequested) -> dict[str, Any]:
        raise NeedsPersonError("key", "the key is refused")

    async with consuming(url, client, judge(), work):
        await until(lambda: has_length(client, KEYS.done, 3))
    bodies = {body["task"]: body for body in await outcomes(client)}
    first, second, third = (bodies[step(number).task] for number in (1, 2, 3))
    assert (first["outcome"], second["outcome"], third["outcome"]) == ("retrying", "retrying", "dead")
    assert first["delay_ms"] <= 60_000 < second["delay_ms"]
    scheduled = [orjson.loads(message)["fields"] for message in await client.hvals(KEYS.messages)]
    again = [orjson.loads(dict(zip(one[::2], one[1::2], strict=True))["body"]) for one in scheduled]
    assert sorted((body["attempt"], body["failures"], body["parked"]) for body in again) == [
        (151, 0, 1),
        (151, 1, 4),
    ]


async def test_a_permanent_failure_a_hang_and_a_bug_have_their_own_endings(url, client):
    topic = judge()
    stream = KEYS.stream(topic)
    for number in range(4):
        await client.xadd(stream, fields(step(number, timeout_s=1)))

    async def work(one: StepRequested) -> dict[str, Any]:
        match one.input["number"]:
            case 0:
                raise PermanentError("no_use", "it cannot work")
            case 1:
                await asyncio.Event().wait()
            case 2:
                raise ZeroDivisionError
        return {"set": {1, 2}}

    async with consuming(url, client, topic, work):
        await until(lambda: has_length(client, KEYS.done, 4))
    found = {body["task"][-1]: (body["outcome"], body["error"]["code"]) for body in await outcomes(client)}
    assert found == {
        "0": ("failed", "no_use"),
        "1": ("retrying", "timeout"),
        "2": ("failed", "internal"),
        "3": ("failed", "output_not_json"),
    }
    assert await client.zcard(KEYS.schedule) == 1


async def test_a_long_step_keeps_its_lease_also_when_it_blocks_the_loop(url, client):
    topic = judge(heartbeat_s=0.2, lease_s=1)
    stream = KEYS.stream(topic)
    await client.xadd(stream, fields(step()))
    ended = asyncio.Event()

    async def work(_one: StepRequested) -> dict[str, Any]:
        # Nothing else runs on this loop meanwhile, not this test either; the renewals take longer than the lease.
        thread = Thread(target=lambda: asyncio.run(watch()))
        thread.start()
        thread.join(60)
        ended.set()
        return {}

    async def watch() -> None:
        async with redis.asyncio.Redis.from_url(url) as other:
            await renewed(other, stream, times=8)

    async with consuming(url, client, topic, work):
        await ended.wait()
        await until(lambda: has_length(client, KEYS.done, 1))
    (body,) = await outcomes(client)
    assert (body["outcome"], body["delivery"]) == ("succeeded", 1)


async def test_who_loses_the_lease_stops_and_writes_nothing(url, client):
    topic = judge()
    stream = KEYS.stream(topic)
    entry = await client.xadd(stream, fields(step()))
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def work(_one: StepRequested) -> dict[str, Any]:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return {}

    async with consuming(url, client, topic, work):
        async with asyncio.timeout(60):
            await started.wait()
            await client.xclaim(stream, "judge", "thief", 0, [entry])
            await cancelled.wait()
    assert await client.xlen(KEYS.done) == 0
    (pending,) = await client.xpending_range(stream, "judge", "-", "+", 10)
    assert pending["consumer"] == b"thief"


async def test_a_flushed_redis_is_read_again(url, client):
    topic = judge()

    async def work(_one: StepRequested) -> dict[str, Any]:
        return {}

    async with consuming(url, client, topic, work):
        await client.xadd(KEYS.stream(topic), fields(step(1)))
        await until(lambda: has_length(client, KEYS.done, 1))
        await client.flushall()
        await client.xadd(KEYS.stream(topic), fields(step(2)))
        await until(lambda: has_length(client, KEYS.done, 1))


async def test_stopping_finishes_what_runs_and_gives_back_the_rest(url, client):
    topic = judge()
    stream = KEYS.stream(topic)
    for number in range(5):
        await client.xadd(stream, fields(step(number)))
    started, go_on = asyncio.Event(), asyncio.Event()

    async def work(_one: StepRequested) -> dict[str, Any]:
        started.set()
        await go_on.wait()
        return {}

    async def letting_go(consumer) -> None:
        """What runs ends once reading is over and the rest has been given back."""
        await until(lambda: gives_back(consumer))
        go_on.set()

    async def gives_back(consumer) -> bool:
        pending = await client.xpending_range(stream, "judge", "-", "+", 10, "released")
        return consumer._intake._closed and bool(pending)

    async with consuming(url, client, topic, work, concurrency=2) as member:
        async with asyncio.timeout(60):
            await started.wait()
        # As a read that was cut off leaves it: delivered to this consumer, and it does not know.
        await client.xreadgroup("judge", member.consumer.name, {stream: ">"}, count=1)
        let_go = asyncio.create_task(letting_go(member.consumer))
    await let_go
    done = len(await outcomes(client))
    assert 1 <= done <= 2
    pending = await client.xpending_range(stream, "judge", "-", "+", 10)
    assert [one["consumer"] for one in pending] == [b"released"]
    assert await client.xlen(stream) == 5 - done


async def test_low_is_never_starved_by_high(url, client):
    topic = judge()
    await client.xadd(KEYS.stream(topic, "low"), fields(step(99, priority="low")))
    for number in range(40):
        await client.xadd(KEYS.stream(topic, "high"), fields(step(number, priority="high")))
    order = []

    async def work(one: StepRequested) -> dict[str, Any]:
        order.append(one.priority)
        return {}

    async with consuming(url, client, topic, work, concurrency=1):
        await until(lambda: has_length(client, KEYS.done, 41))
    assert order.index("low") < 20
    assert order[0] == "high"
