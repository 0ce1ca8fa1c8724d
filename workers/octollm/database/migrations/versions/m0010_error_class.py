"""What a failed attempt calls for."""

from octollm.database.migrations.sql import run_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add the class beside the code."""
    run_file(__file__)
