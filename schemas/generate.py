"""Writes the pydantic models and the vectors from schemas/events, docs/openapi.json from the API's routes, and the
blocking client from the asyncio client.

`--check` only compares.

Called by `make generate` and `make test`; the vectors are the business of `mutate`. The model generator's file
names and its shared module are its own business: `octollm.contracts` re-exports what counts.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import mutate
from sync_client import write_sync_client

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "workers/octollm/contracts/generated"
OPENAPI = ROOT / "docs/openapi.json"
GENERATOR = Path(sys.executable).with_name("datamodel-codegen")
OPTIONS = [
    *("--input", "schemas/events", "--input-file-type", "jsonschema"),
    *("--output-model-type", "pydantic_v2.BaseModel", "--target-python-version", "3.11"),
    *("--base-class", "octollm.contracts.base.Strict", "--extra-fields", "forbid"),
    *("--enum-field-as-literal", "all", "--reuse-model", "--reuse-scope", "tree", "--formatters", "builtin"),
    *("--strict-nullable", "--use-annotated", "--field-constraints", "--use-union-operator"),
    *("--use-standard-collections", "--use-title-as-name", "--disable-timestamp"),
]


def generate(target: Path) -> None:
    """Write all models below `target`."""
    subprocess.run([GENERATOR, *OPTIONS, "--output", target], cwd=ROOT, check=True)  # noqa: S603  our own tool


def main(arguments: list[str]) -> int:
    """0: written, or the same; 1: `--check` found a difference, named on standard error."""
    # All always, so that one run names every difference. The models come first: the description is made from them.
    return max([models(arguments), mutate.main(arguments), description(arguments), write_sync_client(arguments)])


def description(arguments: list[str]) -> int:
    """The same for the API's OpenAPI document."""
    # Not at the top: it reads the models, which have been written by now.
    from octollm.api.openapi import openapi  # noqa: PLC0415  for the reason above

    new = json.dumps(openapi(), indent=2) + "\n"
    if "--check" in arguments:
        wrong = not OPENAPI.is_file() or OPENAPI.read_text() != new
        if wrong:
            sys.stderr.write(f"{OPENAPI.relative_to(ROOT)} differs; run `make generate`\n")
        return int(wrong)
    OPENAPI.write_text(new)
    return 0


def models(arguments: list[str]) -> int:
    """The same for the pydantic models alone."""
    with tempfile.TemporaryDirectory() as folder:
        fresh = Path(folder) / "generated"
        generate(fresh)
        new = {path.name: path.read_text() for path in sorted(fresh.glob("*.py"))}
    old = {path.name: path.read_text() for path in sorted(TARGET.glob("*.py"))}
    if "--check" in arguments:
        wrong = sorted(name for name in new.keys() | old.keys() if new.get(name) != old.get(name))
        if wrong:
            sys.stderr.write(f"{', '.join(wrong)} in {TARGET.relative_to(ROOT)} differ; run `make generate`\n")
        return 1 if wrong else 0
    TARGET.mkdir(exist_ok=True)
    for name in old.keys() - new.keys():
        (TARGET / name).unlink()
    for name, text in new.items():
        (TARGET / name).write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
