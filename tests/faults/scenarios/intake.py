"""For faults that take what Redis alone knows: answers that Postgres has not heard of."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from scenarios import PATIENCE_S, Ring

_ORDERS = 24
_ANSWERS = 6


@asynccontextmanager
async def answers_before_intake(ring: Ring, durability: str = "") -> AsyncIterator[None]:
    """Within, some submissions have just been answered, and the orchestrators stand still.

    Where a 202 waits for them, they do not, and what was answered is in Postgres.
    """
    frozen = [] if ring.stage.durability == "stored" else ring.stage.of("orchestrator")
    for one in frozen:
        one.kill(signal.SIGSTOP)
    try:
        before = ring.load.answered.total()
        for number in range(_ORDERS):
            ring.load.send(ring.load.order({}, door=f"http{number % 2}", durability=durability))
        await ring.stage.until(lambda: ring.load.answered.total() >= before + _ANSWERS, "some answers", PATIENCE_S)
        yield
    finally:
        for one in frozen:
            one.kill(signal.SIGCONT)
