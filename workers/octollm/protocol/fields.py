"""The fields of an entry: anybody may have written them."""

import re

_PRINTABLE = re.compile(r"[^\x20-\x7e]")


def clean(raw: bytes | None) -> str:
    """Return at most 300 bytes of a field as printable ASCII, fit for JSON and a terminal; '' for None."""
    return _PRINTABLE.sub("?", (raw or b"")[:300].decode("ascii", "replace"))
