"""A log that cannot be written costs its lines, which are counted, and holds up nothing."""

import os
import subprocess
import sys
import threading

import pytest

from octollm.observability.log_writer import DROPPED, LogWriter
from tests.helpers.waiting import until

_PROGRAM = """
import sys, time, warnings
import structlog
from octollm.observability.log_writer import DROPPED
from octollm.observability.logging import configure_logging
from octollm.settings.sections import LogSettings

configure_logging(LogSettings(level="info", format="json"))
began = time.monotonic()
for number in range(20):
    structlog.get_logger("octollm.x").info("a line", filler="x" * 300_000)
print("a progress note", file=sys.stderr, flush=True)
warnings.warn("a warning")
print(f"{time.monotonic() - began:.2f}", int(DROPPED._value.get()))
"""


def run(stderr: int, *, closed: bool = False) -> tuple[float, int]:
    """Run a program that logs 6 MB; return how long logging took, and how many lines it counted as dropped."""
    command = [sys.executable, "-c", _PROGRAM]
    if closed:
        command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=stderr, check=True, timeout=30)
    seconds, dropped = done.stdout.split()
    return float(seconds), int(dropped)


def test_a_reader_that_stands_still_costs_lines_and_no_time():
    reading, writing = os.pipe()
    try:
        seconds, dropped = run(writing)
    finally:
        os.close(reading)
        os.close(writing)
    assert seconds < 5
    assert dropped > 0


def test_a_dead_reader_costs_lines_only():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        seconds, _ = run(writing)
    finally:
        os.close(writing)
    assert seconds < 5


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")  # noqa: PTH110
def test_a_full_disk_costs_lines_only():
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        seconds, _ = run(full)
    finally:
        os.close(full)
    assert seconds < 5


def test_a_closed_standard_error_costs_lines_only():
    seconds, dropped = run(subprocess.DEVNULL, closed=True)
    assert seconds < 5
    assert dropped >= 20


def test_a_file_that_gets_the_number_of_a_closed_descriptor_gets_no_lines():
    reading, writing = os.pipe()
    writer = LogWriter(writing)
    other_reading, other_writing = os.pipe()
    os.close(writing)
    os.dup2(other_writing, writing)  # for instance a connection to Redis
    writer.write("a line\n")
    assert writer.flush(5)
    os.set_blocking(other_reading, False)
    with pytest.raises(BlockingIOError):
        os.read(other_reading, 100)
    assert os.read(reading, 100) == b"a line\n"
    for fd in (reading, writing, other_reading, other_writing):
        os.close(fd)
    writer.close()


async def test_lines_are_written_in_order_again_once_the_reader_reads():
    before = DROPPED._value.get()
    reading, writing = os.pipe()
    writer = LogWriter(writing)
    for number in range(30):
        writer.write(f"{number} {'x' * 250_000}\n")
    assert not writer.flush(0.05)
    dropped = DROPPED._value.get() - before
    assert dropped > 0
    received = bytearray()

    def read() -> None:
        while chunk := os.read(reading, 65536):
            received.extend(chunk)

    reader = threading.Thread(target=read)
    reader.start()

    async def drained():
        return writer.flush(0)

    await until(drained)
    assert writer.take_unreported() == dropped
    assert writer.take_unreported() == 0
    writer.write("the last one\n")
    writer.close()
    os.close(writing)
    os.close(writer._fd or -1)
    reader.join(10)
    lines = received.decode().splitlines()
    assert [int(line.split()[0]) for line in lines[:-1]] == list(range(len(lines) - 1))
    assert lines[-1] == "the last one"
    os.close(reading)


def test_a_forked_child_logs_through_its_own_thread():
    reading, writing = os.pipe()
    writer = LogWriter(writing)
    writer.write("parent\n")
    assert writer.flush(5)
    child = os.fork()
    if child == 0:
        writer.write("child\n")
        os._exit(0 if writer.flush(5) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reading, 100) == b"parent\nchild\n"
    writer.close()
    for fd in (reading, writing):
        os.close(fd)
