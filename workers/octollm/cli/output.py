"""What the command line prints: answers on standard output, everything else on standard error.

Owns cleaning: text of tasks comes from strangers, and a terminal obeys control characters.
"""

import json
import re
import sys

import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

JsonOption = "Print JSON on standard output and nothing else there."

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def clean(text: object) -> str:
    """The text without control characters (newline and tab stay) or signs that turn its direction."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))


def out() -> Console:
    """Standard output; made anew each time, because tests and pipes replace the stream."""
    width = None if sys.stdout.isatty() else 200  # a pipe has no width; folding would spoil what reads it
    return Console(
        width=width,
        file=sys.stdout,
        markup=False,
        highlight=False,
        emoji=False,
        soft_wrap=not sys.stdout.isatty(),
    )


def err() -> Console:
    """Standard error."""
    return Console(file=sys.stderr, markup=False, highlight=False, emoji=False, soft_wrap=True)


def error_line(message: str) -> None:
    """One error, for a reader."""
    err().print(Text.assemble(("error: ", "bold red"), clean(message)))


def note(message: str) -> None:
    """Progress, for a reader."""
    err().print(Text(clean(message), style="dim"))


def emit_json(value: object) -> None:
    """One JSON document on standard output."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_INDENT_2) + b"\n")
    sys.stdout.flush()


def pretty_json(value: object) -> str:
    """JSON for a reader."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def pairs(rows: list[tuple[str, object]]) -> Table:
    """Names and values below each other."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, Text(clean(value)))
    return table
