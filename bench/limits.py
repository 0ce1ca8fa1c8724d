"""What all limits together cost in throughput: everything that exists switched on, against all of it off.

Usage: python -m bench.limits [--messages 20000] [--rounds 5] [--slots 256] [--tenants 10]. One run, an own Redis with
AOF everysec, one worker process with the arm `noop`. On: a window as wide as the worker has slots, and a cap on what
runs for each tenant that is never reached, so that it is counted and holds nothing up. Rate limits and traces do not
exist yet.

`ready`: all steps lie on their stream, as where work comes no faster than it is done. `waiting`: all but a window of
them wait and each has to be let in, as behind a pile. Rounds take turns; ratios are medians over rounds, each within
its own.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import orjson
import redis.asyncio
import uvloop

from bench.fairness import Speed, setup, throughput
from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.redis import EmbeddedRedis
from octollm.settings.loader import load_settings

_WHAT = "windows and caps per tenant on; rate limits and traces do not exist yet"


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of one run."""
    found: dict[str, list[tuple[Speed, Speed]]] = {"ready": [], "waiting": []}
    with tempfile.TemporaryDirectory() as place, Ports() as ports:
        folder, slots = Path(place), options.slots
        never = 10 * (options.messages + slots)
        off = setup(folder, "off", slots)
        on = setup(folder, "on", slots, window=slots, max_running_per_tenant=never)
        senders = {"ready": setup(folder, "sender", slots, max_running_per_tenant=never), "waiting": on}
        server = await EmbeddedRedis.start(folder / "redis", ports, server=load_settings().redis.server)
        client = redis.asyncio.Redis.from_url(server.url)
        try:
            for number in range(options.rounds):
                for how, sender in senders.items():
                    pair = {}
                    for one, by in ((on, sender), (off, off))[:: 1 if number % 2 else -1]:
                        pair[one.file.stem] = await throughput(
                            client, server.url, one, options.messages, sender=by.fairness, tenants=options.tenants
                        )
                    found[how].append((pair["on"], pair["off"]))
                    print(f"round {number + 1} {how}: {pair}", file=sys.stderr)
        finally:
            await client.aclose()
            await server.stop()
    figures: dict[str, Any] = {"limits": _WHAT}
    for how, pairs in found.items():
        figures |= {
            f"limits_{how}_per_s": round(statistics.median(on.per_s for on, _ in pairs)),
            f"no_limits_{how}_per_s": round(statistics.median(off.per_s for _, off in pairs)),
            f"limits_{how}_ratio": round(statistics.median(on.per_s / off.per_s for on, off in pairs), 3),
            f"limits_{how}_cpu_ratio": round(
                statistics.median(on.cpu_s_per_10k / off.cpu_s_per_10k for on, off in pairs), 3
            ),
        }
    return figures


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--messages", type=int, default=20_000)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--slots", type=int, default=256)
    made.add_argument("--tenants", type=int, default=10)
    return made


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(measure(parser().parse_args()))).decode())
