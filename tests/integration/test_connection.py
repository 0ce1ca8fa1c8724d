"""Connections to Redis as workers have them: under uvloop, over TCP, TLS and Unix sockets."""

import pytest
import uvloop
from redis.exceptions import ConnectionError as BrokenError

from octollm.protocol.backoff import REDIS_FAILURES
from octollm.protocol.connection import connect


def test_a_connection_that_broke_a_moment_ago_is_an_error_like_any_other(redis_server):
    async def send() -> None:
        client = connect(redis_server.url, 30.0)
        connection = await client.connection_pool.get_connection()
        connection._writer.transport.abort()
        try:
            await connection.send_command("PING")
        finally:
            await client.aclose()

    with pytest.raises(REDIS_FAILURES) as caught:
        uvloop.run(send())
    assert isinstance(caught.value, BrokenError)


@pytest.mark.parametrize("url", ["redis://h:1/0", "rediss://h:1/0", "unix:///run/redis.sock"])
async def test_whatever_the_address_commands_are_packed_in_one_piece(url: str):
    client = connect(url, 30.0)
    connection = client.connection_pool.make_connection()
    assert connection.pack_command("CONFIG GET", "save") == [b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$4\r\nsave\r\n"]
    await client.aclose()
