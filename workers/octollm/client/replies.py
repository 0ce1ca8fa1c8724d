"""What a reply means: a typed answer, or a typed error with one sentence. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel

from octollm.contracts import read
from octollm.errors import ApiError, BusyError, ContractError, RefusedError, UnknownError

Model = TypeVar("Model", bound=BaseModel)
_LATER = frozenset(
    {
        HTTPStatus.TOO_MANY_REQUESTS,
        HTTPStatus.BAD_GATEWAY,
        HTTPStatus.SERVICE_UNAVAILABLE,
        HTTPStatus.GATEWAY_TIMEOUT,
    }
)
_LONGEST_WAIT_S = 3600.0


@dataclass(frozen=True)
class Reply:
    """A whole answer. Header names are lower case."""

    url: str
    """Whom we asked, for sentences."""
    status: int
    headers: Mapping[str, str]
    content: bytes


def refuse(reply: Reply) -> None:
    """Raises UnknownError, RefusedError, BusyError or ApiError unless the status is 2xx."""
    if HTTPStatus.OK <= reply.status < HTTPStatus.MULTIPLE_CHOICES:
        return
    problem = _problem(reply)
    if reply.status in _LATER:
        raise BusyError(_sentence(reply, problem), retry_after_s=_retry_after(reply))
    if problem is None:
        raise ApiError(f"{reply.url} answered {reply.status} without JSON; is it really an OctoLLM reflex?")
    if reply.status == HTTPStatus.NOT_FOUND:
        raise UnknownError(_sentence(reply, problem))
    if reply.status >= HTTPStatus.INTERNAL_SERVER_ERROR or reply.status < HTTPStatus.BAD_REQUEST:
        raise ApiError(_sentence(reply, problem))
    field = problem.get("field")
    code = str(problem.get("type", "")).rpartition(":")[2]
    raise RefusedError(
        _sentence(reply, problem), status=reply.status, code=code, field=None if field is None else str(field)
    )


def parse(model: type[Model], reply: Reply) -> Model:
    """The document. Raises ApiError where it is another."""
    try:
        return read(model, reply.content)
    except ContractError as error:
        raise ApiError(
            f"{reply.url} answered with something that is no {model.__name__} ({error}); "
            "is it really an OctoLLM reflex, and of this version?"
        ) from error


def parse_object(reply: Reply) -> dict[str, Any]:
    """A JSON object of no fixed shape. Raises ApiError where it is none."""
    try:
        found = orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict):
        raise ApiError(f"{reply.url} answered with no JSON object; is it really an OctoLLM reflex?")
    return found


def _problem(reply: Reply) -> dict[str, object] | None:
    try:
        found = orjson.loads(reply.content)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _sentence(reply: Reply, problem: dict[str, object] | None) -> str:
    if problem is None:
        return f"{reply.url} cannot answer right now; try again later [{reply.status}]"
    text = str(problem.get("detail") or problem.get("title") or f"{reply.url} refused")
    field = problem.get("field")
    named = f" (field {field})" if field and str(field) not in text else ""
    return f"{text}{named} [{reply.status}]"


def _retry_after(reply: Reply) -> float | None:
    """Seconds only: dates depend on two clocks."""
    text = reply.headers.get("retry-after", "")
    return min(float(text), _LONGEST_WAIT_S) if text.isascii() and text.isdigit() else None
