"""One process of the stack: how it is started, kept, asked and ended. Knows nothing of what its role is for.

A process that dies is started again after a moment, as a restart policy would.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from octollm.devstack.embedded.process import Child
from octollm.runtime.programs import EXECUTOR, REFLEX, find_program
from tests.faults.proxy import Proxy

_RESTART_S = 0.3
_PROGRAMS = {"reflex": REFLEX, "executor": EXECUTOR}


@dataclass
class Instance:
    """One process of one role, with its own ways to the servers."""

    role: str
    number: int
    redis: Proxy
    postgres: Proxy
    http: str
    """Where it listens."""
    logs: Path
    programs: Path | None = None
    """A folder with Rust programs that are preferred to the release build."""
    child: Child | None = None
    wanted: bool = True
    """Whether it is started again when it ends."""
    starts: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    """What this one has and the others do not, for instance another clock."""
    pids: set[int] = field(default_factory=set)
    """Of every process that it was."""
    drained: set[int] = field(default_factory=set)
    """Of those that were asked to stop."""

    @property
    def name(self) -> str:
        """As its consumer is called."""
        return f"{self.role}-{self.number}"

    @property
    def runs(self) -> bool:
        """Whether its process exists."""
        return self.child is not None and self.child.exit_code is None

    def kill(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal; SIGKILL unless another is given."""
        if self.child is not None:
            if number == signal.SIGTERM:
                self.drained.add(self.child.pid)
            self.child.send(number)

    def ran(self, worker: str) -> bool:
        """Whether this is the name of one of its processes, or its own."""
        return worker == self.name or any(f"-{pid}-" in worker for pid in self.pids)

    def was_drained(self, worker: str) -> bool:
        """Whether this is the name of one of its processes that were asked to stop."""
        return any(f"-{pid}-" in worker for pid in self.drained)

    async def launch(self, settings: Mapping[str, str]) -> None:
        """Start it with these settings and its own."""
        program = _PROGRAMS.get(self.role)
        command: list[str | Path] = (
            [self._path(program)] if program else [sys.executable, "-m", "octollm", "worker", self.role]
        )
        self.starts += 1
        environment = {**os.environ, **settings, **self.environment}
        self.child = await Child.start(self.name, command, log=self.logs / f"{self.name}.log", env=environment)
        self.pids.add(self.child.pid)

    def _path(self, program: str) -> Path:
        own = None if self.programs is None else self.programs / program
        return own if own is not None and own.exists() else find_program(program)

    async def keep(self, settings: Callable[["Instance"], Mapping[str, str]]) -> None:
        """Start it, and start it again whenever it ends, with the settings of that moment."""
        while True:
            if self.child is None or not self.runs:
                if self.wanted:
                    await self.launch(settings(self))
                else:
                    await asyncio.sleep(0.05)
                    continue
            await self.child.wait()
            await asyncio.sleep(_RESTART_S)

    async def ready(self, client: httpx.AsyncClient) -> bool:
        """Whether it says so."""
        if not self.runs:
            return False
        try:
            return (await client.get(f"{self.http}/readyz")).is_success
        except httpx.TransportError:
            return False

    def last_words(self) -> str:
        """How often it was started, whether it runs, and the end of its log."""
        said = "was never started" if self.child is None else str(self.child.ended())
        return f"{self.name}, started {self.starts} times: {said}"

    async def end(self) -> None:
        """For good, with its ways to the servers."""
        if self.child is not None:
            self.child.send(signal.SIGCONT)
            await self.child.stop((signal.SIGTERM, 2))
        await self.redis.stop()
        await self.postgres.stop()
