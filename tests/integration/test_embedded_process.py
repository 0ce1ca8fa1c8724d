"""Children live and die with their parent, however the parent ends."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from octollm.devstack.embedded.process import Child
from octollm.errors import StartError

PARENT = """
import asyncio, sys
from pathlib import Path
from octollm.devstack.embedded.process import Child

async def main():
    child = await Child.start("sleeper", ["sleep", "600"], log=Path(sys.argv[1]))
    print(child.pid, flush=True)
    await child.wait()

asyncio.run(main())
"""


def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path):
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = os.pidfd_open(int(parent.stdout.readline()))
        try:
            parent.kill()
            ended, _, _ = select.select([child], [], [], 30)
        finally:
            os.close(child)
    assert ended, "the child outlived its parent"


async def test_the_end_of_a_child_is_reported_with_its_log(tmp_path: Path):
    script = "import sys; print('first'); print('cannot go on', file=sys.stderr); sys.exit(3)"
    child = await Child.start("teller", [sys.executable, "-c", script], log=tmp_path / "log")
    assert await child.wait() == 3
    message = str(child.ended())
    assert "teller ended with exit code 3" in message
    assert "cannot go on" in message
    assert str(tmp_path / "log") in message


async def test_a_program_that_is_not_there_is_named(tmp_path: Path):
    child = await Child.start("ghost", ["/nowhere/ghost"], log=tmp_path / "log")
    await child.wait()
    assert "cannot run /nowhere/ghost: No such file or directory" in str(child.ended())


async def test_stop_goes_from_asking_to_killing(tmp_path: Path):
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # an ignored signal stays ignored in a child
    try:
        child = await Child.start("deaf", ["sleep", "600"], log=tmp_path / "log")
    finally:
        signal.signal(signal.SIGUSR1, before)
    await child.stop((signal.SIGUSR1, 0.05))
    assert child.exit_code == -signal.SIGKILL


async def test_an_impatient_stop_still_kills(tmp_path: Path):
    child = await Child.start("sleeper", ["sleep", "600"], log=tmp_path / "log")
    stopping = asyncio.create_task(child.stop((signal.SIGCONT, 600)))
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert await child.wait() == -signal.SIGKILL


async def test_a_namespace_that_cannot_be_made_is_reported(tmp_path: Path):
    child = await Child.start("nested", ["true"], log=tmp_path / "log", namespace_user=-5)
    assert await child.wait() != 0
    assert isinstance(child.ended(), StartError)
    assert "namespace" in child.tail()
