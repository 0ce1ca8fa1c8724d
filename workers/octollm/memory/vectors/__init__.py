"""Vector stores: a Qdrant server, an embedded one, Qdrant's small local mode.

`choose.py` picks one by the settings.
"""
