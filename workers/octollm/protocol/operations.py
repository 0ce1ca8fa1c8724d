"""What `complete` writes when it finishes an entry, as values, and the KEYS and ARGV they become.

Pure.

`lua/complete.lua` documents the order of the arguments.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from octollm.protocol.fairness import Fairness, TopicLimits

Text = str | bytes
Fields = Mapping[str, Text]
DeliveryKey = tuple[str, str, int]
"""One delivery: stream, entry id, delivery count. When Redis stood still for longer than a lease, an entry may be
delivered again to a consumer that still works on it.
"""


class Publish(NamedTuple):
    """Put a message on a stream."""

    stream: str
    fields: Fields
    in_flight: str = ""
    """In-flight field that shall name the new entry; empty: none."""
    once: bool = False
    """Publish nothing where the in-flight field names a message already: this may be a repetition."""


class Schedule(NamedTuple):
    """Put a message on the schedule; `promote` publishes it to `stream` when it is due."""

    schedule: str
    """Redis key of the lane's schedule."""
    messages: str
    """Redis key of the lane's scheduled messages."""
    stream: str
    delay_ms: int
    id: str
    """Message id; a message that is scheduled under it already is replaced."""
    fields: Fields
    in_flight: str = ""
    """In-flight field that shall name the scheduled message; empty: none."""


class SetStatus(NamedTuple):
    """Replace a task's status, unless its version is this one or a higher one."""

    key: str
    version: int
    ttl_s: int
    """0: keep for ever."""
    fields: Fields


class AppendEvent(NamedTuple):
    """Append an event to a capped stream."""

    stream: str
    max_length: int
    """Approximately; Redis trims whole nodes."""
    fields: Fields


class EndRun(NamedTuple):
    """Stop what is in flight of a run, see `lua/ended_runs.lua`."""

    ended_runs: str
    """Redis key of the lane's ended runs."""
    control: str
    """The lane's control channel."""
    run: str
    """`<task>.<run>`."""
    tenant: str
    ttl_s: int
    """For how long: until no message of the run can be left."""


Operation = Publish | Schedule | SetStatus | EndRun | AppendEvent


class StepRun(NamedTuple):
    """The run that a step belongs to.

    When Redis knows that it has ended, the step is not completed or renewed.
    """

    ended_runs: str
    """Redis key of the lane's ended runs."""
    run: str
    """`<task>.<run>`."""
    tenant: Text


class Lease(NamedTuple):
    """An entry that this consumer holds.

    The delivery count is the fence against its earlier and later holders.
    """

    stream: str
    entry: str
    delivery: int
    in_flight: str = ""
    """Its step's in-flight field; empty: it is not a step's message."""
    run: StepRun | None = None
    """None: it is not a step's message, and does not end with a run."""


@dataclass(slots=True)
class ScriptCall:
    """The KEYS and ARGV of one call of a script, built from values."""

    keys: list[str] = field(default_factory=list)
    args: list[Text | int] = field(default_factory=list)
    fairness: Fairness | None = None
    """None: every message goes to its stream at once, past window and cap."""
    _index: dict[str, int] = field(default_factory=dict)
    _limits: dict[str, TopicLimits] = field(default_factory=dict)

    def key_index(self, name: str) -> int:
        """Return the key's index in KEYS, from 1; a new key is appended, a known one is not repeated."""
        known = self._index.get(name)
        if known is None:
            self.keys.append(name)
            known = self._index[name] = len(self.keys)
        return known

    def add_limits(self) -> None:
        """Describe the limited topics that the call concerns. Nothing may be added to the call afterwards."""
        if self.fairness is not None and self._limits:
            self.fairness.describe(self._limits.values(), self.keys, self.args)

    def add_leases(self, leases: Sequence[Lease]) -> None:
        """Append entries as `renew` and `release` read them."""
        self.args.append(len(leases))
        for one in leases:
            self.args += (self.key_index(one.stream), one.entry, one.delivery)

    def add_runs(self, leases: Sequence[Lease]) -> None:
        """Append the runs of the same entries in the same order, as `renew` reads them."""
        for number, one in enumerate(leases, 1):
            if one.run is not None:
                self.args += (number, self.key_index(one.run.ended_runs), one.run.run, one.run.tenant)

    def add_operations(self, operations: Sequence[Operation]) -> None:
        """Append operations that finish no entry, as one entry of `complete`."""
        self.args += (0, "", "", 0, "", len(operations))
        for operation in operations:
            self._add_operation(operation)

    def add_completion(
        self, lease: Lease, group: str, operations: Sequence[Operation], *, only_if_ended: bool = False
    ) -> None:
        """Append one entry of `complete`, with the operations to apply if the lease is valid.

        `only_if_ended`: finish it only if its run has ended as well.
        """
        run = lease.run
        count = len(operations) + (run is not None)
        self._note_limits(lease.stream)
        self.args += (self.key_index(lease.stream), group, lease.entry, lease.delivery, lease.in_flight, count)
        if run is not None:
            name = "only_if_ended" if only_if_ended else "unless_ended"
            self.args += (name, self.key_index(run.ended_runs), run.run, run.tenant)
        for operation in operations:
            self._add_operation(operation)

    def _add_operation(self, operation: Operation) -> None:
        index = self.key_index
        match operation:
            case Publish():
                name = "publish_once" if operation.once else "publish"
                self.args += (name, index(operation.stream), operation.in_flight)
                self._note_limits(operation.stream)
            case Schedule():
                self.args += ("schedule", index(operation.schedule), index(operation.messages))
                self.args += (index(operation.stream), operation.delay_ms, operation.in_flight, operation.id)
            case SetStatus():
                self.args += ("set_status", index(operation.key), operation.version, operation.ttl_s)
            case EndRun():
                self.args += ("end_run", index(operation.ended_runs), index(operation.control))
                self.args += (operation.run, operation.tenant, operation.ttl_s)
                return
            case AppendEvent():
                self.args += ("append_event", index(operation.stream), operation.max_length)
        self.args.append(len(operation.fields))
        self.args += chain.from_iterable(operation.fields.items())

    def _note_limits(self, stream: str) -> None:
        if self.fairness is not None and (topic := self.fairness.limited.get(stream)) is not None:
            self._limits[topic.running] = topic
