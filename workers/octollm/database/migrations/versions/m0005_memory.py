"""Memory: documents in passages, artifacts of finished tasks, entities and relationships."""

from octollm.database.migrations.sql import run_file

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the tables."""
    run_file(__file__)
