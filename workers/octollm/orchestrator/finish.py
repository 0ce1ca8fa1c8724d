"""Ends a run: its terminal state, its result, and what the task writes to memory. Pure."""

from typing import Any, Literal

from octollm.contracts import StepSummary, TaskResult
from octollm.errors import InvalidInputError, RecipeError
from octollm.orchestrator.state import Decision, Reason, TaskState, Terminal
from octollm.orchestrator.step_request import reference_context
from octollm.plans import memory_facts, template


def finish(decision: Decision, now: str, end: Terminal, reason: Reason | None, detail: str | None) -> None:
    """End the run in state `end`.

    Steps in flight are cancelled, and requests of this decision are dropped.

    If the plan's answer cannot be resolved, the run ends as failed instead. `detail` is cut to 4000 characters.
    """
    answer, memory, note = None, None, None
    if decision.state.plan is not None and (end == "succeeded" or reason == "judged"):
        context = reference_context(decision.state, decision.state.round)
        try:
            answer = template.render(decision.state.plan.answer, context)
        except RecipeError as error:
            end, reason, detail = "failed", "plan_invalid", f"answer: {error}"
        if end == "succeeded":
            memory, note = _memory(decision.state.plan.memory, context)
    detail = detail[:4000] if detail else None
    for row in list(decision.state.steps.values()):
        if row.state == "sent":
            decision.put_step(row._replace(state="cancelled", early_results=()))
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
    decision.change(state=end, reason=reason, detail=detail, result=result, memory=memory)
    decision.finished = True
    decision.requests.clear()
    decision.record(now, event="finished", state=end, reason=reason, detail=detail or note)


def _memory(wanted: Any, context: dict[str, Any]) -> tuple[dict[str, Any] | None, str | None]:  # noqa: ANN401  a template
    """Return what is written to memory, or why nothing is.

    A task that has succeeded does not fail because of it.
    """
    if wanted is None:
        return None, None
    try:
        return memory_facts.check_facts(template.render(wanted, context)), None
    except (RecipeError, InvalidInputError) as error:
        return None, f"nothing was written to memory: {error}"[:4000]


def _mode(state: TaskState) -> Literal["deterministic", "model"]:
    """Return whether a model contributed to the result; arms report it in their outputs."""
    modes = (row.output.get("mode") for row in state.steps.values() if row.state == "succeeded" and row.output)
    return "model" if "model" in modes else "deterministic"


def _summaries(state: TaskState) -> list[StepSummary]:
    order = {step.name: place for place, step in enumerate(state.plan.steps)} if state.plan else {}
    rows = sorted(state.steps.values(), key=lambda row: (row.round, order.get(row.step, 0)))
    sent = [
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
    skipped = [
        StepSummary(step=step.name, arm=step.arm, round=0, attempt=0, state="skipped")
        for step in (state.plan.steps if state.plan else ())
        if step.name not in names
    ]
    return sent + skipped
