"""The embedded stack's own servers: child processes that live and die with `octollm up`."""
