"""Models: providers behind one interface, and the journal of what they answered. Knows no bus."""
