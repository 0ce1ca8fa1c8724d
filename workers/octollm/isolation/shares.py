"""Shares a fixed number of processes fairly among tenants. One event loop."""

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator


class Shares:
    """Says who may use a process.

    A tenant gets at most half of the processes that the other tenants leave: one tenant never holds all, and there is
    one left for the next tenant. Of several tenants that wait, the one that holds the fewest is next.
    """

    def __init__(self, total: int) -> None:
        """`total`: how many processes there are."""
        self._free = total
        self._held: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By tenant, the one that was served longest ago first. No tenant has an empty queue."""

    @contextlib.asynccontextmanager
    async def one(self, tenant: str) -> AsyncIterator[None]:
        """Wait for a process, and hold it inside of the context."""
        await self._acquire(tenant)
        try:
            yield
        finally:
            self._release(tenant)

    async def _acquire(self, tenant: str) -> None:
        if tenant not in self._waiting and self._may_take(tenant):
            self._take(tenant)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn had just come
                self._release(tenant)
            self._withdraw(tenant, turn)
            raise

    def _may_take(self, tenant: str) -> bool:
        return self._held[tenant] < self._free

    def _take(self, tenant: str) -> None:
        self._held[tenant] += 1
        self._free -= 1

    def _release(self, tenant: str) -> None:
        self._free += 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        # One that is served moves to the end, so that tenants who hold as many take turns.
        while waiting := [one for one in self._waiting if self._may_take(one)]:
            following = min(waiting, key=lambda one: self._held[one])
            queue = self._waiting.pop(following)
            turn = queue.popleft()
            if queue:
                self._waiting[following] = queue
            if not turn.cancelled():
                self._take(following)
                turn.set_result(None)

    def _withdraw(self, tenant: str, turn: asyncio.Future[None]) -> None:
        """Remove one that has given up, unless that has happened."""
        queue = self._waiting.get(tenant, deque())
        if turn in queue:
            queue.remove(turn)
        if not queue:
            self._waiting.pop(tenant, None)
