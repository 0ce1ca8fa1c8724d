"""Tasks that are submitted by the clock."""

from octollm.database.migrations.sql import run_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add what was submitted last."""
    run_file(__file__)
