"""Makes Redis clients, and asks a server about itself."""

from collections.abc import Iterable, Mapping
from typing import Any

import hiredis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import RedisError

from octollm.errors import StoreUnavailableError
from octollm.protocol.backoff import raise_if_refused

ANSWER_S = 5.0
FACTS = ("appendonly", "appendfsync", "no_appendfsync_on_rewrite", "maxmemory_policy")
"""Server settings that `probe` reports, with an underscore where Redis has a hyphen."""


class _FastConnection(AbstractConnection):
    """Packs commands in C: redis-py's asyncio side does it in Python, a fifth of a busy worker's time."""

    def pack_command(self, *args: Any) -> list[bytes]:  # noqa: ANN401  as the base class has it
        """Return the command as the server reads it."""
        # redis-py names commands of two words as one argument.
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*name.split(), *args[1:]))]

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002  as the base class has it
    ) -> None:
        """Raise redis-py's own ConnectionError for a connection that broke a moment ago.

        uvloop raises a RuntimeError there, which no code that waits for Redis expects.
        """
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise BrokenError(str(error)) from error


class _Tcp(_FastConnection, redis.asyncio.Connection):
    pass


class _Tls(_FastConnection, redis.asyncio.SSLConnection):
    pass


class _Unix(_FastConnection, redis.asyncio.UnixDomainSocketConnection):
    pass


_FAST: dict[type[AbstractConnection], type[AbstractConnection]] = {
    redis.asyncio.Connection: _Tcp,
    redis.asyncio.SSLConnection: _Tls,
    redis.asyncio.UnixDomainSocketConnection: _Unix,
}


def connect(url: str, timeout_s: float) -> redis.asyncio.Redis:
    """Return a client that answers bytes.

    It connects with its first command; `timeout_s` bounds one attempt.

    A command whose answer does not begin within `ANSWER_S` fails, and its connection is closed.
    """
    client = redis.asyncio.Redis.from_url(
        url,
        socket_connect_timeout=timeout_s,
        socket_timeout=ANSWER_S,
        decode_responses=False,
    )
    pool = client.connection_pool
    pool.connection_class = _FAST[pool.connection_class]
    return client


async def probe(url: str, timeout_s: float = 2.0) -> Mapping[str, str]:
    """Ask a server about itself.

    Return `product`, `version`, `replicas` (their number), and what of `FACTS` it tells.

    `timeout_s`: longest that connecting may take. Raises StoreUnavailableError with the cause in a sentence, and
    StoreRefusedError if Redis refuses the login or INFO.
    """
    client = connect(url, timeout_s)
    try:
        info = await client.info("server")
        # For the sake of older clients, Valkey also calls itself Redis 7.2.
        product = "Valkey" if "valkey_version" in info else "Redis"
        found = {"product": product, "version": str(info[f"{product.lower()}_version"])}
        found["replicas"] = str((await client.info("replication"))["connected_slaves"])
        try:
            for name in FACTS:
                config = await client.config_get(name.replace("_", "-"))
                for value in config.values():
                    found[name] = str(value, "utf-8") if isinstance(value, bytes) else str(value)
        except RedisError:
            return found  # managed servers refuse CONFIG; the version is known all the same
    except RedisError as error:
        raise_if_refused(error, "tell about itself")
        raise StoreUnavailableError(str(error)) from error
    else:
        return found
    finally:
        await client.aclose()
