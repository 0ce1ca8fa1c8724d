"""Checks Python source without running it: syntax, pyflakes, and three habits that pyflakes does not report. Pure.

A finding's `rule` is `syntax`, `bare_except`, `mutable_default`, `unreachable`, `nested_too_deeply`, or the name of a
message of pyflakes in snake case, such as `undefined_name` or `unused_import`. What fails when the code runs is an
error, and everything else is a warning. Style and types are not checked.
"""

import ast
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pyflakes import messages
from pyflakes.checker import Checker

_ERRORS = (
    messages.AssertTuple,
    messages.IfTuple,
    messages.RaiseNotImplemented,
    messages.UndefinedExport,
    messages.UndefinedLocal,
    messages.UndefinedName,
)
_DYNAMIC_NAMES = frozenset({"exec", "globals", "eval", "vars", "__import__", "_convert_", "global_enum"})
"""Code that uses one of these may define names without an assignment; the last two are how enum makes constants."""
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])")
_TERMINATORS = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)


@dataclass(frozen=True, slots=True)
class Finding:
    """One problem in one place."""

    file: str
    line: int
    """Counted from 1."""
    rule: str
    severity: Literal["error", "warning"]
    message: str


def check_source(file: str, text: str) -> list[Finding]:
    """Return the findings of one file, sorted by line.

    A file that does not compile has exactly one, `syntax`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, file)
            compile(text, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        return [Finding(file, error.lineno or 1, "syntax", "error", error.msg)]
    except ValueError as error:
        return [Finding(file, 1, "syntax", "error", str(error))]
    except (RecursionError, MemoryError):
        return [Finding(file, 1, "syntax", "error", "nested too deeply to be compiled")]
    nodes = list(ast.walk(tree))
    found = [*_pyflakes(file, tree, nodes), *(finding for node in nodes for finding in _habits(file, node))]
    return sorted(found, key=lambda one: (one.line, one.rule, one.message))


def _pyflakes(file: str, tree: ast.Module, nodes: list[ast.AST]) -> Iterator[Finding]:
    try:
        reported = Checker(tree, file).messages
    except RecursionError:
        # pyflakes visits the tree recursively; the compiler accepts deeper ones.
        yield Finding(file, 1, "nested_too_deeply", "warning", "nested too deeply; only some rules were checked")
        return
    ignored = _ignored(file, nodes)
    exceptions = _exceptions(nodes)
    for one in reported:
        if isinstance(one, ignored) or (type(one), one.message_args[:1]) in exceptions:
            continue
        rule = _WORD_START.sub("_", type(one).__name__).lower()
        severity: Literal["error", "warning"] = "error" if isinstance(one, _ERRORS) else "warning"
        yield Finding(file, one.lineno, rule, severity, one.message % one.message_args)


def _ignored(file: str, nodes: list[ast.AST]) -> tuple[type[messages.Message], ...]:
    """Return the messages that are no findings in this file."""
    ignored: list[type[messages.Message]] = [messages.ImportStarUsed, messages.ImportStarUsage]
    used = {node.id for node in nodes if isinstance(node, ast.Name)}
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    if used & _DYNAMIC_NAMES:
        ignored += [messages.UndefinedName, messages.UndefinedExport]
    if file.rpartition("/")[2] == "__init__.py":
        ignored.append(messages.UnusedImport)
    return tuple(ignored)


def _exceptions(nodes: list[ast.AST]) -> set[tuple[type[messages.Message], tuple[str, ...]]]:
    """Return (message, name) of what pyflakes reports although it is right.

    `import x as x` exports the name, and functions may use a name before the module deletes it.
    """
    deleted = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Del)}
    found: set[tuple[type[messages.Message], tuple[str, ...]]] = {(messages.UndefinedName, (name,)) for name in deleted}
    for node in nodes:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            source = (
                "." * node.level + f"{node.module}." * bool(node.module) if isinstance(node, ast.ImportFrom) else ""
            )
            exported = [alias.name for alias in node.names if alias.name == alias.asname]
            found.update((messages.UnusedImport, (source + name,)) for name in exported)
    return found


def _habits(file: str, node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, ast.ExceptHandler) and node.type is None and not _raises_again(node):
        message = "catches everything, also KeyboardInterrupt; name the exception"
        yield Finding(file, node.lineno, "bare_except", "warning", message)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None and _is_mutable(default):
                message = "all calls share this value; use None and create it in the function"
                yield Finding(file, default.lineno, "mutable_default", "warning", message)
    for block in ("body", "orelse", "finalbody"):
        statements = getattr(node, block, None)
        if isinstance(statements, list):
            for before, after in pairwise(statements):
                if isinstance(before, _TERMINATORS):
                    yield Finding(file, after.lineno, "unreachable", "warning", "can never be reached")
                    break


def _is_mutable(node: ast.expr) -> bool:
    made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("list", "dict", "set")
    return made or isinstance(node, _MUTABLE)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(one, ast.Raise) and one.exc is None for one in ast.walk(handler))
