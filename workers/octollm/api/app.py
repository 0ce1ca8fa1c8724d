"""The FastAPI application: its routes, and how errors become responses. Opens no connections."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from octollm.api import operate, routes
from octollm.api.authentication import Authentication, Authenticator
from octollm.api.problem import bad_request, method_not_allowed, not_found, problem_of
from octollm.api.request_metrics import RequestMetrics
from octollm.api.store import Store
from octollm.errors import OctoError, ParameterError

_MAX_FIELD = 80


def create_app(store: Store, authenticator: Authenticator) -> FastAPI:
    """Return the application that reads from `store` for the callers that `authenticator` accepts."""
    # No documentation pages: they would load scripts from other hosts. The OpenAPI document itself is served.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.store = store
    app.state.authenticator = authenticator
    app.include_router(routes.router)
    app.include_router(operate.router)
    app.add_exception_handler(OctoError, _octo_error)
    app.add_exception_handler(RequestValidationError, _invalid_parameter)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_middleware(Authentication, authenticator=authenticator)
    app.add_middleware(RequestMetrics)
    return app


async def _octo_error(_request: Request, error: Exception) -> Response:
    if not isinstance(error, OctoError):
        raise error
    return problem_of(error)


async def _invalid_parameter(_request: Request, error: Exception) -> Response:
    """Report the first invalid parameter by its name, without its value."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    field = str(first["loc"][-1])[:_MAX_FIELD]
    if first["type"] == "extra_forbidden":
        return problem_of(ParameterError(field, "is not a parameter of this path"))
    return problem_of(ParameterError(field, str(first["msg"]).removeprefix("Value error, ")))


async def _http_error(_request: Request, error: Exception) -> Response:
    """Report unknown paths, methods that a path does not support, and requests that cannot be parsed."""
    match getattr(error, "status_code", None):
        case HTTPStatus.NOT_FOUND:
            return not_found()
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return method_not_allowed()
        case HTTPStatus.BAD_REQUEST:
            return bad_request()
    raise error
