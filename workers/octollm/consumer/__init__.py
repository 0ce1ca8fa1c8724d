"""The consumer: reads entries, runs a handler for each, and finishes, retries or returns them."""
