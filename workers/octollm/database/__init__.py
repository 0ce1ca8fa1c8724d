"""Postgres: connections, migrations and named queries.

Each package keeps its own queries in a folder `sql`.
"""
