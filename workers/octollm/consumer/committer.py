"""Finishes entries: gathers what ends at about the same time into one call of `complete`, and waits out trouble.

Most of a call's cost is the round trip and the script's start, so a hundred entries share them.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import structlog
from redis.exceptions import ResponseError

from octollm.protocol.backoff import TRANSIENT_REDIS_ERRORS, Backoff
from octollm.protocol.handoff import BATCH, Completion, Handoff, LeaseStatus
from octollm.protocol.outcomes import REDIS_ERRORS
from octollm.supervision import Supervisor

_log = structlog.get_logger(__name__)
Tag = TypeVar("Tag")


class Committer(Generic[Tag]):
    """One consumer's stream of finishes."""

    def __init__(
        self,
        handoff: Handoff,
        topic: str,
        supervisor: Supervisor,
        answered: Callable[[Sequence[tuple[Tag, LeaseStatus | None]]], None],
    ) -> None:
        """`answered` is told what became of the entries; None: Redis refuses these very operations, and the entry
        stays pending.
        """
        self._handoff = handoff
        self._topic = topic
        self._supervisor = supervisor
        self._answered = answered
        self._waiting: list[tuple[Completion, Tag]] = []
        self._some = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to send."""
        self._loop = self._supervisor.spawn_loop(f"complete {self._topic}", self._run())

    async def stop(self) -> None:
        """End at once; what still waits is never answered. Call it when nothing runs any more."""
        if self._loop is not None:
            await self._supervisor.end([self._loop])

    def add(self, finish: Completion, tag: Tag) -> None:
        """Completion this with the next call."""
        if not self._waiting:
            self._some.set()
        self._waiting.append((finish, tag))

    async def _run(self) -> None:
        pause = Backoff()
        while True:
            await self._some.wait()
            batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
            if not self._waiting:
                self._some.clear()
            while not await self._send(batch):
                REDIS_ERRORS.labels(self._topic, "complete").inc()
                await pause.wait()
            pause.over()

    async def _send(self, batch: list[tuple[Completion, Tag]]) -> bool:
        """Whether the batch is through. A repeat after a lost reply answers `gone` and writes nothing twice."""
        try:
            answers: list[LeaseStatus] = await self._handoff.complete([finish for finish, _ in batch])
        except ResponseError as error:
            if _passing(error):
                _log.warning("Redis does not take completions right now", topic=self._topic, error=str(error))
                return False
            if len(batch) > 1:  # one of them is refused; the others must not suffer
                pause = Backoff()
                for one in batch:
                    while not await self._send([one]):
                        await pause.wait()
                return True
            _log.error("Redis refuses a completion; its entry stays pending", topic=self._topic, error=str(error))
            self._answer(batch, [None])
            return True
        except TRANSIENT_REDIS_ERRORS as error:
            _log.warning("completions wait for Redis", topic=self._topic, error=str(error))
            return False
        self._answer(batch, answers)
        return True

    def _answer(self, batch: list[tuple[Completion, Tag]], answers: Sequence[LeaseStatus | None]) -> None:
        self._answered([(tag, answer) for (_, tag), answer in zip(batch, answers, strict=True)])


_STATES = ("LOADING", "READONLY", "OOM", "MISCONF", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MASTERDOWN")


def _passing(error: ResponseError) -> bool:
    """Whether the server's refusal is about its own state, not about what was sent.

    redis-py cuts the word off the message of those errors that it has a class for, and keeps it as `status_code`.
    """
    return error.status_code in _STATES or str(error).partition(" ")[0] in _STATES
