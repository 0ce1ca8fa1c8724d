"""What a long backlog costs: throughput with a million waiting messages next to that with ten thousand, and memory.

Usage: python -m bench.backlog [--long 1000000] [--short 10000] [--rounds 2]. One run, an own Redis, AOF everysec. The
worker finishes as many of the long backlog as the short one has.
"""

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

import orjson
import redis.asyncio
import uvloop

from bench.handoff import WORKER, drain, environment, fill
from octollm.devstack.embedded.ports import Ports
from octollm.devstack.embedded.redis import EmbeddedRedis


async def measure(options: argparse.Namespace) -> dict[str, float]:
    """The figures of one run."""
    found = {"long": [], "short": []}  # type: dict[str, list[float]]
    memory = {"long": 0.0, "short": 0.0}
    with tempfile.TemporaryDirectory() as folder, Ports() as ports:
        server = await EmbeddedRedis.start(Path(folder) / "redis", ports)
        client = redis.asyncio.Redis.from_url(server.url, socket_timeout=120)
        try:
            for _ in range(options.rounds):
                for name, waiting in (("short", options.short), ("long", options.long)):
                    await fill(client, waiting)
                    figure = await drain(client, WORKER, environment(server.url), options.short)
                    print(f"{name}: {figure.per_s:.0f} per s, {figure.rss_mb:.0f} MB", file=sys.stderr)
                    found[name].append(figure.per_s)
                    memory[name] = max(memory[name], figure.rss_mb)
        finally:
            await client.aclose()
            await server.stop()
    long, short = statistics.median(found["long"]), statistics.median(found["short"])
    return {
        "backlog_long": options.long,
        "backlog_short": options.short,
        "backlog_long_per_s": round(long),
        "backlog_short_per_s": round(short),
        "backlog_ratio": round(long / short, 3),
        "backlog_rss_ratio": round(memory["long"] / memory["short"], 3),
    }


def parser() -> argparse.ArgumentParser:
    """What can be chosen."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--long", type=int, default=1_000_000)
    made.add_argument("--short", type=int, default=10_000)
    made.add_argument("--rounds", type=int, default=2)
    return made


if __name__ == "__main__":
    print(orjson.dumps(uvloop.run(measure(parser().parse_args()))).decode())
