"""A stand-in for the hand-off protocol, for maintenance that is tested without Redis."""

from collections.abc import Awaitable, Callable, Mapping, Sequence

from octollm.contracts import StepRequested, read
from octollm.contracts.ids import in_flight_field_in
from octollm.protocol.operations import Fields, Operation
from octollm.topology import Topic


async def _nowhere(_in_flight: str) -> bool:
    return False


class FakePublisher:
    """Keeps what is sent again. `exists`: whether the message named by an in-flight field exists."""

    def __init__(self, exists: Callable[[str], Awaitable[bool]] = _nowhere) -> None:
        self._exists = exists
        self.claimed: list[str] = []
        self.republished: list[StepRequested] = []

    async def reach(self) -> None:
        pass

    async def publish(self, lane: str, *groups: Sequence[Operation]) -> None:
        pass

    async def submit(self, tenant: str, body: bytes, key: str) -> None:
        raise AssertionError("nothing is submitted here")

    async def publish_kinds(self, schemas: Mapping[str, bytes], *, replace: bool) -> bool:
        raise AssertionError("no kinds are published here")

    async def in_flight(self, lane: str, in_flight: str, target: str, *, claim: bool) -> bool:
        assert in_flight_field_in(f"{in_flight}.1") == in_flight
        step = in_flight.split(".")[2]
        self.claimed += [step] * claim
        return await self._exists(in_flight)

    async def republish(self, lane: str, in_flight: str, target: str, fields: Fields) -> bool:
        body = fields["body"]
        assert isinstance(body, bytes)
        self.republished.append(read(StepRequested, body))
        return True

    async def executing(self, lane: str, in_flight: Sequence[str]) -> int:
        return 0

    async def prune(self, lane: str, cursor: int, most: int) -> tuple[int, int]:
        return 0, 0

    async def memory_share(self) -> float:
        return 0.0

    async def evict(self, lane: str, tasks: Sequence[str]) -> int:
        raise AssertionError("nothing is evicted here")

    async def trim_events(self) -> None:
        raise AssertionError("nothing is trimmed here")

    async def oldest_ms(self, topic: Topic) -> int | None:
        return None
