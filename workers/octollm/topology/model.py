"""The topology's frozen types, and the pure questions one may ask them.

Numbers carry their unit in their name.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

ARM = "arm."
"""What the name of an arm's topic starts with."""
_SUSPECT_FROM = 3
"""One lost worker says nothing about an entry: deploys and machines lose workers, too."""


@dataclass(frozen=True, slots=True)
class Retry:
    """When a failing step is given up on, and how long it waits before the next attempt."""

    max_failures: int
    base_ms: int
    cap_ms: int


@dataclass(frozen=True, slots=True)
class Ingest:
    """The streams outside the lanes on which producers put submissions, one for each tenant."""

    description: str
    accepts: tuple[str, ...]
    group: str
    handler: str
    tenants: tuple[str, ...]
    concurrency: int
    lease_s: int
    heartbeat_s: int
    max_deliveries: int


@dataclass(frozen=True, slots=True)
class Topic:
    """A work queue: one group, one handler, one stream or one for each priority."""

    name: str
    description: str
    accepts: tuple[str, ...]
    group: str
    handler: str
    priorities: bool
    concurrency: int
    lease_s: int
    heartbeat_s: int
    max_deliveries: int
    high_water: int
    """Entries per stream, with what waits for it, above which admission answers 503; 0: no mark."""
    window: int | None
    """Entries per stream that nobody has read yet; beyond it work waits, a queue per tenant. None: nothing waits."""
    max_running_per_tenant: int | None
    """Over all lanes. Arms only; None: no cap."""
    timeout_s: int | None
    """Longest a handler may run on one step; arms only."""
    retry: Retry | None
    """Arms only."""

    @property
    def suspect_from(self) -> int:
        """The delivery from which an entry may be what killed its earlier workers, so that it is isolated."""
        return min(_SUSPECT_FROM, self.max_deliveries)


@dataclass(frozen=True, slots=True)
class EventStream:
    """A capped stream that is read without a group."""

    name: str
    description: str
    accepts: tuple[str, ...]
    max_length: int


@dataclass(frozen=True, slots=True)
class Topology:
    """All of `streams.yaml`."""

    version: int
    lanes: tuple[str, ...]
    priorities: tuple[str, ...]
    """In the order of reading."""
    ingest: Ingest
    topics: Mapping[str, Topic]
    live: Mapping[str, EventStream]

    @property
    def arms(self) -> Mapping[str, Topic]:
        """Topic by arm name."""
        return {name.removeprefix(ARM): topic for name, topic in self.topics.items() if name.startswith(ARM)}

    def arm(self, name: str) -> Topic | None:
        """The topic of an arm, if there is such an arm."""
        return self.topics.get(ARM + name)

    def cap_in(self, topic: Topic, lane: str) -> int:
        """The lane's share of a topic's cap on what runs of one tenant; 0: there is no cap.

        The shares add up to it.
        """
        if topic.max_running_per_tenant is None:
            return 0
        share, rest = divmod(topic.max_running_per_tenant, len(self.lanes))
        return share + (self.lanes.index(lane) < rest)

    def lane_for(self, tenant: str, key: str) -> str:
        """The lane of a tenant's idempotency key (of the task's ULID where there is none)."""
        digest = hashlib.sha256(f"{tenant}\n{key}".encode()).digest()
        return self.lanes[int.from_bytes(digest[:8]) % len(self.lanes)]
