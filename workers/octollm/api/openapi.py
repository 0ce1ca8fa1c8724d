"""The OpenAPI document, generated from the routes. `make generate` writes it to `docs/openapi.json`."""

from functools import cache
from typing import Any

from fastapi.openapi.utils import get_openapi

from octollm.api.routes import router
from octollm.contracts.answers import Problem


@cache
def openapi() -> dict[str, Any]:
    """Return the document. `Problem` is added by hand, because FastAPI knows one media type per route."""
    document: dict[str, Any] = get_openapi(
        title="OctoLLM",
        version="1",
        description="What is stored about tasks. Everything belongs to the tenant of the credential.",
        routes=router.routes,
    )
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    document["components"]["securitySchemes"] = {
        "api_key": {"type": "http", "scheme": "bearer", "description": "An API key with the scope `read`."}
    }
    document["security"] = [{"api_key": []}]
    return document
