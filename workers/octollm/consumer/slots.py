"""Room for running entries: a bounded number, or one alone in quarantine."""

import asyncio


class Slots:
    """How many entries may run at once. Not thread-safe: one event loop."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._taken = 0
        self._alone = False
        self._waiting: list[asyncio.Future[None]] = []

    @property
    def taken(self) -> int:
        """How many run now."""
        return self._taken

    async def room(self) -> int:
        """Waits until there is some, and nobody is or wants to be alone; then how much."""
        while self.free() <= 0:
            await self._change()
        return self.free()

    def free(self) -> int:
        """How much room there is right now."""
        return 0 if self._alone else self.size - self._taken

    def take(self, many: int) -> None:
        """Take some; the caller has asked for room before."""
        self._taken += many

    def give(self, many: int) -> None:
        """Give some back."""
        self._taken -= many
        self._changed()

    async def take_alone(self) -> None:
        """Waits until nothing else runs and takes everything. New work waits meanwhile."""
        while self._alone:
            await self._change()
        self._alone = True
        try:
            while self._taken > 0:
                await self._change()
        except BaseException:  # cancelled: the others must not wait for ever
            self._alone = False
            self._changed()
            raise
        self._taken = 1

    def give_alone(self) -> None:
        """The opposite of `take_alone`."""
        self._taken = 0
        self._alone = False
        self._changed()

    async def _change(self) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        await future

    def _changed(self) -> None:
        """Everyone who waits looks again."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            for future in waiting:
                if not future.done():
                    future.set_result(None)
