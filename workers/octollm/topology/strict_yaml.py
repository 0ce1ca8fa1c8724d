"""Reads configuration files in YAML as Rust's reader does, and explains faults.

It knows plain YAML 1.2 types and refuses a key that occurs twice.
"""

import re
from collections.abc import Hashable

import yaml
from pydantic_core import ErrorDetails
from yaml import YAMLError

__all__ = ["YAMLError", "explain", "load", "place"]


class StrictLoader(yaml.SafeLoader):
    """Plain YAML 1.2 types only, and a key that stands twice is refused instead of the last one winning."""

    # PyYAML speaks YAML 1.1, where `yes` is true, `1:30` is 90 and `010` is 8; Rust's reader does not.
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012  as PyYAML declares it

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:  # noqa: FBT001, FBT002  PyYAML's signature
        """Return the mapping of `node`; raise a YAML error for a key that occurs twice."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


for _tag, _form, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9]*\.?[0-9]+([eE][-+]?[0-9]+)?|[-+]?[0-9]+\.", "-+.0123456789"),
):
    StrictLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_form})$"), list(_first))


def load(text: str) -> object:
    """The one document in `text`; raises YAMLError."""
    return yaml.load(text, StrictLoader)  # noqa: S506  a SafeLoader


def place(fault: ErrorDetails) -> str:
    """Where pydantic found the fault, like `topics.tasks.group`."""
    return ".".join(str(part) for part in fault["loc"]) or "the file"


def explain(fault: ErrorDetails) -> str:
    """The place and what to change, in one sentence that quotes no value."""
    if fault["type"] == "missing":
        return f"{place(fault)}: missing; add it"
    if fault["type"] == "extra_forbidden":
        return f"{place(fault)}: unknown key; remove it or correct its name"
    return f"{place(fault)}: {fault['msg'].removeprefix('Value error, ')}"
