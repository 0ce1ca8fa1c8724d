"""The fuse of one consumer: stops it when its handler breaks on whatever it gets, as it does after a bad deploy.

Knows no Redis. It counts only what is certainly the handler's own fault: it raised what nobody foresaw, or gave what is
no output. What an arm says about a message, a store that is away and messages that cannot be read never count.
docs/decisions/008-the-fuse.md says why it takes several tasks, and several tenants where there are several.
"""

import asyncio
import time
from dataclasses import dataclass
from enum import StrEnum

import structlog
from prometheus_client import Counter, Gauge

CIRCUIT_OPEN = Gauge(
    "octollm_circuit_open", "Consumers that are stopped by their fuse, or try a first message after that.", ("topic",)
)
CIRCUIT_OPENED = Counter("octollm_circuit_opened_total", "How often a consumer was stopped by its fuse.", ("topic",))
_log = structlog.get_logger(__name__)


class State(StrEnum):
    """What the consumer may do."""

    CLOSED = "closed"
    """Work as ever."""
    CIRCUIT_OPEN = "fused"
    """Begin nothing; what breaks now is given back."""
    TRYING = "trying"
    """One message, after which it is closed or fused again."""


@dataclass(frozen=True, slots=True)
class CircuitBreakerRule:
    """When it blows, and for how long."""

    tasks: int
    """On so many different tasks in a row, without anything that went well in between; 0: never."""
    tenants: int
    """Of so many different tenants; two at least from the moment that two have been met."""
    cooldown_s: float


NEVER = CircuitBreakerRule(tasks=0, tenants=1, cooldown_s=0)


class CircuitBreaker:
    """Of one consumer of one topic in one lane. One event loop; `out` may be read from any thread.

    A tenant is whatever tells it from others.
    """

    def __init__(self, rule: CircuitBreakerRule, topic: str) -> None:
        self._rule = rule
        self._topic = topic
        self._state = State.CLOSED
        self._broken: dict[str, bytes] = {}
        """Tasks on which the handler broke since anything went well, and whose they are."""
        self._met: set[bytes] = set()
        """Tenants; two are enough to know."""
        self._until = 0.0
        """On the monotonic clock: when it may try."""
        self._tried = False
        """Whether the one message of `TRYING` is on its way."""
        self._changed = asyncio.Event()

    @property
    def out(self) -> bool:
        """Whether the consumer is stopped, or trying its first message after that."""
        return self._state is not State.CLOSED

    async def room(self, free: int) -> int:
        """Waits until something may be begun; then how much of `free`."""
        while self.out:
            left_s = self._until - time.monotonic()
            if self._state is State.CIRCUIT_OPEN and left_s <= 0:
                self._set(State.TRYING)
                _log.info("the fuse lets one message through", topic=self._topic)
            if self._state is State.TRYING and not self._tried:
                return 1
            changed = self._changed
            try:
                async with asyncio.timeout(left_s if self._state is State.CIRCUIT_OPEN else None):
                    await changed.wait()
            except TimeoutError:
                continue
        return free

    def begin(self) -> bool:
        """Whether a message may be begun now; the caller gives back what may not."""
        if self._state is State.CLOSED:
            return True
        if self._state is State.CIRCUIT_OPEN or self._tried:
            return False
        self._tried = True
        return True

    def well(self, tenant: bytes) -> None:
        """The handler did what it is there for. What was begun before it blew is proof of that, too."""
        self._meet(tenant)
        self._broken.clear()
        if self.out:
            self._set(State.CLOSED)
            _log.info("the fuse is in again: a message went well", topic=self._topic)

    def undecided(self) -> None:
        """The message said nothing about the handler: another may be tried."""
        if self._state is State.TRYING:
            self._set(State.TRYING)

    def broke(self, task: str, tenant: bytes) -> bool:
        """The handler broke. True: give the message back, as if it had not been begun.

        The one message of a try is not given back: it would be the next one tried, and could hold up all others.
        """
        self._meet(tenant)
        if self._state is State.CIRCUIT_OPEN:
            return True
        trying = self._state is State.TRYING
        if not trying:
            self._broken[task] = tenant  # the same task again is its own retry
            if not self._blows():
                return False
            CIRCUIT_OPENED.labels(self._topic).inc()
            _log.error(
                "the fuse is out: the handler breaks on everything, and nothing more is read here; see the errors "
                "above, mend or roll back, and restart",
                topic=self._topic,
                tasks=len(self._broken),
                tries_one_in_s=self._rule.cooldown_s,
            )
        self._until = time.monotonic() + self._rule.cooldown_s
        self._set(State.CIRCUIT_OPEN)
        return not trying

    def retire(self) -> None:
        """Its consumer ends."""
        if self.out:
            self._set(State.CLOSED)

    def _blows(self) -> bool:
        rule, tenants = self._rule, len(set(self._broken.values()))
        if rule.tasks and len(self._broken) >= rule.tasks and tenants >= max(rule.tenants, len(self._met)):
            return True
        # One tenant's tasks may break for ever where it takes two: its newest are enough to remember.
        while len(self._broken) > max(rule.tasks, 1):
            del self._broken[next(iter(self._broken))]
        return False

    def _meet(self, tenant: bytes) -> None:
        if len(self._met) < 2:
            self._met.add(tenant)

    def _set(self, state: State) -> None:
        CIRCUIT_OPEN.labels(self._topic).inc((state is not State.CLOSED) - self.out)
        self._state, self._tried = state, False
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
