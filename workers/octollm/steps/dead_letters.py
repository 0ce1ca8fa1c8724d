"""Dead letters: what is written about a message that is given up on, as operations for `complete`.

Every entry that comes here has passed admission, so its body is redacted already and goes on untouched.
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

Reason = Literal["unreadable", "schema", "misrouted", "deliveries_exhausted", "failures_exhausted"]
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def dead_letter(
    entry: Entry, topic: Topic, keys: LaneKeys, consumer: str, reason: Reason, message: str, code: str | None = None
) -> tuple[tuple[Operation, ...], str]:
    """The operations, and the step's in-flight field where the entry can be attributed to a step (else empty).

    For a step the orchestrator is told in the same breath, also when only the message id is readable. `code`: of the
    fault behind the reason, where there is one.
    """
    body = entry.fields.get(b"body", b"")
    now = utc_now()
    letter = DeadLetter(
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
    about = {"id": letter.id, "tenant": letter.tenant, "traceparent": clean(entry.fields.get(b"traceparent"))}
    operations: list[Operation] = [
        Publish(keys.dead, {"type": "dead.letter.v1", **about, "body": write(letter), "original": body})
    ]
    ident = parse_message_id(letter.id)
    if ident is None or "step.requested.v1" not in topic.accepts or not _TENANT.fullmatch(letter.tenant):
        return tuple(operations), ""
    done = StepDead(
        outcome="dead",
        task=ident.task,
        run=ident.run,
        step=ident.step,
        round=ident.round,
        attempt=ident.attempt,
        tenant=letter.tenant,
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
