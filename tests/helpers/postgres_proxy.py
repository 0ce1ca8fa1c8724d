"""Postgres behind a proxy that can hang or lose its connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

from tests.faults.proxy import Proxy


@asynccontextmanager
async def proxied(dsn: str) -> AsyncIterator[tuple[Proxy, str]]:
    """A running proxy in front of the Postgres of a DSN, and the DSN of the way through it."""
    parts = urlsplit(dsn)
    socket_folder = parse_qs(parts.query).get("host")
    proxy = Proxy(f"{socket_folder[0]}/.s.PGSQL.5432" if socket_folder else (str(parts.hostname), parts.port or 5432))
    await proxy.start()
    try:
        yield proxy, parts._replace(netloc=f"{parts.username}@127.0.0.1:{proxy.port}", query="").geturl()
    finally:
        await proxy.stop()
