"""Writes the blocking client from the asyncio client, file by file. Called by `generate.py`."""

import subprocess
import sys
import tempfile
from pathlib import Path

import unasync

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "workers/octollm/client"
FILES = {"aio_connection.py": "sync_connection.py", "aio.py": "sync.py"}
"""Each file of the asyncio client, and what it becomes."""
RUFF = Path(sys.executable).with_name("ruff")
NAMES = {
    "AsyncClient": "Client",
    "AsyncConnection": "Connection",
    "aio_connection": "sync_connection",
    "aclose": "close",
    "aread": "read",
    "asyncio": "time",
}
"""What unasync does not know: `asyncio.sleep` becomes `time.sleep`, the only use of asyncio in the source."""


def write_sync_client(arguments: list[str]) -> int:
    """Write the blocking client. With `--check` only compare, and return 1 when a file differs."""
    wrong = 0
    for source, target in ((CLIENT / source, CLIENT / target) for source, target in FILES.items()):
        new = _generate(source, target)
        if "--check" not in arguments:
            target.write_text(new)
        elif not target.is_file() or target.read_text() != new:
            sys.stderr.write(f"{target.relative_to(ROOT)} differs; run `make generate`\n")
            wrong = 1
    return wrong


def _generate(source: Path, target: Path) -> str:
    docstring, _, code = source.read_text().partition("\n")
    text = docstring.split(" `make generate`")[0].replace("asyncio", "blocking")
    docstring = f'{text} Do not edit: `make generate` writes it from `{source.name}`."""'
    with tempfile.TemporaryDirectory() as folder:
        original = Path(folder) / "aio" / "client.py"
        original.parent.mkdir()
        original.write_text(f"{docstring}\n{code}")
        unasync.unasync_files([str(original)], [unasync.Rule("/aio/", "/sync/", additional_replacements=NAMES)])
        generated = (Path(folder) / "sync" / "client.py").read_bytes()
    # The renamed modules change the order of the imports.
    sort, layout = ["check", "--quiet", "--select=I", "--fix"], ["format"]
    for command in (sort, layout):
        generated = subprocess.run(  # noqa: S603  the project's own tool
            [RUFF, *command, "--stdin-filename", target, "-"],
            input=generated,
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
    return generated.decode()
