"""`octollm demo`: real tasks through every door of a stack of its own, and a check of every outcome."""
