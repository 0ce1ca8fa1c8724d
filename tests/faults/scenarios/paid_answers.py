"""Model answers that cost money: whatever happens after one has come, it is not paid for again."""

import asyncio
from collections import Counter

from tests.faults.proxy import Proxy
from tests.faults.scenarios import TIMEOUT_S, Landed, Ring, scenario
from tests.faults.scenarios.helpers import redeployed, send, until_ended
from tests.helpers.mock_models import MockModels, Say

_COUNT = 3
_DELAY_S = 0.5
"""Of the model, each way: Postgres is gone before its answers come."""
_UNAVAILABLE_S = 10.0
"""Longer than the time limit of the steps, which is 8 s."""


@scenario("paid_answer_not_stored")
async def paid_answer_not_stored(ring: Ring) -> Landed:
    """Postgres hangs for the arms between the answers of a model and their writes, past the time limit of the steps."""
    arms = ring.stage.of("effect")
    async with MockModels(otherwise=Say("noted")) as models:
        port = int(models.url.rpartition(":")[2])
        way = Proxy(("127.0.0.1", port))
        await way.start()
        way.delay_s = _DELAY_S
        settings = {
            "OPENAI_BASE_URL": f"http://127.0.0.1:{way.port}",
            "OPENAI_API_KEY": "none",
            "OCTOLLM_MODELS_PROVIDER": "openai",
            "OCTOLLM_MODELS_MODEL": "scripted",
        }
        try:
            async with redeployed(ring, [(one, settings) for one in arms]):
                orders = [ring.load.order(kind="paid", source="http0") for _ in range(_COUNT)]
                send(ring, orders)
                await ring.stage.until(lambda: len(models.requests) >= _COUNT, "questions to the model", TIMEOUT_S)
                for one in arms:
                    one.postgres.hold()
                await asyncio.sleep(_UNAVAILABLE_S)
                for one in arms:
                    one.postgres.release()
                await until_ended(ring, orders)
        finally:
            for one in arms:
                one.postgres.release()
            await way.stop()
        asked = Counter(str(request.body["messages"]) for request in models.requests)
    broken = tuple(f"a model was paid {count} times for one answer" for count in asked.values() if count > 1)
    return Landed(f"{_COUNT} answers of a model could not be stored for {_UNAVAILABLE_S:.0f} s", broken=broken)
