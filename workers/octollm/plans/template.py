"""References in a recipe.

An object with the single key "$" is replaced by what its JMESPath expression finds. Pure.

The expression (jmespath.org) sees `task` (goal, kind, input, metadata), `steps.<name>` (output, round, attempt) and
`round`. In an object a reference that finds null leaves its key out, as absent fields are absent everywhere.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import orjson

from octollm.contracts import strict_json
from octollm.errors import ContractError, RecipeError
from octollm.plans.expression import MAX_TEMPLATE_WORK, Budget, WorkLimitError, compiled, evaluate
from octollm.plans.stored import as_stored

REFERENCE = "$"
_DEPTH = strict_json.MAX_DEPTH - 2
"""Most levels of a rendered value: it is inside a result, which is inside a status."""


def resolve(template: Any, context: Mapping[str, Any]) -> Any:  # noqa: ANN401  any JSON value
    """Replace every reference in a template.

    Raises RecipeError if an expression cannot be evaluated, or all of them together find or do too much.
    """
    try:
        return _resolve(template, context, Budget(MAX_TEMPLATE_WORK))
    except WorkLimitError as error:
        raise RecipeError(f"the references find too much: {error}") from error


def _resolve(template: Any, context: Mapping[str, Any], budget: Budget) -> Any:  # noqa: ANN401  as above
    if isinstance(template, str):
        return template
    if isinstance(template, Mapping):
        expression = _expression(template)
        if expression is not None:
            return _found(expression, context, budget)
        return {
            key: new
            for key, old in template.items()
            if (new := _resolve(old, context, budget)) is not None or old is None
        }  # fmt: skip
    if isinstance(template, (list, tuple)):
        return [_resolve(item, context, budget) for item in template]
    return template


def _found(expression: str, context: Mapping[str, Any], budget: Budget) -> Any:  # noqa: ANN401  as above
    chain = _links(expression)
    if chain is not None:
        # Most references. JMESPath gives the same result at ten times the cost.
        found: Any = context
        for link in chain:
            if isinstance(link, str):
                found = found.get(link) if isinstance(found, dict) else None
            elif isinstance(found, list) and -len(found) <= link < len(found):
                found = found[link]
            else:
                return None
        budget.charge(found)
        return found
    return evaluate(expression, context, budget)


@lru_cache(maxsize=4096)
def _links(expression: str) -> tuple[str | int, ...] | None:
    """Return the names and indexes of an expression like `a.b[0].c`; None if it has anything else."""
    return _chain(compiled(expression).parsed)


def _chain(node: Mapping[str, Any]) -> tuple[str | int, ...] | None:
    if node["type"] in ("field", "index"):
        return (node["value"],)
    if node["type"] not in ("subexpression", "index_expression"):
        return None
    chains = [_chain(child) for child in node["children"]]
    return None if None in chains else tuple(link for chain in chains for link in chain or ())


def render(template: Any, context: Mapping[str, Any]) -> Any:  # noqa: ANN401  any JSON value
    """Replace every reference in a template and return the value as it will be stored (see `as_stored`).

    Raises RecipeError if an expression cannot be evaluated, or its result cannot be sent and stored: an expression may
    give numbers beyond 64 bits, or a NUL.
    """
    found = resolve(template, context)
    try:
        found = as_stored(found)
        strict_json.check_written(orjson.dumps(found), _DEPTH)
    except (TypeError, ValueError, RecursionError, ContractError) as error:
        raise RecipeError(f"the value that its references give cannot be stored as JSON: {error}") from error
    return found


def references(template: Any) -> Iterator[tuple[str, ...]]:  # noqa: ANN401  as above
    """Yield the path of each reference as far as it consists of plain names.

    `steps.run.output` is yielded as three parts.

    Raises RecipeError for an invalid expression.
    """
    if isinstance(template, Mapping):
        expression = _expression(template)
        if expression is not None:
            yield from _leads(expression)[0]
            return
        for value in template.values():
            yield from references(value)
    elif isinstance(template, (list, tuple)):
        for item in template:
            yield from references(item)


def sees_all(template: Any) -> bool:  # noqa: ANN401  as above
    """Whether an expression reads the whole context (`@`, `*`), and not only what `references` yields.

    Raises RecipeError for an invalid expression.
    """
    if isinstance(template, Mapping):
        expression = _expression(template)
        if expression is not None:
            return _leads(expression)[1]
        return any(sees_all(value) for value in template.values())
    return isinstance(template, (list, tuple)) and any(sees_all(item) for item in template)


def _expression(template: Mapping[str, Any]) -> str | None:
    found = template.get(REFERENCE) if len(template) == 1 else None
    return found if isinstance(found, str) else None


# Nodes of which only the first part is looked up in the context, and the rest in its result.
_CHAINS = frozenset(
    {"subexpression", "index_expression", "projection", "value_projection", "filter_projection", "flatten", "pipe"}
)


@lru_cache(maxsize=4096)
def _leads(expression: str) -> tuple[tuple[tuple[str, ...], ...], bool]:
    """Return the paths of an expression, and whether it also reads the whole context."""
    parsed = compiled(expression).parsed
    return tuple(_paths(parsed)), _whole(parsed)


def _whole(node: Mapping[str, Any]) -> bool:
    if node["type"] in ("identity", "current"):
        return True
    if node["type"] == "expref":
        return False
    if node["type"] in _CHAINS:
        return _whole(node["children"][0])
    return any(_whole(child) for child in node["children"] if isinstance(child, Mapping))


def _paths(node: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    if node["type"] == "field":
        yield (str(node["value"]),)
    elif node["type"] == "subexpression" and node["children"][0]["type"] == "field":
        yield _lead(node)
    elif node["type"] in _CHAINS:
        yield from _paths(node["children"][0])
    elif node["type"] != "expref":  # that one sees the elements of a list, as in `max_by(list, &size)`
        for child in node["children"]:
            if isinstance(child, Mapping):
                yield from _paths(child)


def _lead(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the plain names that a chain begins with: `a.b[0].c` gives a, b."""
    if node["type"] == "field":
        return (str(node["value"]),)
    if node["type"] not in _CHAINS:
        return ()
    if node["type"] != "subexpression":
        return _lead(node["children"][0])
    names: list[str] = []
    for child in node["children"]:
        names += _lead(child)
        if child["type"] != "field":
            break
    return tuple(names)
