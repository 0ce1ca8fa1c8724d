"""The journal of answers of models."""

from octollm.database.migrations.sql import run_file

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the table."""
    run_file(__file__)
