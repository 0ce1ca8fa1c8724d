"""Endpoints for operators: health, readiness, metrics and the OpenAPI document."""

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
async def health() -> Response:
    """Say that the process answers."""
    return Response(write({"status": "ok"}), media_type=_JSON)


@router.get("/readyz")
async def ready(request: Request) -> Response:
    """Say whether the API can answer requests, and if not, why."""
    store: Store = request.app.state.store
    problem = request.app.state.authenticator.problem()
    reasons = [*await store.not_ready_reasons(), *([] if problem is None else [problem])]
    status = HTTPStatus.SERVICE_UNAVAILABLE if reasons else HTTPStatus.OK
    return Response(write({"ready": not reasons, "reasons": reasons}), status, media_type=_JSON)


@router.get("/metrics")
async def metrics() -> Response:
    """Serve the metrics for Prometheus."""
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/openapi.json")
async def description() -> Response:
    """Serve the OpenAPI document."""
    return Response(write(openapi()), media_type=_JSON)
