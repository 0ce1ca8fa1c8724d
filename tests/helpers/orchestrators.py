"""Messages for an orchestrator, and a look at what it stored."""

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
    write,
)
from octollm.contracts.ids import message_id, utc_now
from octollm.database.pool import Pool, transaction
from octollm.orchestrator.messages import Answer, Incoming, Outgoing
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


def submitted(task: str, key: str | None = None, **submission: Any) -> Incoming:
    body = submitted_body(task, key, **{"goal": "pair", "kind": "pair", "input": {"n": 1}, **submission})
    return Incoming("task.submitted.v1", task, "default", "", body, f"tasks {task}")


def done(step: StepRequested, output: dict[str, Any] | StoredOutput | None = None, **fields: Any) -> Incoming:
    if isinstance(output, dict):
        body = StepDone(
            StepSucceeded(outcome="succeeded", output=InlineOutput(at="inline", value=output), **about(step))
        )
    else:
        model = fields.pop("model")
        body = StepDone(model(**about(step), **fields, **({} if output is None else {"output": output})))
    ident = message_id(step.task, step.run, step.step, step.round, step.attempt)
    return Incoming("step.done.v1", ident, step.tenant, "", write(body), f"done {ident}")


def sends(*answers: Answer | Exception) -> list[StepRequested]:
    found = []
    for answer in answers:
        assert isinstance(answer, Outgoing), answer
        found += [send.step for send in answer.sends]
    return found


async def rows(pool: Pool, query: str) -> list[asyncpg.Record]:
    async with transaction(pool) as connection:
        return list(await connection.fetch(query))


def cancel(task: str, tenant: str = "default", **fields: Any) -> Incoming:
    body = write(TaskCancel(task=task, tenant=tenant, requested_at=utc_now(), **fields))
    return Incoming("task.cancel.v1", task, tenant, "", body, f"done {task}")


def dead_letter(stream: str, ident: str, number: int = 1, **changes: Any) -> Incoming:
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
    return Incoming("dead.letter.v1", ident, "default", "", write(body), f"dead {number}", b"!")
