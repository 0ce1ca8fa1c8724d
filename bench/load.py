"""The load generator of `bench.reflex`: runs oha and reads what it reports."""

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from octollm.errors import StartError

_ROOT = Path(__file__).parents[1]
_HEADERS = ("-T", "application/json")


@dataclass(frozen=True)
class Report:
    """One run of the load generator."""

    accepted: int
    """Answers with status 202."""
    refused: int
    """Answers with another status, and requests that failed."""
    seconds: float
    latencies_ms: dict[str, float]
    """By percentile, `p50` for instance; of answers with any status."""

    @property
    def per_s(self) -> float:
        """Accepted requests per second."""
        return self.accepted / self.seconds


async def closed_loop(url: str, body: Path, seconds: int, connections: int) -> Report:
    """Each connection sends its next request when the last one is answered."""
    return await _run(url, body, seconds, connections)


async def open_loop(url: str, body: Path, seconds: int, connections: int, per_s: int) -> Report:
    """Requests are due on a fixed beat; a request that waits for a connection counts as late."""
    return await _run(url, body, seconds, connections, "-q", str(per_s), "--latency-correction")


async def _run(url: str, body: Path, seconds: int, connections: int, *extra: str) -> Report:
    command = ("-z", f"{seconds}s", "-c", str(connections), "-m", "POST", "-D", str(body), *_HEADERS, *extra)
    process = await asyncio.create_subprocess_exec(
        _program(), "--no-tui", "--output-format", "json", *command, url, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"oha ended with exit code {process.returncode}")
    report = orjson.loads(output)
    statuses = {int(status): count for status, count in report["statusCodeDistribution"].items()}
    # At the end of the run oha gives up on the requests that are open.
    failed = sum(count for error, count in report["errorDistribution"].items() if error != "aborted due to deadline")
    accepted = statuses.pop(202, 0)
    percentiles = report["latencyPercentiles"].items()
    return Report(
        accepted=accepted,
        refused=sum(statuses.values()) + failed,
        seconds=report["summary"]["total"],
        latencies_ms={name: seconds * 1000 for name, seconds in percentiles if seconds is not None},
    )


def _program() -> str:
    installed = _ROOT / "build/cargo/bin/oha"
    if not os.access(installed, os.X_OK):
        raise StartError("the load generator is missing; run .ci/setup-bench")
    return str(installed)
