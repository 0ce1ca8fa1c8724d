"""The composed stack of the proof: up, healthy, scaled, looked into, and down again with everything it had."""

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.compose.engine import ROOT, Engine, call

PROJECT = "octollm-demo"
_FILES = ("compose.yaml", "deploy/compose.ports.yaml", "deploy/compose.demo.yaml")
_HEALTHY_S = 180
WEBHOOK_SECRET = "GITHUB_WEBHOOK_SECRET"  # noqa: S105  a variable's name, as in webhooks.yaml


@dataclass(frozen=True)
class Stack:
    """Where it is and how to speak to it."""

    engine: Engine
    environment: dict[str, str]
    http_url: str
    api_url: str
    redis_url: str
    postgres_dsn: str

    def compose(self, *arguments: str) -> str:
        """A compose command's standard output."""
        files = [part for name in _FILES for part in ("-f", str(ROOT / name))]
        command = (*self.engine.compose, "-p", PROJECT, *files, *arguments)
        return call(*command, environment=self.environment)

    def up(self, *arguments: str) -> None:
        """Starts what does not run yet; a failure carries the last words of all containers."""
        try:
            self.compose("up", "--detach", "--no-build", *arguments)
        except RuntimeError as error:
            raise RuntimeError(f"{error}\n{self._last_words()}") from error

    def containers(self, service: str = "") -> dict[str, str]:
        """Id (12 signs, which is also the host name inside) to its state in words."""
        label = [f"label=com.docker.compose.project={PROJECT}"]
        if service:
            label.append(f"label=com.docker.compose.service={service}")
        filters = [part for one in label for part in ("--filter", one)]
        lines = self.engine.run("ps", "--all", *filters, "--format", "{{.ID}}\t{{.Status}}").splitlines()
        return dict(line.split("\t", 1) for line in lines)

    def until_healthy(self, count: int) -> None:
        """Waits until that many containers run and every one of them says that it is ready."""
        deadline = time.monotonic() + _HEALTHY_S
        while True:
            found = self.containers()
            if len(found) == count and all("(healthy)" in state for state in found.values()):
                return
            if time.monotonic() > deadline:
                raise RuntimeError(f"not all containers became healthy: {found}\n{self._last_words()}")
            time.sleep(0.5)

    def _last_words(self) -> str:
        return self.compose("logs", "--no-color", "--tail", "15")[-6000:]


@contextmanager
def stack(engine: Engine, variables: dict[str, str]) -> Iterator[Stack]:
    """Started when it comes, without containers, networks and volumes when it has gone."""
    password, webhook_secret = secrets.token_urlsafe(16), secrets.token_hex(16)
    ports = _free_ports("REFLEX_PORT", "API_PORT", "REDIS_PORT", "POSTGRES_PORT")
    made = Stack(
        engine,
        {
            **engine.environment,
            **variables,
            **ports,
            "POSTGRES_PASSWORD": password,
            WEBHOOK_SECRET: webhook_secret,
        },
        f"http://127.0.0.1:{ports['REFLEX_PORT']}",
        f"http://127.0.0.1:{ports['API_PORT']}",
        f"redis://127.0.0.1:{ports['REDIS_PORT']}/0",
        f"postgresql://octollm:{password}@127.0.0.1:{ports['POSTGRES_PORT']}/octollm",
    )
    made.compose("down", "--volumes", "--remove-orphans")  # what a run that was cut off has left
    try:
        yield made
    finally:
        made.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")


def _free_ports(*names: str) -> dict[str, str]:
    """A port for each, all of them held until the last one is found, so that no two are the same."""
    with ExitStack() as held:
        listeners = [held.enter_context(socket.socket()) for _ in names]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return {name: str(listener.getsockname()[1]) for name, listener in zip(names, listeners, strict=True)}
