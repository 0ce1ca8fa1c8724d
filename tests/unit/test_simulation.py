"""`decide` in a simulated world: a bus that loses, repeats and reorders, workers that fail, a clock that moves.

With and without direct hand-off. No step gives the same output twice, so that mixed-up outputs are seen.

A failing run is printed as the steps that lead to it; Hypothesis' seed repeats it.
"""

from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from octollm.contracts import (
    Chained,
    InlineOutput,
    StepDead,
    StepError,
    StepFailed,
    StepRequested,
    StepRetrying,
    StepSucceeded,
    TaskEvent,
    read,
)
from octollm.orchestrator import direct, step_request
from octollm.orchestrator.decide import decide
from octollm.orchestrator.event import Accepted, CancelRequested, DeadlinePassed, Event, MessageLost, Redelivered
from octollm.orchestrator.planning import Planning
from octollm.orchestrator.state import StepEnded, TaskState
from octollm.plans import chain
from octollm.plans.recipes import RecipeBook, parse_recipe
from tests.helpers.messages import about

RECIPE = parse_recipe(
    b"""
recipe: world
version: 1
description: a diamond with a longer side, whose end is judged and repaired
input: {type: object}
deadline_s: 60
steps:
  first: {arm: noop, input: {}}
  left: {arm: noop, needs: [first], input: {of: {$: steps.first.output.name}}}
  polish: {arm: noop, needs: [left], input: {of: {$: steps.left.output.name}, goal: {$: task.goal}}}
  press: {arm: noop, needs: [polish], input: {of: {$: "[steps.left.output.name, steps.polish.output.name]"}}}
  right: {arm: noop, needs: [first], input: {of: {$: steps.first.output.name}}}
  last: {arm: noop, needs: [press, right], input: {of: {$: "[steps.press.output.name, steps.right.output.name]"}}}
  bind: {arm: noop, needs: [last], input: {of: {$: steps.last.output.name}, before: {$: steps.verdict.output.name}}}
  verdict: {arm: judge, needs: [bind], input: {of: {$: steps.bind.output.name}}}
answer: {$: steps.bind.output.name}
repair: {judge: verdict, redo: left, max: 1}
""",
    frozenset({"noop", "judge"}),
)
NEEDS = {step.name: step.needs for step in RECIPE.plan.steps}
PLANNING = Planning(RecipeBook({"world": RECIPE}))
PICK = st.integers(min_value=0, max_value=10**6)


class World(RuleBasedStateMachine):
    """One task. Messages wait in lists; a rule takes any of them, keeps it, repeats it or loses it."""

    @initialize(chained=st.booleans())
    def submit(self, *, chained: bool) -> None:
        self.chained = chained
        self.second = 0
        self.outputs = 0
        self.state = TaskState(
            task="l0-01jd0000000000000000000000", tenant="default", submission={"goal": "g", "kind": "world"},
            source="http", idempotency_key="k", fingerprint="0" * 64, redactions={}, priority="normal",
            received_at=self.now(), traceparent="", deadline_at="2026-01-01T00:01:00.000Z",
        )  # fmt: skip
        self.requests: list[StepRequested] = []
        self.seen: list[MessageLost] = []
        self.gone: set[tuple[str, int, int]] = set()
        self.ends: list[StepEnded] = []
        self.ended_as: str | None = None
        self.reported: Counter[str] = Counter()
        self.seqs: list[int] = []
        self.committed: Counter[tuple[str, int]] = Counter()
        self.apply(Accepted(PLANNING))

    def now(self) -> str:
        return f"2026-01-01T00:{self.second // 60:02}:{self.second % 60:02}.000Z"

    def apply(self, event: Event) -> None:
        """One transaction, and every promise that can be checked at once."""
        before = self.state
        decision = decide(before, event, self.now())
        self.state = decision.state
        for reported in decision.events:
            self.reported[reported.event] += 1
            self.seqs.append(reported.seq)
            written = read(TaskEvent, reported.body)
            assert (written.run, written.seq, written.event) == (reported.run, reported.seq, reported.event)
        for row in decision.steps.values():
            known = before.steps.get((row.step, row.round))
            if row.state == "succeeded" and (known is None or known.state != "succeeded"):
                self.committed[row.step, row.round] += 1
                assert row.output is not None
                assert row.output["made_of"] == step_request.step_request(self.state, row).input, (
                    f"{row.step} is made of others"
                )
        for request in decision.requests:
            for need in NEEDS[request.step]:
                rows = [row for row in self.state.steps.values() if row.step == need and row.round <= request.round]
                assert any(row.state == "succeeded" for row in rows), f"{request.step} was sent before {need} ended"
            row = self.state.steps[request.step, request.round]
            assert (row.state, row.attempt) == ("sent", request.attempt), f"{request.step} was sent and is {row.state}"
            if isinstance(event, MessageLost):
                before_it = (request.step, request.round, request.attempt - 1)
                assert before_it in self.gone, f"{request.step} was sent again, and attempt {before_it[2]} was not lost"
        sends = decision.requests
        self.requests += [direct.with_continuation(self.state, one) for one in sends] if self.chained else sends
        if not decision.changed:
            assert self.state == before

    def end(self, request: StepRequested, model: type, **fields: Any) -> None:
        if model is not StepDead:
            fields["builds_on"] = request.builds_on
        done = model(**about(request), **fields)
        output = done.output.value if model is StepSucceeded else None
        self.ends.append(StepEnded(done, output))

    @precondition(lambda self: self.requests)
    @rule(pick=PICK, verdict=st.sampled_from(["pass", "fail"]), keep=st.booleans(), small=st.booleans())
    def work(self, pick: int, verdict: str, *, keep: bool, small: bool) -> None:
        """A worker does a step; kept, another worker does it, too. What is not small is not chained."""
        request = self.requests[pick % len(self.requests)]
        if not keep:
            self.requests.remove(request)
        self.outputs += 1
        value: dict[str, Any] = {"name": f"{request.step} {self.outputs}", "made_of": request.input}
        if request.step == "verdict":
            value |= {"verdict": verdict, "reasons": []}
        follows = chain.next_request(request, value) if small else None
        reported = None if follows is None else Chained(step=follows.step, attempt=follows.attempt)
        output = InlineOutput(at="inline", value=value)
        self.end(request, StepSucceeded, outcome="succeeded", output=output, chained=reported)
        if follows is not None:
            self.requests.append(follows)

    @precondition(lambda self: self.requests)
    @rule(pick=PICK)
    def fail_for_now(self, pick: int) -> None:
        """A worker puts a step on the schedule; its next attempt comes back."""
        request = self.requests.pop(pick % len(self.requests))
        error = StepError(code="busy", message="later")
        self.end(
            request, StepRetrying, outcome="retrying", error=error, next_attempt=request.attempt + 1,
            failures=request.failures + 1, delay_ms=1,
        )  # fmt: skip
        again = {"attempt": request.attempt + 1, "failures": request.failures + 1}
        self.requests.append(request.model_copy(update=again))

    @precondition(lambda self: self.requests)
    @rule(pick=PICK, rarely=st.integers(min_value=0, max_value=9))
    def fail_for_good(self, pick: int, rarely: int) -> None:
        if rarely == 0:
            request = self.requests.pop(pick % len(self.requests))
            self.end(request, StepFailed, outcome="failed", error=StepError(code="broken", message="no"))

    @precondition(lambda self: self.requests)
    @rule(pick=PICK, rarely=st.integers(min_value=0, max_value=9))
    def give_up(self, pick: int, rarely: int) -> None:
        """A message kills its workers; the process that finds it knows its id and nothing else."""
        if rarely == 0:
            request = self.requests.pop(pick % len(self.requests))
            error = StepError(code="deliveries_exhausted", message="no")
            self.end(request, StepDead, outcome="dead", reason="deliveries_exhausted", error=error)

    @rule(rarely=st.integers(min_value=0, max_value=9))
    def flush(self, rarely: int) -> None:
        if rarely == 0:
            self.requests.clear()
            self.ends.clear()

    @precondition(lambda self: self.ends)
    @rule(pick=PICK)
    def lose_end(self, pick: int) -> None:
        self.ends.pop(pick % len(self.ends))

    @precondition(lambda self: self.ends)
    @rule(pick=PICK, keep=st.booleans())
    def deliver(self, pick: int, *, keep: bool) -> None:
        """In any order; kept, it comes again."""
        event = self.ends[pick % len(self.ends)]
        if not keep:
            self.ends.remove(event)
        self.apply(event)

    @rule()
    def meet_again(self) -> None:
        self.apply(Redelivered())

    @precondition(lambda self: self.requests)
    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        """A message is gone, and two reconcilers have seen that its step should be out."""
        lost = self.requests.pop(pick % len(self.requests))
        self.look(lost.step, lost.round)
        self.look(lost.step, lost.round)

    @precondition(lambda self: self.state.steps)
    @rule(pick=PICK)
    def reconcile(self, pick: int) -> None:
        """A reconciler reads from the rows what should be out."""
        rows = list(self.state.steps)
        self.look(*rows[pick % len(rows)])

    def look(self, step: str, round_: int) -> None:
        row = self.state.steps.get((step, round_))
        if row is not None and row.state == "sent" and not row.early_results:
            self.seen.append(MessageLost(step, round_, row.attempt))

    @precondition(lambda self: self.seen)
    @rule(pick=PICK)
    def send_again(self, pick: int) -> None:
        """A reconciler acts on what it read, unless the message is there; whatever happened in between happened."""
        lost = self.seen.pop(pick % len(self.seen))
        row = self.state.steps.get((lost.step, lost.round))
        if row is not None and row.state == "sent" and row.attempt == lost.attempt:
            out = [*self.requests, *(end.done for end in self.ends)]
            if any((one.step, one.round) == (lost.step, lost.round) for one in out):
                return
            self.gone.add((lost.step, lost.round, lost.attempt))
        self.apply(lost)

    @rule(seconds=st.integers(min_value=1, max_value=5))
    def wait(self, seconds: int) -> None:
        self.second += seconds
        self.apply(DeadlinePassed())

    @rule(tenant=st.sampled_from(["default", "other"]), rarely=st.integers(min_value=0, max_value=9))
    def cancel(self, tenant: str, rarely: int) -> None:
        if rarely == 0:
            self.apply(CancelRequested(tenant))

    @invariant()
    def promises_hold(self) -> None:
        assert self.reported["finished"] == int(self.state.ended)
        assert self.seqs == list(range(1, len(self.seqs) + 1))
        assert max(self.committed.values(), default=1) == 1
        if self.ended_as is not None:
            assert self.state.state == self.ended_as
        elif self.state.ended:
            self.ended_as = self.state.state
            assert self.state.result is not None

    def teardown(self) -> None:
        """When nothing more is lost, the task ends."""
        for _ in range(3000):
            if self.state.ended:
                return
            for row in list(self.state.steps.values()):
                self.look(row.step, row.round)
            while self.seen:
                self.send_again(0)
            if self.requests:
                self.work(0, "pass", keep=False, small=True)
            if self.ends:
                self.deliver(0, keep=False)
        raise AssertionError(f"the task is still {self.state.state}: {self.state.steps}")


TestWorld = World.TestCase
TestWorld.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
