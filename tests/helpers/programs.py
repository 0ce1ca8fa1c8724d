"""Starts OctoLLM's programs as a user does, and asks over HTTP."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.helpers.waiting import TIMEOUT_S, until_sync

OCTOLLM = [sys.executable, "-m", "octollm"]


def ask(method: str, url: str, **options: Any) -> httpx.Response:
    """One request, with the same time-out."""
    return httpx.request(method, url, timeout=TIMEOUT_S, trust_env=False, **options)


@dataclass
class Up:
    """A running `octollm up`."""

    process: subprocess.Popen[str]
    addresses: dict[str, Any]

    @property
    def http(self) -> str:
        return str(self.addresses["http"])

    def submit(self, body: Any, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": "application/json", **headers}
        return ask("POST", f"{self.http}/v1/tasks", content=content, headers=headers)

    def status(self, task: str) -> dict[str, Any]:
        answer = ask("GET", f"{self.http}/v1/tasks/{task}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def ended(self, task: str) -> dict[str, Any]:
        def terminal() -> dict[str, Any] | None:
            status = self.status(task)
            return None if status["state"] in {"accepted", "running"} else status

        return until_sync(terminal, f"the end of task {task}")


@contextmanager
def up(folder: Path, *arguments: str, **environment: str) -> Iterator[Up]:
    """`octollm up`, stopped with Ctrl-C at the end; fails when it leaves a process behind."""
    log = (folder / "up.log").open("ab")
    process = subprocess.Popen(
        [*OCTOLLM, "up", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, **environment},
    )
    family: list[psutil.Process] = []
    try:
        yield Up(process, _addresses(process, folder))
        family = psutil.Process(process.pid).children(recursive=True)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            code = process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            log.close()
            if process.stdout:
                process.stdout.close()
    assert code == 0, (folder / "up.log").read_text()[-3000:]
    assert [one for one in family if one.is_running()] == []


def _addresses(process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    assert process.stdout is not None
    text = ""
    for line in process.stdout:
        text += line
        if line.startswith("}"):
            found: dict[str, Any] = json.loads(text)
            return found
    raise AssertionError(f"octollm up ended: {(folder / 'up.log').read_text()[-3000:]}")


def octollm(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [*OCTOLLM, *arguments],
        input=stdin,
        stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
