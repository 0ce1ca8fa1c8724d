"""The HTTP API over Postgres: what is stored about tasks, for people and programs. Reads only; knows no bus."""
