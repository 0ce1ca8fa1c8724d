"""Problem responses (RFC 9457): the table from errors to HTTP statuses.

That of refused credentials is in `authentication.py`. The reflex has its own in `http/error.rs`.

This is what callers see. What is logged is decided where a failure is handled.
"""

from http import HTTPStatus

from fastapi.responses import Response

from octollm.contracts import write
from octollm.contracts.answers import Problem
from octollm.errors import AbsentError, OctoError, ParameterError, StoreUnavailableError, TooSlowError

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S = 1
_HEADERS = {
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": str(_RETRY_AFTER_S)},
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
}
_INTERNAL = "internal error; the log of octollm api has the cause"


def problem(status: HTTPStatus, code: str, detail: str, field: str | None = None) -> Response:
    """Return a problem response.

    `code`: its stable name; `field`: the parameter to correct, if there is one.
    """
    body = Problem(
        type=f"urn:octollm:problem:{code}", title=status.phrase, status=status.value, detail=detail, field=field
    )  # fmt: skip
    return Response(write(body), status, _HEADERS.get(status), MEDIA_TYPE)


def problem_of(error: OctoError) -> Response:
    """Return the problem response for an error."""
    match error:
        case ParameterError():
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "parameter", error.message, error.field)
        case AbsentError():
            return not_found()
        case TooSlowError():
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "too_slow", error.message)
        case StoreUnavailableError():
            detail = "the database is unavailable; try again later"
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "postgres", detail)
        case _:
            return internal()


def not_found() -> Response:
    """Return 404. Used for what does not exist and for what belongs to another tenant."""
    return problem(HTTPStatus.NOT_FOUND, "not_found", "there is no such resource")


def bad_request() -> Response:
    """Return 400, for a request that cannot be parsed."""
    return problem(HTTPStatus.BAD_REQUEST, "request", "the request cannot be parsed")


def method_not_allowed() -> Response:
    """Return 405, for a method that the path does not support."""
    return problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "this path does not support the method")


def internal() -> Response:
    """Return 500, for an error that was not expected; the cause is in the log."""
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", _INTERNAL)
