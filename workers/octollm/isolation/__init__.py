"""Runs functions on untrusted content in other processes, which can be ended at any moment."""
