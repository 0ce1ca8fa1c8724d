"""An orchestrator on a database of its own, without any bus."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from octollm.database.pool import Pool, open_pool
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import RecipeBook, load_recipes
from octollm.runtime.api_role import serve_api
from octollm.settings.loader import load_settings
from tests.helpers.callers import SECRET
from tests.helpers.orchestrators import RECIPES, message_builder


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    made = await open_pool(dsn, 4)
    yield made
    await made.close()


@pytest.fixture
def book(tmp_path: Path) -> RecipeBook:
    """The recipe `pair`: two steps, and one that needs both."""
    (tmp_path / "pair.yaml").write_text(RECIPES)
    return load_recipes(tmp_path, frozenset({"noop"}))


@pytest.fixture
def orchestrator(pool: Pool, book: RecipeBook) -> Orchestrator:
    return Orchestrator(pool, book, message_builder(), 3600)


@pytest.fixture
def another(orchestrator: Orchestrator, pool: Pool, tmp_path: Path) -> Orchestrator:
    """One more, as in another process."""
    return Orchestrator(pool, load_recipes(tmp_path, frozenset({"noop"})), message_builder(), 3600)


@pytest.fixture
async def api(dsn: str, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running API, which knows no credential but the reflex's."""
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_API_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("OCTOLLM_API_SECRET", SECRET)
    async with (
        serve_api(load_settings()) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        yield client
