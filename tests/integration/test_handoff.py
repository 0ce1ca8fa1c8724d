"""The hand-off scripts on a real Redis: each transition happens whole, once, and only for who still holds the entry."""

from typing import Any

import orjson
import pytest
import redis.asyncio
from redis.exceptions import ResponseError

from octollm.protocol.fairness import Fairness
from octollm.protocol.handoff import Completion, Entry, Handoff, LeaseStatus
from octollm.protocol.operations import AppendEvent, Lease, Publish, Schedule, SetStatus
from octollm.protocol.scripts import Scripts
from octollm.resources import checkout, schemas_path
from octollm.topology import LaneKeys, Topology, load_topology
from tests.helpers.admissions import Admission, admit
from tests.helpers.consumers import CLAIM_ALL
from tests.helpers.messages import Fields

KEYS = LaneKeys("l0")
IDEMPOTENCY_KEY = "{l0}:idempotency:default:k"
TASK = "l0-01jd0000000000000000000000"
FIELDS = {
    "type": "step.requested.v1",
    "id": f"{TASK}.1.check.0.1",
    "tenant": "default",
    "traceparent": "",
    "body": "{}",
}
FIELD = f"{TASK}.1.check.0"


@pytest.fixture
def topology() -> Topology:
    root = checkout()
    assert root is not None
    return load_topology(root / "streams.yaml", schemas_path())


@pytest.fixture
def stream(topology: Topology) -> str:
    judge = topology.arm("judge")
    assert judge is not None
    return KEYS.stream(judge)


async def deliver(client: redis.asyncio.Redis, stream: str, consumer: str, fields: Fields = FIELDS) -> Lease:
    """Puts one entry on the stream, indexed as the step's latest message, and reads it as `consumer`."""
    try:
        await client.xgroup_create(stream, "judge", "0", mkstream=True)
    except ResponseError as error:
        assert "BUSYGROUP" in str(error)
    entry = await client.xadd(stream, fields)
    await client.hset(KEYS.in_flight, FIELD, f"{stream} {entry.decode()}")
    answer: Any = await client.xreadgroup("judge", consumer, {stream: ">"}, count=1)
    ((_, ((read, _),)),) = answer
    assert read == entry
    return Lease(stream, entry.decode(), 1, FIELD)


async def test_complete_sends_what_comes_next_and_removes_the_entry(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    held = await deliver(client, stream, "a")
    operations = (
        Publish(KEYS.done, {"type": "step.done.v1", "body": b"{}"}, FIELD),
        SetStatus(KEYS.status(TASK), 3, 60, {"state": "running"}),
        AppendEvent(KEYS.events, 1000, {"type": "task.event.v1"}),
    )
    assert await handoff.complete([Completion(held, operations)]) == [LeaseStatus.DONE]
    assert await client.xlen(stream) == 0
    assert (await client.xpending(stream, "judge"))["pending"] == 0
    ((done, fields),) = await client.xrange(KEYS.done)
    assert fields == {b"type": b"step.done.v1", b"body": b"{}"}
    assert await client.hget(KEYS.in_flight, FIELD) == f"{KEYS.done} {done.decode()}".encode()
    assert await client.hgetall(KEYS.status(TASK)) == {b"version": b"3", b"state": b"running"}
    assert 0 < await client.ttl(KEYS.status(TASK)) <= 60
    assert await client.xlen(KEYS.events) == 1
    assert await handoff.complete([Completion(held, operations)]) == [LeaseStatus.GONE]
    assert await client.xlen(KEYS.done) == 1


async def test_who_lost_the_entry_cannot_complete_renew_or_release_it(client, stream, topology):
    held = await deliver(client, stream, "a")
    old = Handoff(client, "l0", "judge", "a")
    await client.xclaim(stream, "judge", "b", 0, [held.entry])
    add = Publish(KEYS.done, {"type": "x"})
    assert await old.complete([Completion(held, (add,))]) == [LeaseStatus.STALE]
    assert await old.renew([held]) == [LeaseStatus.STALE]
    assert await old.release([held]) == [LeaseStatus.STALE]
    # The same consumer got it again: another delivery is another owner.
    await client.xclaim(stream, "judge", "a", 0, [held.entry])
    assert await old.complete([Completion(held, (add,))]) == [LeaseStatus.STALE]
    assert await client.xlen(KEYS.done) == 0
    third = Lease(stream, held.entry, 3, FIELD)
    assert await old.complete([Completion(third, (add,))]) == [LeaseStatus.DONE]


async def test_an_error_in_one_operation_leaves_everything_as_it_was(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    held = await deliver(client, stream, "a")
    await client.set(KEYS.events, "not a stream")
    finish = Completion(held, (Publish(KEYS.done, {"type": "x"}), AppendEvent(KEYS.events, 10, {"type": "y"})))
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await handoff.complete([finish])
    assert await client.xlen(KEYS.done) == 0
    assert (await client.xpending(stream, "judge"))["pending"] == 1


async def test_groups_are_published_in_one_call_or_none_of_them_is(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    first = (Publish(KEYS.done, {"type": "x"}),)
    await handoff.publish(first, first)
    assert await client.xlen(KEYS.done) == 2
    await client.set(KEYS.events, "not a stream")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await handoff.publish(first, (AppendEvent(KEYS.events, 10, {"type": "y"}),))
    assert await client.xlen(KEYS.done) == 2


async def test_what_was_perhaps_sent_before_is_sent_only_where_its_message_is_nowhere(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    other = FIELD.replace(".0", ".1")
    held = [await deliver(client, stream, "a", FIELDS) for _ in range(2)]
    await client.hdel(KEYS.in_flight, FIELD)
    again = Publish(KEYS.done, {"type": "x"}, other, once=True)
    await handoff.publish((again, again))
    assert await handoff.complete([Completion(one, (again,)) for one in held]) == [LeaseStatus.DONE] * 2
    ((entry, _),) = await client.xrange(KEYS.done)
    assert await client.hget(KEYS.in_flight, other) == f"{KEYS.done} {entry.decode()}".encode()
    await client.flushall()
    await handoff.publish((again,))
    assert await client.xlen(KEYS.done) == 1


async def test_many_at_once_are_judged_one_by_one(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    held = [await deliver(client, stream, "a") for _ in range(8)]
    await client.xclaim(stream, "judge", "b", 0, [held[1].entry])
    await client.xclaim(stream, "judge", "a", 0, [held[2].entry])
    await client.xdel(stream, held[3].entry)
    await client.xack(stream, "judge", held[3].entry)
    add = Publish(KEYS.done, {"type": "step.done.v1"})
    answers = await handoff.complete([Completion(one, (add,)) for one in (*held, held[0])])
    done, stale, gone = LeaseStatus.DONE, LeaseStatus.STALE, LeaseStatus.GONE
    assert answers == [done, stale, stale, gone, done, done, done, done, gone]
    assert await client.xlen(KEYS.done) == answers.count(done)
    left = await client.xpending_range(stream, "judge", "-", "+", 10)
    assert [one["message_id"].decode() for one in left] == [held[1].entry, held[2].entry]
    assert await client.xlen(stream) == 2


async def test_a_refused_write_ends_the_call_and_what_came_before_it_is_finished(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    held = [await deliver(client, stream, "a") for _ in range(6)]
    full = "{l0}:results"
    await client.xadd(full, {"last": "one"}, id=f"{2**64 - 1}-{2**64 - 1}")
    add, refused = Publish(KEYS.done, {"type": "step.done.v1"}, FIELD), Publish(full, {"type": "x"})
    finishes = [Completion(one, (refused if number == 3 else add,)) for number, one in enumerate(held)]
    with pytest.raises(ResponseError, match="exhausted"):
        await handoff.complete(finishes)
    left = await client.xpending_range(stream, "judge", "-", "+", 10)
    assert [one["message_id"].decode() for one in left] == [one.entry for one in held[3:]]
    sent = await client.xrange(KEYS.done)
    assert len(sent) == await client.xlen(stream) == 3
    assert await client.hget(KEYS.in_flight, FIELD) == f"{KEYS.done} {sent[-1][0].decode()}".encode()


async def test_a_status_is_written_only_over_a_lower_version(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    for version, state in ((2, "running"), (1, "accepted"), (2, "failed")):
        held = await deliver(client, stream, "a")
        operation = SetStatus(KEYS.status(TASK), version, 0, {"state": state})
        assert await handoff.complete([Completion(held, (operation,))]) == [LeaseStatus.DONE]
    assert await client.hget(KEYS.status(TASK), "state") == b"running"
    assert await client.ttl(KEYS.status(TASK)) == -1


async def test_renew_keeps_the_lease_without_a_delivery(client, stream):
    held = await deliver(client, stream, "a")
    handoff = Handoff(client, "l0", "judge", "a")
    assert await handoff.renew([held]) == [LeaseStatus.VALID]
    (pending,) = await client.xpending_range(stream, "judge", "-", "+", 10)
    assert (pending["consumer"], pending["times_delivered"]) == (b"a", 1)


async def test_what_is_released_is_taken_at_once_and_nobody_is_charged(client, stream, topology):
    held = await deliver(client, stream, "a")
    assert await Handoff(client, "l0", "judge", "a").release([held]) == [LeaseStatus.RELEASED]
    judge = topology.topics["arm.judge"]
    entries, dead, _ = await Handoff(client, "l0", "judge", "b").claim(stream, judge, CLAIM_ALL)
    assert dead == []
    assert entries == [Entry(stream, held.entry, 1, {k.encode(): v.encode() for k, v in FIELDS.items()})]


async def test_a_held_entry_is_not_claimed_before_its_lease_ends(client, stream, topology):
    held = await deliver(client, stream, "a")
    judge = topology.topics["arm.judge"]
    thief = Handoff(client, "l0", "judge", "b")
    assert await thief.claim(stream, judge, CLAIM_ALL) == ([], [], [])
    await client.xclaim(stream, "judge", "a", 0, [held.entry], idle=judge.lease_s * 1000 + 1, justid=True)
    entries, dead, _ = await thief.claim(stream, judge, CLAIM_ALL)
    assert [(entry.id, entry.delivery) for entry in entries] == [(held.entry, 2)]
    assert dead == []


async def test_an_entry_that_had_its_cap_of_deliveries_becomes_a_dead_letter_and_tells_the_orchestrator(
    client, stream, topology
):
    held = await deliver(client, stream, "a")
    judge = topology.topics["arm.judge"]
    await client.xclaim(
        stream,
        "judge",
        "a",
        0,
        [held.entry],
        idle=judge.lease_s * 1000 + 1,
        retrycount=judge.max_deliveries,
        justid=True,
    )
    assert await Handoff(client, "l0", "judge", "b").claim(stream, judge, CLAIM_ALL) == ([], [held.entry], [])
    ((_, dead_letter),) = await client.xrange(KEYS.dead)
    body = orjson.loads(dead_letter[b"body"])
    assert (body["reason"], body["delivery"], dead_letter[b"original"]) == ("deliveries_exhausted", 5, b"{}")
    ((_, done),) = await client.xrange(KEYS.done)
    assert orjson.loads(done[b"body"])["outcome"] == "dead"
    assert await client.xlen(stream) == 0


async def test_a_delayed_message_moves_once_when_it_is_due(client, stream, topology):
    handoff = Handoff(client, "l0", "judge", "a", Fairness(topology, "l0"))
    held = await deliver(client, stream, "a")
    later = {**FIELDS, "id": f"{TASK}.1.check.0.2"}
    delay = Schedule(KEYS.schedule, KEYS.messages, stream, 3_600_000, later["id"], later, FIELD)
    assert await handoff.complete([Completion(held, (delay,))]) == [LeaseStatus.DONE]
    moved, due = await handoff.promote()
    assert (moved, await client.xlen(stream)) == (0, 0)
    assert due > 0
    assert await client.hget(KEYS.in_flight, FIELD) == f"{KEYS.schedule} {later['id']}".encode()
    await client.zadd(KEYS.schedule, {later["id"]: 1})
    assert await handoff.promote() == (1, 0)
    assert await handoff.promote() == (0, 0)
    ((entry, fields),) = await client.xrange(stream)
    assert fields[b"id"].decode() == later["id"]
    assert await client.hget(KEYS.in_flight, FIELD) == f"{stream} {entry.decode()}".encode()
    assert await client.exists(KEYS.messages) == 0


async def test_who_still_owns_entries_does_not_leave(client, stream):
    held = await deliver(client, stream, "a")
    handoff = Handoff(client, "l0", "judge", "a")
    assert await handoff.leave_group([stream, "{l0}:nowhere"]) == 1
    assert await handoff.complete([Completion(held, ())]) == [LeaseStatus.DONE]
    assert await handoff.leave_group([stream]) == 0
    assert await client.xinfo_consumers(stream, "judge") == []


async def test_a_missing_stream_answers_gone(client, stream):
    held = await deliver(client, stream, "a")
    await client.flushall()
    handoff = Handoff(client, "l0", "judge", "a")
    assert await handoff.complete([Completion(held, (Publish(KEYS.done, {"type": "x"}),))]) == [LeaseStatus.GONE]
    assert await handoff.renew([held]) == [LeaseStatus.GONE]
    assert await client.xlen(KEYS.done) == 0


async def test_an_entry_that_was_deleted_with_its_stream_leaves_no_in_flight_step(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    held = await deliver(client, stream, "a")
    await client.delete(stream)
    assert await handoff.complete([Completion(held, (Publish(KEYS.done, {"type": "x"}),))]) == [LeaseStatus.GONE]
    assert await client.hgetall(KEYS.in_flight) == {}
    assert await client.xlen(KEYS.done) == 0


async def test_what_an_entry_led_to_is_its_task_s_status_also_when_the_entry_was_deleted(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    held = await deliver(client, stream, "a")
    await client.hset(KEYS.status(TASK), mapping={"version": "2", "state": "running"})
    await client.delete(stream)
    ended = SetStatus(KEYS.status(TASK), 3, 60, {"state": "succeeded"})
    assert await handoff.complete([Completion(held, (ended, Publish(KEYS.done, {"type": "x"})))]) == [LeaseStatus.GONE]
    assert await client.hget(KEYS.status(TASK), "state") == b"succeeded"
    older = SetStatus(KEYS.status(TASK), 2, 0, {"state": "running"})
    assert await handoff.complete([Completion(held, (older,))]) == [LeaseStatus.GONE]
    assert await client.hget(KEYS.status(TASK), "state") == b"succeeded"
    assert await client.xlen(KEYS.done) == 0


async def test_an_entry_whose_group_was_deleted_stays_a_in_flight_step(client, stream):
    handoff = Handoff(client, "l0", "judge", "a")
    held = await deliver(client, stream, "a")
    await client.xgroup_destroy(stream, "judge")
    assert await handoff.complete([Completion(held, ())]) == [LeaseStatus.GONE]
    assert await client.hget(KEYS.in_flight, FIELD) == f"{stream} {held.entry}".encode()


async def test_scripts_survive_a_server_that_lost_them(client, stream):
    held = await deliver(client, stream, "a")
    handoff = Handoff(client, "l0", "judge", "a")
    assert await handoff.renew([held]) == [LeaseStatus.VALID]
    await client.script_flush()
    assert await handoff.renew([held]) == [LeaseStatus.VALID]


async def test_a_step_is_sent_again_only_when_its_message_is_nowhere(client, stream, topology):
    held = await deliver(client, stream, "a")
    handoff = Handoff(client, "l0", "", "reconciler", Fairness(topology, "l0"))
    assert not await handoff.republish(FIELD, stream, FIELDS)
    await client.delete(stream)
    assert not await handoff.in_flight(FIELD, stream)
    assert await handoff.republish(FIELD, stream, FIELDS)
    assert not await handoff.republish(FIELD, stream, FIELDS)
    assert await handoff.in_flight(FIELD, stream)
    assert await client.xlen(stream) == 1
    assert held.stream == stream


async def test_who_repeats_a_message_does_not_overtake_the_reconciler_that_replaces_it(client, stream, topology):
    """An orchestrator reclaims what led to a step and sends the step once more, in case it never was; the reconciler
    has found it nowhere, and raises its attempt. Both have committed that when they come to send.
    """
    orchestrator = Handoff(client, "l0", "judge", "a")
    reconciler = Handoff(client, "l0", "", "reconciler", Fairness(topology, "l0"))
    repeated = Publish(stream, {**FIELDS, "attempt": "1"}, FIELD, once=True)
    assert not await reconciler.in_flight(FIELD, stream, claim=True)
    await orchestrator.publish([repeated])
    assert not await reconciler.in_flight(FIELD, stream, claim=True)
    assert await reconciler.republish(FIELD, stream, {**FIELDS, "attempt": "2"})
    await orchestrator.publish([repeated])
    ((_, sent),) = await client.xrange(stream)
    assert sent[b"attempt"] == b"2"


async def test_what_was_repeated_first_is_not_replaced_and_a_reconciler_that_died_leaves_nothing(
    client, stream, topology
):
    orchestrator = Handoff(client, "l0", "judge", "a")
    reconciler = Handoff(client, "l0", "", "reconciler", Fairness(topology, "l0"))
    await orchestrator.publish([Publish(stream, FIELDS, FIELD, once=True)])
    assert await reconciler.in_flight(FIELD, stream, claim=True)
    assert not await reconciler.republish(FIELD, stream, FIELDS)
    await client.delete(stream)
    assert not await reconciler.in_flight(FIELD, stream, claim=True)  # and dies
    assert await reconciler.prune(0, 100) == (0, 0)
    claimed_at = int((await client.hget(KEYS.in_flight, FIELD)).removeprefix(f"{stream} 0-".encode()))
    await client.hset(KEYS.in_flight, FIELD, f"{stream} 0-{claimed_at - 301}")  # and much later
    assert await reconciler.prune(0, 100) == (0, 1)
    assert await client.hlen(KEYS.in_flight) == 0


async def test_the_status_of_an_admission_is_replaced_by_every_status_and_never_evicted(client, stream, topology):
    handoff = Handoff(client, "l0", "judge", "a")
    assert await admit(client, Fairness(topology, "l0"), [Admission(TASK)]) == [b"accepted"]
    assert orjson.loads(await client.get(KEYS.status(TASK)))["state"] == "accepted"
    assert await client.ttl(KEYS.status(TASK)) > 0
    assert await handoff.evict([TASK]) == 0
    held = await deliver(client, stream, "a")
    running = SetStatus(KEYS.status(TASK), 1, 60, {"state": "running"})
    assert await handoff.complete([Completion(held, (running,))]) == [LeaseStatus.DONE]
    assert await client.hgetall(KEYS.status(TASK)) == {b"version": b"1", b"state": b"running"}


async def test_a_message_that_is_not_packed_as_a_queue_holds_it_is_refused_before_anything_is_written(client, topology):
    fairness = Fairness(topology, "l0")
    keys: list[str] = [KEYS.status(TASK)]
    args: list[str | bytes | int] = [60, 0, 1, 1, 3, "default", "{}", "not packed", ""]
    fairness.describe([fairness.topics["{l0}:tasks:normal"]], keys, args)
    args[4] = keys.index("{l0}:tasks:normal") + 1
    (answer,) = await Scripts.of(client).admit(keys=keys, args=args)
    assert "not packed" in str(answer)
    assert await client.dbsize() == 0


@pytest.mark.parametrize("ttl", ["9300000000000000", "0", "-1", "1.5", "x", "inf", "nan"])
async def test_admit_refuses_a_time_to_live_out_of_bounds_before_it_writes(client, topology, ttl):
    with pytest.raises(ResponseError, match="time to live"):
        await admit(client, Fairness(topology, "l0"), [Admission("one", key=IDEMPOTENCY_KEY)], ttl_s=ttl)
    assert await client.dbsize() == 0


async def test_admit_once_per_key_and_never_above_the_mark(client, topology):
    fairness = Fairness(topology, "l0")

    async def admitted(fingerprint: str, task: str, mark: int = 0) -> Any:
        (answer,) = await admit(
            client, fairness, [Admission(task, key=IDEMPOTENCY_KEY, fingerprint=fingerprint)], mark=mark
        )
        return answer

    assert await admitted("aa", "one") == b"accepted"
    assert await admitted("aa", "two") == [b"duplicate", b"one", b"accepted"]
    assert await admitted("bb", "two") == [b"conflict", b"one"]
    assert await client.xlen("{l0}:tasks:normal") == 1
    await client.delete(IDEMPOTENCY_KEY)
    assert await admitted("cc", "three", 1) == [b"busy", b"1"]
    assert await client.exists(KEYS.status("three")) == 0
