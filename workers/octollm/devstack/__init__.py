"""The embedded development stack: Redis, Postgres and all programs in one command."""
