"""The circuit breaker of one consumer.

It stops the consumer when its handler fails on whatever it gets, as after a bad deploy.

Knows no Redis. It counts only what may be the process's own fault: a missing library, a full disk, wrong code. An
exception that a message's content causes (`faults.py`), what an arm says about a message, an unavailable store and
unreadable messages never count. docs/decisions/008-circuit-breaker.md says why it takes several tasks, several tenants
where there are several, and several steps.
"""

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import structlog
from prometheus_client import Counter, Gauge

CIRCUIT_OPEN = Gauge(
    "octollm_circuit_open", "Consumers whose circuit breaker is open, or half-open with one trial message.", ("topic",)
)
CIRCUIT_OPENED = Counter("octollm_circuit_opened_total", "How often a consumer's circuit breaker opened.", ("topic",))
_log = structlog.get_logger(__name__)


class BreakerState(StrEnum):
    """What the consumer may do."""

    CLOSED = "closed"
    """Begin whatever there is."""
    OPEN = "open"
    """Begin nothing; a message whose handler fails now is given back."""
    HALF_OPEN = "half_open"
    """Begin one trial message at a time: a success closes the breaker, several failures in a row open it again."""


@dataclass(frozen=True, slots=True)
class CircuitBreakerRule:
    """When the breaker opens, and for how long."""

    tasks: int
    """Opens after failures on this many different tasks with no success in between; 0: never."""
    tenants: int
    """Minimum number of distinct tenants with failures; at least 2 once a second tenant has been seen."""
    cooldown_s: float
    """Longest time that it stays open before the next trials. The first is an eighth of it, then each is doubled."""


_FIRST_COOLDOWN = 1 / 8
_TRIALS = 3
"""Failures of trial messages that open it again: one of them may be as bad as those that opened it."""
NEVER_OPENS = CircuitBreakerRule(tasks=0, tenants=1, cooldown_s=0)


class Source(NamedTuple):
    """What a message is about, as far as the breaker distinguishes messages."""

    task: bytes
    tenant: bytes
    step: bytes
    """Name of the step in its plan; of a message that is about no step, its type."""


class CircuitBreaker:
    """The breaker of one consumer of one topic in one lane.

    One event loop; any thread may read `tripped`.
    """

    def __init__(self, rule: CircuitBreakerRule, topic: str) -> None:
        self._rule = rule
        self._topic = topic
        self._state = BreakerState.CLOSED
        self._failed: dict[bytes, Source] = {}
        """Tasks on which the handler has failed since its last success."""
        self._tenants: set[bytes] = set()
        """Tenants that were seen; two are enough to know that there are several."""
        self._steps: set[bytes] = set()
        """Steps that were seen, likewise."""
        self._cooldown_s = rule.cooldown_s * _FIRST_COOLDOWN
        """How long it stays open the next time."""
        self._failed_trials = 0
        self._open_until = 0.0
        """When the cool-down ends, on the monotonic clock."""
        self._trial_begun = False
        """Whether the trial message of HALF_OPEN has begun."""
        self._changed = asyncio.Event()

    @property
    def tripped(self) -> bool:
        """Whether the breaker is open or half-open."""
        return self._state is not BreakerState.CLOSED

    async def permits(self, free: int) -> int:
        """Wait until a message may begin; how many may: `free` while closed, 1 for the trial."""
        while self.tripped:
            left_s = self._open_until - time.monotonic()
            if self._state is BreakerState.OPEN and left_s <= 0:
                self._set(BreakerState.HALF_OPEN)
                _log.info("circuit breaker half-open: one message is tried", topic=self._topic)
            if self._state is BreakerState.HALF_OPEN and not self._trial_begun:
                return 1
            changed = self._changed
            try:
                async with asyncio.timeout(left_s if self._state is BreakerState.OPEN else None):
                    await changed.wait()
            except TimeoutError:
                continue
        return free

    def try_acquire(self) -> bool:
        """Whether one message may begin now, as the trial where one is due.

        The caller gives back what may not.
        """
        if self._state is BreakerState.CLOSED:
            return True
        if self._state is BreakerState.OPEN or self._trial_begun:
            return False
        self._trial_begun = True
        return True

    def record_success(self, source: Source) -> None:
        """The handler worked; the breaker closes. Also a message that had begun before it opened proves that."""
        self._see(source)
        if self._failed:
            self._failed.clear()
        if self.tripped:
            self._cooldown_s = self._rule.cooldown_s * _FIRST_COOLDOWN
            self._set(BreakerState.CLOSED)
            _log.info("circuit breaker closed: the handler works again", topic=self._topic)

    def record_inconclusive(self) -> None:
        """The message said nothing about the handler; another one may be the trial."""
        if self._state is BreakerState.HALF_OPEN:
            self._set(BreakerState.HALF_OPEN)

    def record_failure(self, source: Source) -> bool:
        """The handler failed by its own fault; whether to give the message back as if it had not begun.

        A failed trial message is not given back: it would be the next trial, and could hold up all others.
        """
        self._see(source)
        if self._state is BreakerState.OPEN:
            return True
        if self._state is BreakerState.HALF_OPEN:
            self._failed_trials += 1
            if self._failed_trials < _TRIALS:
                self._set(BreakerState.HALF_OPEN)
            else:
                self._open()
            return False
        self._failed[source.task] = source  # the same task again is its own retry
        if not self._must_open():
            return False
        CIRCUIT_OPENED.labels(self._topic).inc()
        _log.error(
            "circuit breaker open: the handler failed on several tasks in a row and nothing more is read here; "
            "see the errors above, fix the handler or roll back, and restart",
            topic=self._topic,
            tasks=len(self._failed),
            trial_in_s=self._cooldown_s,
        )
        self._open()
        return True

    def reset(self) -> None:
        """Close it, for the end of the consumer: a stopped consumer is no open breaker in the metrics."""
        if self.tripped:
            self._set(BreakerState.CLOSED)

    def _open(self) -> None:
        self._open_until = time.monotonic() + self._cooldown_s
        self._cooldown_s = min(2 * self._cooldown_s, self._rule.cooldown_s)
        self._failed_trials = 0
        self._set(BreakerState.OPEN)

    def _must_open(self) -> bool:
        rule, failed = self._rule, self._failed.values()
        tenants = len({one.tenant for one in failed}) >= max(rule.tenants, len(self._tenants))
        steps = len({one.step for one in failed}) >= len(self._steps)
        if rule.tasks and len(failed) >= rule.tasks and tenants and steps:
            return True
        self._drop_old_failures()
        return False

    def _drop_old_failures(self) -> None:
        """Keep the newest failures only.

        One tenant's or one step's tasks may fail for ever where it takes two.
        """
        while len(self._failed) > max(self._rule.tasks, 1):
            del self._failed[next(iter(self._failed))]

    def _see(self, source: Source) -> None:
        if len(self._tenants) < 2:
            self._tenants.add(source.tenant)
        if len(self._steps) < 2:
            self._steps.add(source.step)

    def _set(self, state: BreakerState) -> None:
        CIRCUIT_OPEN.labels(self._topic).inc((state is not BreakerState.CLOSED) - self.tripped)
        self._state, self._trial_begun = state, False
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
