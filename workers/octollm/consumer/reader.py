"""Reads new entries with FastStream, which registers the subscriber, runs its loop and its middleware.

Its stock reader reads one stream with a fixed COUNT, ends for good on NOGROUP and sleeps 5 s on any error. So this
overrides the one private method that reads, in the pinned version; `tests/contract/test_reader.py` guards it.
Everything that can go wrong is handled in here: FastStream's own handling is never reached.
"""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from time import monotonic
from typing import Any

import structlog
from faststream import AckPolicy
from faststream.message import StreamMessage
from faststream.redis import RedisBroker, StreamSub
from faststream.redis.message import FAKE_CONSUMER, BatchStreamMessage, RedisBatchStreamMessage
from faststream.redis.subscriber.usecases.stream_subscriber import ReadResponse, StreamBatchSubscriber
from redis.exceptions import ResponseError

from octollm.protocol.backoff import TRANSIENT_REDIS_ERRORS, Backoff
from octollm.protocol.handoff import BATCH, Entry
from octollm.protocol.outcomes import REDIS_ERRORS
from octollm.supervision import Supervisor

_ALONE_S = 0.05
"""So long only one stream is asked, where the others had nothing; then all are asked again."""
BLOCK_MS = 2000
"""How long an idle read waits in Redis: 0.06 % of a core for eight readers, 0.45 % each at 100 ms."""
_log = structlog.get_logger(__name__)


class _Subscriber(StreamBatchSubscriber):
    """Reads all priority streams of a topic in one command, no more than there is room for."""

    def bind(
        self, supervisor: Supervisor, topic: str, streams: Sequence[str], room: Callable[[], Awaitable[int]]
    ) -> None:
        self._supervisor = supervisor
        self._topic = topic
        sub = self.stream_sub  # copied deeply each time it is asked for
        self._group, self._consumer = str(sub.group), str(sub.consumer)
        self._streams = tuple(streams)
        self._room = room
        self._pause = Backoff()
        self._next = 0
        self._crowded = False
        """More than one priority had more than its share at the last look."""
        self._alone = ""
        """The only stream that had something at the last look at all, and more than its share; empty: none."""
        self._alone_until = 0.0

    def add_task(
        self,
        func: Callable[..., Coroutine[Any, Any, Any]],
        func_args: tuple[Any, ...] | None = None,
        func_kwargs: dict[str, Any] | None = None,
        *,
        restart_on_failure: bool = True,
    ) -> None:
        """FastStream would restart its loop whatever ended it; the process' supervisor owns it instead."""
        del restart_on_failure
        loop = func(*(func_args or ()), **(func_kwargs or {}))
        self.tasks.append(self._supervisor.spawn_loop(f"read {self._topic}", loop))

    async def stop(self) -> None:
        """FastStream cancels its read without waiting for it; the connection would be left to the garbage collector."""
        self.running = False
        await self._supervisor.end(list(self.tasks))
        await super().stop()

    async def _get_msgs(self, *args: Any) -> None:  # noqa: ANN401  as the base class has it
        """FastStream logs an error of the read and tries again in 5 s; ours are bugs, and end the process."""
        try:
            await super()._get_msgs(*args)
        except Exception as error:
            self._supervisor.report(f"read {self._topic}", error)
            raise

    async def _xreadgroup(self, *, count: int | None, block: int | None, noack: bool = False) -> ReadResponse:
        del count, block, noack  # FastStream's fixed ones
        room = await self._room()
        try:
            response = await self._read(room)
        except (*TRANSIENT_REDIS_ERRORS, RuntimeError) as error:  # FastStream's own connection, see `connection.py`
            REDIS_ERRORS.labels(self._topic, "read").inc()
            _log.warning("cannot read, trying again", topic=self._topic, error=str(error))
            await self._pause.wait()
            if isinstance(error, ResponseError) and "NOGROUP" in str(error):
                await self._create_groups()
            return ()
        self._pause.over()
        return response

    async def _read(self, room: int) -> ReadResponse:
        if self._alone and monotonic() < self._alone_until:
            # A share for streams that are empty would make small handfuls, which cost more for each entry.
            found = await self._command((self._alone,), min(room, BATCH), None)
            if found:
                return found
        self._alone = ""
        each, short = divmod(room, len(self._streams))
        if each and not self._crowded:
            found = await self._command(self._streams, each, BLOCK_MS)
            self._crowded = sum(len(entries) == each for _, entries in found) > 1
            if len(found) == 1 < len(self._streams) and len(found[0][1]) == each:
                self._alone, self._alone_until = found[0][0].decode(), monotonic() + _ALONE_S
            return found
        # Less room than streams, or more work than room: one stream at a time in the order of reading, so that nothing
        # is read that has to wait here while another worker is free, and high comes before low.
        self._next += 1
        first = first_asked(self._next, len(self._streams))
        for stream in (*self._streams[first:], *self._streams[:first]):
            found = await self._command((stream,), room if each else short, None)
            if found:
                self._crowded = self._crowded and sum(len(entries) for _, entries in found) == room
                return found
        self._crowded = False
        # All empty. At most one entry per stream comes with this; what does not fit is given back at once.
        return await self._command(self._streams, 1, BLOCK_MS)

    async def _command(self, streams: Sequence[str], count: int, block: int | None) -> ReadResponse:
        response: ReadResponse = await self._client.xreadgroup(  # type: ignore[assignment]  # all shapes of all protocols
            self._group, self._consumer, dict.fromkeys(streams, ">"), count=count, block=block
        )
        return response

    async def _create_groups(self) -> None:
        try:
            await create_groups(self._client, self._streams, self._group)
        except TRANSIENT_REDIS_ERRORS as error:
            _log.warning("cannot create consumer groups, trying again", topic=self._topic, error=str(error))


def first_asked(look: int, streams: int) -> int:
    """Which stream is asked first: of eight looks one begins with the last, one with the one before it, six with the
    first. So none starves.
    """
    return max(streams - {3: 2, 7: 1}.get(look % 8, streams), 0)


async def create_groups(client: Any, streams: Sequence[str], group: str) -> None:  # noqa: ANN401  FastStream's client type is private
    """Groups that start at the first entry, on streams that may not exist yet. FastStream's own would start at the
    end and skip what was there before.
    """
    for stream in streams:
        try:
            await client.xgroup_create(stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):
                raise


def subscribe(
    broker: RedisBroker,
    supervisor: Supervisor,
    topic: str,
    streams: Sequence[str],
    group: str,
    consumer: str,
    room: Callable[[], Awaitable[int]],
    take: Callable[[Sequence[Entry]], Awaitable[None]],
) -> None:
    """Register a reader. `room` waits for free slots and says how many; `take` gets what was read and must be quick."""
    subscriber = broker.subscriber(
        stream=StreamSub(streams[0], group=group, consumer=consumer, batch=True, max_records=1, last_id=">"),
        ack_policy=AckPolicy.MANUAL,
        parser=_parse,
        decoder=_decode,
        title=f"{topic}@{streams[0]}",
    )
    subscriber.__class__ = _Subscriber
    assert isinstance(subscriber, _Subscriber)  # noqa: S101  for mypy; the line above made it so
    subscriber.bind(supervisor, topic, streams, room)

    @subscriber
    async def handle(entries: list[Entry]) -> None:
        try:
            await take(entries)
        except Exception as error:
            supervisor.report(f"read {topic}", error)  # FastStream would drop it without a word
            raise


async def _parse(message: BatchStreamMessage) -> StreamMessage[BatchStreamMessage]:
    """The raw entries as they are: each is judged alone, later."""
    return RedisBatchStreamMessage(raw_message=message, body=b"", consumer=FAKE_CONSUMER, group=None)


async def _decode(message: StreamMessage[BatchStreamMessage]) -> list[Entry]:
    raw = message.raw_message
    return [
        Entry(raw["channel"], entry.decode(), 1, fields)
        for entry, fields in zip(raw["message_ids"], raw["data"], strict=True)
    ]
