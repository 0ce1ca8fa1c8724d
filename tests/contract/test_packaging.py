"""What a package is built from is in it, and what it imports is among its dependencies."""

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
# Part of another distribution's own interface, in the one version that fits it.
BROUGHT_BY = {"pydantic-core": "pydantic", "typing-extensions": "pydantic", "starlette": "fastapi"}


def normal(name: str) -> str:
    """The name of a distribution as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared() -> set[str]:
    """The distributions that an installation brings, its extras included."""
    extras = [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    return {normal(re.split(r"[\[~<>=!; ]", one)[0]) for one in [*PROJECT["dependencies"], *extras]}


def imported() -> dict[str, str]:
    """Every module from elsewhere that the package imports, with a file that does."""
    found: dict[str, str] = {}
    for path in sorted((ROOT / "workers" / "octollm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
                names = [node.module]
            found |= {name.partition(".")[0]: path.relative_to(ROOT).as_posix() for name in names}
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | {"octollm"}}


def test_every_import_is_a_declared_dependency() -> None:
    providers = packages_distributions()
    known = declared()
    known |= {part for part, whole in BROUGHT_BY.items() if whole in known}
    # The installed name, or the import's own name where an extra is not installed.
    missing = {
        name: path
        for name, path in imported().items()
        if not known & {normal(one) for one in providers.get(name, [name])}
    }
    assert not missing


def test_what_the_rust_programs_are_built_from_is_in_the_sdist_and_in_the_image() -> None:
    members = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["members"]
    assert "crates/bus" in members
    included = re.compile(r'include_str!\(\s*"([^"]+)"')
    needed = set(members)
    for member in members:
        for source in (ROOT / member / "src").rglob("*.rs"):
            if "tests" not in source.parts:
                for path in included.findall(source.read_text()):
                    needed.add((source.parent / path).resolve().relative_to(ROOT).as_posix())
    manifest = (ROOT / "MANIFEST.in").read_text().split()
    # setuptools adds the Python package and its data files by itself.
    patterns = [pattern for listed in PYPROJECT["tool"]["setuptools"]["data-files"].values() for pattern in listed]
    data = [path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)]
    assert not uncovered(needed, [*manifest, *data, "workers/octollm"])
    ignore = (ROOT / ".dockerignore").read_text().split()
    shown = [path.relative_to(ROOT).as_posix() for line in ignore if line[0] == "!" for path in ROOT.glob(line[1:])]
    assert not uncovered(needed, shown)


def uncovered(paths: set[str], listed: list[str]) -> list[str]:
    """Those paths that are neither listed nor in a folder that is."""
    return sorted(path for path in paths if not any(path == one or path.startswith(f"{one}/") for one in listed))
