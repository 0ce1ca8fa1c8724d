"""For faults that take what Redis alone knows: answers that Postgres has not heard of."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.faults.scenarios import TIMEOUT_S, Ring

_ORDERS = 24
_ANSWERS = 6


@asynccontextmanager
async def answers_before_intake(ring: Ring, durability: str = "") -> AsyncIterator[None]:
    """Within, some submissions have just been answered (with `durability`: in that mode), and the orchestrators stand
    still. Where a 202 waits for them, they do not, and what was answered is in Postgres.
    """
    stored = ring.stage.durability == "stored"
    frozen = [] if stored else ring.stage.of("orchestrator")
    counted = ring.load.answered

    def answers() -> int:
        return counted[durability] if durability and not stored else counted.total()

    for one in frozen:
        one.kill(signal.SIGSTOP)
    try:
        before = answers()
        for number in range(_ORDERS):
            ring.load.send(ring.load.order({}, source=f"http{number % 2}", durability=durability))
        await ring.stage.until(lambda: answers() >= before + _ANSWERS, "some answers", TIMEOUT_S)
        yield
    finally:
        for one in frozen:
            one.kill(signal.SIGCONT)
