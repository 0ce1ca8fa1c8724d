"""Tasks that are put off."""

from octollm.database.migrations.sql import run_file

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    """Add their moment and the index of those that wait for it."""
    run_file(__file__)
