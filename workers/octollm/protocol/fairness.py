"""Which topics have a window or a cap, described as `lua/fairness.lua` reads it. Pure.

Beyond a topic's window work waits in Redis, a queue for each tenant, and is let in by turns.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from octollm.topology import LaneKeys, Topology


@dataclass(frozen=True, slots=True)
class TopicLimits:
    """A topic with priorities in one lane."""

    keys: tuple[str, ...]
    """What the cap counts, then for each stream: the stream, what waits for it, whose turn it is."""
    numbers: tuple[int, int, int, str]
    """Streams, window (0: none), cap (0: none), and the group."""

    @property
    def running(self) -> str:
        """Its first key, unlike any other topic's."""
        return self.keys[0]


class Fairness:
    """Of one lane. Not to be changed."""

    def __init__(self, topology: Topology, lane: str) -> None:
        keys = LaneKeys(lane)
        every: dict[str, TopicLimits] = {}
        limited: dict[str, TopicLimits] = {}
        others: list[str] = []
        for topic in topology.topics.values():
            streams = keys.streams(topic)
            if not topic.priorities:
                others += streams
                continue
            cap = topology.cap_in(topic, lane)
            each = [key for one in streams for key in (one, keys.waiting(one), keys.ring(one))]
            numbers = (len(streams), topic.window or 0, cap, topic.group)
            described = TopicLimits((keys.running(topic), *each), numbers)
            every.update(dict.fromkeys(streams, described))
            if topic.window or cap:
                limited.update(dict.fromkeys(streams, described))
        self.cancelled = keys.cancelled
        self.every: Mapping[str, TopicLimits] = MappingProxyType(every)
        """Topic by stream; all topics with priorities."""
        self.limited: Mapping[str, TopicLimits] = MappingProxyType(limited)
        """Those with a window or a cap."""
        self.others = tuple(others)
        """Streams of the topics without priorities."""

    def describe(self, topics: Iterable[TopicLimits], keys: list[str], args: list[str | bytes | int]) -> None:
        """Append the topics to KEYS and ARGV of a script, which reads them last."""
        listed = tuple(topics)
        keys.append(self.cancelled)
        args += (len(keys), len(listed))
        for topic in listed:
            args += (len(keys) + 1, *topic.numbers)
            keys += topic.keys
