"""The hand-off protocol of one consumer in one lane, as typed calls of the scripts.

Everything here is one atomic step in Redis. Errors of the server are left to the caller, which knows whether to wait.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple

import redis.asyncio

from octollm.contracts.ids import utc_now
from octollm.protocol.fairness import Fairness
from octollm.protocol.operations import Call, Fields, Lease, Operation, Text
from octollm.protocol.scripts import Scripts
from octollm.topology import LaneKeys, Topic

BATCH = 100
"""Entries in one call of `complete`: long enough to share the round trip, short enough not to hold Redis up."""


class LeaseStatus(StrEnum):
    """What became of a held entry."""

    DONE = "done"
    VALID = "valid"
    CANCELLED = "cancelled"
    """Its task was cancelled: `complete` has removed it and sent nothing, `renew` keeps it no longer."""
    RELEASED = "released"
    STALE = "stale"
    """Another consumer holds it, or this one got it again: the lease was lost and nothing was written."""
    GONE = "gone"
    """Not pending any more, for instance because the first reply to the same call got lost."""


class Entry(NamedTuple):
    """An entry as it was read: its fields untouched, so that one bad entry is judged alone."""

    stream: str
    id: str
    delivery: int
    fields: dict[bytes, bytes]


class Completion(NamedTuple):
    """A held entry and what is to be written when it is finished."""

    held: Lease
    operations: tuple[Operation, ...]
    only_cancelled: bool = False
    """Leave the entry as it is unless its task is cancelled."""


class Handoff:
    """One consumer of one group in one lane."""

    def __init__(
        self, client: redis.asyncio.Redis, lane: str, group: str, consumer: str, fairness: Fairness | None = None
    ) -> None:
        """`fairness`: of this lane; without it what is added goes to its stream at once, past window and cap."""
        self.keys = LaneKeys(lane)
        self.waiting: dict[str, int] = {}
        """How many messages wait for each stream, as `promote` saw it last."""
        self.fairness = fairness
        self._group = group
        self.consumer = consumer
        self._scripts = Scripts.of(client)

    async def complete(self, finishes: Sequence[Completion]) -> list[LeaseStatus]:
        """Completion entries, each all or nothing: done, cancelled, stale or gone for each, in order."""
        answers: list[LeaseStatus] = []
        for first in range(0, len(finishes), BATCH):
            batch = finishes[first : first + BATCH]
            call = Call(fairness=self.fairness)
            call.key(self.keys.in_flight)  # the script's first key
            call.args += (self.consumer, len(batch))
            for finish in batch:
                call.entry(finish.held, self._group, finish.operations, only_cancelled=finish.only_cancelled)
            call.close()
            answers += _standings(await self._scripts.complete(keys=call.keys, args=call.args))
        return answers

    async def publish(self, operations: Sequence[Operation]) -> None:
        """Write what follows from no entry, for instance from a deadline."""
        call = Call(fairness=self.fairness)
        call.key(self.keys.in_flight)
        call.args += (self.consumer, 1)
        call.detached(operations)
        call.close()
        await self._scripts.complete(keys=call.keys, args=call.args)

    async def in_flight(self, in_flight: str, target: str, *, claim: bool = False) -> bool:
        """Whether the step's latest message is still somewhere. `target`: the stream of its arm.

        `claim`: where it is not, nobody who repeats what he may have sent before sends it, until `republish` does.
        """
        return await self._look(in_flight, target, "claim" if claim else "check", {}) == b"exists"

    async def republish(self, in_flight: str, target: str, fields: Fields) -> bool:
        """Send a step's message to `target`, only if its latest one is nowhere; whether it was sent."""
        return await self._look(in_flight, target, "publish", fields) == b"published"

    async def _look(self, in_flight: str, target: str, mode: str, fields: Fields) -> bytes:
        fairness = self._limits()
        keys = [self.keys.in_flight, self.keys.schedule, target, fairness.cancelled]
        args: list[Text | int] = [in_flight, mode, len(fields), *(part for field in fields.items() for part in field)]
        fairness.describe([fairness.every[target]], keys, args)
        keys += fairness.others
        answer: bytes = await self._scripts.republish(keys=keys, args=args)
        return answer

    async def prune(self, cursor: int, most: int) -> tuple[int, int]:
        """Take names from the in-flight index whose message is nowhere any more; looks at about `most` from `cursor`
        on.

        Answers the cursor to go on from (0: from the beginning again) and how many were pruned.
        """
        fairness = self._limits()
        waiting = (self.keys.waiting(stream) for stream in fairness.every)
        places = (self.keys.schedule, *fairness.others, *fairness.every, *waiting)
        following, pruned = await self._scripts.prune(keys=[self.keys.in_flight, *places], args=[cursor, most])
        return int(following), int(pruned)

    def _limits(self) -> Fairness:
        if self.fairness is None:
            raise ValueError("this call needs to know all topics: make the hand-off with `fairness`")
        return self.fairness

    async def renew(self, held: Sequence[Lease]) -> list[LeaseStatus]:
        """Keep the leases: held, cancelled, stale or gone for each, in order."""
        call = renewal(self._group, self.consumer, held)
        return _standings(await self._scripts.renew(keys=call.keys, args=call.args))

    async def release(self, held: Sequence[Lease]) -> list[LeaseStatus]:
        """Give back what was not started: released, stale or gone for each, in order."""
        call = Call(args=[self._group, self.consumer])
        call.leases(held)
        return _standings(await self._scripts.release(keys=call.keys, args=call.args))

    async def cancel(self, task: str, tenant: str, ttl_s: int, message: Fields) -> tuple[str, str]:
        """Mark a task as cancelled and put `message` (`task.cancel.v1`) on `steps.done`.

        Answers `marked`, `ended` or `foreign`, and the task's state where Redis holds its status.
        """
        keys = (self.keys.cancel(task), self.keys.done, self.keys.status(task), self.keys.cancelled)
        flat = [part for field in message.items() for part in field]
        answer, state = await self._scripts.cancel(keys=keys, args=(tenant, ttl_s, len(message), *flat))
        return answer.decode(), state.decode()

    async def redrive(self, task: str, tenant: str, run: int, message: Fields) -> tuple[str, str]:
        """Put `message` (`task.redrive.v1`) on `steps.done`, and take back an old wish to cancel the task.

        Answers `asked`, `left` or `foreign`, and the task's state where Redis holds its status.
        """
        keys = (self.keys.cancel(task), self.keys.done, self.keys.status(task), self.keys.cancelled)
        flat = [part for field in message.items() for part in field]
        answer, state, _ = await self._scripts.redrive(keys=keys, args=(tenant, run, len(message), *flat))
        return answer.decode(), state.decode()

    async def claim(self, stream: str, topic: Topic, most: int) -> tuple[list[Entry], list[str]]:
        """Take over up to `most` entries that nobody works on; also the ids of those given up on at the cap."""
        keys = [stream, self.keys.dead, self.keys.done, self.keys.in_flight]
        args: list[Text | int] = [self._group, self.consumer]
        args += (topic.lease_s * 1000, topic.max_deliveries, most, utc_now())
        if self.fairness is not None and stream in self.fairness.limited:
            self.fairness.describe([self.fairness.limited[stream]], keys, args)
        claimed, dead = await self._scripts.claim(keys=keys, args=args)
        entries = [
            Entry(stream, id_.decode(), delivery, dict(zip(fields[::2], fields[1::2], strict=True)))
            for id_, delivery, fields in claimed
        ]
        return entries, [id_.decode() for id_ in dead]

    async def promote(self, most: int = 100) -> tuple[int, int]:
        """Move due messages on, let in what waits and drop the steps of cancelled tasks: how many, and when the next
        one is due (ms since 1970, 0: none).
        """
        fairness = self._limits()
        keys = [self.keys.in_flight, self.keys.schedule, self.keys.messages, fairness.cancelled, *fairness.others]
        args: list[Text | int] = [most, len(fairness.others)]
        topics = list(fairness.every.values())
        fairness.describe(dict.fromkeys(topics), keys, args)
        moved, due, dropped, *waiting = await self._scripts.promote(keys=keys, args=args)
        self.waiting = dict(zip(fairness.every, waiting, strict=True))
        return int(moved) + int(dropped), int(float(due))

    async def leave_group(self, streams: Sequence[str], consumer: str | None = None) -> int:
        """Delete this consumer, or another, where it owns nothing; how many entries it still owns."""
        return int(await self._scripts.leave_group(keys=streams, args=(self._group, consumer or self.consumer)))


def renewal(group: str, consumer: str, held: Sequence[Lease]) -> Call:
    """KEYS and ARGV of `renew`."""
    call = Call(args=[group, consumer])
    call.leases(held)
    call.markers(held)
    return call


_STANDINGS = {standing.value.encode(): standing for standing in LeaseStatus}


def _standings(answers: Sequence[bytes]) -> list[LeaseStatus]:
    return [_STANDINGS[answer] for answer in answers]
