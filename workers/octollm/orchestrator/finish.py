"""The one terminal state of a run, with its result and what memory is to keep of it. Pure."""

from typing import Any, Literal

from octollm.contracts import StepSummary, TaskResult
from octollm.errors import InvalidInputError, RecipeError
from octollm.orchestrator.requests import context
from octollm.orchestrator.state import Decision, Reason, TaskState, Terminal
from octollm.plans import memory_facts, template


def finish(decision: Decision, now: str, end: Terminal, reason: Reason | None, detail: str | None) -> None:
    """End the run. What was about to be sent is not."""
    answer, kept, note = None, None, None
    if decision.state.plan is not None and (end == "succeeded" or reason == "judged"):
        seen = context(decision.state, decision.state.round)
        try:
            answer = template.settle(decision.state.plan.answer, seen)
        except RecipeError as error:
            end, reason, detail = "failed", "plan_invalid", f"answer: {error}"
        if end == "succeeded":
            kept, note = _remember(decision.state.plan.memory, seen)
    detail = detail[:4000] if detail else None
    for row in list(decision.state.steps.values()):
        if row.state == "sent":
            decision.put(row._replace(state="cancelled", early_results=()))
    state = decision.state
    result = TaskResult(
        task=state.task,
        run=state.run,
        tenant=state.tenant,
        kind=state.kind,
        state=end,
        reason=reason,
        detail=detail,
        answer=answer,
        steps=_summaries(state),
        mode=_mode(state),
        redactions=dict(state.redactions),
        finished_at=now,
    )
    decision.change(state=end, reason=reason, detail=detail, result=result, memory=kept)
    decision.sends.clear()
    decision.tell(now, event="finished", state=end, reason=reason, detail=detail or note)


def _remember(wanted: Any, seen: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:  # noqa: ANN401  a template
    """What is kept, or why nothing is: a task that has succeeded does not fail because of it."""
    if wanted is None:
        return None, None
    try:
        return memory_facts.check(template.settle(wanted, seen)), None
    except (RecipeError, InvalidInputError) as error:
        return None, f"not remembered: {error}"[:4000]


def _mode(state: TaskState) -> Literal["deterministic", "model"]:
    """Whether anything that went into the result came from a model; arms say so in their outputs."""
    said = (row.output.get("mode") for row in state.steps.values() if row.state == "succeeded" and row.output)
    return "model" if "model" in said else "deterministic"


def _summaries(state: TaskState) -> list[StepSummary]:
    order = {step.name: place for place, step in enumerate(state.plan.steps)} if state.plan else {}
    rows = sorted(state.steps.values(), key=lambda row: (row.round, order.get(row.step, 0)))
    known = [
        StepSummary(
            step=row.step,
            arm=row.arm,
            round=row.round,
            attempt=row.attempt,
            state=row.state,
            duration_ms=row.duration_ms,
        )
        for row in rows
    ]
    names = {row.step for row in rows}
    never = [
        StepSummary(step=step.name, arm=step.arm, round=0, attempt=0, state="skipped")
        for step in (state.plan.steps if state.plan else ())
        if step.name not in names
    ]
    return known + never
