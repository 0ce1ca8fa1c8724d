"""What `make bench-peers` makes of a folder that it is given, and of what the peers' own program has written down."""

from pathlib import Path

import pytest

from bench import peers

RUN_ALL = """
PEERS = {
    "one": ("a", "a", "", 1, 1, True, "late, each", "rerun after 30 s"),
    "two": ("b", "b", "", 1, 0, False, "early_results", "lost"),
}
"""
LINES = """{"peer": "one", "load": "drain", "result": {"n": 100, "wall": 0.5}}
{"peer": "one", "load": "chain", "result": null}
{"peer": "one", "load": "latency", "result": {"n": 10, "wall": 1, "p50": 1.234, "p99": 5.678}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "run_all.py").write_text(RUN_ALL)
    return tmp_path


def test_the_folder_is_asked_for_and_looked_at(folder: Path):
    assert peers.main([""]) == peers.main([str(folder / "nowhere")]) == 2
    with pytest.raises(peers.WrongFolderError, match="PEERS=<folder"):
        peers.runner("")
    with pytest.raises(peers.WrongFolderError, match=r"has no run_all\.py"):
        peers.runner(str(folder / "nowhere"))
    (folder / "run_all.py").write_text("PEERS = {'one': 1}")
    with pytest.raises(peers.WrongFolderError, match="table PEERS"):
        peers.known(peers.runner(str(folder)))
    (folder / "run_all.py").write_text("import nothing_of_this_name")
    with pytest.raises(peers.WrongFolderError, match="cannot be loaded: ModuleNotFoundError"):
        peers.known(peers.runner(str(folder)))


def test_what_a_peer_promises_and_reached_is_reported_and_what_failed_is_null(folder: Path, tmp_path: Path):
    known = peers.known(peers.runner(str(folder)))
    old, new = tmp_path / "results_aof_1.jsonl", tmp_path / "results_aof_2.jsonl"
    old.write_text('{"peer": "two", "load": "drain", "result": {"n": 1, "wall": 1}}\n')
    new.write_text(LINES)
    for line in peers.measured(tmp_path, [old]):
        if line["result"] is not None:
            known[line["peer"]].add(line["load"], line["result"])
    assert known["one"].figures() == {
        "acknowledges": "late, each",
        "after_kill": "rerun after 30 s",
        "drain_per_s": 200,
        "chain_per_s": None,
        "latency_p50_ms": 1.23,
        "latency_p99_ms": 5.68,
    }
    assert known["two"].figures()["drain_per_s"] is None
