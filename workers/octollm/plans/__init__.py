"""Plans: what they are, how recipes and models write them down, and everything that can be wrong with one. Pure."""
