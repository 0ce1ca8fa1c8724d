"""The hand-off protocol on Redis Streams: typed calls of the Lua scripts, and nothing that runs by itself."""
