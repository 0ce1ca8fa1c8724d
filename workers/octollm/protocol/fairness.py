"""Which topics have a window or a cap, described as `lua/fairness.lua` reads it. Pure.

A window bounds the entries on a stream that no worker has read yet; beyond it messages wait in Redis, in one queue per
tenant, and are dispatched in turns. A cap bounds the entries of one tenant on a topic's streams, running or not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from octollm.topology import LaneKeys, Topology


@dataclass(frozen=True, slots=True)
class StreamKeys:
    """One stream and what waits for it."""

    stream: str
    waiting: str
    """Hash: the messages in the tenants' queues, and the bounds of each queue."""
    ring: str
    """Sorted set: the tenants with a queue, by whose turn it is."""


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """A topic with priorities in one lane, and its limits there."""

    running: str
    """Sorted set: what each tenant has on the topic's streams. No other topic has this key."""
    streams: tuple[StreamKeys, ...]
    """In the order of reading."""
    window: int
    """Entries per stream that no worker has read yet; 0: no window."""
    cap: int
    """Entries of one tenant in this lane; 0: no cap."""
    group: str
    """The consumer group that reads the streams."""


class Fairness:
    """The limits of all topics in one lane. Immutable; make one per lane and keep it."""

    def __init__(self, topology: Topology, lane: str) -> None:
        keys = LaneKeys(lane)
        topics: dict[str, TopicLimits] = {}
        limited: dict[str, TopicLimits] = {}
        unprioritized: list[str] = []
        for topic in topology.topics.values():
            streams = keys.streams(topic)
            if not topic.priorities:
                unprioritized += streams
                continue
            limits = TopicLimits(
                running=keys.running(topic),
                streams=tuple(StreamKeys(one, keys.waiting(one), keys.ring(one)) for one in streams),
                window=topic.window or 0,
                cap=topology.cap_in(topic, lane),
                group=topic.group,
            )
            topics.update(dict.fromkeys(streams, limits))
            if limits.window or limits.cap:
                limited.update(dict.fromkeys(streams, limits))
        self.ended_runs = keys.ended_runs
        """Redis key of the lane's ended runs."""
        self._dead = keys.dead
        self.topics: Mapping[str, TopicLimits] = MappingProxyType(topics)
        """By stream: every topic with priorities."""
        self.limited: Mapping[str, TopicLimits] = MappingProxyType(limited)
        """By stream: every topic with a window or a cap."""
        self.unprioritized = tuple(unprioritized)
        """Streams of the topics without priorities."""

    def describe(self, topics: Iterable[TopicLimits], keys: list[str], args: list[str | bytes | int]) -> None:
        """Append topics to KEYS and ARGV in the order of `read_fairness` in `lua/fairness.lua`.

        It must be the last thing that is appended to `args`; `keys` may grow further.
        """
        listed = tuple(topics)
        keys += (self.ended_runs, self._dead)
        args += (len(keys) - 1, len(keys), len(listed))
        for topic in listed:
            args += (len(keys) + 1, len(topic.streams), topic.window, topic.cap, topic.group)
            keys.append(topic.running)
            for one in topic.streams:
                keys += (one.stream, one.waiting, one.ring)
