"""The OpenAPI document, made from the routes. `docs/openapi.json` is this, compared by `make test`."""

from functools import cache
from typing import Any

from fastapi.openapi.utils import get_openapi

from octollm.api.routes import router
from octollm.contracts.answers import Problem


@cache
def openapi() -> dict[str, Any]:
    """The whole document. Problems are described by hand: FastAPI knows one media type per route."""
    document: dict[str, Any] = get_openapi(
        title="OctoLLM",
        version="1",
        description="What is stored about tasks. Everything is read only, and of one tenant.",
        routes=router.routes,
    )
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    return document
