"""Names of every Redis key.

Nothing else in Python puts a key together; Rust's twin is `schemas/rust/src/keys.rs`.
"""

import hashlib
from dataclasses import dataclass
from functools import cached_property

from octollm.topology.model import Topic

PRIORITIES = ("high", "normal", "low")
API_KEYS = "{api-keys}"
"""Hash: the valid API keys, id to a JSON record. It is outside the lanes, like the three that follow."""
API_KEYS_VERSION = "{api-keys}:version"
"""String that changes with the keys; absent until they are published."""
API_KEYS_NUMBER = "{api-keys}:number"
"""String: number of the state of the table that is published."""
API_KEYS_USED = "{api-keys}:used"
"""Hash: id of an API key to when it was last used, in ms."""
KINDS = "{kinds}"
"""Hash: JSON Schema of the input by kind, see `octollm.protocol.kinds`; it is outside the lanes."""
KINDS_VERSION = "{kinds}:version"
"""String: digest of that hash."""


@dataclass(frozen=True)
class LaneKeys:
    """The keys of one lane; all share its hash tag, so that one script may touch any of them."""

    lane: str

    def _key(self, rest: str) -> str:
        return f"{{{self.lane}}}:{rest}"

    def stream(self, topic: Topic, priority: str | None = None) -> str:
        """Stream of a topic; the priority counts only where the topic has priorities."""
        return self._key(f"{topic.name}:{priority or 'normal'}" if topic.priorities else topic.name)

    def streams(self, topic: Topic) -> tuple[str, ...]:
        """All streams of a topic, in the order of reading."""
        if not topic.priorities:
            return (self.stream(topic),)
        return tuple(self.stream(topic, priority) for priority in PRIORITIES)

    def waiting(self, stream: str) -> str:
        """Hash: what waits for a stream, and the numbers of each tenant's queue."""
        return f"{stream}:waiting"

    def ring(self, stream: str) -> str:
        """Sorted set: whose turn it is to put something on a stream."""
        return f"{stream}:ring"

    def running(self, topic: Topic) -> str:
        """Sorted set: which entries each tenant has on the streams of a topic with a cap."""
        return self._key(f"{topic.name}:running")

    @cached_property
    def in_flight(self) -> str:
        """Hash: in-flight field of a step to the key and entry of its latest message."""
        return self._key("in-flight")

    @cached_property
    def schedule(self) -> str:
        """Sorted set: message id by due time in ms."""
        return self._key("schedule")

    @cached_property
    def messages(self) -> str:
        """Hash: message id to the scheduled message."""
        return self._key("schedule:messages")

    @cached_property
    def dead(self) -> str:
        """Stream of dead letters."""
        return self._key("dead")

    @cached_property
    def done(self) -> str:
        """Stream of how steps ended."""
        return self._key("steps.done")

    @cached_property
    def events(self) -> str:
        """Capped stream of live events."""
        return self._key("events")

    @cached_property
    def barrier(self) -> str:
        """String that is only ever written: a replica that has it has all that was written before."""
        return self._key("barrier")

    @cached_property
    def control(self) -> str:
        """Publish-subscribe channel: what every worker must know at once."""
        return self._key("control")

    @cached_property
    def ended_runs(self) -> str:
        """Sorted set of runs that ended with steps in flight, by when they are deleted (s).

        A member is `<task>.<run> <tenant>`.
        """
        return self._key("ended-runs")

    def status(self, task: str) -> str:
        """Hash with a task's status."""
        return self._key(f"status:{task}")

    def idempotency(self, tenant: str, key: str) -> str:
        """String of an idempotency key, hashed: it is a producer's text and may be long or private."""
        return self._key(f"idempotency:{tenant}:{hashlib.sha256(key.encode()).hexdigest()}")


def ingest_stream(tenant: str) -> str:
    """Ingest stream of a tenant; it is outside the lanes."""
    return f"ingest:{tenant}"
