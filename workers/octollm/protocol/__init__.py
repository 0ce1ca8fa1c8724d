"""The hand-off on Redis Streams. The only room that imports redis or faststream."""
