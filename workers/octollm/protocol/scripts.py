"""The Lua scripts, assembled from the files in `lua/`. Rust runs the same files.

A script's header documents its KEYS and ARGV; `handoff.py` is what the rest of Python calls.
"""

from dataclasses import dataclass
from functools import cache

import redis.asyncio
from redis.commands.core import AsyncScript

from octollm.resources import lua_path

_INCLUDED = ("lease.lua", "status.lua", "fairness.lua", "ended_runs.lua", "dead_letters.lua", "open_tasks.lua")
"""In this order: `fairness.lua` includes the next two."""
NAMES = (
    "admit",
    "cancel",
    "claim",
    "complete",
    "evict",
    "executing",
    "leave_group",
    "promote",
    "prune",
    "redrive",
    "release",
    "renew",
    "republish",
)


@cache
def source(script: str) -> str:
    """Return the text of a script with its includes in place.

    The `#!lua` line stays first, as Redis demands.
    """
    folder = lua_path()
    text = (folder / f"{script}.lua").read_text(encoding="utf-8")
    for name in _INCLUDED:
        text = text.replace(f"--@include {name}\n", (folder / name).read_text(encoding="utf-8"))
    return text


@dataclass(frozen=True, slots=True)
class Scripts:
    """All scripts, bound to one client.

    They are called by digest, and loaded again when a server has lost them.
    """

    admit: AsyncScript
    cancel: AsyncScript
    claim: AsyncScript
    complete: AsyncScript
    evict: AsyncScript
    executing: AsyncScript
    leave_group: AsyncScript
    promote: AsyncScript
    prune: AsyncScript
    redrive: AsyncScript
    release: AsyncScript
    renew: AsyncScript
    republish: AsyncScript

    @classmethod
    def of(cls, client: redis.asyncio.Redis) -> "Scripts":
        """Bind every script to `client`, which hashes each; nothing is sent yet."""
        return cls(**{name: client.register_script(source(name)) for name in NAMES})
