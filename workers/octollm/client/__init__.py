"""The client library: submit tasks, wait for them, and follow their events over HTTP.

    with Client("http://127.0.0.1:8080") as client:
        task = client.submit("Keep this note", kind="note", input={"text": "..."}).task
        for event in client.events(task):
            print(event.event, event.step)
        print(client.status(task).result)

`AsyncClient` has the same methods for asyncio. Errors are subclasses of `octollm.errors.ApiError`, or ParameterError
for arguments that cannot be sent. Requests are repeated for `retry_for_s` seconds, which is safe: each submission has
an idempotency key.

The API key comes from the argument `api_key`, from OCTOLLM_API_KEY, or from a profile file; see docs/credentials.md.
"""

from octollm.client.aio import AsyncClient
from octollm.client.filters import CallbackFilter, CostFilter, DeadLetterFilter, TaskFilter
from octollm.client.sync import Client
from octollm.contracts import TaskEvent, TaskResult, TaskStatus, WaitingStep
from octollm.contracts.answers import (
    Accepted,
    AttemptItem,
    Callback,
    CallbackEndpointPage,
    CallbackItem,
    CallbackPage,
    Cancellation,
    CostPage,
    DeadLetter,
    DeadLetterItem,
    DeadLetterPage,
    Drop,
    Enabling,
    Provenance,
    Redelivery,
    Redrive,
    RunItem,
    StepItem,
    TaskItem,
    TaskPage,
)
from octollm.errors import (
    ApiError,
    BusyError,
    CallbackSignatureError,
    ForbiddenError,
    ParameterError,
    ProfileError,
    RefusedError,
    UnauthenticatedError,
    UnfinishedError,
    UnknownError,
    UnreachableError,
)

__all__ = [
    "Accepted",
    "ApiError",
    "AsyncClient",
    "AttemptItem",
    "BusyError",
    "Callback",
    "CallbackEndpointPage",
    "CallbackFilter",
    "CallbackItem",
    "CallbackPage",
    "CallbackSignatureError",
    "Cancellation",
    "Client",
    "CostFilter",
    "CostPage",
    "DeadLetter",
    "DeadLetterFilter",
    "DeadLetterItem",
    "DeadLetterPage",
    "Drop",
    "Enabling",
    "ForbiddenError",
    "ParameterError",
    "ProfileError",
    "Provenance",
    "Redelivery",
    "Redrive",
    "RefusedError",
    "RunItem",
    "StepItem",
    "TaskEvent",
    "TaskFilter",
    "TaskItem",
    "TaskPage",
    "TaskResult",
    "TaskStatus",
    "UnauthenticatedError",
    "UnfinishedError",
    "UnknownError",
    "UnreachableError",
    "WaitingStep",
]
