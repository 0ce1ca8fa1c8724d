"""The routes under /v1. Docstrings become descriptions in the OpenAPI document."""

from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from octollm.api import callbacks, costs, dead_letters, parameters, provenance, tasks
from octollm.api.problem import MEDIA_TYPE
from octollm.api.store import Store
from octollm.contracts import TaskStatus, write
from octollm.contracts.answers import (
    AttemptPage,
    Callback,
    CallbackEndpointPage,
    CallbackPage,
    CostPage,
    DeadLetter,
    DeadLetterPage,
    Enabling,
    EventPage,
    Provenance,
    Redelivery,
    RunPage,
    StepPage,
    TaskPage,
)

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status.value: {
        "description": text,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for status, text in (
        (HTTPStatus.UNAUTHORIZED, "The credential is missing, wrong or expired."),
        (
            HTTPStatus.FORBIDDEN,
            "The credential lacks the scope in `detail`, or the request names a foreign host.",
        ),
        (HTTPStatus.NOT_FOUND, "It does not exist, or it belongs to another tenant."),
        (HTTPStatus.UNPROCESSABLE_ENTITY, "A parameter is invalid; `field` names it."),
        (
            HTTPStatus.SERVICE_UNAVAILABLE,
            "The database or the table of credentials is unavailable, or too slow; see Retry-After.",
        ),
    )
}


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


ReadStore = Annotated[Store, Depends(_store)]
router = APIRouter(prefix="/v1", responses=_PROBLEMS)


@router.get("/tasks", response_model=TaskPage, tags=["tasks"])
async def list_tasks(store: ReadStore, tenant: parameters.Tenant, filters: parameters.TaskQuery) -> Response:
    """List tasks, newest first."""
    return _json(await tasks.list_tasks(store, tenant, filters))


@router.get("/tasks/{task}", response_model=TaskStatus, tags=["tasks"])
async def show_task(
    store: ReadStore, tenant: parameters.Tenant, task: parameters.Task, filters: parameters.StatusQuery
) -> Response:
    """Return a task's state, its metadata and, once it has ended, its result."""
    return _json(await tasks.status(store, tenant, task, filters))


@router.get("/tasks/{task}/runs", response_model=RunPage, tags=["tasks"])
async def list_runs(
    store: ReadStore, tenant: parameters.Tenant, task: parameters.Task, page: parameters.PageQuery
) -> Response:
    """List a task's runs with their plans, oldest first."""
    return _json(await tasks.list_runs(store, tenant, task, page))


@router.get("/tasks/{task}/steps", response_model=StepPage, tags=["tasks"])
async def list_steps(
    store: ReadStore, tenant: parameters.Tenant, task: parameters.Task, filters: parameters.RunQuery
) -> Response:
    """List a task's steps with their inputs and outputs, by run, round and name."""
    return _json(await tasks.list_steps(store, tenant, task, filters))


@router.get("/tasks/{task}/attempts", response_model=AttemptPage, tags=["tasks"])
async def list_attempts(
    store: ReadStore, tenant: parameters.Tenant, task: parameters.Task, filters: parameters.RunQuery
) -> Response:
    """List the attempts at a task's steps and their outcomes, oldest first."""
    return _json(await tasks.list_attempts(store, tenant, task, filters))


@router.get("/tasks/{task}/events", response_model=EventPage, tags=["tasks"])
async def list_events(
    store: ReadStore, tenant: parameters.Tenant, task: parameters.Task, filters: parameters.EventQuery
) -> Response:
    """List a task's events, oldest first. The reflex streams them as they happen, as server-sent events."""
    return _json(await tasks.list_events(store, tenant, task, filters))


@router.get("/tasks/{task}/provenance", response_model=Provenance, tags=["tasks"])
async def show_provenance(
    store: ReadStore, tenant: parameters.Tenant, task: parameters.Task, filters: parameters.ProvenanceQuery
) -> Response:
    """Return the provenance of one run: the request, the steps with their attempts, the result."""
    return _json(await provenance.provenance(store, tenant, task, filters.run))


@router.get("/costs", response_model=CostPage, tags=["costs"])
async def list_costs(store: ReadStore, tenant: parameters.Tenant, filters: parameters.CostQuery) -> Response:
    """List the cost of calls to models, by task, arm, model or day."""
    return _json(await costs.list_costs(store, tenant, filters))


@router.get("/dead-letters", response_model=DeadLetterPage, tags=["dead letters"])
async def list_dead_letters(
    store: ReadStore, tenant: parameters.Tenant, filters: parameters.DeadLetterQuery
) -> Response:
    """List dead letters, newest first."""
    return _json(await dead_letters.list_dead_letters(store, tenant, filters))


@router.get("/dead-letters/{dead_letter}", response_model=DeadLetter, tags=["dead letters"])
async def show_dead_letter(
    store: ReadStore, tenant: parameters.Tenant, dead_letter: parameters.DeadLetterId
) -> Response:
    """Return one dead letter with the stored part of its message."""
    return _json(await dead_letters.dead_letter(store, tenant, dead_letter))


@router.get("/callbacks", response_model=CallbackPage, tags=["callbacks"])
async def list_callbacks(store: ReadStore, tenant: parameters.Tenant, filters: parameters.CallbackQuery) -> Response:
    """List callbacks, newest first."""
    return _json(await callbacks.list_callbacks(store, tenant, filters))


@router.get("/callbacks/{callback}", response_model=Callback, tags=["callbacks"])
async def show_callback(store: ReadStore, tenant: parameters.Tenant, callback: parameters.CallbackId) -> Response:
    """Return one callback with what is sent and the beginning of the last answer."""
    return _json(await callbacks.callback(store, tenant, callback))


@router.post(
    "/callbacks/{callback}/redeliver", status_code=HTTPStatus.ACCEPTED, response_model=Redelivery, tags=["callbacks"]
)
async def redeliver_callback(store: ReadStore, tenant: parameters.Tenant, callback: parameters.CallbackId) -> Response:
    """Send a callback again, however it ended. While its endpoint is disabled it waits."""
    return _json(await callbacks.redeliver(store, tenant, callback), HTTPStatus.ACCEPTED)


@router.get("/callback-endpoints", response_model=CallbackEndpointPage, tags=["callbacks"])
async def list_callback_endpoints(store: ReadStore, tenant: parameters.Tenant, page: parameters.PageQuery) -> Response:
    """List the endpoints of callbacks that fail or are disabled, newest first."""
    return _json(await callbacks.list_endpoints(store, tenant, page))


@router.post(
    "/callback-endpoints/{endpoint}/enable",
    status_code=HTTPStatus.ACCEPTED,
    response_model=Enabling,
    tags=["callbacks"],
)
async def enable_callback_endpoint(
    store: ReadStore, tenant: parameters.Tenant, endpoint: parameters.EndpointId
) -> Response:
    """Send to a disabled endpoint again, and count its failures from now on."""
    return _json(await callbacks.enable(store, tenant, endpoint), HTTPStatus.ACCEPTED)


def _json(answer: object, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(write(answer), status, media_type="application/json")
