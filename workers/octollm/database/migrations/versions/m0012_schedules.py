"""Tasks that are submitted by the clock."""

from octollm.database.migrations.sql import run_file

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add what was submitted last."""
    run_file(__file__)
