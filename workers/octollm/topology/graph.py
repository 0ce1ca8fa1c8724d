"""The topology as a picture: who sends which event to whom. Pure; prints nothing."""

import re

from octollm.topology import Topology

Edge = tuple[str, str, str]
"""Sender, event, receiver."""

# Which group writes an event. The topology says who reads; who writes is fixed by what the events mean.
_PLAN = "task.submitted.v1"
_STEP = "step.requested.v1"


def edges(topology: Topology) -> list[Edge]:
    """Every road of a message, in the order of the topology."""
    reflex = topology.ingest.group
    found: list[Edge] = [("producer", event, reflex) for event in topology.ingest.accepts]
    planners = _groups(topology, _PLAN)
    arms = _groups(topology, _STEP)
    writers = {
        "task.submitted.v1": [reflex],
        "task.rejected.v1": [reflex],
        _STEP: planners,
        "step.done.v1": arms,
        "task.event.v1": planners,
        "dead.letter.v1": [reflex, *planners, *arms],
    }
    for topic in topology.topics.values():
        for event in topic.accepts:
            found += [(writer, event, topic.group) for writer in writers.get(event, []) if writer != topic.group]
    for live in topology.live.values():
        found += [(writer, event, "watchers") for event in live.accepts for writer in writers.get(event, [])]
    return list(dict.fromkeys(found))


def mermaid(topology: Topology) -> str:
    """A Mermaid flow chart of groups; several events between the same two share an arrow."""
    events: dict[tuple[str, str], list[str]] = {}
    for start, event, end in edges(topology):
        events.setdefault((start, end), []).append(event)
    names = list(dict.fromkeys(name for pair in events for name in pair))
    arms = _groups(topology, _STEP)
    lines = ["flowchart LR"]
    lines += [f'    {_node(name)}["{name}"]' for name in names if name not in arms]
    lines.append('    subgraph arms["arms"]')
    lines += [f'        {_node(name)}["{name}"]' for name in arms]
    lines.append("    end")
    lines += [
        f'    {_node(start)} -->|"{"<br>".join(labels)}"| {_node(end)}' for (start, end), labels in events.items()
    ]
    return "\n".join(lines)


def _groups(topology: Topology, event: str) -> list[str]:
    return list(dict.fromkeys(topic.group for topic in topology.topics.values() if event in topic.accepts))


def _node(name: str) -> str:
    """A prefix, because some plain words ("end") mean something to Mermaid."""
    return "g_" + re.sub(r"[^A-Za-z0-9]", "_", name)
