"""Printing: results on standard output, everything else on standard error.

Text from tasks is untrusted and a terminal obeys control characters, so `clean` must be applied to all of it.
"""

import json
import re
import sys

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

JsonOption = "Print only JSON on standard output."

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: object) -> str:
    """Return `text` with control characters, except newline and tab, and text-direction marks replaced."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))


def out() -> Console:
    """Return a console on standard output.

    A new one each time, because tests and pipes replace the stream.
    """
    width = None if sys.stdout.isatty() else 200  # a pipe has no width, and folded lines are hard to parse
    return Console(
        width=width,
        file=sys.stdout,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=not sys.stdout.isatty(),
    )


def err() -> Console:
    """Return a console on standard error."""
    return Console(file=sys.stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def error_line(message: str) -> None:
    """Print an error message on standard error."""
    err().print(Text.assemble(("error: ", "bold red"), clean(message)))


def note(message: str) -> None:
    """Print progress or a remark on standard error."""
    err().print(Text(clean(message), style="dim"))


def emit_json(value: object) -> None:
    """Print `value`, made of JSON types, as one JSON document on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def pretty_json(value: object) -> str:
    """Return `value` as indented JSON for people."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def pairs(rows: list[tuple[str, object]]) -> Table:
    """Return a table of two columns, names and values."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(clean(value)))
    return table
