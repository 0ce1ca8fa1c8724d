"""The database's shape as alembic revisions; each revision's SQL lies beside it in a file of the same name."""
