"""The first line of a docstring fits into a list of names, such as an editor or `help()` shows."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "workers" / "octollm"
MAX_CHARACTERS = 99
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def long_first_lines(source: str) -> list[str]:
    """Names of the definitions whose docstrings begin with too long a line; a module has no name."""
    documented = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DOCUMENTED)]
    too_long = [one for one in documented if len((ast.get_docstring(one) or "").partition("\n")[0]) > MAX_CHARACTERS]
    return ["" if isinstance(one, ast.Module) else one.name for one in too_long]


def test_first_lines_are_short() -> None:
    found = {str(path.relative_to(PACKAGE)): long_first_lines(path.read_text()) for path in PACKAGE.rglob("*.py")}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize("name", ["", "Public", "method", "function", "_private"])
def test_a_long_one_is_found(name: str) -> None:
    line = {one: "x" * (MAX_CHARACTERS + (one == name)) for one in ("", "Public", "method", "function", "_private")}
    source = (
        f'"""{line[""]}"""\n'
        f'class Public:\n    """{line["Public"]}"""\n'
        f'    def method(self):\n        """{line["method"]}"""\n'
        f'async def function():\n    """{line["function"]}\n\n    {"y" * 200}"""\n'
        f'def _private():\n    """{line["_private"]}"""\n'
    )
    assert long_first_lines(source) == [name]
