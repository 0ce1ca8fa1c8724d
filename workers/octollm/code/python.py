"""Looks through Python without running it: syntax first, then only what is certain enough to be worth a line. Pure.

Rules: `syntax`, `undefined_name`, `assert_tuple` are errors; `unused_import`, `bare_except`, `mutable_default` and
`unreachable` are warnings. It is no type checker and no linter of style.
"""

import ast
import builtins
import re
import symtable
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

_WORD = re.compile(r"[^\W\d]\w*")
_MODULE_NAMES = frozenset(
    {
        "__name__",
        "__file__",
        "__doc__",
        "__package__",
        "__spec__",
        "__loader__",
        "__path__",
        "__builtins__",
        "__debug__",
    }
)
_KNOWN = frozenset(dir(builtins)) | _MODULE_NAMES | {"__class__", "__annotations__", "__module__", "__qualname__"}
_LEAVES = (ast.Return, ast.Raise, ast.Continue, ast.Break)
_MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_NAMESPACE_TRICKS = frozenset({"exec", "globals", "eval", "vars", "__import__", "_convert_"})
"""What gives names values without saying so; the last is how an enumeration becomes a module's constants."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One place that is wrong, or looks it."""

    file: str
    line: int
    rule: str
    severity: Literal["error", "warning"]
    message: str


def look_through(file: str, text: str) -> list[Finding]:
    """All findings of one file, by line. One that does not parse has exactly one, `syntax`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(text, file)
            compile(text, file, "exec", dont_inherit=True)
            table = symtable.symtable(text, file, "exec")
    except SyntaxError as error:
        return [Finding(file, error.lineno or 1, "syntax", "error", error.msg)]
    except ValueError as error:
        return [Finding(file, 1, "syntax", "error", str(error))]
    except (RecursionError, MemoryError):
        return [Finding(file, 1, "syntax", "error", "nested too deeply to be compiled")]
    nodes = list(ast.walk(tree))
    found = [
        *_undefined(file, nodes, table),
        *_unused_imports(file, tree, nodes),
        *(finding for node in nodes for finding in _local(file, node)),
    ]
    return sorted(found, key=lambda one: (one.line, one.rule, one.message))


def _undefined(file: str, nodes: list[ast.AST], table: symtable.SymbolTable) -> Iterator[Finding]:
    """Names that are nowhere given a value. Says nothing where names may come from elsewhere."""
    if any(isinstance(node, ast.ImportFrom) and node.names[0].name == "*" for node in nodes):
        return
    loads: dict[str, int] = {}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            loads[node.id] = min(node.lineno, loads.get(node.id, node.lineno))
    caught = {node.id for one in nodes if isinstance(one, ast.ExceptHandler) and one.type for node in _names(one.type)}
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    if caught & {"NameError", "Exception", "BaseException"} or (loads.keys() | attributes) & _NAMESPACE_TRICKS:
        return
    given = set(_KNOWN)
    missing = set()
    for one in _tables(table):
        for symbol in one.get_symbols():
            sets = symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace() or symbol.is_annotated()
            if sets and (one is table or symbol.is_declared_global()):
                given.add(symbol.get_name())
            # Python takes any function that is called `top` for the module; its locals are global and local then.
            elif symbol.is_referenced() and (one is table or (symbol.is_global() and not symbol.is_local())):
                missing.add(symbol.get_name())
    for name in missing - given:
        if name in loads:
            yield Finding(file, loads[name], "undefined_name", "error", f"{name} is never given a value")


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    todo = [table]
    while todo:
        one = todo.pop()
        yield one
        todo += one.get_children()


def _names(node: ast.AST) -> Iterator[ast.Name]:
    return (one for one in ast.walk(node) if isinstance(one, ast.Name))


def _unused_imports(file: str, tree: ast.Module, nodes: list[ast.AST]) -> Iterator[Finding]:
    """Imports at the top level that nothing mentions, not even a string (an annotation, `__all__`)."""
    if file.rpartition("/")[2] == "__init__.py":
        return
    mentioned = {node.id for node in nodes if isinstance(node, ast.Name)}
    docstrings = {id(_docstring(node)) for node in nodes}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            mentioned.update(_WORD.findall(node.value))
    for statement in tree.body:
        if not isinstance(statement, (ast.Import, ast.ImportFrom)):
            continue
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__":
            continue
        for alias in statement.names:
            name = alias.asname or alias.name.partition(".")[0]
            # `import x as x` says that it is meant for others.
            if name != "*" and name not in mentioned and alias.asname != alias.name:
                yield Finding(file, statement.lineno, "unused_import", "warning", f"{name} is imported and not used")


def _docstring(node: ast.AST) -> ast.AST | None:
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.body:
        first = node.body[0]
        return first.value if isinstance(first, ast.Expr) else None
    return None


def _local(file: str, node: ast.AST) -> Iterator[Finding]:
    if isinstance(node, ast.ExceptHandler) and node.type is None and not _raises_again(node):
        message = "catches everything, also KeyboardInterrupt; name what it is for"
        yield Finding(file, node.lineno, "bare_except", "warning", message)
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None and _mutable(default):
                message = "one value for all calls; use None and make it inside"
                yield Finding(file, default.lineno, "mutable_default", "warning", message)
    if isinstance(node, ast.Assert) and isinstance(node.test, ast.Tuple) and node.test.elts:
        yield Finding(file, node.lineno, "assert_tuple", "error", "asserts a tuple, which is always true; no brackets")
    for block in ("body", "orelse", "finalbody"):
        statements = getattr(node, block, None)
        if isinstance(statements, list):
            for before, after in pairwise(statements):
                if isinstance(before, _LEAVES):
                    yield Finding(file, after.lineno, "unreachable", "warning", "can never be reached")
                    break


def _mutable(node: ast.expr) -> bool:
    made = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("list", "dict", "set")
    return made or isinstance(node, _MUTABLE)


def _raises_again(handler: ast.ExceptHandler) -> bool:
    return any(isinstance(one, ast.Raise) and one.exc is None for one in ast.walk(handler))
