"""Around every request: counts it, times it, and turns what nobody expected into an answer without a stack trace."""

import time
from http import HTTPStatus

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from octollm.api.problem import internal

REQUESTS = Counter("octollm_api_requests_total", "Requests by how they were answered.", ("route", "status"))
SECONDS = Histogram(
    "octollm_api_seconds",
    "From a request to its answer.",
    ("route",),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
_log = structlog.get_logger(__name__)


class Watch:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp) -> None:
        """`app`: what answers."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = 0

        async def seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        began = time.perf_counter()
        try:
            await self._app(scope, receive, seen)
        except Exception:  # noqa: BLE001  whatever it is, callers get an answer and we get a log
            _log.exception("a request broke", route=_route(scope))
            if status == 0:
                await internal()(scope, receive, seen)
            status = HTTPStatus.INTERNAL_SERVER_ERROR
        finally:
            route = _route(scope)
            REQUESTS.labels(route, str(status)).inc()
            SECONDS.labels(route).observe(time.perf_counter() - began)


def _route(scope: Scope) -> str:
    """The address as it was declared: those that were asked for are without number."""
    return str(getattr(scope.get("route"), "path", "other"))
