"""Reads new entries with FastStream, which registers the subscriber and runs its loop.

FastStream's stock reader reads one stream with a fixed COUNT, ends for good on NOGROUP and sleeps 5 s after any error.
So a subclass overrides its private read methods in the pinned version; `tests/contract/test_reader.py` guards that, and
docs/decisions/011-faststream.md says what it costs. An unavailable Redis is waited out here; a refusal or any other
error is reported to the supervisor, since FastStream would log or drop it and go on.
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

from octollm.consumer.intake import Intake
from octollm.protocol.backoff import REDIS_FAILURES, Backoff, error_code, raise_if_refused, until_answered
from octollm.protocol.handoff import BATCH, Entry
from octollm.protocol.outcomes import REDIS_ERRORS
from octollm.supervision import Supervisor

_SINGLE_STREAM_S = 0.05
"""How long only one stream is read, where the others had nothing; then all are read again."""
BLOCK_MS = 2000
"""How long an idle read waits in Redis: 0.06 % of a core for eight readers, 0.45 % each at 100 ms."""
_log = structlog.get_logger(__name__)


class _Subscriber(StreamBatchSubscriber):
    """Reads all priority streams of a topic in one command, no more entries than there is capacity for."""

    def bind(self, supervisor: Supervisor, intake: Intake, topic: str, streams: Sequence[str]) -> None:
        self._supervisor = supervisor
        self._intake = intake
        self._topic = topic
        sub = self.stream_sub  # copied deeply each time it is asked for
        self._group, self._consumer = str(sub.group), str(sub.consumer)
        self._streams = tuple(streams)
        self._backoff = Backoff()
        self._reads = 0
        self._contended = False
        """Whether more than one priority filled its share at the last read."""
        self._single = ""
        """The only stream that had entries at the last read, and filled its share; empty: none."""
        self._single_until = 0.0

    def add_task(
        self,
        func: Callable[..., Coroutine[Any, Any, Any]],
        func_args: tuple[Any, ...] | None = None,
        func_kwargs: dict[str, Any] | None = None,
        *,
        restart_on_failure: bool = True,
    ) -> None:
        """Let the supervisor own FastStream's loop: FastStream would restart it, whatever had ended it."""
        del restart_on_failure
        loop = func(*(func_args or ()), **(func_kwargs or {}))
        self.tasks.append(self._supervisor.spawn_loop(f"read {self._topic}", loop))

    async def start(self) -> None:
        """Begin to read once Redis accepts the consumer group that FastStream creates, too."""
        await until_answered(super().start, f"create the consumer groups of {self._topic}")

    async def stop(self) -> None:
        """End the loop and wait for that: FastStream would leave its connection to the garbage collector."""
        self.running = False
        await self._supervisor.end(list(self.tasks))
        await super().stop()

    async def _get_msgs(self, *args: Any) -> None:  # noqa: ANN401  as the base class has it
        """Report an error of the read: FastStream would log it and try again in 5 s, for ever."""
        try:
            await super()._get_msgs(*args)
        except Exception as error:
            self._supervisor.report(f"read {self._topic}", error)
            raise

    async def _xreadgroup(self, *, count: int | None, block: int | None, noack: bool = False) -> ReadResponse:
        del count, block, noack  # FastStream's fixed ones
        capacity = await self._intake.capacity()
        try:
            response = await self._read(capacity)
        except (*REDIS_FAILURES, RuntimeError) as error:  # FastStream's own connection, see `connection.py`
            raise_if_refused(error, f"read {self._topic}")
            REDIS_ERRORS.labels(self._topic, "read").inc()
            _log.warning("cannot read, trying again", topic=self._topic, error=str(error))
            await self._backoff.wait()
            if isinstance(error, ResponseError) and error_code(error) == "NOGROUP":
                await self._create_groups()
            return ()
        self._backoff.reset()
        return response

    async def _read(self, capacity: int) -> ReadResponse:
        if self._single and monotonic() < self._single_until:
            # Reserving a share for empty streams would make small batches, which cost more for each entry.
            found = await self._command((self._single,), min(capacity, BATCH), None)
            if found:
                return found
        self._single = ""
        share, short = divmod(capacity, len(self._streams))
        if share and not self._contended:
            found = await self._command(self._streams, share, BLOCK_MS)
            self._contended = sum(len(entries) == share for _, entries in found) > 1
            if len(found) == 1 < len(self._streams) and len(found[0][1]) == share:
                self._single, self._single_until = found[0][0].decode(), monotonic() + _SINGLE_STREAM_S
            return found
        # Less capacity than streams, or more work than capacity: one stream at a time in the order of reading, so that
        # no entry waits here while another worker is free, and high comes before low.
        self._reads += 1
        first = first_stream(self._reads, len(self._streams))
        for stream in (*self._streams[first:], *self._streams[:first]):
            found = await self._command((stream,), capacity if share else short, None)
            if found:
                self._contended = self._contended and sum(len(entries) for _, entries in found) == capacity
                return found
        self._contended = False
        # All are empty. At most one entry per stream comes with this; what does not fit is given back at once.
        return await self._command(self._streams, 1, BLOCK_MS)

    async def _command(self, streams: Sequence[str], count: int, block: int | None) -> ReadResponse:
        response: ReadResponse = await self._client.xreadgroup(  # type: ignore[assignment]  # all shapes of all protocols
            self._group, self._consumer, dict.fromkeys(streams, ">"), count=count, block=block
        )
        return response

    async def _create_groups(self) -> None:
        try:
            await create_groups(self._client, self._streams, self._group)
        except REDIS_FAILURES as error:
            raise_if_refused(error, f"create the consumer groups of {self._topic}")
            _log.warning("cannot create consumer groups, trying again", topic=self._topic, error=str(error))


def first_stream(read: int, streams: int) -> int:
    """Index of the stream that the `read`-th read begins with, so that no priority starves.

    Of eight reads one begins with the last stream, one with the last but one, six with the first.
    """
    return max(streams - {3: 2, 7: 1}.get(read % 8, streams), 0)


async def create_groups(client: Any, streams: Sequence[str], group: str) -> None:  # noqa: ANN401  FastStream's client type is private
    """Create a group on each stream that has none, reading from the first entry.

    Streams that do not exist yet are created.

    FastStream's own group would start at the end, and skip what was there before. Raises RedisError.
    """
    for stream in streams:
        try:
            await client.xgroup_create(stream, group, id="0", mkstream=True)
        except ResponseError as error:
            if error_code(error) != "BUSYGROUP":
                raise


def subscribe(
    broker: RedisBroker,
    supervisor: Supervisor,
    intake: Intake,
    topic: str,
    streams: Sequence[str],
    group: str,
    consumer: str,
    look_up: Callable[[list[Entry]], Awaitable[None]] | None = None,
) -> None:
    """Register a reader, which `broker.start` starts.

    It asks `intake` how much to read, and hands it the entries, after `look_up` where that is given.
    """
    subscriber = broker.subscriber(
        stream=StreamSub(streams[0], group=group, consumer=consumer, batch=True, max_records=1, last_id=">"),
        ack_policy=AckPolicy.MANUAL,
        parser=_parse,
        decoder=_decode,
        title=f"{topic}@{streams[0]}",
    )
    subscriber.__class__ = _Subscriber
    assert isinstance(subscriber, _Subscriber)  # noqa: S101  for mypy; the line above made it so
    subscriber.bind(supervisor, intake, topic, streams)

    @subscriber
    async def handle(entries: list[Entry]) -> None:
        try:
            if look_up is not None:
                await look_up(entries)
            intake.admit(entries)
        except Exception as error:
            supervisor.report(f"read {topic}", error)  # FastStream would drop it silently
            raise


async def _parse(message: BatchStreamMessage) -> StreamMessage[BatchStreamMessage]:
    """Keep the raw entries as they are: each is parsed alone, later."""
    return RedisBatchStreamMessage(raw_message=message, body=b"", consumer=FAKE_CONSUMER, group=None)


async def _decode(message: StreamMessage[BatchStreamMessage]) -> list[Entry]:
    raw = message.raw_message
    return [
        Entry(raw["channel"], entry.decode(), 1, fields)
        for entry, fields in zip(raw["message_ids"], raw["data"], strict=True)
    ]
