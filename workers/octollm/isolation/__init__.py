"""Runs functions on untrusted content in processes of their own, so that they can be ended at any moment."""
