"""JMESPath expressions with a bound on their work.

Neither a plan nor its data can hold up the event loop. Pure.

The library's interpreter sets no bound. A short expression can build a value that doubles with each of its parts, or
walk a large list once per element of another one. Here every node that is visited and every value that a function reads
is charged to a budget.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jmespath
from jmespath.parser import ParsedResult
from jmespath.visitor import TreeInterpreter

from octollm.errors import RecipeError

MAX_WORK = 500_000
"""Units of work of one evaluation: nodes visited, and values and 16-character pieces of text read; below a second."""
MAX_TEMPLATE_WORK = 4 * MAX_WORK
"""Units of work of all expressions of one template: a plan may have thousands."""
MAX_LENGTH = 10_000
"""Characters of an expression."""
MAX_DEPTH = 100
"""Levels of an expression's syntax tree; the interpreter recurses."""
_TEXT_UNIT = 16
_SHOWN = 300


@lru_cache(maxsize=4096)
def compiled(expression: str) -> ParsedResult:
    """Return the parsed expression.

    Raises RecipeError if it is not one, or is too long or too deeply nested.
    """
    if len(expression) > MAX_LENGTH:
        raise RecipeError(f"an expression may have at most {MAX_LENGTH} characters: {_shown(expression)}")
    try:
        parsed = jmespath.compile(expression)
    except Exception as error:  # the parser also raises KeyError, ValueError and RecursionError
        raise RecipeError(f"not a JMESPath expression: {_shown(expression)}: {_cause(error)}") from error
    level: list[Mapping[str, Any]] = [parsed.parsed]
    if _is_expression_reference(parsed.parsed):
        raise _misplaced(expression)
    for _ in range(MAX_DEPTH):
        for node in level:
            if node["type"] != "function_expression" and any(map(_is_expression_reference, _children(node))):
                raise _misplaced(expression)
        level = [child for node in level for child in _children(node)]
        if not level:
            return parsed
    raise RecipeError(f"an expression may be nested at most {MAX_DEPTH} levels deep: {_shown(expression)}")


class Budget:
    """Work that may still be done."""

    def __init__(self, units: int) -> None:
        self._units = self._left = units

    def spend(self, units: int) -> None:
        """Raise WorkLimitError if less than this is left."""
        self._left -= units
        if self._left < 0:
            raise WorkLimitError(f"it takes more than {self._units} steps of work")

    def charge(self, value: Any) -> None:  # noqa: ANN401  any JSON value
        """Spend the size of a value; a part that occurs several times counts each time."""
        waiting = [value]
        while waiting:
            one = waiting.pop()
            if isinstance(one, str):
                self.spend(1 + len(one) // _TEXT_UNIT)
            elif isinstance(one, dict):
                self.spend(1 + len(one))
                waiting.extend(one.values())
            elif isinstance(one, list):
                self.spend(1 + len(one))
                waiting.extend(one)
            else:
                self.spend(1)

    @property
    def spent(self) -> int:
        """Units of work that were done."""
        return self._units - self._left


class WorkLimitError(Exception):
    """A budget is used up."""


def evaluate(expression: str, context: Mapping[str, Any], shared: Budget | None = None) -> Any:  # noqa: ANN401  any JSON value
    """Return what an expression finds.

    `shared`: a budget of several expressions, in addition to MAX_WORK for this one. Raises RecipeError with the cause,
    whatever goes wrong.
    """
    parsed = compiled(expression)
    own = Budget(MAX_WORK)
    interpreter = _BoundedInterpreter(own)
    try:
        found = interpreter.visit(parsed.parsed, context)
        own.charge(found)
        if shared is not None:
            shared.spend(own.spent)
    except Exception as error:  # functions raise OverflowError, RecursionError and more for odd values
        raise RecipeError(f"{_shown(expression)} cannot be evaluated: {_cause(error)}") from error
    return found


class _BoundedInterpreter(TreeInterpreter):
    """The library's interpreter, for one evaluation. A node is a dictionary of the library."""

    def __init__(self, budget: Budget) -> None:
        super().__init__()
        self._spend, self._charge = budget.spend, budget.charge

    def visit(self, node: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  as the library has it
        self._spend(1)
        return super().visit(node, *args, **kwargs)

    def visit_function_expression(self, node: Any, value: Any) -> Any:  # noqa: ANN401  as above
        charged = self._charged(node, value)
        if node["value"] == "join":  # the only function whose result can be much larger than its arguments
            self._charge_joined(*(child["value"] for child in charged["children"]))
        return super().visit_function_expression(charged, value)

    def _charge_joined(self, glue: Any = None, parts: Any = None, *_rest: Any) -> None:  # noqa: ANN401  any arguments
        if isinstance(glue, str) and isinstance(parts, list):
            self._spend(len(glue) * len(parts) // _TEXT_UNIT)

    def visit_slice(self, node: Any, value: Any) -> Any:  # noqa: ANN401  as above
        found = super().visit_slice(node, value)
        if isinstance(found, list):
            self._spend(len(found))
        return found

    def visit_comparator(self, node: Any, value: Any) -> Any:  # noqa: ANN401  as above
        return super().visit_comparator(self._charged(node, value), value)

    def visit_flatten(self, node: Any, value: Any) -> Any:  # noqa: ANN401  as above
        found = super().visit_flatten(node, value)
        if isinstance(found, list):
            self._spend(len(found))
        return found

    def _charged(self, node: Any, value: Any) -> Any:  # noqa: ANN401  as above
        """The node with literals for its children: what they find is charged, because all of it is read."""
        found = [self.visit(child, value) for child in node["children"]]
        for one in found:
            self._charge(one)
        return {**node, "children": [{"type": "literal", "value": one, "children": []} for one in found]}


def _children(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    return (child for child in node["children"] if isinstance(child, Mapping))


def _is_expression_reference(node: Mapping[str, Any]) -> bool:
    return bool(node["type"] == "expref")


def _misplaced(expression: str) -> RecipeError:
    """Return the error for what the library's parser accepts, but not the grammar of JMESPath."""
    return RecipeError(f"not a JMESPath expression: {_shown(expression)}: & may only begin a function's argument")


def _cause(error: Exception) -> str:
    if isinstance(error, WorkLimitError):
        return str(error)
    return f"{type(error).__name__}: {str(error)[:_SHOWN]}"


def _shown(expression: str) -> str:
    return repr(expression[:_SHOWN])
