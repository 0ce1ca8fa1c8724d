"""Checks that every handler the topology names is really there: classes can be imported, programs found."""

import importlib

from octollm.errors import OctoError
from octollm.runtime.programs import find_program
from octollm.runtime.roles import program_roles
from octollm.topology import Topology


def missing_handlers(topology: Topology) -> list[str]:
    """One sentence per gap; empty when the wiring is complete."""
    problems = []
    for topic in topology.topics.values():
        if not topic.handler.startswith("program:"):
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
