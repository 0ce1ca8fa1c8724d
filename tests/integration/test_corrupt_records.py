"""What another writer has broken in Redis is given up on as a dead letter, alone; everything else goes on."""

import math

import orjson
import pytest

from octollm.contracts import DeadLetter
from octollm.contracts import read as parse
from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Handoff
from octollm.protocol.operations import Publish, Schedule, SetStatus
from tests.helpers.consumers import KEYS, fields, judge, step, topology
from tests.helpers.fairness import STREAM, TURNS, WAITING, left, limited, made, send, work

FINE = orjson.dumps({"stream": STREAM, "in_flight": "", "fields": ["type", "x", "tenant", "ann"]})


def scheduler(client):
    return Handoff(client, "l0", "judge", "a", Fairness(topology(), "l0"))


async def dead_letters(client):
    return [
        (parse(DeadLetter, entry[b"body"]), entry[b"original"]) for _, entry in await client.xrange(KEYS.dead) or ()
    ]


async def schedule(client, name, text, score=0):
    await client.hset(KEYS.messages, name, text)
    await client.zadd(KEYS.schedule, {name: score})


def changed(**changes):
    return orjson.dumps({**orjson.loads(FINE), **changes})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no JSON",
        b"\xff\xfe",
        b"[" * 5000,
        b"null",
        b"7",
        b'"text"',
        b"[]",
        b"{}",
        FINE[:-1],
        changed(stream=None),
        changed(stream=7),
        changed(stream="{l7}:arm.judge:normal"),
        changed(stream="arm.judge"),
        changed(in_flight=None),
        changed(in_flight=["a"]),
        changed(fields=None),
        changed(fields={"type": "x"}),
        changed(fields=[]),
        changed(fields=["type"]),
        changed(fields=["type", None]),
        changed(fields=["type", ["x"]]),
        changed(fields=["type", 7]),
        changed(fields=["a", "b"] * 5000),
    ],
)
async def test_a_scheduled_message_that_cannot_be_read_becomes_a_dead_letter_alone(client, text):
    handoff = scheduler(client)
    ident = "l0-01jd0000000000000000000001.1.check.0.2"
    await schedule(client, ident, text)
    await schedule(client, "fine", FINE)
    await handoff.promote()
    assert handoff.malformed == 1
    [(dead, original)] = await dead_letters(client)
    assert (dead.reason, dead.stream, dead.entry, dead.id) == ("malformed", KEYS.schedule, ident, ident)
    assert original == text
    assert await client.xlen(STREAM) == 1
    assert await client.exists(KEYS.schedule, KEYS.messages) == 0
    await handoff.promote()
    assert handoff.malformed == 0


async def test_many_broken_messages_do_not_hide_those_behind_them(client):
    handoff = scheduler(client)
    for number in range(250):
        await schedule(client, f"broken{number}", "x", number)
    await schedule(client, "fine", FINE, 1000)
    while (await handoff.promote(most=20))[0]:
        pass
    assert len(await dead_letters(client)) == 250
    assert await client.xlen(STREAM) == 1


@pytest.mark.parametrize("score", [math.inf, -math.inf, 1e300, -1e300])
async def test_a_due_time_that_is_no_time_stops_nobody(client, score):
    handoff = scheduler(client)
    await schedule(client, "odd", changed(stream="{l0}:arm.gone:normal"), score)
    await schedule(client, "fine", FINE)
    await handoff.promote()
    assert await client.xlen(STREAM) == 1


async def test_a_step_whose_scheduled_message_was_broken_is_missed_by_the_reconciler(client):
    handoff, one = scheduler(client), step()
    named = fields(one)
    in_flight = named["id"].rpartition(".")[0]
    operation = Schedule(KEYS.schedule, KEYS.messages, STREAM, 0, named["id"], named, in_flight)
    await handoff.publish([operation])
    assert await handoff.in_flight(in_flight, STREAM)
    await client.hset(KEYS.messages, named["id"], "x")
    await handoff.promote()
    assert not await handoff.in_flight(in_flight, STREAM)


@pytest.mark.parametrize(
    "packed", [None, 7, [], ["", None], ["", ["type"]], [7, ["type", "x"]], ["", {"type": "x"}], ["", ["type", 7]]]
)
async def test_a_queued_message_that_cannot_be_read_becomes_a_dead_letter_alone(client, packed):
    handoff = made(client, limited(window=2))
    await send(handoff, range(6))
    text = b"\xc1"  # no MessagePack at all
    if packed is not None:
        text = await client.eval("return cmsgpack.pack(cjson.decode(ARGV[1]))", 0, orjson.dumps(packed))
    await client.hset(WAITING, "ann.1", text)
    order = await work(client, handoff, count=2)
    assert [number for _, number in order] == [0, 1, 2, 4, 5]
    [(dead, original)] = await dead_letters(client)
    assert (dead.reason, dead.stream, dead.entry, dead.tenant) == ("malformed", WAITING, "ann.1", "ann")
    assert original == text
    assert await left(client) == [0, 0, 0, 1]  # the reconciler sends that step again


@pytest.mark.parametrize("record", ["", "x", "0", "3 1", "0 x", "-1 4", "1e3 2e3", "0 9007199254740999", "9" * 400])
async def test_a_queue_whose_record_is_broken_is_counted_again(client, record):
    handoff = made(client, limited(window=2))
    await send(handoff, range(5))
    await send(handoff, range(20, 22), tenant="bob")
    await client.hset(WAITING, "ann", record)
    await send(handoff, range(5, 7))
    order = await work(client, handoff, count=2)
    assert sorted(order) == [("ann", number) for number in range(7)] + [("bob", 20), ("bob", 21)]
    assert await dead_letters(client) == []
    assert await left(client) == [0, 0, 0, 0]


async def test_what_belongs_to_no_queue_is_removed(client):
    handoff = made(client, limited(window=2))
    await client.hset(WAITING, mapping={"odd": "x", "ann.7": "x"})
    await client.zadd(TURNS, {"nobody": 1})
    for _ in range(3):
        await handoff.promote()
    assert sorted(dead.entry for dead, _ in await dead_letters(client)) == ["ann.7", "odd"]
    await send(handoff, range(3))
    assert [number for _, number in await work(client, handoff, count=2)] == [0, 1, 2]
    assert await left(client) == [0, 0, 0, 0]


async def test_a_broken_member_of_a_caps_count_is_removed(client):
    handoff = made(client, limited(window=2, cap=2))
    running = KEYS.running(judge())
    await client.zadd(running, {"odd": 0, "": 0, f"ann {STREAM} no-id": 0, f"ann {STREAM} 99-0": 0})
    await handoff.promote()
    assert await client.zcard(running) == 0


@pytest.mark.parametrize("version", ["", "x", "-7", "1e999", "9" * 40, "nan"])
async def test_a_status_without_a_valid_version_is_replaced(client, version):
    handoff, key = scheduler(client), KEYS.status("one")
    await client.hset(key, mapping={"version": version, "state": "odd"})
    await handoff.publish([SetStatus(key, 3, 60, {"state": "running"})])
    assert await client.hgetall(key) == {b"version": b"3", b"state": b"running"}


async def test_a_dead_letter_stream_of_the_wrong_type_loses_nothing(client):
    handoff = scheduler(client)
    await client.set(KEYS.dead, "x")
    await schedule(client, "broken", "x")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await handoff.promote()
    assert await client.zcard(KEYS.schedule) == 1
    await client.delete(KEYS.dead)
    await handoff.promote()
    assert len(await dead_letters(client)) == 1


async def test_a_publish_does_not_fail_on_what_is_broken_in_another_tenants_queue(client):
    handoff = Handoff(client, "l0", "judge", "a", Fairness(limited(window=1), "l0"))
    await send(handoff, range(3), tenant="bob")
    await client.hset(WAITING, mapping={"bob": "x", "bob.0": "x"})
    await handoff.publish([Publish(STREAM, fields(step(7, tenant="ann")))])
    assert ("ann", 7) in [(tenant, number) for tenant, number in await work(client, handoff, count=2)]
