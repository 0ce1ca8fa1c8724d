"""An orchestrator on a database of its own, without any bus."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from making import RECIPES

from octollm.database.pool import Pool, open_pool
from octollm.orchestrator.service import Orchestrator
from octollm.plans.recipes import load_recipes


@pytest.fixture
async def pool(dsn: str) -> AsyncIterator[Pool]:
    made = await open_pool(dsn, 4)
    yield made
    await made.close()


@pytest.fixture
def orchestrator(pool: Pool, tmp_path: Path) -> Orchestrator:
    (tmp_path / "pair.yaml").write_text(RECIPES)
    return Orchestrator(pool, load_recipes(tmp_path, frozenset({"noop"})), 3600)
