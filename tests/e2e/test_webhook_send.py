"""`octollm webhook send` against the running reflex: what one signs, the other must take."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.documents import shown_sources
from tests.helpers.programs import Up, octollm, up

ROOT = Path(__file__).parents[2]
ACME = """
  acme:
    description: signs by Standard Webhooks
    scheme: standard
    tenant: default
    secrets: [env:ACME_SECRET]
    events:
      note.made: {kind: note, goal: keep it, input: {text: /data/text}}
  closed:
    description: has no secret
    scheme: github
    tenant: default
    secrets: [env:ACME_ABSENT]
    events:
      note.made: {kind: note, goal: keep it, input: {text: /data/text}}
"""
STANDARD = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PLAIN = "It's a Secret to Everybody"
SECRETS = {
    "GITHUB_WEBHOOK_SECRET": PLAIN,
    "ACME_SECRET": STANDARD,
    "FEEDBACK_SECRET": STANDARD,
    "GITLAB_SIGNING_TOKEN": STANDARD,
    "GITLAB_SECRET_TOKEN": PLAIN,
    "STRIPE_SIGNING_SECRET": STANDARD,
    "SLACK_SIGNING_SECRET": PLAIN,
    "SHOP_SECRET": PLAIN,
    "SENSOR_SECRET": PLAIN,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Up, dict[str, str]]]:
    """A stack with three sources and those of docs/webhooks.md, and the environment of a sender."""
    folder = tmp_path_factory.mktemp("webhooks")
    file = folder / "webhooks.yaml"
    shown = "".join(text.removeprefix("version: 1\nsources:\n") for text in shown_sources())
    file.write_text((ROOT / "webhooks.yaml").read_text() + ACME + shown)
    environment = SECRETS | {"OCTOLLM_WEBHOOKS_FILE": str(file)}
    with up(folder, **environment) as running:
        yield running, environment | {"OCTOLLM_REFLEX_URL": running.http}


def send(sources, *arguments: str, stdin: str | None = None, **environment: str):
    return octollm("webhook", "send", *arguments, stdin=stdin, **(sources[1] | environment))


def test_the_issue_that_ships_is_taken_once(sources):
    first = send(sources, "github", "--delivery", "d-1", "--json")
    assert first.returncode == 0, first.stderr
    again = json.loads(send(sources, "github", "--delivery", "d-1", "--json").stdout)
    assert (again["task"], again["duplicate"]) == (json.loads(first.stdout)["task"], True)
    other = json.loads(send(sources, "github", "--title", "another", "--json").stdout)
    assert (other["task"] != again["task"], other["duplicate"]) == (True, False)


def test_a_payload_of_ones_own_becomes_a_finished_task(sources):
    payload = json.dumps({"type": "note.made", "data": {"text": "write to ada@example.org"}})
    done = send(sources, "acme", "--file", "-", "--json", stdin=payload)
    assert done.returncode == 0, done.stderr
    ended = sources[0].ended(json.loads(done.stdout)["task"])
    assert (ended["state"], ended["result"]["answer"]["text"]) == ("succeeded", "write to [email]")


def test_what_is_not_mapped_is_passed_over(sources):
    done = send(sources, "github", "--event", "ping")
    assert (done.returncode, "ignored" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("feedback",), {}),
        (("releases",), {}),
        (("releases", "--form"), {}),
        (("gitlab",), {}),
        (("gitlab",), {"GITLAB_SIGNING_TOKEN": ""}),
        (("stripe",), {}),
        (("slack",), {}),
        (("slack", "--form"), {}),
        (("slack", "--event", "/note", "--form"), {}),
        (("shop",), {}),
        (("sensor",), {}),
    ],
)
def test_the_reflex_takes_what_each_documented_source_sends(sources, arguments, environment):
    done = send(sources, *arguments, "--json", **environment)
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)["status_url"].rpartition("/")[2]
    assert sources[0].ended(task)["state"] == "succeeded"


@pytest.mark.parametrize(
    ("arguments", "environment", "said"),
    [
        (("github",), {"GITHUB_WEBHOOK_SECRET": "another good secret"}, "signature"),
        (("github",), {"GITHUB_WEBHOOK_SECRET": ""}, "GITHUB_WEBHOOK_SECRET"),
        (("acme",), {"ACME_SECRET": "hunter2!"}, "base64"),
        (("nowhere",), {}, "it has github, acme, closed"),
        (("closed", "--secret-env", "ACME_SECRET"), {}, "ACME_ABSENT"),
        (("github", "--secret-env", "NOWHERE"), {}, "NOWHERE"),
        (("github", "--event", "push"), {}, "--file"),
        (("github",), {"OCTOLLM_REFLEX_URL": "http://127.0.0.1:1"}, "octollm up"),
        (("github", "--url", "http://127.0.0.1:1"), {}, "octollm up"),
        (("github",), {"OCTOLLM_WEBHOOKS_FILE": "/nowhere.yaml"}, "OCTOLLM_WEBHOOKS_FILE"),
    ],
)
def test_what_cannot_be_sent_is_said_in_one_sentence(sources, arguments, environment, said):
    done = send(sources, *arguments, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--file", "/nowhere.json"), ("--delivery", "a b"), ("--delivery", ""), ("--event", "ä"), ("--event", "")],
)
def test_an_option_that_cannot_be_used_is_a_wrong_use(sources, option, value):
    done = send(sources, "github", option, value)
    assert done.returncode == 2
    assert option in done.stderr


def test_a_file_and_another_title_are_not_both_sent(sources, tmp_path: Path):
    file = tmp_path / "payload.json"
    file.write_text("{}")
    done = send(sources, "github", "--file", str(file), "--title", "t")
    assert (done.returncode, "--title" in done.stderr) == (2, True)
