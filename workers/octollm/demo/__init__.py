"""`octollm demo`: real tasks through every source of its own stack, each outcome checked."""
