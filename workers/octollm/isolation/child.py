"""A process of the pool: reads a function and its arguments, calls it, writes what it returns, and so on.

It ends with its parent, and has no more memory than `MEMORY_BYTES`. Its functions are pure: they open neither files nor
connections.
"""

import contextlib
import ctypes
import os
import pickle
import resource
import signal
import sys
from typing import BinaryIO

from octollm.errors import PermanentError
from octollm.faults import describe, is_deterministic
from octollm.isolation.messages import HEADER, Failed, Ok, Permanent, Reply

MEMORY_BYTES = 1 << 30
"""Address space of a process. An allocation beyond it fails the step."""
_NICE = 5
"""Below the event loops of this machine, which renew leases."""
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve requests from standard input until it is closed."""
    _end_with_parent()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)
    requests = sys.stdin.buffer
    with os.fdopen(os.dup(1), "wb") as replies:
        os.dup2(2, 1)  # whatever is printed must not be read as a reply
        while header := requests.read(HEADER.size):
            reply = _reply(requests.read(HEADER.unpack(header)[0]))
            _write(replies, reply)


def _reply(request: bytes) -> Reply:
    try:
        function, args = pickle.loads(request)  # noqa: S301  from the parent, over a private pipe
        return Ok(function(*args))
    except PermanentError as error:
        return Permanent(error.code, error.message)
    except MemoryError:
        return Permanent("out_of_memory", f"the step's content takes more than {MEMORY_BYTES >> 20} MiB of memory")
    except Exception as error:  # noqa: BLE001  whatever it is, the parent has to learn of it
        return Failed(describe(error), may_pass=not is_deterministic(error))


def _write(replies: BinaryIO, reply: Reply) -> None:
    raw = pickle.dumps(reply, pickle.HIGHEST_PROTOCOL)
    replies.write(HEADER.pack(len(raw)) + raw)
    replies.flush()


def _end_with_parent() -> None:
    """Let the kernel kill this process when its parent dies; it may be in a call that never returns."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:  # it died before the call
        sys.exit(1)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        main()
