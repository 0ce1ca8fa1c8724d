"""After a bad deploy a consumer stops by itself, and what it would have given up on is done by others."""

from contextlib import AsyncExitStack

import httpx
import orjson
from prometheus_client import REGISTRY

from octollm.consumer.circuit_breaker import CircuitBreakerRule
from octollm.consumer.worker import Worker
from octollm.errors import PermanentError
from octollm.observability.metrics import MetricsServer
from octollm.protocol.handoff import Handoff
from octollm.supervision import Supervisor
from tests.helpers.consumers import CLAIM_ALL, KEYS, consuming, fields, judge, step, topology
from tests.helpers.waiting import until

STREAM = KEYS.stream(judge(), "normal")
FOR_GOOD = CircuitBreakerRule(tasks=3, tenants=1, cooldown_s=600)


async def put(client, count, first=0, **changes):
    for number in range(first, first + count):
        await client.xadd(STREAM, fields(step(number, **changes)))


async def outcomes(client):
    """How many steps ended in which way; those that are tried again have not ended."""
    found = [orjson.loads(one[b"body"])["outcome"] for _, one in await client.xrange(KEYS.done)]
    return {name: found.count(name) for name in set(found) - {"retrying"}}


async def breaks(_step):
    raise ImportError("a bad deploy")


async def test_what_a_bad_deploy_holds_is_done_by_a_good_one(redis_server, client):
    await put(client, 30)
    topic = judge(retry=judge().retry.__class__(max_failures=2, base_ms=1, cap_ms=1))

    async def good(_step):
        return {}

    async with consuming(
        redis_server.url, client, topic, breaks, name="bad", concurrency=4, circuit_breaker=FOR_GOOD
    ) as bad:

        async def opened():
            return bad.consumer.tripped

        await until(opened)
        async with consuming(redis_server.url, client, topic, good, name="good"):

            async def all_done():
                await bad.consumer.handoff.promote()  # what failed before the circuit opened waits there
                return await outcomes(client) == {"succeeded": 30}

            await until(all_done)
        assert bad.consumer.tripped
    assert await client.xlen(KEYS.dead) == 0
    assert (await client.xlen(STREAM), await client.zcard(KEYS.schedule)) == (0, 0)


async def test_a_whole_pool_that_is_open_loses_nothing_and_charges_nothing(redis_server, client):
    await put(client, 20)
    async with AsyncExitStack() as pool:
        bad = [
            await pool.enter_async_context(
                consuming(
                    redis_server.url,
                    client,
                    judge(),
                    breaks,
                    name=f"bad{number}",
                    concurrency=4,
                    circuit_breaker=FOR_GOOD,
                )
            )
            for number in range(2)
        ]

        async def opened():
            return all(one.consumer.tripped for one in bad)

        await until(opened)
        await client.xadd(STREAM, fields(step(99)))  # the sentinel: nobody may touch it any longer
        assert await client.xlen(KEYS.dead) == 0
    waiting = await client.xrange(STREAM)
    assert len(waiting) + await client.zcard(KEYS.schedule) == 21
    for one in await client.xpending_range(STREAM, "judge", "-", "+", 100):
        assert (one["consumer"], one["times_delivered"]) == (b"released", 0)


async def test_it_tries_one_message_after_a_while_and_goes_on_where_that_goes_well(redis_server, client):
    await put(client, 10)
    repaired = False

    async def work(one):
        return {} if repaired else await breaks(one)

    rule = CircuitBreakerRule(tasks=3, tenants=1, cooldown_s=1.6)
    async with consuming(redis_server.url, client, judge(), work, concurrency=2, circuit_breaker=rule) as member:

        async def opened():
            return REGISTRY.get_sample_value("octollm_circuit_open", {"topic": "arm.judge"}) == 1

        await until(opened)
        assert member.consumer.tripped
        repaired = True

        async def all_done():
            await member.consumer.handoff.promote()
            return await outcomes(client) == {"succeeded": 10}

        await until(all_done)
        assert not member.consumer.tripped
    assert REGISTRY.get_sample_value("octollm_circuit_open", {"topic": "arm.judge"}) == 0


async def test_one_tenant_cannot_stop_an_arm_for_the_others(redis_server, client):
    topic = judge(retry=judge().retry.__class__(max_failures=1, base_ms=1, cap_ms=1))
    await put(client, 1, tenant="harmless")
    await put(client, 9, first=1, tenant="hostile")
    await put(client, 1, first=50, tenant="harmless")

    async def work(one):
        return {} if one.tenant == "harmless" else await breaks(one)

    async with consuming(redis_server.url, client, topic, work, concurrency=1, circuit_breaker=FOR_GOOD) as member:

        async def all_ended():
            return await outcomes(client) == {"succeeded": 2, "dead": 9}

        await until(all_ended)
        assert not member.consumer.tripped


async def test_what_an_arm_refuses_and_what_cannot_be_read_never_blows_it(redis_server, client):
    for _ in range(10):
        await client.xadd(STREAM, {"type": "step.requested.v1", "id": "nonsense", "tenant": "default", "body": "{"})
    await put(client, 10)

    async def refuses(_step):
        raise PermanentError("no", "not like this")

    async with consuming(redis_server.url, client, judge(), refuses, circuit_breaker=FOR_GOOD) as member:

        async def all_ended():
            return await outcomes(client) == {"failed": 10} and await client.xlen(KEYS.dead) == 10

        await until(all_ended)
        assert not member.consumer.tripped


async def test_what_inputs_break_never_opens_it(redis_server, client):
    """Although they are of several tenants and steps, and nothing succeeds in between."""
    for number, tenant in enumerate(("default", "other") * 5):
        await put(client, 1, first=number, tenant=tenant, step="check" if number % 4 < 2 else "audit")

    async def breaks_on_it(_step):
        raise ValueError("odd data")

    async with consuming(redis_server.url, client, judge(), breaks_on_it, circuit_breaker=FOR_GOOD) as member:

        async def all_ended():
            return await outcomes(client) == {"failed": 10}

        await until(all_ended)
        assert not member.consumer.tripped


async def test_a_handler_of_ours_that_breaks_leaves_its_messages_to_others(redis_server, client):
    """As the orchestrator's does: it has no retries, and its deliveries would run out."""
    await put(client, 5)

    async def broken(_entry):
        raise ImportError("a bad deploy")

    async with consuming(
        redis_server.url, client, judge(), None, handler=broken, concurrency=1, circuit_breaker=FOR_GOOD
    ) as bad:

        async def opened():
            return bad.consumer.tripped

        await until(opened)
    claimed, dead, _ = await Handoff(client, "l0", "judge", "next").claim(STREAM, judge(), CLAIM_ALL)
    assert dead == []
    assert [one.delivery for one in claimed] == [1, 1, 1]
    assert await client.xlen(STREAM) == 5


async def test_readiness_and_metrics_say_so(redis_server, client):
    supervisor = Supervisor()
    worker = Worker(redis_server.url, 30.0, topology(), "w", supervisor, FOR_GOOD)
    topic = judge()

    async def broken(_entry):
        raise ImportError("a bad deploy")

    worker.add(topic, "l0", broken)
    await worker.start()
    try:
        await put(client, 3)
        with MetricsServer("127.0.0.1:0", worker.tripped, supervisor) as server:
            url = f"http://{server.address}"
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:

                async def not_ready():
                    return (await http.get("/readyz")).status_code == 503

                await until(not_ready)
                assert (await http.get("/readyz")).json() == {"ready": False, "reasons": ["arm.judge"]}
                metrics = (await http.get("/metrics")).text
        assert 'octollm_circuit_open{topic="arm.judge"} 1.0' in metrics
        assert 'octollm_messages_total{outcome="returned",topic="arm.judge"}' in metrics
    finally:
        await worker.stop(1)
