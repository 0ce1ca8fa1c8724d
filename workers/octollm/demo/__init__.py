"""`octollm demo`: real tasks through every source of a stack of its own, and a check of every outcome."""
