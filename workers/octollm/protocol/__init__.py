"""The hand-off protocol on Redis Streams.

It has typed calls of the Lua scripts, and nothing that runs by itself.
"""
