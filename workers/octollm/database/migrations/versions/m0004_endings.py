"""Cancelling, memory and retention: what becomes of a task at its end and after it."""

from octollm.database.migrations.sql import run_file

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add columns, a table and indexes."""
    run_file(__file__)
