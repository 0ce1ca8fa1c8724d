"""The documentation names files, settings and codes that exist.

`python -m tests.contract.test_docs` writes the tables of docs/settings.md from the comments of octollm.default.toml.
"""

import json
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEFAULTS = ROOT / "workers/octollm/settings/octollm.default.toml"
SETTINGS = ROOT / "docs/settings.md"
OUTCOMES = ROOT / "reflex-rs/src/outcome.rs"
PAGES = sorted(path for path in ROOT.glob("docs/**/*.md")) + sorted(ROOT.glob("*.md")) + [ROOT / "deploy/README.md"]
# Where a page may leave out the beginning of a path.
BASES = ("", "workers/octollm/", "reflex-rs/src/", "executor-rs/src/", "docs/", "lua/")
CODE = re.compile(r"`([^`\n]+)`")
PATH = re.compile(r"[\w.-]+(?:/[\w.-]+)*/?")
SUFFIX = re.compile(r"\.(?:py|rs|lua|sql|toml|yaml|json|md|c)$")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Files that a reader creates or that are made by a command.
ELSEWHERE = {".venv/", "target/", "build/", "task.json", "step.json", "minimal.json", "full.json"}
GLOSSARY_LIMIT = 25
# What a guide walks through: the guide lists exactly the files that name it.
WALKS = {
    "docs/add-an-event-type.md": ("task.redrive.v1", "TaskRedrive", "repair_opened", "RepairOpened"),
    "docs/add-a-setting.md": ("reconcile_interval_s", "max_forwards"),
}
# Files that name everything of their kind, and records of the past.
NOT_WALKED = ("docs/", "schemas/vectors/", "CHANGELOG.md", "tests/contract/test_docs.py", "tests/compat/")


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tracked() -> frozenset[str]:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    return frozenset(path for path in listed.stdout.decode().split("\0") if path and (ROOT / path).is_file())


@cache
def folders() -> frozenset[str]:
    return frozenset(parent.as_posix() for path in tracked() for parent in Path(path).parents)


def exists(name: str) -> bool:
    """Whether some tracked file or folder is meant by `name`, which may lack the beginning of its path."""
    plain = name.rstrip("/")
    if any(f"{base}{plain}" in tracked() or f"{base}{plain}" in folders() for base in BASES):
        return True
    return any(path.endswith(f"/{plain}") for path in tracked())


def named_paths(text: str) -> set[str]:
    """Everything between backquotes that looks like a file or folder of this repository."""
    words = {word for code in CODE.findall(text) for word in code.split() if PATH.fullmatch(word)}
    return {word for word in words if SUFFIX.search(word) or word.endswith("/")} - ELSEWHERE


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    missing = sorted(name for name in named_paths(page.read_text()) if not exists(name))
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_leads_to_a_file(page: Path) -> None:
    links = {link.partition("#")[0] for link in LINK.findall(page.read_text()) if "://" not in link}
    assert not sorted(link for link in links if link and not (page.parent / link).exists())


def test_every_page_is_linked_from_the_readme_or_the_architecture() -> None:
    """So that each is found within two hops."""
    starts = [ROOT / "README.md", ROOT / "docs/ARCHITECTURE.md"]
    linked = {(page.parent / link).resolve() for page in starts for link in LINK.findall(page.read_text())}
    pages = {path.resolve() for path in ROOT.glob("docs/*.md")} | {
        path.resolve() for path in ROOT.glob("docs/examples/*.md")
    }
    assert not sorted(map(str, pages - linked - {starts[1].resolve()}))


@pytest.mark.parametrize("guide", WALKS)
def test_a_guide_names_every_file_that_its_example_touches(guide: str) -> None:
    names = WALKS[guide]
    touching = {
        path
        for path in tracked()
        if not path.startswith(NOT_WALKED) and any(name in (ROOT / path).read_text(errors="replace") for name in names)
    }
    text = (ROOT / guide).read_text()
    assert not sorted(path for path in touching if path not in text)


def test_the_glossary_is_short() -> None:
    words = re.findall(r"^\| \*\*([^*]+)\*\* \| [^|]+\. \|$", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)
    assert 0 < len(words) <= GLOSSARY_LIMIT
    assert words == sorted(words, key=str.lower)


def test_every_problem_code_that_is_documented_exists() -> None:
    variants = re.findall(r"^    ([A-Z]\w+),$", OUTCOMES.read_text(), re.MULTILINE)
    outcomes = {re.sub(r"(?<!^)(?=[A-Z])", "_", variant).lower() for variant in variants}
    codes = set(re.findall(r"^\| `(\w+)` \| \d{3} \|", (ROOT / "docs/http-api.md").read_text(), re.MULTILINE))
    assert codes
    assert codes <= outcomes


def test_every_question_of_the_search_benchmark_has_its_answer() -> None:
    questions = json.loads((ROOT / "bench/questions.json").read_bytes())
    assert not [one["question"] for one in questions if one["has"] not in (ROOT / one["document"]).read_text()]


def settings_page() -> str:
    """docs/settings.md with its tables made from the default file."""
    defaults = tomllib.loads(DEFAULTS.read_text())
    before = SETTINGS.read_text().partition("\n## ")[0].rstrip()
    tables = [before]
    section = ""
    for line in DEFAULTS.read_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\]", line):
            section = heading[1]
            tables.append(f"\n## {section}\n\n| key | default | meaning |\n|---|---|---|")
        elif found := re.fullmatch(r"(\w+) = (.+?)(?:\s+# (.*))?", line):
            key, value, meaning = found[1], found[2], found[3] or ""
            assert tomllib.loads(f"{key} = {value}")[key] == defaults[section][key], (
                f"{section}.{key}: read its line again"
            )
            tables.append(f"| `{key}` | `{value}` | {meaning} |")
    return "\n".join(tables) + "\n"


def test_the_settings_page_is_the_default_file() -> None:
    assert SETTINGS.read_text() == settings_page(), "run `python -m tests.contract.test_docs`"


if __name__ == "__main__":
    SETTINGS.write_text(settings_page())
