"""The baseline schema."""

from octollm.database.migrations.sql import run_file

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create all tables."""
    run_file(__file__)
