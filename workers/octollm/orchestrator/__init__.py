"""The orchestrator: plans tasks, decides what follows each event, and keeps them in Postgres."""
