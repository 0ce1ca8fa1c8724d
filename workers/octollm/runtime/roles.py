"""Roles of a topology: which exist, what runs each, and whether its code can be found.

A role is a consumer group of `streams.yaml`, run by Python workers or by one of the two Rust programs.
"""

import importlib
from collections.abc import Mapping

from octollm.errors import OctoError, SettingsError
from octollm.runtime.programs import find_program
from octollm.topology import Topic, Topology

_PROGRAM = "program:"


def python_roles(topology: Topology) -> dict[str, tuple[Topic, ...]]:
    """Return the topics of each role that Python workers run, in the topology's order."""
    roles: dict[str, list[Topic]] = {}
    for topic in topology.topics.values():
        if not topic.handler.startswith(_PROGRAM):
            roles.setdefault(topic.group, []).append(topic)
    return {role: tuple(topics) for role, topics in roles.items()}


def program_roles(topology: Topology) -> Mapping[str, str]:
    """Return the program that runs each of the other roles."""
    roles = {
        topic.group: topic.handler.removeprefix(_PROGRAM)
        for topic in topology.topics.values()
        if topic.handler.startswith(_PROGRAM)
    }
    return {topology.ingest.group: topology.ingest.handler.removeprefix(_PROGRAM), **roles}


def require_python_role(role: str, topology: Topology) -> tuple[Topic, ...]:
    """Return a role's topics. Raises SettingsError that says what to start instead."""
    roles = python_roles(topology)
    if role in roles:
        return roles[role]
    program = program_roles(topology).get(role)
    if program is not None:
        raise SettingsError(f"{role} is not a Python worker: run the program `{program}`")
    raise SettingsError(f"unknown role {role}; this topology has {', '.join(sorted(roles))}")


def missing_handlers(topology: Topology) -> list[str]:
    """Return one sentence for each handler whose class or program cannot be found."""
    problems = []
    for topic in topology.topics.values():
        if not topic.handler.startswith(_PROGRAM):
            problem = _class_problem(topic.handler)
            if problem is not None:
                problems.append(f"topic {topic.name}: handler {topic.handler} {problem}")
    for program in dict.fromkeys(program_roles(topology).values()):
        try:
            find_program(program)
        except OctoError as error:
            problems.append(str(error))
    return problems


def _class_problem(handler: str) -> str | None:
    module, _, name = handler.partition(":")
    try:
        found = importlib.import_module(module)
    except ImportError as error:
        return f"cannot be imported ({error}); correct the name or write the module"
    if not isinstance(getattr(found, name, None), type):
        return f"names no class {name} in {module}; correct the name or write the class"
    return None
