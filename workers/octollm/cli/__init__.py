"""The command line. Talks HTTP to a running stack, and starts processes through `octollm.runtime`."""
