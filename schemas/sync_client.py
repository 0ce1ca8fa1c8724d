"""Writes `client/sync.py`, the blocking client, from `client/aio.py`. Called by `generate.py`."""

import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "workers/octollm/client"
SOURCE = CLIENT / "aio.py"
TARGET = CLIENT / "sync.py"
RUFF = Path(sys.executable).with_name("ruff")
NAMES = {"AsyncClient": "Client", "aclose": "close", "aread": "read", "asyncio": "time"}
"""What unasync does not know: `asyncio.sleep` becomes `time.sleep`, the only use of asyncio in the source."""
SOURCE_DOCSTRING = '"""The asyncio client. `make generate` writes `sync.py`, the blocking client, from this file."""'
TARGET_DOCSTRING = '"""The blocking client. Do not edit: `make generate` writes this file from `aio.py`."""'


def write_sync_client(arguments: list[str]) -> int:
    """Write the blocking client. With `--check` only compare, and return 1 when the file differs."""
    new = _generate()
    if "--check" in arguments:
        wrong = not TARGET.is_file() or TARGET.read_text() != new
        if wrong:
            sys.stderr.write(f"{TARGET.relative_to(ROOT)} differs; run `make generate`\n")
        return int(wrong)
    TARGET.write_text(new)
    return 0


def _generate() -> str:
    text = SOURCE.read_text()
    if SOURCE_DOCSTRING not in text:
        raise SystemExit(f"{SOURCE.relative_to(ROOT)} must begin with: {SOURCE_DOCSTRING}")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "aio" / "client.py"
        source.parent.mkdir()
        source.write_text(text.replace(SOURCE_DOCSTRING, TARGET_DOCSTRING))
        unasync.unasync_files([str(source)], [unasync.Rule("/aio/", "/sync/", additional_replacements=NAMES)])
        generated = (Path(folder) / "sync" / "client.py").read_bytes()
    formatted = subprocess.run(  # noqa: S603  the project's own tool
        [RUFF, "format", "--stdin-filename", TARGET, "-"], input=generated, cwd=ROOT, check=True, capture_output=True
    )
    return formatted.stdout.decode()
