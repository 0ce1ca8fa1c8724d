"""Counts and times every request, and turns unexpected errors into responses without a stack trace."""

import time
from http import HTTPStatus

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octollm.api.problem import internal

REQUESTS = Counter("octollm_api_requests_total", "Requests by route and status of the response.", ("route", "status"))
SECONDS = Histogram(
    "octollm_api_seconds",
    "Time from a request to the end of its response.",
    ("route",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_log = structlog.get_logger(__name__)


class RequestMetrics:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap `app`."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def send_and_note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, send_and_note_status)
        except Exception:  # noqa: BLE001  the caller gets a response, the log gets the error
            _log.exception("a request failed unexpectedly", route=_route(scope))
            if status == 0:
                await internal()(scope, receive, send_and_note_status)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        finally:
            route = _route(scope)
            REQUESTS.labels(route, str(status)).inc()
            SECONDS.labels(route).observe(time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """Return the route's template: real paths would make a label value per task."""
    return str(getattr(scope.get("route"), "path", "other"))
