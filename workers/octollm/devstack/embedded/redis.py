"""Embedded Redis: the system's `redis-server` or `valkey-server`, run as a child process.

It listens on a loopback port.

Owns finding it, checking its version, start and stop. Speaks to it only to ask whether it is ready: commands
are the bus's business.
"""

import asyncio
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from octollm.devstack.embedded.ports import LOOPBACK, Ports
from octollm.devstack.embedded.process import Child, private_folder
from octollm.errors import StartError

_PORT = 6379
_OLDEST = (7, 0)
_READY_S = 60  # a large append-only file takes a while to load
_TRIES = 5
_PROGRAMS = ("redis-server", "valkey-server")
MISSING = (
    "install redis-server 7 or newer (Debian, Ubuntu: apt-get install redis-server), "
    "or set OCTOLLM_REDIS_URL to a server that runs"
)


class EmbeddedRedis:
    """A running server; stop it with `stop`."""

    def __init__(self, child: Child, port: int) -> None:
        """Made by `start`."""
        self.child = child
        self.url = f"redis://{LOOPBACK}:{port}/0"

    @classmethod
    async def start(
        cls, folder: Path, ports: Ports, *, server: str = "", synced: bool = False, keep_open: Sequence[int] = ()
    ) -> Self:
        """Start `server` (see `find_server`) on port 6379, or a free one when that is taken.

        Wait until it answers.

        `synced`: it syncs its file before each answer, not once a second.
        """
        program, _ = find_server(server)
        private_folder(folder)
        for attempt in range(_TRIES):
            port = ports.take(0 if attempt else _PORT)
            child = await Child.start(
                "Redis",
                _command(program, port, "always" if synced else "everysec"),
                log=folder / "redis.log",
                cwd=folder,
                death_signal=signal.SIGTERM,  # a shutdown that still writes what is in the buffers
                keep_open=keep_open,
            )
            try:
                if await _ready(child, port):
                    return cls(child, port)
            except BaseException:
                await child.stop((signal.SIGTERM, 5))
                raise
            if "Address already in use" not in child.tail():  # someone who is no OctoLLM was faster
                raise child.ended()
        raise StartError(f"no free port for Redis was found on {LOOPBACK} in {_TRIES} tries")

    async def stop(self) -> None:
        """Shut down; the append-only file is complete afterwards."""
        await self.child.stop((signal.SIGTERM, 15))


def find_server(chosen: str = "") -> tuple[str, str]:
    """Path and version of a server that is new enough; raises StartError saying what to install.

    `chosen`: a name on the PATH or a path; empty: redis-server, or valkey-server where there is none.
    """
    found = next((path for name in ((chosen,) if chosen else _PROGRAMS) if (path := shutil.which(name))), None)
    if found is None and chosen:
        raise StartError(f"{chosen} was not found; correct OCTOLLM_REDIS_SERVER (redis.server), or {MISSING}")
    if found is None:
        raise StartError(f"redis-server was not found on the PATH; {MISSING}")
    try:
        answer = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=True)  # noqa: S603 (found on the PATH)
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"{found} does not run ({error}); {MISSING}") from error
    match = re.search(r"\bv=(\d+)\.(\d+)\S*", answer.stdout)
    if match is None or (int(match[1]), int(match[2])) < _OLDEST:
        version = match[0].removeprefix("v=") if match else answer.stdout.strip()
        raise StartError(f"{found} is version {version}, older than 7.0; {MISSING}")
    return found, match[0].removeprefix("v=")


def find_cli() -> Path:
    """The client that comes with the server; raises StartError saying what to install."""
    for name in ("redis-cli", "valkey-cli"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    raise StartError("redis-cli was not found on the PATH; install it (Debian, Ubuntu: apt-get install redis-tools)")


def _command(program: str, port: int, appendfsync: str) -> list[str]:
    return [
        *(program, "--bind", LOOPBACK, "--port", str(port), "--daemonize", "no", "--dir", "./"),
        *("--appendonly", "yes", "--appendfsync", appendfsync, "--save", ""),
        *("--maxmemory-policy", "noeviction"),  # an evicted key would be a lost task
    ]


async def _ready(child: Child, port: int) -> bool:
    """True once it answers PING, False when the child ended."""
    deadline = asyncio.get_running_loop().time() + _READY_S
    while child.exit_code is None:
        if await _ping(port, child.pid):
            return True
        if asyncio.get_running_loop().time() > deadline:
            raise StartError(
                f"Redis did not answer within {_READY_S} s; the end of its log {child.log}:\n{child.tail()}"
            )
        await asyncio.sleep(0.02)
    return False


async def _ping(port: int, pid: int) -> bool:
    """Whether our server serves: while it loads its file it answers -LOADING; another may have the port."""
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(b"PING\r\nINFO server\r\n")
                if await reader.readline() != b"+PONG\r\n":
                    return False
                length = int((await reader.readline()).removeprefix(b"$"))
                return f"process_id:{pid}\r\n".encode() in await reader.readexactly(length)
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError, EOFError):
        return False
