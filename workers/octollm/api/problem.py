"""Everything a request can fail with, and the one table from there to a status; the reflex's twin is
`reflex-rs/src/http/error.rs`. What the caller sees is here; what is logged is where the failure is handled.
"""

from http import HTTPStatus

from fastapi.responses import Response

from octollm.contracts import write
from octollm.contracts.answers import Problem
from octollm.errors import AbsentError, OctoError, ParameterError, StoreUnavailableError, TooSlowError

MEDIA_TYPE = "application/problem+json"
_RETRY_AFTER_S = 1
_INTERNAL = "something is wrong on this side; the log of octollm api says what"


def problem(status: HTTPStatus, code: str, detail: str, field: str | None = None) -> Response:
    """An answer that is none."""
    body = Problem(
        type=f"urn:octollm:problem:{code}", title=status.phrase, status=status.value, detail=detail, field=field
    )  # fmt: skip
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status is HTTPStatus.SERVICE_UNAVAILABLE else None
    return Response(write(body), status, headers, MEDIA_TYPE)


def problem_of(error: OctoError) -> Response:
    """The table."""
    match error:
        case ParameterError():
            return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "parameter", error.message, error.field)
        case AbsentError():
            return not_found()
        case TooSlowError():
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "too_slow", error.message)
        case StoreUnavailableError():
            detail = "the database cannot be asked right now; try again later"
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "postgres", detail)
        case _:
            return internal()


def not_found() -> Response:
    """Also for what belongs to another tenant."""
    return problem(HTTPStatus.NOT_FOUND, "not_found", "there is nothing here")


def method() -> Response:
    """A method that the address does not take."""
    return problem(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "this address does not support the method")


def internal() -> Response:
    """A fault of ours; the cause is in the log."""
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", _INTERNAL)
