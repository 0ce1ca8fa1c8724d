"""What an operator asks for: alive, ready, metrics, and the description of the addresses."""

from http import HTTPStatus

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from octollm.api.openapi import openapi
from octollm.api.store import Store
from octollm.contracts import write

_JSON = "application/json"
router = APIRouter(include_in_schema=False)


@router.get("/healthz")
async def healthy() -> Response:
    """The process answers."""
    return Response(write({"status": "ok"}), media_type=_JSON)


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Whether questions can be answered, else why not."""
    store: Store = request.app.state.store
    against = await store.against()
    status = HTTPStatus.SERVICE_UNAVAILABLE if against else HTTPStatus.OK
    return Response(write({"ready": not against, "reasons": against}), status, media_type=_JSON)


@router.get("/metrics")
async def metrics() -> Response:
    """For Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/openapi.json")
async def description() -> Response:
    """The OpenAPI document."""
    return Response(write(openapi()), media_type=_JSON)
