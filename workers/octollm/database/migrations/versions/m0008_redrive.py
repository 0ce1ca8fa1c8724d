"""What has become of dead letters."""

from octollm.database.migrations.sql import run_file

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Add the columns and the index of those to which nothing has happened yet."""
    run_file(__file__)
