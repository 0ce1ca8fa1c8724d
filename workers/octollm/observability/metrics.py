"""The listener of a worker process: /metrics for Prometheus, /healthz and /readyz for its supervisor.

Owns one small HTTP server on a thread of its own, so that it answers also while the event loop is busy. It
counts nothing itself: metrics are registered where they arise, readiness comes from a callable that returns
the reasons against it (none: ready).
"""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest

from octollm.errors import SettingsError
from octollm.settings.sections import split_listen
from octollm.supervision import SupervisedThread, Supervisor

Reasons = Callable[[], Sequence[str]]


class MetricsServer:
    """A context manager; `address` is known once it is entered (port 0 picks a free port)."""

    def __init__(
        self, listen: str, reasons: Reasons, supervisor: Supervisor, registry: CollectorRegistry = REGISTRY
    ) -> None:
        """`listen` is host:port; `reasons` is called on the server's thread and must not block."""
        host, port = split_listen(listen)
        try:
            self._server = _Server((host, port), _handler(reasons, registry))
        except OSError as error:
            raise SettingsError(
                f"cannot listen on {listen} for metrics ({error.strerror}); "
                "set OCTOLLM_WORKER_METRICS_LISTEN to a free address (port 0 picks one)"
            ) from error
        self._supervisor = supervisor
        self._thread: SupervisedThread | None = None

    @property
    def address(self) -> str:
        """host:port as it was bound."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def __enter__(self) -> Self:
        """Start to answer."""
        self._thread = self._supervisor.spawn_thread("metrics", self._server.serve_forever)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop answering and free the port."""
        if self._thread is not None:
            self._thread.expect_end()
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # a client that keeps its connection open must not hold up a shutdown


def _handler(reasons: Reasons, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5  # seconds a silent client may hold a thread

        def do_GET(self) -> None:
            match self.path.partition("?")[0]:
                case "/metrics":
                    self._answer(HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(registry))
                case "/healthz":
                    self._json(HTTPStatus.OK, {"status": "ok"})
                case "/readyz":
                    against = list(reasons())
                    status = HTTPStatus.SERVICE_UNAVAILABLE if against else HTTPStatus.OK
                    self._json(status, {"ready": not against, "reasons": against})
                case _:
                    paths = ["/metrics", "/healthz", "/readyz"]
                    self._json(HTTPStatus.NOT_FOUND, {"error": "not found", "paths": paths})

        def _json(self, status: HTTPStatus, content: dict[str, object]) -> None:
            self._answer(status, "application/json", orjson.dumps(content) + b"\n")

        def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            """Scrapes are not news."""

    return Handler
