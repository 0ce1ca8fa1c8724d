"""The read-only HTTP API over Postgres.

It serves what is stored about tasks, and never connects to Redis.
"""
