"""One child process: started tied to this one, its output in a log file, stopped in order.

Owns starting, watching and stopping. Knows nothing of what the child does.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from octollm.errors import StartError

_LAUNCHER = Path(__file__).with_name("launcher.py")
_TAIL_LINES = 12
_TAIL_BYTES = 8192


def private_folder(path: Path) -> Path:
    """The folder, made for this user alone when it is not there yet."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(f"the folder {path} cannot be made ({error.strerror}); choose another with --data") from error
    return path


class Child:
    """A running child. The kernel ends it when this process ends, however that happens.

    Start children from a thread that lives as long as they should: the kernel counts the end of the starting
    thread as the end of the parent.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        """Made by `start`."""
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    async def start(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        namespace_user: int | None = None,
        keep_open: Sequence[int] = (),
    ) -> "Child":
        """Start a program; `keep_open` are file descriptors that it inherits (a lock, for instance)."""
        user = "-" if namespace_user is None else str(namespace_user)
        launch = (sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(int(death_signal)), user)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *launch,
                *command,
                cwd=cwd,
                env=None if env is None else dict(env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C at a terminal goes to a whole process group; children are stopped in order instead.
                start_new_session=True,
                pass_fds=tuple(keep_open),
            )
        return cls(name, process, log)

    @property
    def pid(self) -> int:
        """The process id of the program itself: the launcher turns into it."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative for the number of a signal."""
        return self._process.returncode

    async def wait(self) -> int:
        """Until the child ends; its exit code."""
        return await self._process.wait()

    def ended(self) -> StartError:
        """What to tell the user when the child ended and should not have."""
        return StartError(f"{self.name} {_how(self.exit_code)}; the end of its log {self.log}:\n{self.tail()}")

    def tail(self) -> str:
        """The last lines of the child's log, indented."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                lines = file.read().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        except OSError as error:
            return f"  (cannot be read: {error.strerror})"
        return "\n".join(f"  {line}" for line in lines) or "  (empty)"

    def send(self, number: signal.Signals) -> None:
        """Send a signal if the child still runs."""
        if self.exit_code is None:
            self._process.send_signal(number)

    async def stop(self, *steps: tuple[signal.Signals, float]) -> None:
        """Send each signal and give the child that many seconds; at last SIGKILL."""
        try:
            for number, timeout_s in steps:
                self.send(number)
                try:
                    await asyncio.wait_for(self.wait(), timeout_s)
                except TimeoutError:
                    continue
                return
        finally:
            self.send(signal.SIGKILL)  # also when the waiting task was cancelled; an ended child ignores it
        await self.wait()


def _how(code: int | None) -> str:
    if code is None:
        return "is still running"
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
