"""Which roles a topology has, and who runs them. A role is a consumer group of `streams.yaml`."""

from collections.abc import Mapping

from octollm.errors import SettingsError
from octollm.topology import Topic, Topology

_PROGRAM = "program:"


def python_roles(topology: Topology) -> dict[str, tuple[Topic, ...]]:
    """Role to its topics, in the order of the topology."""
    roles: dict[str, list[Topic]] = {}
    for topic in topology.topics.values():
        if not topic.handler.startswith(_PROGRAM):
            roles.setdefault(topic.group, []).append(topic)
    return {role: tuple(topics) for role, topics in roles.items()}


def program_roles(topology: Topology) -> Mapping[str, str]:
    """Role to the program that runs it."""
    roles = {
        topic.group: topic.handler.removeprefix(_PROGRAM)
        for topic in topology.topics.values()
        if topic.handler.startswith(_PROGRAM)
    }
    return {topology.ingest.group: topology.ingest.handler.removeprefix(_PROGRAM), **roles}


def require_python_role(role: str, topology: Topology) -> tuple[Topic, ...]:
    """The role's topics; raises SettingsError that says what to start instead."""
    roles = python_roles(topology)
    if role in roles:
        return roles[role]
    program = program_roles(topology).get(role)
    if program is not None:
        raise SettingsError(f"{role} is not a Python worker: run the program `{program}`")
    raise SettingsError(f"unknown role {role}; this topology has {', '.join(sorted(roles))}")
