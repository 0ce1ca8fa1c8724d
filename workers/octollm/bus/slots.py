"""Room for running entries: a bounded number, or one alone in quarantine."""

import asyncio


class Slots:
    """How many entries may run at once. Not thread-safe: one event loop."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken = 0
        self._alone = False
        self._changed = asyncio.Condition()

    @property
    def taken(self) -> int:
        """How many run now."""
        return self._taken

    async def room(self) -> int:
        """Waits until there is some, and nobody is or wants to be alone; then how much."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._taken < self.size and not self._alone)
            return self.size - self._taken

    def free(self) -> int:
        """How much room there is right now."""
        return 0 if self._alone else self.size - self._taken

    def take(self) -> None:
        """Take one; the caller has asked for room before."""
        self._taken += 1

    async def give(self) -> None:
        """Give one back."""
        async with self._changed:
            self._taken -= 1
            self._changed.notify_all()

    async def take_alone(self) -> None:
        """Waits until nothing else runs and takes everything. New work waits meanwhile."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._alone)
            self._alone = True
            try:
                await self._changed.wait_for(lambda: self._taken == 0)
            except BaseException:  # cancelled: the others must not wait for ever
                self._alone = False
                self._changed.notify_all()
                raise
            self._taken = 1

    async def give_alone(self) -> None:
        """The opposite of `take_alone`."""
        async with self._changed:
            self._taken = 0
            self._alone = False
            self._changed.notify_all()
