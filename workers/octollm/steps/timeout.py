"""A time limit that costs nothing where nothing waits."""

import asyncio
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar

Result = TypeVar("Result")


class TimeLimitError(Exception):
    """The limit of `run_with_timeout` has passed; no `TimeoutError` of the work itself."""


async def run_with_timeout(limit_s: float, work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine and return its result; cancel it after `limit_s` seconds and raise TimeLimitError.

    Nothing can interrupt a coroutine before its first await, so a timer is set only then: `asyncio.timeout` costs 7 us,
    which is as much as many a handler.
    """
    try:
        first = work.send(None)
    except StopIteration as ended:
        value: Result = ended.value
        return value
    limit = asyncio.timeout(limit_s)
    try:
        async with limit:
            result: Result = await _Started(work, first)
            return result
    except TimeoutError as error:
        if limit.expired():
            raise TimeLimitError from error
        raise


class _Started(Generator[Any, Any, Result]):
    """The rest of a coroutine that already waits for `first`."""

    def __init__(self, work: Coroutine[Any, Any, Result], first: object) -> None:
        self._work = work
        self._first: object = first
        self._yielded = False

    def __await__(self) -> "_Started[Result]":
        return self

    def send(self, value: Any) -> Any:  # noqa: ANN401  whatever the event loop and the coroutine exchange
        """Yield what the coroutine waits for already, then pass values on to it."""
        if not self._yielded:
            self._yielded = True
            return self._first
        return self._work.send(value)

    def throw(self, *error: Any) -> Any:  # noqa: ANN401  as above
        """Raise in the coroutine."""
        self._yielded = True
        return self._work.throw(*error)

    def close(self) -> None:
        """Close the coroutine."""
        self._work.close()
