"""A wrong file of webhook sources refuses to load and says what to change. `schemas/rust/tests/webhooks.rs` judges the
same files."""

from pathlib import Path
from typing import get_args

import pytest

from octollm.errors import WebhooksError
from octollm.topology.webhooks import Scheme, load_webhooks
from tests.helpers.documents import shown_sources

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((Path(__file__).resolve().parent / "webhooks").glob("*.yaml"))
REFUSED, ACCEPTED = "# refused: ", "# accepted: "


def name(file: Path) -> str:
    return file.stem


def of(mark: str) -> list[Path]:
    return [file for file in FILES if file.read_text().startswith(mark)]


def test_each_file_says_in_its_first_line_what_should_become_of_it():
    assert of(REFUSED)
    assert of(ACCEPTED)
    assert len(of(REFUSED)) + len(of(ACCEPTED)) == len(FILES)


@pytest.mark.parametrize("file", of(REFUSED), ids=name)
def test_a_wrong_file_is_refused_with_its_fault(file: Path):
    wanted = file.read_text().partition("\n")[0].removeprefix(REFUSED)
    with pytest.raises(WebhooksError) as caught:
        load_webhooks(file)
    assert caught.value.message.startswith(f"{file}: ")
    assert wanted in caught.value.message
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("file", of(ACCEPTED), ids=name)
def test_a_right_file_is_taken(file: Path):
    load_webhooks(file)


def test_the_file_that_ships_has_github():
    github = load_webhooks(ROOT / "webhooks.yaml")["github"]
    assert (github.scheme, github.tenant, github.secrets) == ("github", "default", ("env:GITHUB_WEBHOOK_SECRET",))
    wanted = ["action", "repository", "number", "title", "body", "author", "url"]
    assert list(github.events["issues"].input) == wanted


def test_a_file_that_cannot_be_read_names_the_setting(tmp_path: Path):
    with pytest.raises(WebhooksError, match="OCTOLLM_WEBHOOKS_FILE"):
        load_webhooks(tmp_path / "missing.yaml")


def test_the_documentation_has_a_complete_source_of_each_scheme(tmp_path: Path):
    shown = []
    for number, text in enumerate(shown_sources()):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text)
        shown += [source.scheme for source in load_webhooks(file).values()]
    assert sorted(shown) == sorted(get_args(Scheme))
