"""`streams.yaml` as frozen objects, and the names of the Redis keys that follow from it.

Knows nothing of Redis.
"""

from octollm.topology.keys import LaneKeys, ingest_stream
from octollm.topology.loader import load_topology, parse_topology
from octollm.topology.model import ARM, EventStream, Ingest, Retry, Topic, Topology

__all__ = [
    "ARM",
    "EventStream",
    "Ingest",
    "LaneKeys",
    "Retry",
    "Topic",
    "Topology",
    "ingest_stream",
    "load_topology",
    "parse_topology",
]
