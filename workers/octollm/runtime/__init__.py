"""Runs the roles of the topology in a process."""
