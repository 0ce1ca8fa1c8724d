"""When the names of dead workers disappear from a group, by a clock that the test sets."""

import pytest

from octollm.consumer.dead_consumers import DeadConsumers


class Group:
    """A group whose consumers made their last call at some time, and own as many entries."""

    consumer = "living"

    def __init__(self, last_calls: dict[str, float], pending: dict[str, int] | None = None) -> None:
        self.now = 0.0
        self.looks = 0
        self.failures = 0
        """How many of the next looks fail."""
        self.removed: dict[str, float] = {}
        self._last_calls = last_calls
        self._pending = pending or {}
        self.dead = DeadConsumers(self, self, "judge", ["s"], clock=lambda: self.now)  # type: ignore[arg-type]  # it plays both

    async def xinfo_consumers(self, _stream: str, _group: str) -> list[dict[str, object]]:
        self.looks += 1
        if self.failures:
            self.failures -= 1
            raise ConnectionError("lost")
        return [
            {"name": name.encode(), "pending": self._pending.get(name, 0), "idle": 1000 * (self.now - at)}
            for name, at in self._last_calls.items()
            if at <= self.now and name not in self.removed
        ]

    async def leave_group(self, _streams: list[str], name: str) -> int:
        self.removed[name] = self.now
        return 0


async def test_a_dead_workers_name_disappears_within_eleven_minutes_at_a_look_a_minute():
    died = {f"worker-{at}": float(at) for at in (-10_000, -600, -599, 0, 1, 59, 60, 61, 333)}
    group = Group({**died, "living": -5000.0, "owner": -5000.0}, {"owner": 1})
    await group.dead.remove()
    assert set(group.removed) == {"worker--10000", "worker--600"}  # at its start
    while group.now < 3600:
        group.now += 5
        await group.dead.remove()
    assert set(group.removed) == set(died)
    stayed = [group.removed[name] - at for name, at in died.items() if at > -600]
    assert min(stayed) >= 600
    assert max(stayed) <= 665
    assert group.looks <= 61


async def test_a_look_that_fails_is_repeated_with_the_next_call():
    group = Group({"dead": -1000.0})
    group.failures = 1
    with pytest.raises(ConnectionError):
        await group.dead.remove()
    await group.dead.remove()
    assert "dead" in group.removed
