"""HTTP to the reflex: submit a task, ask for its status, wait for its end."""

import ipaddress
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx
import orjson

from octollm.errors import ApiError

TERMINAL = frozenset({"succeeded", "failed", "rejected", "cancelled", "expired"})
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class UnknownError(ApiError):
    """The reflex knows nothing of it."""


class Client:
    """One reflex; a context manager."""

    def __init__(self, url: str) -> None:
        """`url` is reflex.url of the settings."""
        self._url = url
        # A proxy of the environment is for the world outside; a loopback address is never behind it.
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=not _loopback(url))

    def __enter__(self) -> Self:
        """Nothing is sent yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._http.close()

    def submit(self, body: bytes, idempotency_key: str | None) -> dict[str, Any]:
        """The reflex's answer to an accepted task; ApiError when it is refused."""
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return self._call("POST", "/v1/tasks", content=body, headers=headers)

    def deliver(self, source: str, body: bytes, headers: Mapping[str, str]) -> dict[str, Any]:
        """The reflex's answer to a webhook; ApiError when it is refused."""
        path = f"/v1/webhooks/{quote(source, safe='')}"
        return self._call("POST", path, content=body, headers={"Content-Type": "application/json", **headers})

    def status(self, task: str) -> dict[str, Any]:
        """The task's status; ApiError when it is unknown."""
        try:
            return self._call("GET", f"/v1/tasks/{quote(task, safe='')}")
        except UnknownError as error:
            raise UnknownError(f"{self._url} knows no task {task}; is the id right, and the address?") from error

    def wait(self, task: str, patience_s: float) -> dict[str, Any]:
        """The status at the task's end; ApiError when it has not ended in time."""
        deadline = time.monotonic() + patience_s
        pause = _FIRST_PAUSE_S
        while True:
            status = self.status(task)
            if status.get("state") in TERMINAL:
                return status
            left = deadline - time.monotonic()
            if left <= 0:
                raise ApiError(
                    f"task {task} is still {status.get('state')} after {patience_s:g} s; "
                    f"it goes on, look again with `octollm show {task} --wait`"
                )
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)

    def _call(self, method: str, path: str, **request: Any) -> dict[str, Any]:  # noqa: ANN401 (httpx's own keywords)
        try:
            response = self._http.request(method, path, **request)
        except httpx.TimeoutException as error:
            raise ApiError(f"the reflex at {self._url} did not answer in time; is it overloaded?") from error
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ApiError(
                f"the reflex at {self._url} cannot be reached ({error}); start the stack with `octollm up`, "
                "or set OCTOLLM_REFLEX_URL to where it listens"
            ) from error
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError as error:
            raise ApiError(
                f"{self._url} answered {response.status_code} without JSON; is it really an OctoLLM reflex?"
            ) from error
        if response.status_code == httpx.codes.NOT_FOUND:
            raise UnknownError(_sentence(answer, response.status_code))
        if not response.is_success:
            raise ApiError(_sentence(answer, response.status_code))
        if not isinstance(answer, dict):
            raise ApiError(f"{self._url} answered with JSON that is no object; is it really an OctoLLM reflex?")
        return answer


def _sentence(problem: object, status: int) -> str:
    """One sentence from a problem+json answer."""
    if not isinstance(problem, dict):
        return f"the reflex refused with status {status}"
    text = str(problem.get("detail") or problem.get("title") or "the reflex refused")
    field = problem.get("field")
    named = f" (field {field})" if field and str(field) not in text else ""
    return f"{text}{named} [{status}]"


def _loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
