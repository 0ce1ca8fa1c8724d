"""Runs one step through its arm, and decides on retries and dead letters."""
