"""How fast memory is: embedding, and search over growing numbers of passages. Last line: one JSON object.

Usage: python -m bench.search [--points 1000,10000,100000] [--queries 200] [--only embedding,dense]

Each leg is a function that adds its figures under its own name. Times are milliseconds of one search at a time, on the
event loop, as an arm would call it; whatever else the machine does is in them.
"""

import argparse
import asyncio
import json
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from octollm.memory.embed.files import minilm_folder, problem
from octollm.memory.embed.minilm import MiniLm
from octollm.memory.ports import Point
from octollm.memory.vectors.edge import EdgeStore

DIMENSION = 384
TENANTS = 10
_CHUNK = 220  # tokens of a passage, about

Leg = Callable[[argparse.Namespace], Coroutine[Any, Any, dict[str, Any]]]


async def embedding(options: argparse.Namespace) -> dict[str, Any]:
    """Tokens per second of one core, and the time of a short query."""
    folder = minilm_folder(os.environ.get("OCTOLLM_EMBEDDING_PATH", ""))
    wrong = problem(folder)
    if wrong is not None:
        return {"not_measured": f"{wrong}; run octollm models pull"}
    embedder = MiniLm.load(folder)
    texts = list(_passages(embedder, 60))
    tokens = sum(embedder.count_tokens(texts))
    await embedder.embed(texts[:4])
    walls, cores = [], []
    for _ in range(options.rounds):
        began, busy = time.perf_counter(), _cpu_s()
        await embedder.embed(texts)
        walls.append(time.perf_counter() - began)
        cores.append(_cpu_s() - busy)
    queries = [f"how does part {n} find what was lost" for n in range(50)]
    times = await _timed(queries, lambda text: embedder.embed([text]))
    await embedder.close()
    blas = _blas_flops()
    return {
        "tokens": tokens,
        "tokens_per_chunk": round(tokens / len(texts)),
        "tokens_per_core_s": round(tokens / min(cores)),
        "tokens_per_wall_s": round(tokens / min(walls)),
        "blas_gflops": round(blas / 1e9, 1),
        # What one could have if nothing but the model's matrix products took time.
        "tokens_per_core_s_if_only_blas": round(blas / _flops_per_token(tokens / len(texts) + 2)),
        "query_ms": _quantiles(times),
    }


async def dense(options: argparse.Namespace) -> dict[str, Any]:
    """The embedded store: one tenant that has everything, and one of ten tenants."""
    answer: dict[str, Any] = {}
    rng = np.random.default_rng(5)
    for size in options.points:
        with tempfile.TemporaryDirectory(prefix="octollm-bench-") as folder:
            store = EdgeStore(Path(folder))
            await store.open("bench/clusters", DIMENSION)
            vectors, queries = clusters(rng, size, options.queries)
            began = time.perf_counter()
            await store.put(list(_points(vectors, lambda _at: "all")))
            put_s = time.perf_counter() - began
            everything = await _timed(queries, lambda vector: store.search("all", vector, 10))  # noqa: B023  awaited at once
            exact = await _recall(store, "all", vectors, queries[:20])
            await store.close()
        with tempfile.TemporaryDirectory(prefix="octollm-bench-") as folder:
            store = EdgeStore(Path(folder))
            await store.open("bench/clusters", DIMENSION)
            await store.put(list(_points(vectors, lambda at: f"tenant-{at % TENANTS}")))
            tenth = await _timed(queries, lambda vector: store.search("tenant-3", vector, 10))  # noqa: B023  awaited at once
            await store.close()
        answer[str(size)] = {
            "all_ms": _quantiles(everything),
            "tenant_ms": _quantiles(tenth),
            "recall10": exact,
            "points_per_s": round(size / put_s),
        }
    return answer


LEGS: dict[str, Leg] = {"embedding": embedding, "dense": dense}
"""Name on the command line and in the answer to what measures it."""


def clusters(rng: np.random.Generator, size: int, queries: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Unit vectors in clusters, as texts have them, and others of the same clusters to search for."""
    centres = rng.standard_normal((max(8, size // 100), DIMENSION), dtype=np.float32)
    made = centres[rng.integers(0, len(centres), size + queries)]
    made += 0.7 * rng.standard_normal(made.shape, dtype=np.float32)
    made /= np.linalg.norm(made, axis=1, keepdims=True)
    return made[:size], made[size:]


def _points(vectors: NDArray[np.float32], tenant: Callable[[int], str]) -> Iterator[Point]:
    for at, vector in enumerate(vectors):
        yield Point(UUID(int=at), vector, tenant(at), "documents", f"{at // 20}.md")


async def _recall(store: EdgeStore, tenant: str, vectors: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
    """Share of the ten truly nearest that a search of ten finds."""
    found = 0
    for query in queries:
        nearest = np.argpartition(vectors @ query, -10)[-10:]
        found += len({one.id.int for one in await store.search(tenant, query, 10)} & set(nearest.tolist()))
    return found / (10 * len(queries))


async def _timed(queries: Iterable[Any], search: Callable[[Any], Awaitable[object]]) -> list[float]:
    times = []
    for query in queries:
        began = time.perf_counter()
        await search(query)
        times.append((time.perf_counter() - began) * 1000)
    return times


def _quantiles(times: Sequence[float]) -> dict[str, float]:
    return {"p50": round(float(np.quantile(times, 0.5)), 2), "p95": round(float(np.quantile(times, 0.95)), 2)}


def _passages(embedder: MiniLm, number: int) -> Iterator[str]:
    """English of our own documentation, cut to the length of a passage."""
    words = " ".join(path.read_text() for path in sorted(Path("docs").rglob("*.md"))).split()
    for at in range(number):
        passage = " ".join(words[(at * 97 + n) % len(words)] for n in range(_CHUNK))
        while (tokens := embedder.count_tokens([passage])[0]) > _CHUNK + 20:
            passage = passage[: len(passage) * _CHUNK // tokens]
        yield passage


def _flops_per_token(length: float) -> float:
    """Of all-MiniLM-L6-v2: six layers with four square and two wide products, and attention over the text."""
    return 6 * (2 * (4 * DIMENSION**2 + 2 * DIMENSION * 4 * DIMENSION) + 4 * length * DIMENSION)


def _blas_flops() -> float:
    """Of one core, on the model's commonest product."""
    left = np.ones((1024, DIMENSION), dtype=np.float32)
    right = np.ones((DIMENSION, 4 * DIMENSION), dtype=np.float32)
    out = np.empty((1024, 4 * DIMENSION), dtype=np.float32)
    times = []
    for _ in range(20):
        busy = time.thread_time()
        np.matmul(left, right, out=out)
        times.append(time.thread_time() - busy)
    return 2 * 1024 * DIMENSION * 4 * DIMENSION / min(times)


def _cpu_s() -> float:
    """Of all threads of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def numbers(text: str) -> list[int]:
    """A list like 1000,10000; its name is what argparse calls a wrong one."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Runs the legs asked for, one after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=numbers, default="1000,10000,100000")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3, help="of embedding; the best counts")
    parser.add_argument("--only", type=lambda text: text.split(","), default=",".join(LEGS))
    options = parser.parse_args()
    unknown = set(options.only) - set(LEGS)
    if unknown:
        parser.error(f"--only knows {', '.join(LEGS)}, not {', '.join(sorted(unknown))}")
    answer: dict[str, Any] = {"python": platform.python_version(), "load_before": round(os.getloadavg()[0], 2)}
    for name in options.only:
        print(f"measuring {name}", file=sys.stderr, flush=True)
        answer[name] = asyncio.run(LEGS[name](options))
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
