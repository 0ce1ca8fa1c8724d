"""Fairness on a real Redis: who piles up work waits for itself; nobody else does, and nothing that waits is lost."""

from dataclasses import replace
from typing import Any

import pytest

from octollm.contracts.ids import message_id
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Completion, Handoff, LeaseStatus
from octollm.protocol.operations import Lease, Schedule
from tests.helpers.admissions import Admission, admit
from tests.helpers.consumers import KEYS, consuming, fields, step
from tests.helpers.fairness import (
    HELD,
    JUDGE,
    SHIPPED,
    STREAM,
    TURNS,
    WAITING,
    enough,
    left,
    limited,
    made,
    message,
    read,
    send,
    work,
)
from tests.helpers.waiting import until


async def test_the_first_task_of_another_tenant_passes_ten_thousand(client):
    handoff = made(client, limited(window=8))
    await send(handoff, range(12_000))
    assert await client.xlen(STREAM) == 8
    assert await client.hlen(WAITING) == 12_000 - 8 + 1
    await send(handoff, range(20_000, 20_003), tenant="bob")
    order = await work(client, handoff, count=4, rounds=10)
    places = [place for place, (tenant, _) in enumerate(order) if tenant == "bob"]
    # The window's eight, then one of each in turn.
    assert places == [9, 11, 13]
    order += await work(client, handoff, count=100)
    assert [number for tenant, number in order if tenant == "ann"] == list(range(12_000))
    assert await left(client) == [0, 0, 0, 0]


async def test_a_tenant_alone_fills_the_stream_with_every_completion(client):
    handoff = made(client, limited(window=8))
    await send(handoff, range(300))
    while waiting := await client.hlen(WAITING):
        got = await read(client, count=8)
        assert len(got) == min(8, len(got) + waiting)
        await handoff.complete([Completion(held, ()) for held, _, _ in got])
        assert await client.xlen(STREAM) == min(8, waiting - 1)


async def test_what_workers_hold_does_not_count_as_ready(client):
    """However many workers there are, one tenant alone can use them all."""
    handoff = made(client, limited(window=8))
    await send(handoff, range(100))
    for number in range(12):
        assert len(await read(client, f"worker{number}", count=8)) == 8
        await handoff.promote()
    assert (await client.xpending(STREAM, "judge"))["pending"] == 96


async def test_turns_go_round_among_many_tenants(client):
    handoff = made(client, limited(window=4))
    for tenant in ("ann", "bob", "cyd"):
        await send(handoff, range(10), tenant=tenant)
    order = [tenant for tenant, _ in await work(client, handoff, count=4)]
    assert len(order) == 30
    for place in range(4, 22, 3):
        assert sorted(order[place : place + 3]) == ["ann", "bob", "cyd"], order


async def test_what_comes_later_does_not_pass_what_waits(client):
    """Also where there is capacity: workers have read the stream empty, and nothing has promoted what waits since."""
    handoff = made(client, limited(window=4))
    await send(handoff, range(6))
    await read(client, count=4)
    await send(handoff, [6])
    assert [number for _, _, number in await read(client, count=9)] == [4, 5, 6]


async def test_without_window_and_cap_nothing_waits(client):
    handoff = made(client, limited(window=None))
    await send(handoff, range(300))
    assert (await client.xlen(STREAM), await left(client)) == (300, [0, 0, 0, 300])


async def test_what_waited_goes_on_after_the_limits_are_taken_out(client):
    await send(made(client, limited(window=8, cap=1)), range(300))
    handoff = made(client, limited(window=None))
    while (await handoff.promote())[0]:
        pass
    assert [number for _, number in await work(client, handoff, count=50)] == list(range(300))
    assert (await client.exists(WAITING), await client.exists(TURNS)) == (0, 0)


async def test_the_live_hash_names_what_waits_and_the_reconciler_sees_it(client):
    wiring = limited(window=1)
    handoff = made(client, wiring)
    await send(handoff, range(2))
    live = message(1).in_flight
    assert await client.hget(KEYS.in_flight, live) == f"{WAITING} ann.0".encode()
    reconciler = Handoff(client, "l0", "", "reconciler", Fairness(wiring, "l0"))
    assert await reconciler.in_flight(live, STREAM)
    assert not await reconciler.republish(live, STREAM, message(1).fields)
    await work(client, handoff, rounds=1)
    ((entry, _),) = await client.xrange(STREAM)
    assert await client.hget(KEYS.in_flight, live) == f"{STREAM} {entry.decode()}".encode()
    await client.delete(STREAM, WAITING)
    assert not await reconciler.in_flight(live, STREAM)


async def test_what_is_sent_again_waits_as_well(client):
    wiring = limited(window=1)
    await send(made(client, wiring), [0])
    reconciler = Handoff(client, "l0", "", "reconciler", Fairness(wiring, "l0"))
    assert await reconciler.republish(message(1).in_flight, STREAM, message(1).fields)
    assert (await client.xlen(STREAM), await reconciler.in_flight(message(1).in_flight, STREAM)) == (1, True)


async def test_a_due_retry_waits_behind_what_waits_already(client):
    wiring = limited(window=1)
    handoff = made(client, wiring)
    await send(handoff, range(3))
    again = message(9)
    ident = message_id(step(9).task, 1, "check", 0, 1)
    await handoff.publish([Schedule(KEYS.schedule, KEYS.messages, STREAM, 0, ident, again.fields, again.in_flight)])
    await handoff.promote()
    assert await client.hget(KEYS.in_flight, again.in_flight) == f"{WAITING} ann.2".encode()
    assert [number for _, number in await work(client, handoff)] == [0, 1, 2, 9]
    assert await left(client) == [0, 0, 0, 0]


@pytest.mark.parametrize("cap", [None, 1])
async def test_waiting_steps_of_an_ended_run_are_dropped(client, cap):
    handoff = made(client, limited(window=1, cap=cap))
    await send(handoff, range(6))
    for number, tenant in ((2, "ann"), (3, "bob"), (4, "ann"), (5, "ann")):
        reported = {"type": "task.cancel.v1", "id": step(number).task, "tenant": tenant, "body": "{}"}
        assert await handoff.cancel(step(number).task, tenant, 1, 60, reported) == ("accepted", "")
    # Another run of the same task is not concerned.
    following = message(5)
    fields_ = {**following.fields, "id": f"{step(5).task}.2.check.0.1"}
    await handoff.publish([following._replace(fields=fields_, in_flight=f"{step(5).task}.2.check.0")])
    # Number 3 is not bob's to cancel.
    assert [number for _, number in await work(client, handoff)] == [0, 1, 3, 5]
    assert await left(client) == [0, 0, 0, 0]


async def test_an_ended_run_is_deleted_after_its_time(client):
    handoff = made(client, limited(window=1))
    reported = {"type": "task.cancel.v1", "tenant": "ann", "body": "{}"}
    for number in (1, 2):
        await handoff.cancel(step(number).task, "ann", 1, 60, reported)
    await client.zadd(KEYS.ended_runs, {f"{step(1).task}.1 ann": 1})
    await send(handoff, range(2))
    assert [number for _, number in await work(client, handoff)] == [0, 1]
    await handoff.promote()
    assert await client.zrange(KEYS.ended_runs, 0, -1) == [f"{step(2).task}.1 ann".encode()]


async def test_a_flush_and_a_deleted_stream_leave_nothing_that_blocks(client):
    wiring = limited(window=4, cap=4)
    handoff = made(client, wiring)
    await send(handoff, range(20))
    await read(client, count=4)
    await client.delete(STREAM)
    assert (await handoff.promote())[0] == 4
    assert [number for _, number in await work(client, handoff)] == list(range(4, 20))
    await client.flushall()
    await send(handoff, range(20))
    assert [number for _, number in await work(client, handoff)] == list(range(20))


@pytest.mark.parametrize("lost", [TURNS, HELD])
@pytest.mark.parametrize("cap", [None, 2])
async def test_a_lost_key_next_to_the_stream_is_repaired(client, lost, cap):
    wiring = limited(window=4, cap=cap)
    handoff = made(client, wiring)
    for tenant in ("ann", "bob"):
        await send(handoff, range(20), tenant=tenant)
    await client.delete(lost)
    order = []
    for _ in range(100):
        await handoff.promote()
        order += await work(client, handoff, rounds=1)
    for tenant in ("ann", "bob"):
        assert [number for one, number in order if one == tenant] == list(range(20))
    await handoff.promote()
    assert (await left(client))[:3] == [0, 0, 0]


async def test_intake_lets_a_newcomer_pass_and_counts_what_waits(client):
    found = SHIPPED
    wiring = replace(found, topics={**found.topics, "tasks": replace(found.topics["tasks"], window=4)})
    stream, fairness = "{l0}:tasks:normal", Fairness(wiring, "l0")

    async def admitted(number, tenant, mark=1000):
        one = Admission(f"{tenant}{number}", tenant, f"{{l0}}:idempotency:{tenant}:{number}")
        (answer,) = await admit(client, fairness, [one], mark=mark)
        return answer

    for number in range(10):
        assert await admitted(number, "ann") == b"accepted"
    assert await client.xlen(stream) == 4
    # The mark is reached: a tenant with waiting messages is asked to come back, one without is admitted once.
    assert await admitted(10, "ann", mark=10) == [b"busy", b"10"]
    assert await client.exists(KEYS.status("ann10")) == 0
    assert await admitted(0, "bob", mark=10) == b"accepted"
    assert await admitted(1, "bob", mark=10) == [b"busy", b"11"]
    assert (await admitted(0, "ann", mark=10))[0] == b"duplicate"
    intake = Handoff(client, "l0", "orchestrator", "a", fairness)
    await client.xgroup_create(stream, "orchestrator", "0")
    order = []
    while got := await client.xreadgroup("orchestrator", "a", {stream: ">"}, count=2):
        for entry, one in got[0][1]:
            order.append(one[b"id"].decode())
            await intake.complete([Completion(Lease(stream, entry.decode(), 1), ())])
    assert order == ["ann0", "ann1", "ann2", "ann3", "ann4", "bob0", "ann5", "ann6", "ann7", "ann8", "ann9"]
    assert await client.exists(KEYS.waiting(stream)) == 0


@pytest.mark.parametrize("mark", [0, 12])
async def test_tasks_of_one_call_are_stored_as_by_many_calls(client, mark):
    """With a window, several tenants and streams, repeats within the call, and a mark that some reach."""
    wiring = replace(SHIPPED, topics={**SHIPPED.topics, "tasks": replace(SHIPPED.topics["tasks"], window=4)})
    fairness, tenants, streams = Fairness(wiring, "l0"), ("ann", "bob", "cid"), ("high", "normal", "low")
    tasks = []
    for number in range(120):
        tenant, stream = tenants[number % 5 % 3], f"{{l0}}:tasks:{streams[number % 7 % 3]}"
        key = "" if number % 2 else f"{{l0}}:idempotency:{tenant}:{number % 40}"
        tasks.append(Admission(f"t{number:03}", tenant, key, "aa" if number % 3 else "bb", stream))

    async def stored() -> dict[str, Any]:
        found: dict[str, Any] = {}
        for stream in streams:
            entries = await client.xrange(f"{{l0}}:tasks:{stream}")
            waiting = KEYS.waiting(f"{{l0}}:tasks:{stream}")
            found[stream] = [fields[b"id"] for _, fields in entries], await client.hgetall(waiting)
            found[f"{stream} ring"] = await client.zrange(KEYS.ring(f"{{l0}}:tasks:{stream}"), 0, -1, withscores=True)
        found["statuses"] = sorted(await client.keys("{l0}:status:*"))
        keys = sorted(await client.keys("{l0}:idempotency:*"))
        found["keys"] = [(key, (await client.get(key)).split(b" ")[:2]) for key in keys]
        assert all([await client.ttl(key) > 0 for key in keys + found["statuses"]])
        return found

    one_by_one = [answer for task in tasks for answer in await admit(client, fairness, [task], mark=mark)]
    expected = await stored()
    queued = sum(b"." in name for stream in streams for name in expected[stream][1])
    assert queued + sum(len(expected[stream][0]) for stream in streams) == one_by_one.count(b"accepted")
    await client.flushdb()
    assert await admit(client, fairness, tasks, mark=mark) == one_by_one
    assert await stored() == expected
    answers = {answer if isinstance(answer, bytes) else answer[0] for answer in one_by_one}
    assert answers >= {b"accepted", b"duplicate", b"busy" if mark else b"accepted"}


async def test_the_number_that_waits_is_known(client):
    wiring = limited(window=2)
    handoff = made(client, wiring)
    await send(handoff, range(10))
    await handoff.promote()
    assert {stream: count for stream, count in handoff.queued.items() if count} == {STREAM: 8}


async def test_a_key_of_another_type_is_refused_before_anything_is_written(client):
    handoff = made(client, limited(window=1))
    await send(handoff, range(1))
    await client.set(WAITING, "no hash")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await send(handoff, range(1, 2))
    assert await client.xlen(STREAM) == 1
    ((held, _, _),) = await read(client)
    with pytest.raises(Exception, match="WRONGTYPE"):
        await handoff.complete([Completion(held, ())])
    await client.delete(WAITING)
    assert await handoff.complete([Completion(held, ())]) == [LeaseStatus.DONE]


@pytest.mark.parametrize("concurrency", [1, 9])
async def test_high_comes_first_and_neither_normal_nor_low_starves(redis_server, client, concurrency):
    """While there is more of every priority than workers can take."""
    for priority in ("low", "normal", "high"):
        for number in range(100):
            await client.xadd(KEYS.stream(JUDGE, priority), fields(step(number, priority=priority)))
    order = []

    async def run(one):
        order.append(one.priority)
        return {}

    async with consuming(redis_server.url, client, JUDGE, run, concurrency=concurrency):
        await until(lambda: enough({"all": order}, 300))
    crowd = order[: order.index("high") + 100]
    counts = [crowd.count(priority) for priority in ("high", "normal", "low")]
    assert counts[0] > 2 * max(counts[1:]), counts
    assert min(counts) >= 5, counts
