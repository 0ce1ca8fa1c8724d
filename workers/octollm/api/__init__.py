"""The read-only HTTP API over Postgres.

It serves what is stored about tasks to callers with a credential, and never connects to Redis.
"""
