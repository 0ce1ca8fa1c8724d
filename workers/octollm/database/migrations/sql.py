"""Runs the SQL file that belongs to a revision."""

from pathlib import Path

from alembic import op


def run_file(revision_file: str) -> None:
    """Each statement of `<revision>.sql`; statements end with a semicolon at the end of a line."""
    text = Path(revision_file).with_suffix(".sql").read_text(encoding="utf-8")
    for statement in text.split(";\n"):
        if statement.strip():
            op.execute(statement)
