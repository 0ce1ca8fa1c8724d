"""A time limit that costs nothing where nobody waits."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


async def within(limit_s: float, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` returns. Raises TimeoutError when it has not ended after `limit_s` seconds.

    Until it waits for the first time it cannot be interrupted by anything, so that only then a timer is set.
    """
    try:
        first = work.send(None)
    except StopIteration as ended:
        value: Result = ended.value
        return value
    async with asyncio.timeout(limit_s):
        result: Result = await _Begun(work, first)
        return result


class _Begun(Generator[Any, Any, Result]):
    """The rest of a coroutine that waits for `first`."""

    def __init__(self, work: Coroutine[Any, Any, Result], first: object) -> None:
        self._work = work
        self._first: object = first
        self._handed = False

    def __await__(self) -> "_Begun[Result]":
        return self

    def send(self, value: Any) -> Any:  # noqa: ANN401  whatever the event loop and the coroutine say to each other
        """The first time: what it waits for already."""
        if not self._handed:
            self._handed = True
            return self._first
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:  # noqa: ANN401  as above
        """Into the coroutine."""
        self._handed = True
        return self._work.throw(*error)

    def close(self) -> None:
        """And the coroutine."""
        self._work.close()
