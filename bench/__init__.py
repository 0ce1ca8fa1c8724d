"""Measurements. Each prints one JSON object on its last line."""
