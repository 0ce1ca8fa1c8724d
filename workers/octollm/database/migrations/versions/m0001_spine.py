"""The spine: tasks, runs, steps, attempts, events, outputs, dead letters, idempotency."""

from octollm.database.migrations.sql import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make the tables."""
    run_file(__file__)
