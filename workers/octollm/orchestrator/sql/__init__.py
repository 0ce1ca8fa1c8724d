"""The SQL of the orchestrator: files of named queries, read once."""

from functools import cache
from importlib import resources

_MARK = "-- name: "


@cache
def queries(file: str) -> dict[str, str]:
    """Query text by name."""
    text = (resources.files(__name__) / f"{file}.sql").read_text(encoding="utf-8")
    found = {}
    for part in text.split(_MARK)[1:]:
        name, _, body = part.partition("\n")
        found[name.strip()] = body.strip()
    return found
