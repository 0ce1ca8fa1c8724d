"""Steps that are handed on directly."""

from octollm.database.migrations.sql import run_file

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Add what their results are compared with, and where early ones wait."""
    run_file(__file__)
