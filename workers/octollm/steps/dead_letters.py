"""Dead letters: what `complete` writes about a message that is given up on.

Every entry that comes here has passed admission, so its body is redacted already and is kept unchanged.
"""

import hashlib
import re
from typing import Literal

from octollm.contracts import DeadLetter, StepDead, StepDone, StepError, write
from octollm.contracts.ids import parse_message_id, utc_now
from octollm.protocol.fields import clean
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import Operation, Publish
from octollm.topology import LaneKeys, Topic

Reason = Literal["malformed", "schema", "misrouted", "deliveries_exhausted", "failures_exhausted"]
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def dead_letter(
    entry: Entry, topic: Topic, keys: LaneKeys, consumer: str, reason: Reason, message: str, code: str | None = None
) -> tuple[tuple[Operation, ...], str]:
    """Return the operations that write a dead letter, and the step's in-flight field ('' if it is no step's message).

    For a step the operations also report its end to the orchestrator, even if only the message id is readable.
    `code`: error code of the fault behind `reason`; without it `reason` is the code.
    """
    body = entry.fields.get(b"body", b"")
    now = utc_now()
    report = DeadLetter(
        reason=reason,
        message=message[:2000],
        stage="after_admission",
        stream=entry.stream,
        group=topic.group,
        entry=entry.id,
        consumer=consumer,
        delivery=entry.delivery,
        type=clean(entry.fields.get(b"type")),
        id=clean(entry.fields.get(b"id")),
        tenant=clean(entry.fields.get(b"tenant")),
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        at=now,
    )
    about = {"id": report.id, "tenant": report.tenant, "traceparent": clean(entry.fields.get(b"traceparent"))}
    operations: list[Operation] = [
        Publish(keys.dead, {"type": "dead.letter.v1", **about, "body": write(report), "original": body})
    ]
    ident = parse_message_id(report.id)
    if ident is None or "step.requested.v1" not in topic.accepts or not _TENANT.fullmatch(report.tenant):
        return tuple(operations), ""
    done = StepDead(
        outcome="dead",
        task=ident.task,
        run=ident.run,
        step=ident.step,
        round=ident.round,
        attempt=ident.attempt,
        tenant=report.tenant,
        arm=topic.group,
        worker=consumer,
        delivery=entry.delivery,
        finished_at=now,
        duration_ms=0,
        reason=reason,
        error=StepError(code=code or reason, message=message[:2000]),
    )
    operations.append(
        Publish(keys.done, {"type": "step.done.v1", **about, "body": write(StepDone(done))}, ident.in_flight_field)
    )
    return tuple(operations), ident.in_flight_field
