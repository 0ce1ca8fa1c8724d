"""The part of the hand-off protocol that the orchestrator's maintenance needs.

`octollm.consumer.worker.Worker` provides it.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from octollm.protocol.operations import Fields, Operation
from octollm.topology import Topic, Topology


class Publisher(Protocol):
    """Writes to Redis outside of a delivery.

    Every method raises StoreUnavailableError while Redis is unavailable, and StoreRefusedError if Redis refuses what it
    was asked.
    """

    async def reach(self) -> None:
        """Check that Redis can be reached."""

    async def publish(self, lane: str, *groups: Sequence[Operation]) -> None:
        """Apply groups of operations in one call, at most a hundred.

        If one group is refused, none is applied.
        """

    async def submit(self, tenant: str, body: bytes, key: str) -> None:
        """Put a submission on its tenant's ingest stream under an idempotency key."""

    async def publish_kinds(self, schemas: Mapping[str, bytes], *, replace: bool) -> bool:
        """Publish the JSON Schema of each kind's input, as JSON; return whether that changed anything.

        `replace`: also if other schemas are published.
        """

    async def in_flight(self, lane: str, in_flight: str, target: str, *, claim: bool) -> bool:
        """Whether the latest message of a step exists.

        `claim`: if not, only `republish` can send it from now on.
        """

    async def republish(self, lane: str, in_flight: str, target: str, fields: Fields) -> bool:
        """Send a step's message if it does not exist, checked and sent in one step.

        Return whether it was sent.
        """

    async def executing(self, lane: str, in_flight: Sequence[str]) -> int:
        """Return how many of these steps, given by their in-flight fields, a worker works on right now."""

    async def prune(self, lane: str, cursor: int, most: int) -> tuple[int, int]:
        """Remove dead fields from the in-flight index.

        Return the next cursor and the number of removed fields.
        """

    async def memory_share(self) -> float:
        """Return the share of Redis' memory limit that is used, 0.0 if there is no limit."""

    async def evict(self, lane: str, tasks: Sequence[str]) -> int:
        """Delete the statuses of finished tasks; return how many were deleted."""

    async def trim_events(self) -> None:
        """Shorten the event streams, which only bridge a client's reconnection; the API has all events."""

    async def oldest_ms(self, topic: Topic) -> int | None:
        """Return the arrival of a topic's oldest message in ms since 1970, or None if the topic is empty."""


def two_leases_s(topology: Topology) -> float:
    """Return twice the longest lease: after that time, any worker that had a message has lost it."""
    return 2.0 * max(topic.lease_s for topic in topology.topics.values())
