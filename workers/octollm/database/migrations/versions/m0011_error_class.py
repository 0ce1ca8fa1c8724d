"""What a failed attempt calls for."""

from octollm.database.migrations.sql import run_file

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Add the class beside the code."""
    run_file(__file__)
