"""The HTTP API over Postgres: reads, and commands about callbacks.

It serves what is stored about tasks to callers with a credential, and never connects to Redis.
"""
