"""Postgres: connections, the database's shape, and named queries. Every room keeps its own queries beside its code."""
