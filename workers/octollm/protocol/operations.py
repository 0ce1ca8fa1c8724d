"""What `complete` does in the same breath as it finishes an entry, as values. Pure: turns them into KEYS and ARGV.

The order of the arguments is documented in `complete.lua`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from octollm.protocol.fairness import Fairness, TopicLimits

Text = str | bytes
Fields = Mapping[str, Text]
Key = tuple[str, str, int]
"""One delivery: stream, entry id, delivery count. When Redis stood still for longer than a lease, an entry may come
back while it still runs."""


class Publish(NamedTuple):
    """Put a message on a stream."""

    stream: str
    fields: Fields
    in_flight: str = ""
    """AppendEvent field that shall name the new entry; empty: none."""
    once: bool = False
    """It was perhaps put there before: not where its in-flight field names a message already."""


class Schedule(NamedTuple):
    """Put a message on the schedule; `promote` moves it to `stream` when it is due."""

    schedule: str
    messages: str
    stream: str
    delay_ms: int
    id: str
    fields: Fields
    in_flight: str = ""


class SetStatus(NamedTuple):
    """Write a task's status hash, only over a lower version."""

    key: str
    version: int
    ttl_s: int
    """0: keep for ever."""
    fields: Fields


class AppendEvent(NamedTuple):
    """Put an event on a capped stream."""

    stream: str
    max_length: int
    fields: Fields


Operation = Publish | Schedule | SetStatus | AppendEvent


Marker = tuple[str, Text]
"""Where it is said that a step's task is cancelled: the key, and the tenant it has to hold."""


class Lease(NamedTuple):
    """An entry this consumer holds: where it lies and at which delivery it was given to us (the fence)."""

    stream: str
    entry: str
    delivery: int
    in_flight: str = ""
    """Its step's in-flight field; empty: it is not a step's message."""
    marker: Marker | None = None
    """None: it is not a step's message, and cannot be cancelled."""


@dataclass(slots=True)
class Call:
    """KEYS and ARGV of one call of `complete`."""

    keys: list[str] = field(default_factory=list)
    args: list[Text | int] = field(default_factory=list)
    fairness: Fairness | None = None
    """None: whatever is added goes to its stream at once."""
    _index: dict[str, int] = field(default_factory=dict)
    _described: dict[str, TopicLimits] = field(default_factory=dict)

    def key(self, name: str) -> int:
        """The key's index in KEYS, from 1; each key stands there once."""
        known = self._index.get(name)
        if known is None:
            self.keys.append(name)
            known = self._index[name] = len(self.keys)
        return known

    def _concerns(self, stream: str) -> None:
        if self.fairness is not None and (topic := self.fairness.limited.get(stream)) is not None:
            self._described[topic.running] = topic

    def close(self) -> None:
        """Describe the topics with a window or a cap that are concerned; nothing may be added afterwards."""
        if self.fairness is not None and self._described:
            self.fairness.describe(self._described.values(), self.keys, self.args)

    def _fields(self, fields: Fields) -> None:
        self.args.append(len(fields))
        self.args += chain.from_iterable(fields.items())

    def _operation(self, operation: Operation) -> None:
        match operation:
            case Publish():
                self.args += (
                    "publish_once" if operation.once else "publish",
                    self.key(operation.stream),
                    operation.in_flight,
                )
                self._concerns(operation.stream)
            case Schedule():
                self.args += ("schedule", self.key(operation.schedule), self.key(operation.messages))
                self.args += (self.key(operation.stream), operation.delay_ms, operation.in_flight, operation.id)
            case SetStatus():
                self.args += ("set_status", self.key(operation.key), operation.version, operation.ttl_s)
            case AppendEvent():
                self.args += ("append_event", self.key(operation.stream), operation.max_length)
        self._fields(operation.fields)

    def leases(self, leases: Sequence[Lease]) -> None:
        """Publish entries as `renew` and `release` read them."""
        self.args.append(len(leases))
        for one in leases:
            self.args += (self.key(one.stream), one.entry, one.delivery)

    def markers(self, held: Sequence[Lease]) -> None:
        """Publish the markers of those entries, as `renew` reads them."""
        for number, one in enumerate(held, 1):
            if one.marker is not None:
                key, tenant = one.marker
                self.args += (number, self.key(key), tenant)

    def detached(self, operations: Sequence[Operation]) -> None:
        """Publish operations that finish no entry."""
        self.args += (0, "", "", 0, "", len(operations))
        for operation in operations:
            self._operation(operation)

    def entry(self, held: Lease, group: str, operations: Sequence[Operation], *, only_cancelled: bool = False) -> None:
        """Publish one entry with what is to happen when it is still held (`only_cancelled`: and its task cancelled)."""
        marker = held.marker
        count = len(operations) + (marker is not None)
        self._concerns(held.stream)
        self.args += (self.key(held.stream), group, held.entry, held.delivery, held.in_flight, count)
        if marker is not None:
            key, tenant = marker
            self.args += ("only_if_cancelled" if only_cancelled else "unless_cancelled", self.key(key), tenant)
        for operation in operations:
            self._operation(operation)
