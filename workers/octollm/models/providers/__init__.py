"""One file per kind of server that models are reached through."""
