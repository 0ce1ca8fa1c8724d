"""Stores the callbacks of runs that end, in the transaction that ends them.

`octollm.callbacks` sends them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from octollm.contracts import write
from octollm.contracts.callback_url import parse_callback_url
from octollm.database.pool import Connection
from octollm.database.queries import queries
from octollm.orchestrator.state import Decision, TaskState
from octollm.topology.callbacks import CallbackEndpoint

_SQL = queries("octollm.orchestrator", "store")
_REFUSED = frozenset({"injection", "tenant_mismatch", "duplicate"})
"""Reasons of a submission that was refused before it became a task; nothing is sent to the URL that it names."""
EVENT = "task.finished.v1"


class _Receiver(NamedTuple):
    endpoint: str
    url: str | None
    """None: callbacks.yaml has it."""


class CallbackOutbox:
    """Knows who is notified of a task's end; sends nothing."""

    def __init__(
        self, endpoints: Mapping[str, CallbackEndpoint] | None = None, result_bytes: int = 65_536, url: str = ""
    ) -> None:
        """`endpoints`: those of callbacks.yaml by name.

        `result_bytes`: size in JSON up to which a callback has the result itself; `url`: of the reflex, where a
        larger result can be read.
        """
        self._endpoints = endpoints or {}
        self._result_bytes = result_bytes
        self._url = url

    async def store(self, connection: Connection, decisions: Sequence[Decision]) -> None:
        """Store the callbacks of the runs that these decisions end.

        One that is stored already stays as it is.
        """
        rows = [row for one in decisions if _ends(one) for row in self._rows(one.state)]
        if rows:
            await connection.execute(_SQL["insert_callbacks"], rows)

    def _rows(self, state: TaskState) -> list[dict[str, Any]]:
        receivers = self._receivers(state)
        if not receivers:
            return []
        body = self.body(state).decode()
        known = {"tenant": state.tenant, "task": state.task, "run": state.run, "body": body}
        return [{**known, "endpoint": one.endpoint, "url": one.url} for one in receivers]

    def _receivers(self, state: TaskState) -> list[_Receiver]:
        found = [
            _Receiver(name, None)
            for name, endpoint in self._endpoints.items()
            if endpoint.wants(state.tenant, state.kind, state.state)
        ]
        callback = state.submission.get("callback")
        if callback is not None:
            url = str(callback["url"])
            found.append(_Receiver(_endpoint(url), url))
        return found

    def body(self, state: TaskState) -> bytes:
        """Return what is sent: `task.finished.v1` as JSON."""
        result = b"null" if state.result is None else write(state.result)
        small = len(result) <= self._result_bytes
        data = {
            "task": state.task,
            "tenant": state.tenant,
            "run": state.run,
            "state": state.state,
            "kind": state.kind,
            "reason": state.reason,
            "detail": state.detail,
            "metadata": state.submission.get("metadata") or {},
            "result": orjson.Fragment(result) if small else None,
            "result_url": None if small else f"{self._url}/v1/tasks/{state.task}",
            "result_bytes": None if small else len(result),
        }
        present = {name: value for name, value in data.items() if value is not None}
        timestamp = state.updated_at if state.result is None else state.result.finished_at
        return orjson.dumps({"type": EVENT, "timestamp": timestamp, "data": present})


def _ends(decision: Decision) -> bool:
    ended = any(event.event == "finished" for event in decision.events)
    return ended and decision.state.reason not in _REFUSED


def _endpoint(url: str) -> str:
    try:
        return parse_callback_url(url).endpoint
    except ValueError:
        return url.partition("?")[0]  # the sender says what is wrong with it
