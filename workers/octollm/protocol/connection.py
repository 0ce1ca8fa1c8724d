"""How a Redis client is made, and what its server says about itself. Only this room knows redis-py."""

from collections.abc import Iterable, Mapping
from typing import Any

import hiredis
import redis.asyncio
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as BrokenError
from redis.exceptions import RedisError

from octollm.errors import StoreUnavailableError

FACTS = ("appendonly", "appendfsync", "maxmemory_policy")


class _Ours(AbstractConnection):
    """Packs commands in C: redis-py's asyncio side does it in Python, a fifth of a busy worker's time."""

    def pack_command(self, *args: Any) -> list[bytes]:  # noqa: ANN401  as the base class has it
        """The command as the server reads it."""
        # redis-py names commands of two words as one argument.
        name = args[0].encode() if isinstance(args[0], str) else args[0]
        return [hiredis.pack_command((*name.split(), *args[1:]))]

    async def send_packed_command(
        self,
        command: bytes | str | Iterable[bytes],
        check_health: bool = True,  # noqa: FBT001, FBT002  as the base class has it
    ) -> None:
        """Raises the library's own error for a connection that broke a moment ago.

        uvloop says it with a RuntimeError, which nobody who waits for Redis to come back expects.
        """
        try:
            await super().send_packed_command(command, check_health)
        except RuntimeError as error:
            raise BrokenError(str(error)) from error


class _Tcp(_Ours, redis.asyncio.Connection):
    pass


class _Tls(_Ours, redis.asyncio.SSLConnection):
    pass


class _Unix(_Ours, redis.asyncio.UnixDomainSocketConnection):
    pass


_OURS: dict[type[AbstractConnection], type[AbstractConnection]] = {
    redis.asyncio.Connection: _Tcp,
    redis.asyncio.SSLConnection: _Tls,
    redis.asyncio.UnixDomainSocketConnection: _Unix,
}


def connect(url: str, timeout_s: float) -> redis.asyncio.Redis:
    """A client that answers bytes. It connects with its first command; `timeout_s` bounds one attempt."""
    client = redis.asyncio.Redis.from_url(url, socket_connect_timeout=timeout_s, decode_responses=False)
    pool = client.connection_pool
    pool.connection_class = _OURS[pool.connection_class]
    return client


async def probe(url: str, timeout_s: float = 2.0) -> Mapping[str, str]:
    """`product`, `version`, `replicas` (how many follow it) and what of `FACTS` the server tells.

    Raises StoreUnavailableError with the cause in a sentence.
    """
    client = connect(url, timeout_s)
    try:
        info = await client.info("server")
        # Valkey calls itself a Redis 7.2 as well, for the sake of clients that ask.
        product = "Valkey" if "valkey_version" in info else "Redis"
        found = {"product": product, "version": str(info[f"{product.lower()}_version"])}
        found["replicas"] = str((await client.info("replication"))["connected_slaves"])
        try:
            for name in FACTS:
                config = await client.config_get(name.replace("maxmemory_policy", "maxmemory-policy"))
                for value in config.values():
                    found[name] = str(value, "utf-8") if isinstance(value, bytes) else str(value)
        except RedisError:
            return found  # managed servers refuse CONFIG; the version is known nevertheless
    except RedisError as error:
        raise StoreUnavailableError(str(error)) from error
    else:
        return found
    finally:
        await client.aclose()
