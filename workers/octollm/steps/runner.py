"""Runs one step's message through an arm: reads it, runs the arm within its limits, and says what comes next.

The arm is a plain callable; this room knows nothing of arms. Everything an arm may do wrong ends here.
"""

import hashlib
import random
import re
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any

import orjson
import structlog

from octollm.contracts import (
    Chained,
    StepError,
    StepRequested,
    read,
    strict_json,
    write,
)
from octollm.contracts.ids import message_id, utc_now
from octollm.errors import ContractError, NeedsPersonError, PermanentError, StoreUnavailableError, TransientError
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import Fields, Publish, Schedule, Text
from octollm.protocol.outcomes import HandlerResult, Outcome
from octollm.steps import retry
from octollm.steps.dead_letters import Reason, dead_letter
from octollm.steps.timeout import within
from octollm.topology import LaneKeys, Topic

_OUTPUT_DEPTH = strict_json.MAX_DEPTH - 8
"""Levels an output may have: room is left for the messages that carry it."""
INLINE_LIMIT = 64 * 1024
"""Bytes of JSON an output may have to travel in the message; larger ones go to Postgres."""
_CODE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_log = structlog.get_logger(__name__)
Work = Callable[[StepRequested], Coroutine[Any, Any, dict[str, Any]]]
Keep = Callable[[str, str, bytes], Awaitable[None]]
"""Stores a large output: tenant, SHA-256, bytes. Raises StoreUnavailableError while Postgres is away."""
Onward = Callable[[StepRequested, dict[str, Any]], tuple[str, StepRequested] | None]
"""What follows a step that had this output without the orchestrator: its stream and message. None: nothing does."""


def _nothing(_step: StepRequested, _output: dict[str, Any]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class StepRunner:
    """The handler of an arm's topic in one lane."""

    topic: Topic
    keys: LaneKeys
    consumer: str
    work: Work
    keep: Keep
    onward: Onward = _nothing

    async def __call__(self, entry: Entry) -> HandlerResult:
        """Never raises but StoreUnavailableError: each fault has its own ending."""
        try:
            step = self._read(entry)
        except _RefusedError as refused:
            _log.warning("a message cannot be read and is given up on", reason=refused.reason, fault=str(refused))
            operations, in_flight = dead_letter(
                entry, self.topic, self.keys, self.consumer, refused.reason, str(refused)
            )
            return HandlerResult(Outcome.DEAD, operations, in_flight)
        began = perf_counter()
        limit_s = min(step.timeout_s, self.topic.timeout_s or step.timeout_s)
        try:
            output = await within(limit_s, self.work(step))
            ending = self._succeeded(entry, step, output, began)
        except PermanentError as error:
            ending = self._failed(entry, step, _fault(error.code, error.message), began)
        except NeedsPersonError as error:
            ending = self._parked(entry, step, _fault(error.code, error.message), began)
        except TransientError as error:
            ending = self._passing(entry, step, _fault(error.code, error.message), began, error.retry_after_s)
        except TimeoutError:
            fault = StepError(code="timeout", message=f"no end after {limit_s} s")
            ending = self._passing(entry, step, fault, began)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  whatever an arm raises must end in an outcome
            _log.exception("the arm broke")
            fault = StepError(code="internal", message=f"the arm broke: {type(error).__name__}")
            ending = self._passing(entry, step, fault, began)._replace(broke=True)
        return ending

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

    def _succeeded(self, entry: Entry, step: StepRequested, output: dict[str, Any], began: float) -> HandlerResult:
        if not isinstance(output, dict):  # an arm may be anybody's
            raise TypeError("an output is an object")
        try:
            raw = orjson.dumps(output)
            strict_json.check_written(raw, _OUTPUT_DEPTH)
        except (TypeError, ContractError) as error:
            fault = _fault("output_not_json", f"the arm's output is not JSON: {error}")
            return self._failed(entry, step, fault, began)._replace(broke=True)
        value: dict[str, object]
        before, follows = None, None
        if len(raw) <= INLINE_LIMIT:
            value = {"at": "inline", "value": orjson.Fragment(raw)}
            follows = None if step.continuation is None else self._follows(step, raw)
        else:
            digest = hashlib.sha256(raw).hexdigest()
            before = partial(self.keep, step.tenant, digest, raw)
            value = {"at": "postgres", "sha256": digest, "bytes": len(raw)}
        in_flight = _live(entry)
        if follows is None:
            told = self._tell(entry, step, began, in_flight, outcome="succeeded", output=value)
            return HandlerResult(Outcome.DONE, (told,), in_flight, before)
        stream, following = follows
        chained = Chained(step=following.step, attempt=following.attempt)
        told = self._tell(entry, step, began, in_flight, outcome="succeeded", output=value, chained=chained)
        return HandlerResult(Outcome.DONE, (told, self._send(entry, stream, following)), in_flight, before)

    def _follows(self, step: StepRequested, raw: bytes) -> tuple[str, StepRequested] | None:
        """What is handed on directly. Of a task that has run out of time nothing is: its end is the orchestrator's."""
        if step.deadline_at is not None and step.deadline_at <= utc_now():
            return None
        try:
            return self.onward(step, orjson.loads(raw))
        except Exception:  # noqa: BLE001  a shortcut that breaks must not cost the result
            _log.exception("the next step cannot be sent from here; the orchestrator sends it")
            return None

    def _failed(self, entry: Entry, step: StepRequested, error: StepError, began: float) -> HandlerResult:
        _log.info("the step failed", code=error.code)
        in_flight = _live(entry)
        told = self._tell(entry, step, began, in_flight, outcome="failed", error=error)
        return HandlerResult(Outcome.FAILED, (told,), in_flight)

    def _passing(
        self, entry: Entry, step: StepRequested, error: StepError, began: float, retry_after_s: float | None = None
    ) -> HandlerResult:
        """A failure that may pass: by the topic's policy tried again, or given up on."""
        failures = step.failures + 1
        policy = self.topic.retry
        chance = random.random()  # noqa: S311  jitter
        decision = retry.decide(policy, failures, chance, retry_after_s or 0) if policy else retry.GiveUp(failures)
        if isinstance(decision, retry.GiveUp):
            message = f"failed {failures} times, last: {error.message}"
            operations, in_flight = dead_letter(
                entry, self.topic, self.keys, self.consumer, "failures_exhausted", message
            )
            return HandlerResult(Outcome.DEAD, operations, in_flight)
        _log.info("the step failed and is tried again", code=error.code, failures=failures, delay_ms=decision.delay_ms)
        return self._again(entry, step, error, began, failures, decision, Outcome.RETRYING)

    def _parked(self, entry: Entry, step: StepRequested, error: StepError, began: float) -> HandlerResult:
        """Nothing that time alone puts right: looked at again now and then, at no cost, for about a day."""
        decision = retry.park(step.attempt, step.failures, random.random())  # noqa: S311  jitter
        if isinstance(decision, retry.GiveUp):
            message = f"needs a person, who did not come: {error.message}"
            operations, in_flight = dead_letter(
                entry, self.topic, self.keys, self.consumer, "failures_exhausted", message, error.code
            )
            return HandlerResult(Outcome.DEAD, operations, in_flight)
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
    ) -> HandlerResult:
        again = step.model_copy(update={"attempt": step.attempt + 1, "failures": failures})
        ident = _ident(again)
        fields = self._request(entry, again)
        stream = self.keys.stream(self.topic, step.priority)
        in_flight = _live(entry)
        operations = (
            # The schedule comes last: the in-flight field names the message that carries the step on.
            self._tell(
                entry, step, began, "",
                outcome="retrying", error=error, next_attempt=again.attempt, failures=failures,
                delay_ms=decision.delay_ms,
            ),
            Schedule(self.keys.schedule, self.keys.messages, stream, decision.delay_ms, ident, fields, in_flight),
        )  # fmt: skip
        return HandlerResult(outcome, operations, in_flight)

    def _tell(self, entry: Entry, step: StepRequested, began: float, in_flight: str, **how: object) -> Publish:
        """`step.done.v1`, written without its model, which takes five times as long: all of it was checked when it
        came. `tests/contract/test_step_endings.py` reads each kind back.
        """
        done = {
            **how,
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
        if step.builds_on is not None:
            done["builds_on"] = step.builds_on
        return Publish(
            self.keys.done, _message(entry, "step.done.v1", entry.fields[b"id"], step.tenant, done), in_flight
        )

    def _request(self, entry: Entry, step: StepRequested) -> Fields:
        return _message(entry, "step.requested.v1", _ident(step), step.tenant, step)

    def _send(self, entry: Entry, stream: str, step: StepRequested) -> Publish:
        return Publish(stream, self._request(entry, step), _ident(step).rpartition(".")[0])


class _RefusedError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def _message(entry: Entry, kind: str, ident: Text, tenant: str, body: object) -> Fields:
    """What follows from an entry belongs to the same trace."""
    traceparent = entry.fields.get(b"traceparent", b"")
    return {"type": kind, "id": ident, "tenant": tenant, "traceparent": traceparent, "body": write(body)}


def _live(entry: Entry) -> str:
    """The step's in-flight field, from an id that has been compared with the body."""
    return entry.fields[b"id"].rpartition(b".")[0].decode()


def _ident(step: StepRequested) -> str:
    return message_id(step.task, step.run, step.step, step.round, step.attempt)


def _fault(code: str, message: str) -> StepError:
    """Whatever an arm says is wrong, as a message can carry it."""
    text = message.encode("utf-8", "replace").decode().replace("\0", " ")[:2000]
    return StepError(code=code if _CODE.fullmatch(code) else "unnamed", message=text or "no message")
