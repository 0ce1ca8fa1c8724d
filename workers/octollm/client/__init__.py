"""For producers: submit a task, wait for it, follow what happens. HTTP only."""
