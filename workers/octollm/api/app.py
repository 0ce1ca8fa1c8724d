"""The application: its routes, and what becomes of errors. Opens nothing itself."""

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from octollm.api import operate, routes
from octollm.api.problem import method, not_found, problem, problem_of
from octollm.api.store import Store
from octollm.api.watch import Watch
from octollm.errors import OctoError, ParameterError

_LONGEST_NAME = 80


def create_app(store: Store) -> FastAPI:
    """All of it on one store."""
    # A documentation page would load scripts from elsewhere, so there is none; the document itself is served.
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.store = store
    app.include_router(routes.router)
    app.include_router(operate.router)
    app.add_exception_handler(OctoError, _failed)
    app.add_exception_handler(RequestValidationError, _misasked)
    app.add_exception_handler(HTTPException, _unserved)
    app.add_middleware(Watch)
    return app


async def _failed(_request: Request, error: Exception) -> Response:
    if not isinstance(error, OctoError):
        raise error
    return problem_of(error)


async def _misasked(_request: Request, error: Exception) -> Response:
    """The first wrong parameter, in our form and without its value."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    field = str(first["loc"][-1])[:_LONGEST_NAME]
    if first["type"] == "extra_forbidden":
        return problem_of(ParameterError(field, "is no parameter of this address"))
    return problem_of(ParameterError(field, str(first["msg"]).removeprefix("Value error, ")))


async def _unserved(_request: Request, error: Exception) -> Response:
    """Addresses and methods that there are not."""
    match getattr(error, "status_code", None):
        case HTTPStatus.NOT_FOUND:
            return not_found()
        case HTTPStatus.METHOD_NOT_ALLOWED:
            return method()
        case HTTPStatus.BAD_REQUEST:
            return problem(HTTPStatus.BAD_REQUEST, "request", "the request cannot be read")
    raise error
