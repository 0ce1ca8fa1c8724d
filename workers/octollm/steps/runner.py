"""Runs one step's message through an arm.

It parses the message, runs the arm within its time limit, and decides what comes next.

The arm is a plain callable; this package knows nothing about arms. Everything that an arm may do wrong ends here.
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

from octollm import faults
from octollm.contracts import (
    Chained,
    StepError,
    StepRequested,
    read,
    strict_json,
    write,
)
from octollm.contracts.ids import message_id, utc_now
from octollm.errors import (
    ContractError,
    NeedsPersonError,
    PermanentError,
    StatementTimeoutError,
    StoreUnavailableError,
    TransientError,
)
from octollm.observability.logging import without_passwords
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import Fields, Publish, Schedule, Text
from octollm.protocol.outcomes import HandlerResult, Outcome
from octollm.protocol.run_watch import RunWatch
from octollm.steps import retry
from octollm.steps.dead_letters import Reason, dead_letter
from octollm.steps.timeout import TimeLimitError, run_with_timeout
from octollm.topology import LaneKeys, Topic

_OUTPUT_DEPTH = strict_json.MAX_DEPTH - 8
"""Levels of nesting an output may have; the messages that carry it need the others."""
INLINE_LIMIT = 64 * 1024
"""Largest output (bytes of JSON) that travels in the message; a larger one goes to Postgres."""
_TIMER_S = 0.005
"""How much later than the deadline a step is stopped: a timer may fire a little early."""
_CODE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_log = structlog.get_logger(__name__)
RunArm = Callable[[StepRequested], Coroutine[Any, Any, dict[str, Any]]]
"""Works on a step and returns its output; raises StepError, StoreUnavailableError, or by a fault anything else."""
StoreOutput = Callable[[str, str, bytes], Awaitable[None]]
"""Stores a large output: tenant, SHA-256 in hex, JSON. Raises StoreUnavailableError while Postgres is unavailable."""
ChainNext = Callable[[StepRequested, dict[str, Any]], tuple[str, StepRequested] | None]
"""For direct hand-off: the stream and the message of the step that follows a step with this output. None: there is no
such step, or the orchestrator has to publish it.
"""


def _chain_nothing(_step: StepRequested, _output: dict[str, Any]) -> None:
    return None


@dataclass(frozen=True, slots=True)
class StepRunner:
    """The handler of an arm's topic in one lane."""

    topic: Topic
    keys: LaneKeys
    consumer: str
    """Name of the worker, for what is written about the step."""
    run_arm: RunArm
    store_output: StoreOutput
    chain_next: ChainNext = _chain_nothing
    watch: RunWatch | None = None
    """Without it, steps of ended runs and after their deadline are started, too."""

    async def __call__(self, entry: Entry) -> HandlerResult:
        """Run the step of an entry. Raises only StoreUnavailableError; every other fault has its own result."""
        try:
            step = self._parse(entry)
        except _RejectedError as rejected:
            _log.warning("gave up on a message that cannot be read", reason=rejected.reason, fault=str(rejected))
            return self._give_up(entry, rejected.reason, str(rejected))
        began = perf_counter()
        limit_s = time_limit_s(step, self.topic)
        left_s = self._seconds_left(step)
        if left_s <= 0 or (
            self.watch is not None and not self.watch.knows_of_none and await self.watch.has_ended(entry)
        ):
            return self._run_ended(entry, step)
        try:
            output = await run_with_timeout(min(limit_s, left_s + _TIMER_S), self.run_arm(step))
            result = self._succeeded(entry, step, output, began)
        except PermanentError as error:
            result = self._failed(entry, step, _step_error(error.code, error.message), began)
        except NeedsPersonError as error:
            result = self._needs_person(entry, step, _step_error(error.code, error.message), began)
        except TransientError as error:
            fault = _step_error(error.code, error.message)
            result = self._failed_transiently(entry, step, fault, began, error.retry_after_s or 0)
        except TimeLimitError:
            if left_s < limit_s:
                return self._run_ended(entry, step)
            fault = StepError(code="timeout", message=f"the step did not end within {limit_s} s")
            result = self._failed_transiently(entry, step, fault, began)
        except TimeoutError as error:
            fault = _step_error("timeout", f"the arm ran into a time limit of its own: {str(error) or 'no message'}")
            result = self._failed_transiently(entry, step, fault, began)
        except StatementTimeoutError as error:
            result = self._failed_transiently(entry, step, _step_error("statement_timeout", error.message), began)
        except StoreUnavailableError:
            raise
        except Exception as error:  # noqa: BLE001  whatever an arm raises must end in an outcome
            _log.exception("the arm broke")
            fault = _step_error("internal", f"the arm broke: {without_passwords(faults.describe(error))}")
            result = (
                self._failed(entry, step, fault, began)
                if faults.is_deterministic(error)
                else self._failed_transiently(entry, step, fault, began)
            )._replace(handler_fault=faults.may_be_process_fault(error))
        if result.outcome is not Outcome.DONE and self._seconds_left(step) <= 0:
            return self._run_ended(entry, step)
        return result

    def _seconds_left(self, step: StepRequested) -> float:
        return float("inf") if self.watch is None else self.watch.seconds_left(step.deadline_at)

    def _run_ended(self, entry: Entry, step: StepRequested) -> HandlerResult:
        """Remove the step without a word: the orchestrator has ended its run, or does so by its deadline."""
        _log.info("the step's run has ended or its deadline has passed", task=step.task, step=step.step)
        return HandlerResult(Outcome.RUN_ENDED, (), _in_flight_field(entry))

    def _parse(self, entry: Entry) -> StepRequested:
        kind = entry.fields.get(b"type", b"")
        if kind != b"step.requested.v1":
            raise _RejectedError("misrouted", f"field type must be step.requested.v1 on {entry.stream}")
        try:
            step = read(StepRequested, entry.fields.get(b"body", b""))
        except ContractError as error:
            raise _RejectedError(error.reason, str(error)) from error
        if step.arm != self.topic.group:
            raise _RejectedError("misrouted", f"the step is for arm {step.arm}, not for {self.topic.group}")
        ident = _message_id(step)
        if entry.fields.get(b"id", b"") != ident.encode():
            raise _RejectedError("misrouted", f"field id is not the body's {ident}")
        return step

    def _succeeded(self, entry: Entry, step: StepRequested, output: dict[str, Any], began: float) -> HandlerResult:
        if not isinstance(output, dict):  # anybody may write an arm
            raise TypeError("an output is an object")
        try:
            raw = orjson.dumps(output)
            strict_json.check_written(raw, _OUTPUT_DEPTH)
        except (TypeError, ContractError) as error:
            fault = _step_error("output_not_json", f"the arm's output is not JSON: {error}")
            return self._failed(entry, step, fault, began)._replace(handler_fault=True)
        value: dict[str, object]
        store, chain = None, None
        if len(raw) <= INLINE_LIMIT:
            value = {"at": "inline", "value": orjson.Fragment(raw)}
            chain = None if step.continuation is None else self._chain(step, raw)
        else:
            digest = hashlib.sha256(raw).hexdigest()
            store = partial(self.store_output, step.tenant, digest, raw)
            value = {"at": "postgres", "sha256": digest, "bytes": len(raw)}
        in_flight = _in_flight_field(entry)
        if chain is None:
            done = self._step_done(entry, step, began, in_flight, outcome="succeeded", output=value)
            return HandlerResult(Outcome.DONE, (done,), in_flight, store)
        stream, following = chain
        chained = Chained(step=following.step, attempt=following.attempt)
        done = self._step_done(entry, step, began, in_flight, outcome="succeeded", output=value, chained=chained)
        publish = Publish(stream, self._step_requested(entry, following), _message_id(following).rpartition(".")[0])
        return HandlerResult(Outcome.DONE, (done, publish), in_flight, store)

    def _chain(self, step: StepRequested, raw: bytes) -> tuple[str, StepRequested] | None:
        """Return the step to publish directly; None after the deadline, when the orchestrator ends the task."""
        if self._seconds_left(step) <= 0:
            return None
        try:
            return self.chain_next(step, orjson.loads(raw))
        except Exception:  # noqa: BLE001  a shortcut that breaks must not cost the result
            _log.exception("cannot publish the next step from here; the orchestrator publishes it")
            return None

    def _failed(self, entry: Entry, step: StepRequested, error: StepError, began: float) -> HandlerResult:
        _log.info("the step failed", code=error.code)
        in_flight = _in_flight_field(entry)
        done = self._step_done(entry, step, began, in_flight, outcome="failed", error=error)
        return HandlerResult(Outcome.FAILED, (done,), in_flight)

    def _failed_transiently(
        self, entry: Entry, step: StepRequested, error: StepError, began: float, retry_after_s: float = 0
    ) -> HandlerResult:
        """Try a step whose failure may pass again by the topic's policy, or give up on it."""
        failures = step.failures + 1
        decision = retry.after_failure(self.topic.retry, failures, random.random(), retry_after_s)  # noqa: S311  jitter
        if isinstance(decision, retry.GiveUp):
            return self._give_up(entry, "failures_exhausted", f"failed {failures} times, last: {error.message}")
        _log.info("the step failed and is tried again", code=error.code, failures=failures, delay_ms=decision.delay_ms)
        again = step.model_copy(update={"attempt": step.attempt + 1, "failures": failures})
        return self._retry(entry, step, again, error, began, decision, Outcome.RETRYING)

    def _needs_person(self, entry: Entry, step: StepRequested, error: StepError, began: float) -> HandlerResult:
        """Park a step that time alone does not fix: it is tried now and then, at no cost, for about a day."""
        parked = step.parked or 0
        decision = retry.park(parked, step.failures, random.random())  # noqa: S311  jitter
        if isinstance(decision, retry.GiveUp):
            message = f"needs a person, who did not come: {error.message}"
            return self._give_up(entry, "failures_exhausted", message, error.code)
        _log.warning("the step needs a person", code=error.code, fault=error.message, delay_ms=decision.delay_ms)
        again = step.model_copy(update={"attempt": step.attempt + 1, "parked": parked + 1})
        return self._retry(entry, step, again, error, began, decision, Outcome.PARKED)

    def _give_up(self, entry: Entry, reason: Reason, message: str, code: str | None = None) -> HandlerResult:
        operations, in_flight = dead_letter(entry, self.topic, self.keys, self.consumer, reason, message, code)
        return HandlerResult(Outcome.DEAD, operations, in_flight)

    def _retry(
        self,
        entry: Entry,
        step: StepRequested,
        again: StepRequested,
        error: StepError,
        began: float,
        decision: retry.RetryLater,
        outcome: Outcome,
    ) -> HandlerResult:
        ident = _message_id(again)
        fields = self._step_requested(entry, again)
        stream = self.keys.stream(self.topic, step.priority)
        in_flight = _in_flight_field(entry)
        operations = (
            # The schedule comes last: the in-flight field names the message that carries the step on.
            self._step_done(
                entry, step, began, "",
                outcome="retrying", error=error, next_attempt=again.attempt, failures=again.failures,
                delay_ms=decision.delay_ms,
            ),
            Schedule(self.keys.schedule, self.keys.messages, stream, decision.delay_ms, ident, fields, in_flight),
        )  # fmt: skip
        return HandlerResult(outcome, operations, in_flight)

    def _step_done(self, entry: Entry, step: StepRequested, began: float, in_flight: str, **result: object) -> Publish:
        """Return `step.done.v1`, with `result` in its body.

        Written without its model, which takes five times as long: every field was validated on arrival.
        `tests/contract/test_step_endings.py` parses each kind with the model.
        """
        done = {
            **result,
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

    def _step_requested(self, entry: Entry, step: StepRequested) -> Fields:
        return _message(entry, "step.requested.v1", _message_id(step), step.tenant, step)


def time_limit_s(step: StepRequested, topic: Topic) -> float:
    """Return how long an attempt at a step may take: the shorter limit of the step and its topic."""
    return min(step.timeout_s, topic.timeout_s or step.timeout_s)


class _RejectedError(Exception):
    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


def _message(entry: Entry, kind: str, ident: Text, tenant: str, body: object) -> Fields:
    """Fields of a message that follows from an entry, in the same trace."""
    traceparent = entry.fields.get(b"traceparent", b"")
    return {"type": kind, "id": ident, "tenant": tenant, "traceparent": traceparent, "body": write(body)}


def _in_flight_field(entry: Entry) -> str:
    """The step's in-flight field, from a message id that was compared with the body."""
    return entry.fields[b"id"].rpartition(b".")[0].decode()


def _message_id(step: StepRequested) -> str:
    return message_id(step.task, step.run, step.step, step.round, step.attempt)


def _step_error(code: str, message: str) -> StepError:
    """An arm's error in a form that a message can carry."""
    text = message.encode("utf-8", "replace").decode().replace("\0", " ")[:2000]
    return StepError(code=code if _CODE.fullmatch(code) else "unnamed", message=text or "no message")
