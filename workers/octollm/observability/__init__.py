"""Logs and metrics of every Python process."""
