"""What the embedded store alone has to answer for: its files, and a process that dies."""

import json
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import numpy as np
import pytest

from octollm.errors import VectorStoreError
from octollm.memory.ports import Point
from octollm.memory.vectors import edge as edge_module
from octollm.memory.vectors.edge import EdgeStore

WRITER = """
import asyncio, itertools, sys
from pathlib import Path
from uuid import UUID
import numpy as np
from octollm.memory.ports import Point
from octollm.memory.vectors.edge import EdgeStore

async def main():
    store = EdgeStore(Path(sys.argv[1]))
    await store.open("test/eight", 8)
    vectors = np.eye(8, dtype=np.float32)
    for number in itertools.count():
        points = [Point(UUID(int=number * 8 + n), vectors[n], "a", "docs", str(number)) for n in range(8)]
        await store.put(points)
        print(number, flush=True)

asyncio.run(main())
"""


def write_until_killed(folder: Path) -> int:
    """How many batches of eight the writer said it had put."""
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as writer:
        assert writer.stdout is not None
        reported = [writer.stdout.readline() for _ in range(40)]
        writer.kill()
        reported += writer.stdout.readlines()
    return len([line for line in reported if line.endswith("\n")])


async def test_what_was_put_outlives_a_killed_process(tmp_path):
    reported = write_until_killed(tmp_path)
    assert reported >= 40
    store = EdgeStore(tmp_path)
    await store.open("test/eight", 8)
    # One more may have been written whose word did not get out.
    assert reported <= await store.count("a") / 8 <= reported + 1
    assert len(await store.search("a", np.eye(8, dtype=np.float32)[3], 1000)) == await store.count("a")
    await store.close()


async def test_a_start_that_was_cut_off_is_made_up_for(tmp_path):
    store = EdgeStore(tmp_path)
    await store.open("test/eight", 8)
    await store.close()
    (tmp_path / "about.json").unlink()
    again = EdgeStore(tmp_path)
    await again.open("test/other", 4)
    await again.close()
    assert json.loads((tmp_path / "about.json").read_bytes()) == {"embedder": "test/other", "dimension": 4}


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
async def test_damaged_files_are_reported_and_the_folder_is_let_go(tmp_path, content):
    store = EdgeStore(tmp_path)
    await store.open("test/eight", 8)
    await store.close()
    (tmp_path / "about.json").write_bytes(content)
    for _ in range(2):
        with pytest.raises(VectorStoreError, match=str(tmp_path)):
            await EdgeStore(tmp_path).open("test/eight", 8)


async def test_a_folder_that_cannot_be_made_is_reported(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(VectorStoreError, match="cannot be used"):
        await EdgeStore(tmp_path / "file" / "vectors").open("test/eight", 8)


async def test_an_almost_full_disk_refuses_writes_before_the_kernel_ends_the_process(tmp_path, monkeypatch):
    store = EdgeStore(tmp_path)
    await store.open("test/eight", 8)
    point = Point(UUID(int=1), np.eye(8, dtype=np.float32)[0], "a", "docs", "one")
    with monkeypatch.context() as full:
        full.setattr(edge_module, "_MIN_FREE_BYTES", 2**63)
        with pytest.raises(VectorStoreError, match="is full"):
            await store.put([point])
        with pytest.raises(VectorStoreError, match="is full"):
            await store.delete("a", [point.id])
    await store.put([point])
    assert await store.count("a") == 1
    await store.close()
