"""The hand-off protocol of one consumer in one lane, as typed calls of the scripts.

Each method is one atomic step in Redis. All raise RedisError; the caller knows whether to wait.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import redis.asyncio

from octollm.contracts.ids import utc_now
from octollm.protocol.fairness import Fairness
from octollm.protocol.operations import Fields, Lease, Operation, ScriptCall, Text
from octollm.protocol.scripts import Scripts
from octollm.topology import LaneKeys, Topic

BATCH = 100
"""Entries in one call of `complete`: enough to share the round trip, few enough not to block Redis."""


class LeaseStatus(StrEnum):
    """What Redis says about an entry that this consumer held."""

    DONE = "done"
    """`complete` has applied the operations and removed the entry."""
    VALID = "valid"
    """This consumer still holds the entry."""
    RUN_ENDED = "run_ended"
    """Its run has ended: `complete` has removed it and published nothing, `renew` did not renew the lease."""
    RELEASED = "released"
    """Given back; another consumer may claim it at once."""
    STALE = "stale"
    """The lease was lost: another consumer holds the entry, or this one under a later delivery. Nothing was written."""
    GONE = "gone"
    """No longer pending, for instance because the reply to an earlier, equal call was lost."""


class Entry(NamedTuple):
    """An entry as it was read. Its fields are not parsed yet, so that one bad entry spoils no other."""

    stream: str
    id: str
    delivery: int
    fields: dict[bytes, bytes]


class Completion(NamedTuple):
    """A held entry, and what to write when it is finished."""

    lease: Lease
    operations: tuple[Operation, ...]
    only_if_ended: bool = False
    """Leave the entry as it is unless its run has ended."""


class Claimed(NamedTuple):
    """What `Handoff.claim` found."""

    entries: list[Entry]
    dead: list[str]
    """Ids of entries that became dead letters because they had their last delivery."""
    ended: list[str]
    """Ids of steps that were removed because their run has ended."""


class ClaimLimits(NamedTuple):
    """How many entries of other workers a consumer takes at once."""

    most: int
    """Of all kinds."""
    started: int
    """Of those that began elsewhere before, and are no suspects."""
    suspects: int
    """Of those with at least the delivery `Topic.suspect_from`."""
    last: bool
    """Whether one of the suspects may be at its last delivery. No other that began before is claimed with it."""


class Handoff:
    """One consumer of one group in one lane. Making one hashes every script: make it once and keep it."""

    def __init__(
        self, client: redis.asyncio.Redis, lane: str, group: str, consumer: str, fairness: Fairness | None = None
    ) -> None:
        """`fairness`: of this lane. Without it every message is published at once, past window and cap, and
        `in_flight`, `republish`, `executing`, `prune` and `promote` raise ValueError.
        """
        self.keys = LaneKeys(lane)
        self.queued: dict[str, int] = {}
        """By stream: how many messages wait in tenant queues, as the last `promote` saw it."""
        self.redis_ms = 0
        """Redis' time at the last `promote`, in ms since 1970."""
        self.malformed = 0
        """How many messages became dead letters in the last `promote`, because nobody can read them."""
        self.fairness = fairness
        self._group = group
        self.consumer = consumer
        self._scripts = Scripts.of(client)

    async def complete(self, completions: Sequence[Completion]) -> list[LeaseStatus]:
        """Finish entries, each all or nothing.

        Return done, run_ended, valid, stale or gone for each, in order.
        """
        answers: list[LeaseStatus] = []
        for first in range(0, len(completions), BATCH):
            batch = completions[first : first + BATCH]
            call = ScriptCall(fairness=self.fairness)
            call.key_index(self.keys.in_flight)  # the script's first key
            call.args += (self.consumer, len(batch))
            for one in batch:
                call.add_completion(one.lease, self._group, one.operations, only_if_ended=one.only_if_ended)
            call.add_limits()
            answers += _statuses(await self._scripts.complete(keys=call.keys, args=call.args))
        return answers

    async def publish(self, *groups: Sequence[Operation]) -> None:
        """Apply operations that finish no entry, for instance when a deadline has passed.

        One script call applies all groups or, if one of them is refused, none. More than `BATCH` groups block Redis.
        """
        call = ScriptCall(fairness=self.fairness)
        call.key_index(self.keys.in_flight)
        call.args += (self.consumer, len(groups))
        for operations in groups:
            call.add_operations(operations)
        call.add_limits()
        await self._scripts.complete(keys=call.keys, args=call.args)

    async def in_flight(self, in_flight: str, target: str, *, claim: bool = False) -> bool:
        """Whether a step's latest message still exists. `in_flight`: the step's in-flight field.

        `target`: the stream of its arm. `claim`: if it is missing, block `Publish.once` of this step by other
        processes until `republish` publishes it.
        """
        return await self._republish(in_flight, target, "claim" if claim else "check", {}) == b"exists"

    async def republish(self, in_flight: str, target: str, fields: Fields) -> bool:
        """Publish a step's message to the stream `target` unless its latest one still exists; whether it did."""
        return await self._republish(in_flight, target, "publish", fields) == b"published"

    async def _republish(self, in_flight: str, target: str, mode: str, fields: Fields) -> bytes:
        fairness = self._limits()
        keys = [self.keys.in_flight, self.keys.schedule, target, fairness.ended_runs]
        args: list[Text | int] = [in_flight, mode, len(fields), *(part for field in fields.items() for part in field)]
        fairness.describe([fairness.topics[target]], keys, args)
        keys += fairness.unprioritized
        answer: bytes = await self._scripts.republish(keys=keys, args=args)
        return answer

    async def executing(self, in_flight: Sequence[str]) -> int:
        """How many of these steps, given by their in-flight fields, a worker works on right now."""
        topics = dict.fromkeys(self._limits().topics.values())
        groups = {one.stream: topic.group for topic in topics for one in topic.streams}
        keys = [self.keys.in_flight, *groups]
        return int(await self._scripts.executing(keys=keys, args=[*groups.values(), *in_flight]))

    async def prune(self, cursor: int, most: int) -> tuple[int, int]:
        """Remove names from the in-flight index whose message no longer exists.

        Looks at about `most` names from `cursor` on (0: the beginning). Returns the cursor to go on from, 0 at the end,
        and how many names were removed.
        """
        fairness = self._limits()
        waiting = (self.keys.waiting(stream) for stream in fairness.topics)
        places = (self.keys.schedule, *fairness.unprioritized, *fairness.topics, *waiting)
        following, pruned = await self._scripts.prune(keys=[self.keys.in_flight, *places], args=[cursor, most])
        return int(following), int(pruned)

    async def evict(self, tasks: Sequence[str]) -> int:
        """Delete the statuses of those of these tasks that have ended; return how many were deleted."""
        return int(await self._scripts.evict(keys=[self.keys.status(task) for task in tasks]))

    def _limits(self) -> Fairness:
        if self.fairness is None:
            raise ValueError("this call needs to know all topics: make the hand-off with `fairness`")
        return self.fairness

    async def renew(self, leases: Sequence[Lease]) -> list[LeaseStatus]:
        """Renew leases; returns valid, run_ended, stale or gone for each, in order."""
        call = renewal(self._group, self.consumer, leases)
        return _statuses(await self._scripts.renew(keys=call.keys, args=call.args))

    async def release(self, leases: Sequence[Lease]) -> list[LeaseStatus]:
        """Give back entries at no cost of a delivery; returns released, stale or gone for each, in order."""
        call = ScriptCall(args=[self._group, self.consumer])
        call.add_leases(leases)
        return _statuses(await self._scripts.release(keys=call.keys, args=call.args))

    async def cancel(self, task: str, tenant: str, run: int, ttl_s: int, message: Fields) -> tuple[str, str]:
        """Stop a task's running steps, and publish `message` (`task.cancel.v1`) unless it has ended.

        `run`: the newest one that the caller knows. `ttl_s`: for how long the run counts as ended.

        Returns `accepted`, `ended` or `other_tenant`, and the task's state where Redis holds its status, else ''.
        """
        keys = (self.keys.ended_runs, self.keys.done, self.keys.status(task), self.keys.control)
        flat = [part for field in message.items() for part in field]
        answer, state = await self._scripts.cancel(keys=keys, args=(task, tenant, run, ttl_s, len(message), *flat))
        return answer.decode(), state.decode()

    async def redrive(self, task: str, tenant: str, run: int, ttl_s: int, message: Fields) -> tuple[str, str]:
        """Put `message` (`task.redrive.v1`) on `steps.done`, and stop what is left of the earlier run.

        `run`: the number of the run that ended. `ttl_s`: for how long it counts as ended.

        Returns `accepted`, `unchanged` or `other_tenant`, and the task's state where Redis holds its status, else ''.
        """
        keys = (self.keys.ended_runs, self.keys.done, self.keys.status(task), self.keys.control)
        flat = [part for field in message.items() for part in field]
        args = (task, tenant, run, ttl_s, len(message), *flat)
        answer, state, _ = await self._scripts.redrive(keys=keys, args=args)
        return answer.decode(), state.decode()

    async def claim(self, stream: str, topic: Topic, limits: ClaimLimits) -> Claimed:
        """Reclaim entries whose lease has ended or that were released."""
        keys = [stream, self.keys.dead, self.keys.done, self.keys.in_flight, self.keys.ended_runs]
        args: list[Text | int] = [self._group, self.consumer]
        args += (topic.lease_s * 1000, topic.max_deliveries, limits.most, utc_now())
        args += (topic.suspect_from, limits.started, limits.suspects, int(limits.last))
        if self.fairness is not None and stream in self.fairness.limited:
            self.fairness.describe([self.fairness.limited[stream]], keys, args)
        claimed, dead, ended = await self._scripts.claim(keys=keys, args=args)
        entries = [
            Entry(stream, id_.decode(), delivery, dict(zip(fields[::2], fields[1::2], strict=True)))
            for id_, delivery, fields in claimed
        ]
        return Claimed(entries, [id_.decode() for id_ in dead], [id_.decode() for id_ in ended])

    async def promote(self, most: int = 100) -> tuple[int, int]:
        """Publish due messages, dispatch from the tenant queues, and drop the steps of ended runs.

        Looks at `most` of each. Returns how many were published, dropped or malformed, and when the next message is due
        (ms since 1970, 0: there is none); sets `queued`, `redis_ms` and `malformed`.
        """
        fairness = self._limits()
        keys = [
            self.keys.in_flight,
            self.keys.schedule,
            self.keys.messages,
            fairness.ended_runs,
            *fairness.unprioritized,
        ]
        args: list[Text | int] = [most, len(fairness.unprioritized)]
        topics = list(fairness.topics.values())
        fairness.describe(dict.fromkeys(topics), keys, args)
        answer = await self._scripts.promote(keys=keys, args=args)
        moved, due, dropped, self.redis_ms, self.malformed, *queued = answer
        self.queued = dict(zip(fairness.topics, queued, strict=True))
        return int(moved) + int(dropped) + self.malformed, int(due)

    async def leave_group(self, streams: Sequence[str], consumer: str | None = None) -> int:
        """Remove this consumer, or the named one, from the streams where it owns nothing.

        Returns how many entries it still owns.
        """
        return int(await self._scripts.leave_group(keys=streams, args=(self._group, consumer or self.consumer)))


def renewal(group: str, consumer: str, leases: Sequence[Lease]) -> ScriptCall:
    """Return the KEYS and ARGV of `renew`, for a caller with a client of its own."""
    call = ScriptCall(args=[group, consumer])
    call.add_leases(leases)
    call.add_runs(leases)
    return call


_STATUSES = {status.value.encode(): status for status in LeaseStatus}


def _statuses(answers: Sequence[bytes]) -> list[LeaseStatus]:
    return [_STATUSES[answer] for answer in answers]
