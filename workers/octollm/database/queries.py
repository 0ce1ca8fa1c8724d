"""Files of named queries (`-- name: <name>`), which lie in a folder `sql` beside the code that runs them."""

from functools import cache
from importlib import resources

_MARK = "-- name: "


@cache
def queries(room: str, file: str) -> dict[str, str]:
    """Query text by name, from `<room>/sql/<file>.sql`; `room` is a package like `octollm.orchestrator`."""
    text = (resources.files(room) / "sql" / f"{file}.sql").read_text(encoding="utf-8")
    found = {}
    for part in text.split(_MARK)[1:]:
        name, _, body = part.partition("\n")
        found[name.strip()] = body.strip()
    return found
