"""Messages for an orchestrator, what follows from them, and what is stored."""

from dataclasses import replace
from typing import Any

import asyncpg

from octollm.contracts import (
    DeadLetter,
    InlineOutput,
    StepDone,
    StepRequested,
    StepSucceeded,
    StoredOutput,
    TaskCancel,
    TaskResult,
    read,
    write,
)
from octollm.contracts.ids import message_id, utc_now
from octollm.database.pool import Pool, transaction
from octollm.orchestrator.messages import MessageBuilder
from octollm.orchestrator.service import Answer
from octollm.orchestrator.state import Decision
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import AppendEvent, Operation, Publish, SetStatus
from octollm.topology import Topology
from tests.helpers.consumers import topology
from tests.helpers.messages import about, submitted_body

RECIPES = """
recipe: pair
version: 1
description: two steps and one that needs both
deadline_s: 60
input: {type: object, additionalProperties: false, properties: {n: {type: integer}}}
steps:
  left: {arm: noop, input: {n: {$: task.input.n}}}
  right: {arm: noop, input: {side: right}}
  both: {arm: noop, needs: [left, right], input: {sum: {$: "[steps.left.output.n, steps.right.output.n]"}}}
answer: {$: steps.both.output.sum}
"""


def submitted(task: str, key: str | None = None, **submission: Any) -> Entry:
    body = submitted_body(task, key, **{"goal": "pair", "kind": "pair", "input": {"n": 1}, **submission})
    return entry_of("task.submitted.v1", task, "default", "", body, f"tasks {task}")


def done(step: StepRequested, output: dict[str, Any] | StoredOutput | None = None, **fields: Any) -> Entry:
    if isinstance(output, dict):
        body = StepDone(
            StepSucceeded(outcome="succeeded", output=InlineOutput(at="inline", value=output), **about(step))
        )
    else:
        model = fields.pop("model")
        body = StepDone(model(**about(step), **fields, **({} if output is None else {"output": output})))
    ident = message_id(step.task, step.run, step.step, step.round, step.attempt)
    return entry_of("step.done.v1", ident, step.tenant, "", write(body), f"done {ident}")


def sends(*answers: Answer | Decision | Exception) -> list[StepRequested]:
    """The steps that are sent."""
    found = [one for answer in answers for one in operations(answer) if isinstance(one, Publish)]
    return [read(StepRequested, _body(one)) for one in found if one.fields["type"] == "step.requested.v1"]


def operations(answer: Answer | Decision | Exception) -> tuple[Operation, ...]:
    """What is published; of a decision that no message has caused, what its job publishes."""
    if isinstance(answer, Decision):
        return message_builder().operations(answer)
    assert isinstance(answer, tuple), answer
    return answer


def status(answer: Answer | Decision | Exception) -> SetStatus | None:
    """The status that is written, with its fields as text."""
    for one in operations(answer):
        if isinstance(one, SetStatus):
            texts = {name: value if isinstance(value, str) else value.decode() for name, value in one.fields.items()}
            return one._replace(fields=texts)
    return None


def result(answer: Answer | Decision | Exception) -> TaskResult | None:
    """The result that goes to memory."""
    for one in operations(answer):
        if isinstance(one, Publish) and one.fields["type"] == "task.result.v1":
            return read(TaskResult, _body(one))
    return None


def _body(one: Publish) -> bytes:
    body = one.fields["body"]
    assert isinstance(body, bytes)
    return body


def events(answer: Answer | Decision | Exception) -> list[AppendEvent]:
    return [one for one in operations(answer) if isinstance(one, AppendEvent)]


def message_builder(own: Topology | None = None, **options: Any) -> MessageBuilder:
    """One for the topology that ships, by default, and for an arm `noop`."""
    known = own or topology()
    noop = replace(known.topics["arm.judge"], name="arm.noop", group="noop")
    return MessageBuilder(replace(known, topics={**known.topics, "arm.noop": noop}), 3600, **options)


def changed(entry: Entry, **fields: bytes) -> Entry:
    """An entry with other fields."""
    return entry._replace(fields={**entry.fields, **{name.encode(): value for name, value in fields.items()}})


def entry_of(
    type_: str, ident: str, tenant: str, traceparent: str, body: bytes, place: str, original: bytes = b""
) -> Entry:
    """An entry; `place`: its stream and id."""
    stream, _, number = place.partition(" ")
    fields = {
        b"type": type_.encode(),
        b"id": ident.encode(),
        b"tenant": tenant.encode(),
        b"traceparent": traceparent.encode(),
        b"body": body,
        b"original": original,
    }
    return Entry(stream, number, 1, fields)


async def rows(pool: Pool, query: str) -> list[asyncpg.Record]:
    async with transaction(pool) as connection:
        return list(await connection.fetch(query))


def cancel(task: str, tenant: str = "default", **fields: Any) -> Entry:
    body = write(TaskCancel(task=task, tenant=tenant, requested_at=utc_now(), **fields))
    return entry_of("task.cancel.v1", task, tenant, "", body, f"done {task}")


def dead_letter(stream: str, ident: str, number: int = 1, **changes: Any) -> Entry:
    """A dead letter as it comes from the bus, the `number`-th of its topic."""
    body = DeadLetter(
        **{
            "reason": "deliveries_exhausted",
            "message": "delivered 5 times",
            "stage": "after_admission",
            "stream": stream,
            "group": "g",
            "entry": "1-1",
            "consumer": "c",
            "delivery": 5,
            "type": "x",
            "id": ident,
            "tenant": "default",
            "bytes": 3,
            "at": utc_now(),
            **changes,
        }
    )
    return entry_of("dead.letter.v1", ident, "default", "", write(body), f"dead {number}", b"!")
