"""Embedders: what turns texts into vectors. `choose.py` picks one by the settings."""
