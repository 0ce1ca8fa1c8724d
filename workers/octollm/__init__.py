"""OctoLLM: an event-driven pipeline for AI work on Redis Streams and Postgres."""
