"""Bodies never appear in logs, also not inside the sentence of an exception."""

import io

from octollm.observability.logging import configure_logging
from octollm.settings.sections import LogSettings
from tests.helpers.consumers import KEYS, consuming, fields, judge, step
from tests.helpers.waiting import until


async def test_an_output_that_is_no_object_is_not_logged(redis_server, client):
    out = io.StringIO()
    configure_logging(LogSettings(level="info", format="json"), out)
    await client.xadd(KEYS.stream(judge()), fields(step()))

    async def work(_one):
        return ["ada@example.org"]

    async def done():
        return await client.xlen(KEYS.done) == 1

    async with consuming(redis_server.url, client, judge(), work):
        await until(done)
    assert "the arm broke" in out.getvalue()
    assert "ada@example.org" not in out.getvalue()
