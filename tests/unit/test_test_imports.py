"""No test module imports another: code that several share is in `tests/helpers`, for campaigns in `tests/faults`."""

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
MODULES = {path.stem for path in TESTS.rglob("*.py") if path.stem.startswith("test_") or path.stem == "conftest"}


def imported(source: str) -> set[str]:
    """Every part of every name that this source imports: `from a.b import c` gives a, b and c."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module or ''}.{alias.name}" for alias in node.names)
    return {part for name in names for part in name.split(".")}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_module_of_the_tests_imports_a_test(path):
    assert imported(path.read_text()) & MODULES == set()


@pytest.mark.parametrize(
    "source",
    [
        "from test_roles import put",
        "from tests.integration.test_roles import put",
        "from tests.integration import test_roles",
        "def later():\n    import tests.integration.test_roles",
        "from tests.integration.conftest import pool",
    ],
)
def test_each_way_to_import_a_test_is_seen(source):
    assert imported(source) & MODULES
