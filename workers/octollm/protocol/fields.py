"""Fields of an entry, which anyone may have written."""

import re

_PRINTABLE = re.compile(r"[^\x20-\x7e]")


def clean(raw: bytes | None) -> str:
    """Fit for JSON and a terminal."""
    return _PRINTABLE.sub("?", (raw or b"")[:300].decode("ascii", "replace"))
