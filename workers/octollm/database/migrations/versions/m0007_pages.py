"""The API's pages are read in the order of their index, without sorting."""

from octollm.database.migrations.sql import run_file

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the indexes, and drop the one that they replace."""
    run_file(__file__)
