"""Vectors in this process, in a folder of its own: Qdrant's engine as a library, without a server.

Owns the folder (`lock`, `about.json`, the shard) and the one thread that calls the library. What is promised: when
`put` returns, its points lie in the write-ahead log on the disk; they outlive the process and the machine's power.

The library holds Python's lock while it works. So writes are cut small, and its optimizer is not used: it would stop
the whole process for half a minute at ten thousand points. Searches are exact instead, and grow with the points.
"""

import asyncio
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar
from uuid import UUID

import numpy as np
import qdrant_edge as edge
from numpy.typing import NDArray

from octollm.errors import OctoError, VectorStoreError
from octollm.memory.ports import Near, Point
from octollm.memory.vectors.lock import lock
from octollm.memory.vectors.payload import (
    COLLECTION,
    DIMENSION,
    EMBEDDER,
    INDEXED,
    TENANT,
    check_same,
    check_vectors,
    conditions,
    payload,
)

_BATCH = 128  # points of one call: some milliseconds
_FLUSH_AFTER = 20_000  # points; a flush empties the log, which is read again after a crash
_MIN_FREE_BYTES = 64 * 1024 * 1024
"""The library writes through mapped memory: on a full disk the kernel would end the process with SIGBUS."""

T = TypeVar("T")


class EdgeStore:
    """A `VectorStore`. One process at a time has the folder."""

    def __init__(self, folder: Path) -> None:
        """Touches nothing; `open` makes the folder."""
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="vectors")
        self._lock: IO[bytes] | None = None
        self._open: edge.EdgeShard | None = None
        self._dimension = 0
        self._unflushed = 0

    async def open(self, embedder: str, dimension: int) -> None:
        """Open the folder, or create it.

        Raises VectorStoreError where another has the folder or it holds vectors of another dimension or name.
        """
        await self._run(lambda: self._open_now(embedder, dimension))

    async def put(self, points: Sequence[Point]) -> None:
        """Write points; ones with a known id are replaced. On return they are on the disk and can be found."""
        check_vectors([point.vector for point in points], self._dimension)
        for start in range(0, len(points), _BATCH):
            batch = points[start : start + _BATCH]
            await self._run(lambda batch=batch: self._put_now(batch))  # type: ignore[misc]
        await self._run(self._sync)

    async def search(
        self,
        tenant: str,
        vector: NDArray[np.float32],
        limit: int,
        *,
        collection: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> Sequence[Near]:
        """The nearest points, best first."""
        check_vectors([vector], self._dimension)
        if limit < 1:
            return []
        request = edge.SearchRequest(
            query=edge.Query.Nearest(vector.tolist()),
            limit=limit,
            filter=_filter(conditions(tenant, collection, attributes=attributes)),
        )
        found = await self._run(lambda: self._shard.search(request))
        return [Near(UUID(str(point.id)), float(point.score)) for point in found]

    async def delete(self, tenant: str, ids: Sequence[UUID]) -> None:
        """Remove points of this tenant; unknown ids are no error."""
        if ids:
            await self._delete(_filter(conditions(tenant), edge.HasIdCondition(set(ids))))

    async def delete_document(self, tenant: str, collection: str, document: str) -> None:
        """Remove every point of a document."""
        await self._delete(_filter(conditions(tenant, collection, document)))

    async def count(self, tenant: str) -> int:
        """Points of a tenant."""
        request = edge.CountRequest(exact=True, filter=_filter(conditions(tenant)))
        return await self._run(lambda: self._shard.count(request))

    async def close(self) -> None:
        """Flush and let go; another process may open the folder afterwards."""
        if self._lock is not None:
            await self._run(self._close_now)
        self._thread.shutdown(wait=False)

    async def _delete(self, which: edge.Filter) -> None:
        def now() -> None:
            self._require_space()
            self._shard.update(edge.UpdateOperation.delete_points_by_filter(which))
            self._sync()

        await self._run(now)

    async def _run(self, work: Callable[[], T]) -> T:
        """In the thread; the library's errors, which have no types, become ours."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OctoError:
            raise
        except Exception as error:
            raise VectorStoreError(f"the vector store in {self._folder} does not work: {error}") from error

    @property
    def _shard(self) -> edge.EdgeShard:
        if self._open is None:
            raise VectorStoreError("the vector store is not open")
        return self._open

    @property
    def _path(self) -> Path:
        return self._folder / COLLECTION

    def _open_now(self, embedder: str, dimension: int) -> None:
        if self._open is not None:
            raise VectorStoreError("the vector store is open already")
        self._lock = lock(self._folder)
        try:
            about = self._folder / "about.json"
            if about.exists():
                found = json.loads(about.read_bytes())
                check_same(str(self._folder), (found[EMBEDDER], found[DIMENSION]), (embedder, dimension))
                self._open = edge.EdgeShard.load(str(self._path))
            else:
                self._open = self._make(dimension)
                _write(about, json.dumps({EMBEDDER: embedder, DIMENSION: dimension}).encode())
        except BaseException:
            self._close_now()
            raise
        self._dimension = dimension

    def _make(self, dimension: int) -> edge.EdgeShard:
        # Without about.json nothing was ever stored: the files are left over from an interrupted start.
        shutil.rmtree(self._path, ignore_errors=True)
        self._path.mkdir()
        vectors = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)
        shard = edge.EdgeShard.create(str(self._path), edge.EdgeConfig(vectors=vectors))
        for field in INDEXED:
            index = edge.KeywordIndexParams(is_tenant=field == TENANT)
            shard.update(edge.UpdateOperation.create_field_index(field, index))
        shard.flush()
        return shard

    def _require_space(self) -> None:
        """Raise VectorStoreError while the disk is almost full. The caller tries again later."""
        disk = os.statvfs(self._folder)
        if disk.f_bavail * disk.f_frsize < _MIN_FREE_BYTES:
            raise VectorStoreError(f"the disk of the vector store in {self._folder} is full; free some space")

    def _put_now(self, points: Sequence[Point]) -> None:
        self._require_space()
        made = [edge.Point(point.id, point.vector.tolist(), payload(point)) for point in points]
        self._shard.update(edge.UpdateOperation.upsert_points(made))
        self._unflushed += len(points)

    def _sync(self) -> None:
        """The library writes its log through mapped memory, which outlives the process but not the power."""
        if self._unflushed >= _FLUSH_AFTER:
            self._shard.flush()
            self._unflushed = 0
        for path in (self._path / "wal").iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def _close_now(self) -> None:
        shard, self._open = self._open, None
        if shard is not None:
            shard.close()
        held, self._lock = self._lock, None
        if held is not None:
            held.close()


def _filter(pairs: Iterable[tuple[str, str]], *more: edge.HasIdCondition) -> edge.Filter:
    matches = [edge.FieldCondition(key=key, match=edge.MatchValue(value)) for key, value in pairs]
    return edge.Filter(must=[*matches, *more])


def _write(path: Path, content: bytes) -> None:
    """All of it or nothing, also when the power fails."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
