"""Named queries (`-- name: <name>`) from SQL files.

The files are in a folder `sql` next to the code that runs them.
"""

from functools import cache
from importlib import resources

_NAME = "-- name: "


@cache
def queries(package: str, file: str) -> dict[str, str]:
    """Read `<package>/sql/<file>.sql` and return its queries by name, without their comments.

    `package`: dotted name, for example `octollm.orchestrator`. Raises ValueError if a name occurs twice.
    """
    return parse_queries((resources.files(package) / "sql" / f"{file}.sql").read_text(encoding="utf-8"))


def parse_queries(text: str) -> dict[str, str]:
    """Split `text` at its `-- name:` lines and return the queries by name.

    Lines that are only a comment are dropped.

    Raises ValueError if a name occurs twice.
    """
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.startswith(_NAME):
            name = line.removeprefix(_NAME).strip()
            if name in found:
                raise ValueError(f"two queries are named {name}")
            lines = found[name] = []
        elif not line.lstrip().startswith("--"):
            lines.append(line)
    return {name: "\n".join(lines).strip() for name, lines in found.items()}
