"""Runs one step's message through an arm: reads it, runs the arm within its limits, and says what comes next.

The arm is a plain callable; this room knows nothing of arms. Everything an arm may do wrong ends here.
"""

import asyncio
import hashlib
import random
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from typing import Any

import orjson
import structlog

from octollm.bus import retry
from octollm.bus.handoff import Entry
from octollm.bus.letters import Reason, dead_letter
from octollm.bus.operations import Add, Delay, Fields, Operation
from octollm.bus.outcomes import Ending, Outcome
from octollm.contracts import (
    InlineOutput,
    StepDone,
    StepError,
    StepFailed,
    StepRequested,
    StepRetrying,
    StepSucceeded,
    StoredOutput,
    read,
    strict_json,
    write,
)
from octollm.contracts.ids import live_field, message_id, utc_now
from octollm.errors import ContractError, NeedsPersonError, NotReadyError, PermanentError, TransientError
from octollm.topology import LaneKeys, Topic

_OUTPUT_DEPTH = strict_json.MAX_DEPTH - 8
"""Levels an output may have: room is left for the messages that carry it."""
INLINE_LIMIT = 64 * 1024
"""Bytes of JSON an output may have to travel in the message; larger ones go to Postgres."""
DELIVERY: ContextVar[int] = ContextVar("delivery", default=1)
"""Delivery count of the entry whose step is being worked on; what is written for a step names it."""
_CODE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_log = structlog.get_logger(__name__)
Work = Callable[[StepRequested], Awaitable[dict[str, Any]]]
Keep = Callable[[str, str, bytes], Awaitable[None]]
"""Stores a large output: tenant, SHA-256, bytes. Raises NotReadyError while Postgres is away."""


@dataclass(frozen=True, slots=True)
class StepRunner:
    """The handler of an arm's topic in one lane."""

    topic: Topic
    keys: LaneKeys
    consumer: str
    work: Work
    keep: Keep

    async def __call__(self, entry: Entry) -> Ending:
        """Never raises but NotReadyError: each fault has its own ending."""
        try:
            step = self._read(entry)
        except _RefusedError as refused:
            _log.warning("a message cannot be read and is given up on", reason=refused.reason, fault=str(refused))
            operations, live = dead_letter(entry, self.topic, self.keys, self.consumer, refused.reason, str(refused))
            return Ending(Outcome.DEAD, operations, live)
        with structlog.contextvars.bound_contextvars(task=step.task, step=step.step, attempt=step.attempt):
            return await self._run(entry, step)

    def _read(self, entry: Entry) -> StepRequested:
        kind = entry.fields.get(b"type", b"")
        if kind != b"step.requested.v1":
            raise _RefusedError("misrouted", f"field type must be step.requested.v1 on {entry.stream}")
        try:
            step = read(StepRequested, entry.fields.get(b"body", b""))
        except ContractError as error:
            raise _RefusedError(error.reason, str(error)) from error
        if step.arm != self.topic.group:
            raise _RefusedError("misrouted", f"the step is for arm {step.arm}, not for {self.topic.group}")
        ident = _ident(step)
        if entry.fields.get(b"id", b"") != ident.encode():
            raise _RefusedError("misrouted", f"field id is not the body's {ident}")
        return step

    async def _run(self, entry: Entry, step: StepRequested) -> Ending:
        DELIVERY.set(entry.delivery)
        began = perf_counter()
        limit_s = min(step.timeout_s, self.topic.timeout_s or step.timeout_s)
        try:
            async with asyncio.timeout(limit_s):
                output = await self.work(step)
            return self._succeeded(entry, step, output, began)
        except PermanentError as error:
            return self._failed(entry, step, _fault(error.code, error.message), began)
        except NeedsPersonError as error:
            return self._parked(entry, step, _fault(error.code, error.message), began)
        except TransientError as error:
            return self._passing(entry, step, _fault(error.code, error.message), began, error.retry_after_s)
        except TimeoutError:
            return self._passing(entry, step, StepError(code="timeout", message=f"no end after {limit_s} s"), began)
        except NotReadyError:
            raise
        except Exception as error:  # noqa: BLE001  whatever an arm raises must end in an outcome
            _log.exception("the arm broke")
            message = f"the arm broke: {type(error).__name__}"
            ending = self._passing(entry, step, StepError(code="internal", message=message), began)
            return replace(ending, broke=True)

    def _succeeded(self, entry: Entry, step: StepRequested, output: dict[str, Any], began: float) -> Ending:
        try:
            raw = orjson.dumps(output)
            strict_json.check(raw, _OUTPUT_DEPTH)
        except (TypeError, ContractError) as error:
            fault = _fault("output_not_json", f"the arm's output is not JSON: {error}")
            return replace(self._failed(entry, step, fault, began), broke=True)
        value: InlineOutput | StoredOutput
        before = None
        if len(raw) <= INLINE_LIMIT:
            value = InlineOutput(at="inline", value=output)
        else:
            digest = hashlib.sha256(raw).hexdigest()
            before = partial(self.keep, step.tenant, digest, raw)
            value = StoredOutput(at="postgres", sha256=digest, bytes=len(raw))
        done = StepSucceeded(outcome="succeeded", output=value, **self._about(entry, step, began))
        return Ending(Outcome.DONE, (self._tell(entry, step, StepDone(done)),), _live(step), before)

    def _failed(self, entry: Entry, step: StepRequested, error: StepError, began: float) -> Ending:
        _log.info("the step failed", code=error.code)
        done = StepFailed(outcome="failed", error=error, **self._about(entry, step, began))
        return Ending(Outcome.FAILED, (self._tell(entry, step, StepDone(done)),), _live(step))

    def _passing(
        self, entry: Entry, step: StepRequested, error: StepError, began: float, retry_after_s: float | None = None
    ) -> Ending:
        """A failure that may pass: by the topic's policy tried again, or given up on."""
        failures = step.failures + 1
        policy = self.topic.retry
        chance = random.random()  # noqa: S311  jitter
        decision = retry.decide(policy, failures, chance, retry_after_s or 0) if policy else retry.GiveUp(failures)
        if isinstance(decision, retry.GiveUp):
            message = f"failed {failures} times, last: {error.message}"
            operations, live = dead_letter(entry, self.topic, self.keys, self.consumer, "failures_exhausted", message)
            return Ending(Outcome.DEAD, operations, live)
        _log.info("the step failed and is tried again", code=error.code, failures=failures, delay_ms=decision.delay_ms)
        return self._again(entry, step, error, began, failures, decision, Outcome.RETRYING)

    def _parked(self, entry: Entry, step: StepRequested, error: StepError, began: float) -> Ending:
        """Nothing that time alone puts right: looked at again now and then, at no cost, for about a day."""
        decision = retry.park(step.attempt, step.failures, random.random())  # noqa: S311  jitter
        if isinstance(decision, retry.GiveUp):
            message = f"needs a person, who did not come: {error.message}"
            operations, live = dead_letter(
                entry, self.topic, self.keys, self.consumer, "failures_exhausted", message, error.code
            )
            return Ending(Outcome.DEAD, operations, live)
        _log.warning("the step needs a person", code=error.code, fault=error.message, delay_ms=decision.delay_ms)
        return self._again(entry, step, error, began, step.failures, decision, Outcome.PARKED)

    def _again(
        self,
        entry: Entry,
        step: StepRequested,
        error: StepError,
        began: float,
        failures: int,
        decision: retry.Again,
        outcome: Outcome,
    ) -> Ending:
        again = step.model_copy(update={"attempt": step.attempt + 1, "failures": failures})
        ident = _ident(again)
        fields: Fields = {**self._fields(entry, step), "type": "step.requested.v1", "id": ident, "body": write(again)}
        stream = self.keys.stream(self.topic, step.priority)
        done = StepRetrying(
            outcome="retrying",
            error=error,
            next_attempt=again.attempt,
            failures=failures,
            delay_ms=decision.delay_ms,
            **self._about(entry, step, began),
        )
        operations = (
            # The schedule comes last: the live field names the message that carries the step on.
            self._tell(entry, step, StepDone(done), live=False),
            Delay(self.keys.schedule, self.keys.messages, stream, decision.delay_ms, ident, fields, _live(step)),
        )
        return Ending(outcome, operations, _live(step))

    def _about(self, entry: Entry, step: StepRequested, began: float) -> dict[str, Any]:
        return {
            "task": step.task,
            "run": step.run,
            "step": step.step,
            "round": step.round,
            "attempt": step.attempt,
            "tenant": step.tenant,
            "arm": step.arm,
            "worker": self.consumer,
            "delivery": entry.delivery,
            "finished_at": utc_now(),
            "duration_ms": int((perf_counter() - began) * 1000),
        }

    def _fields(self, entry: Entry, step: StepRequested) -> dict[str, str | bytes]:
        return {"tenant": step.tenant, "traceparent": entry.fields.get(b"traceparent", b"")}

    def _tell(self, entry: Entry, step: StepRequested, done: StepDone, *, live: bool = True) -> Operation:
        ident = _ident(step)
        fields = {"type": "step.done.v1", "id": ident, **self._fields(entry, step), "body": write(done)}
        return Add(self.keys.done, fields, _live(step) if live else "")


class _RefusedError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def _live(step: StepRequested) -> str:
    return live_field(step.task, step.run, step.step, step.round)


def _ident(step: StepRequested) -> str:
    return message_id(step.task, step.run, step.step, step.round, step.attempt)


def _fault(code: str, message: str) -> StepError:
    """Whatever an arm says is wrong, as a message can carry it."""
    text = message.encode("utf-8", "replace").decode().replace("\0", " ")[:2000]
    return StepError(code=code if _CODE.fullmatch(code) else "unnamed", message=text or "no message")
