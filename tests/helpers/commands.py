"""The command line inside the test's own process."""

import asyncio

from typer.testing import CliRunner, Result

from octollm.cli.main import app, register


async def octollm(*arguments: str) -> Result:
    """Run one command on a thread, so that this event loop can serve what the command asks."""

    def run() -> Result:
        register(arguments)
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)

    return await asyncio.to_thread(run)
