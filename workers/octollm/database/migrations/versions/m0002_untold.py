"""Which tasks ended by the clock and may not have been told yet."""

from octollm.database.migrations.sql import run_file

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add the column."""
    run_file(__file__)
