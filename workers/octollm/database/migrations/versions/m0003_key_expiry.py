"""Expired idempotency keys are looked for and removed."""

from octollm.database.migrations.sql import run_file

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the index."""
    run_file(__file__)
