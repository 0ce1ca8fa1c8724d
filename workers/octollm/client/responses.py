"""What a response means: a typed document, or a typed error with one sentence. Sends nothing."""

from http import HTTPStatus
from typing import Any, TypeVar

import httpx2
import orjson
from pydantic import BaseModel

from octollm.client.credentials import API_KEY, profile_path
from octollm.contracts import read
from octollm.contracts.answers import Accepted
from octollm.errors import (
    ApiError,
    BusyError,
    ContractError,
    ForbiddenError,
    RefusedError,
    UnauthenticatedError,
    UnknownError,
    UnreachableError,
)

Model = TypeVar("Model", bound=BaseModel)
TRANSPORT_ERRORS = (httpx2.TransportError, httpx2.InvalidURL, httpx2.DecodingError)
EVENT_STREAM = "text/event-stream"
_RETRYABLE = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_MAX_RETRY_AFTER_S = 3600.0
_REFUSALS = {
    "missing_credential": UnauthenticatedError,
    "invalid_credential": UnauthenticatedError,
    "expired_credential": UnauthenticatedError,
    "insufficient_scope": ForbiddenError,
}


def unreachable(url: str, error: Exception) -> UnreachableError:
    """Return the error to raise when one of TRANSPORT_ERRORS ended a request to the reflex at `url`."""
    if isinstance(error, httpx2.TimeoutException):
        return UnreachableError(f"the reflex at {url} did not answer in time; is it overloaded?")
    reason = str(error) or type(error).__name__
    return UnreachableError(
        f"the reflex at {url} cannot be reached ({reason}); start the stack with `octollm up`, "
        "or set OCTOLLM_REFLEX_URL to the address of the reflex"
    )


def raise_for_status(url: str, response: httpx2.Response) -> None:
    """Raise UnknownError, RefusedError or a subclass, BusyError or ApiError unless the status is 2xx.

    `url`: of the reflex, for the message; `response`: with its content loaded unless its status is 2xx.
    """
    if response.is_success:
        return
    raise _error(url, response.status_code, _problem(response), _retry_after_s(response))


def parse_batch(url: str, content: bytes, count: int) -> list[Accepted | ApiError]:
    """Return the results of a batch of `count` tasks, in their order.

    A task that was accepted has a document, any other the error that it would have raised alone. Raises ApiError when
    the answer of the reflex at `url` is something else.
    """
    items = parse_object(url, content).get("items")
    if not isinstance(items, list) or len(items) != count:
        raise ApiError(
            f"{url} did not answer with {count} results; is it really an OctoLLM reflex, and of this version?"
        )
    return [_result(url, item) for item in items]


def _result(url: str, item: object) -> Accepted | ApiError:
    status = item.get("status") if isinstance(item, dict) else None
    if not isinstance(item, dict) or not isinstance(status, int):
        raise ApiError(f"{url} answered with a result without a status; is it really an OctoLLM reflex?")
    if status == HTTPStatus.ACCEPTED:
        return parse(Accepted, url, orjson.dumps(item))
    return _error(url, status, item, None)


def _error(url: str, status: int, problem: dict[str, object] | None, retry_after_s: float | None) -> ApiError:
    if status in _RETRYABLE:
        return BusyError(_sentence(url, status, problem), retry_after_s=retry_after_s)
    if problem is None:
        return ApiError(f"{url} answered {status} without JSON; is it really an OctoLLM reflex?")
    if status == HTTPStatus.NOT_FOUND:
        return UnknownError(_sentence(url, status, problem))
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status < HTTPStatus.BAD_REQUEST:
        return ApiError(_sentence(url, status, problem))
    field = problem.get("field")
    code = str(problem.get("type", "")).rpartition(":")[2]
    sentence = _sentence(url, status, problem)
    if code == "missing_credential":
        sentence += f"; set {API_KEY}, or api_key in {profile_path()}"
    return _REFUSALS.get(code, RefusedError)(
        sentence, status=status, code=code, field=None if field is None else str(field)
    )


def require_event_stream(url: str, response: httpx2.Response) -> None:
    """Raise ApiError unless the response of the reflex at `url` is a stream of events."""
    if not response.headers.get("content-type", "").startswith(EVENT_STREAM):
        raise ApiError(f"{url} did not answer with a stream of events; is it really an OctoLLM reflex?")


def parse(model: type[Model], url: str, content: bytes) -> Model:
    """Return `content`, JSON sent by the reflex at `url`, as `model`.

    Raises ApiError when it does not match.
    """
    try:
        return read(model, content)
    except ContractError as error:
        raise ApiError(
            f"{url} answered with something that is not a valid {model.__name__} ({error}); "
            "is it really an OctoLLM reflex, and of this version?"
        ) from error


def parse_object(url: str, content: bytes) -> dict[str, Any]:
    """Return a JSON object of any shape. Raises ApiError when `content` is something else."""
    try:
        found = orjson.loads(content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(f"{url} did not answer with a JSON object; is it really an OctoLLM reflex?")
    return found


def delivery_answer(url: str, response: httpx2.Response) -> dict[str, Any]:
    """Return the answer to a webhook: its JSON object, or the task's address if it has no body.

    Raises ApiError when the body is something else than a JSON object.
    """
    if response.content:
        return parse_object(url, response.content)
    location = response.headers.get("Location")
    return {"status_url": location} if location is not None else {}


def _problem(response: httpx2.Response) -> dict[str, object] | None:
    try:
        found = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _sentence(url: str, status: int, problem: dict[str, object] | None) -> str:
    if problem is None:
        return f"{url} cannot answer right now; try again later [{status}]"
    text = str(problem.get("detail") or problem.get("title") or f"{url} refused the request")
    field = problem.get("field")
    suffix = f" (field {field})" if field and str(field) not in text else ""
    return f"{text}{suffix} [{status}]"


def _retry_after_s(response: httpx2.Response) -> float | None:
    """Read Retry-After in seconds. Dates are ignored: they depend on two clocks."""
    text = response.headers.get("retry-after", "")
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isascii() and text.isdigit() else None
