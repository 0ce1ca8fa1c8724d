"""Turns itself into a child program that dies with its parent.

Run as a script, never imported by OctoLLM.

    python -I -S launcher.py PARENT SIGNAL USER PROGRAM [ARGUMENT...]

PARENT is the pid to outlive never, SIGNAL the signal the kernel sends when that parent is gone, USER the user
id to appear as inside a user namespace of our own ("-" for none). Done after fork in a program of its own,
because a preexec function in a process with threads can deadlock. Uses the standard library only.
"""

import ctypes
import os
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> str:
    """Replaces this process; returns only with the reason why it could not."""
    parent, signal, user, *command = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    if user != "-":
        identity = (os.geteuid(), os.getegid())
        if libc.unshare(_CLONE_NEWUSER) != 0:
            return f"cannot make a user namespace: {os.strerror(ctypes.get_errno())}"
        try:
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {identity[0]} 1")
            Path("/proc/self/gid_map").write_text(f"{user} {identity[1]} 1")
        except OSError as error:
            return f"cannot map the user in a user namespace: {error}"
    # After the namespace, because a change of credentials clears the signal.
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal), 0, 0, 0) != 0:
        return f"cannot tie the process to its parent: {os.strerror(ctypes.get_errno())}"
    if os.getppid() != int(parent):
        return "the parent ended before its child began"
    try:
        os.execvp(command[0], command)  # noqa: S606 (no shell is wanted)
    except OSError as error:
        return f"cannot run {command[0]}: {error.strerror}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
