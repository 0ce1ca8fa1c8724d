"""Sends the callbacks of tasks that have ended.

The orchestrator stores them, see `octollm.orchestrator.callbacks`.
"""
