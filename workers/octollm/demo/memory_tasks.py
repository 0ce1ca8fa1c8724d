"""The demo's tasks with memory.

They are documents with a question, and webhooks whose issues find each other.
"""

from collections.abc import Callable
from dataclasses import replace

import orjson

from octollm.cli.webhook_samples import sample
from octollm.demo.outcome import DemoTask, Outcome, any_answer, make_task
from octollm.resources import share_dir, texts
from octollm.settings.files import webhooks_path
from octollm.settings.loader import load_settings
from octollm.topology.webhooks import load_webhooks

SOURCE, EVENT = "github", "issues"
_QUESTION = "What happens when a worker dies in the middle of a step?"
_FIRST = {
    "title": "Worker crashes when Redis restarts",
    "body": "The worker crashes with an exception when Redis restarts under load. Mail me at grace@example.org.",
}
_SECOND = {
    "title": "Crash of a worker after Redis was restarted",
    "body": "After Redis restarts the worker crashes, an exception stands in the log and the queue stays full.",
}


def memory_tasks() -> list[DemoTask]:
    """In the order in which they are sent: each question comes after what it asks about."""
    root = share_dir()
    documents = [
        {"name": str(path.relative_to(root)), "text": path.read_text(encoding="utf-8"), "media": "markdown"}
        for path in texts()
    ]
    given = {"collection": "project", "documents": documents}
    return [
        make_task("ingest", "ingest", "Take in the project's own texts", given, "succeeded", _ingested),
        make_task(
            "ask", "ask", _QUESTION, {"question": _QUESTION, "collection": "project"}, "succeeded", _answered
        ),
        _issue("issue", 101, _FIRST, _labelled),
        _issue("issue, similar", 102, _SECOND, _similar),
        replace(_issue("tampered", 103, _FIRST, any_answer), expected="refused: invalid_signature", tampered=True),
    ]  # fmt: skip


def _issue(name: str, number: int, texts: dict[str, str], fault: Callable[[Outcome], str | None]) -> DemoTask:
    return DemoTask(name, "github.issues", "webhook", _payload(number, texts), "succeeded", fault)


def _payload(number: int, inputs: dict[str, str]) -> bytes:
    source = load_webhooks(webhooks_path(load_settings()))[SOURCE]
    payload = orjson.loads(sample(source, EVENT, "demo", inputs))
    payload["issue"]["number"] = number
    return orjson.dumps(payload)


def _ingested(found: Outcome) -> str | None:
    states = {one["name"]: one["state"] for one in found.answer["documents"]}
    if "README.md" not in states:
        return f"the documents are {sorted(states)}"
    return None if found.answer["passages"] > 10 else f"there are {found.answer['passages']} passages"


def _answered(found: Outcome) -> str | None:
    if not found.answer["found"]:
        return "no answer was found"
    quotes = " ".join(one["quote"] for one in found.answer["citations"])
    return None if "lease" in quotes else f"the quotes say nothing of a lease: {quotes[:300]}"


def _labelled(found: Outcome) -> str | None:
    if "bug" not in found.answer["labels"]:
        return f"the labels are {found.answer['labels']}"
    return "Postgres keeps an address" if "grace@example.org" in found.stored else None


def _similar(found: Outcome) -> str | None:
    numbers = [one["number"] for one in found.answer["similar"]]
    return None if 101 in numbers else f"similar are {numbers}, and not 101"
