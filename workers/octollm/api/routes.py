"""The addresses under /v1, and what each answers."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from octollm.api import costs, letters, parameters, provenance, tasks
from octollm.api.problem import MEDIA_TYPE
from octollm.api.store import Store
from octollm.contracts import TaskStatus, write
from octollm.contracts.answers import (
    AttemptPage,
    CostPage,
    DeadLetter,
    DeadLetterPage,
    EventPage,
    Provenance,
    RunPage,
    StepPage,
    TaskPage,
)

_REFUSALS: dict[int | str, dict[str, Any]] = {
    status.value: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, text in (
        (HTTPStatus.NOT_FOUND, "There is no such thing, or it is another tenant's."),
        (HTTPStatus.UNPROCESSABLE_ENTITY, "A parameter cannot be used; `field` names it."),
        (HTTPStatus.SERVICE_UNAVAILABLE, "The database cannot answer now, or not in time; see Retry-After."),
    )
}


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


Reads = Annotated[Store, Depends(_store)]
router = APIRouter(prefix="/v1", responses=_REFUSALS)


@router.get("/tasks", response_model=TaskPage, tags=["tasks"])
async def list_tasks(store: Reads, tenant: parameters.Tenant, asked: parameters.Tasks) -> Response:
    """Tasks, newest first."""
    return _json(await tasks.list_tasks(store, tenant, asked))


@router.get("/tasks/{task}", response_model=TaskStatus, tags=["tasks"])
async def show_task(store: Reads, tenant: parameters.Tenant, task: parameters.Task) -> Response:
    """A task's state and, once it has ended, its result."""
    return _json(await tasks.status(store, tenant, task))


@router.get("/tasks/{task}/runs", response_model=RunPage, tags=["tasks"])
async def list_runs(
    store: Reads, tenant: parameters.Tenant, task: parameters.Task, asked: parameters.Pages
) -> Response:
    """A task's runs with their plans, oldest first."""
    return _json(await tasks.list_runs(store, tenant, task, asked))


@router.get("/tasks/{task}/steps", response_model=StepPage, tags=["tasks"])
async def list_steps(
    store: Reads, tenant: parameters.Tenant, task: parameters.Task, asked: parameters.Runs
) -> Response:
    """A task's steps with their outputs, by run, round and name."""
    return _json(await tasks.list_steps(store, tenant, task, asked))


@router.get("/tasks/{task}/attempts", response_model=AttemptPage, tags=["tasks"])
async def list_attempts(
    store: Reads, tenant: parameters.Tenant, task: parameters.Task, asked: parameters.Runs
) -> Response:
    """How every attempt at a task's steps ended, oldest first."""
    return _json(await tasks.list_attempts(store, tenant, task, asked))


@router.get("/tasks/{task}/events", response_model=EventPage, tags=["tasks"])
async def list_events(
    store: Reads, tenant: parameters.Tenant, task: parameters.Task, asked: parameters.Events
) -> Response:
    """What happened to a task, oldest first. The reflex serves the same live, as server-sent events."""
    return _json(await tasks.list_events(store, tenant, task, asked))


@router.get("/tasks/{task}/provenance", response_model=Provenance, tags=["tasks"])
async def show_provenance(
    store: Reads, tenant: parameters.Tenant, task: parameters.Task, asked: parameters.OneRun
) -> Response:
    """One run as one document: who, what, when, how."""
    return _json(await provenance.provenance(store, tenant, task, asked.run))


@router.get("/costs", response_model=CostPage, tags=["costs"])
async def list_costs(store: Reads, tenant: parameters.Tenant, asked: parameters.Costs) -> Response:
    """What calls to models took, by task, arm, model or day."""
    return _json(await costs.list_costs(store, tenant, asked))


@router.get("/dead-letters", response_model=DeadLetterPage, tags=["dead letters"])
async def list_letters(store: Reads, tenant: parameters.Tenant, asked: parameters.Letters) -> Response:
    """Messages that were given up on, newest first."""
    return _json(await letters.list_letters(store, tenant, asked))


@router.get("/dead-letters/{letter}", response_model=DeadLetter, tags=["dead letters"])
async def show_letter(store: Reads, tenant: parameters.Tenant, letter: parameters.Letter) -> Response:
    """One dead letter with what is kept of it."""
    return _json(await letters.letter(store, tenant, letter))


def _json(answer: object) -> Response:
    return Response(write(answer), media_type="application/json")
