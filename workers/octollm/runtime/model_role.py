"""The mind of a worker process: chosen from the settings at start, opened with the first question."""

import os
from collections.abc import Awaitable, Callable

import structlog

from octollm.consumer.context import delivery_count
from octollm.contracts import StepRequested
from octollm.database.pool import Pool
from octollm.models.choose import choose
from octollm.models.client import JournalledModelClient
from octollm.models.journal import Journal
from octollm.models.provider import Provider
from octollm.ports import Question, Reply
from octollm.settings.sections import ModelsSettings

_log = structlog.get_logger(__name__)


class WorkerModelClient:
    """A `ModelClient` (see `ports.py`) for all arms of one process, so that they share connections."""

    def __init__(self, settings: ModelsSettings, get_pool: Callable[[], Awaitable[Pool]]) -> None:
        """Raises SettingsError where what the settings ask for is not there."""
        self._settings = settings
        self._get_pool = get_pool
        self._provider: Provider | None = self._choose()
        self._mind = JournalledModelClient(self._journal, self._provider, settings.timeout_s, delivery_count)

    async def ask(self, step: StepRequested, question: Question) -> Reply:
        """See `ModelClient.ask`."""
        return await self._mind.ask(step, question)

    async def close(self) -> None:
        """Close the provider's connections."""
        if self._provider is not None:
            await self._provider.close()

    def _choose(self) -> Provider | None:
        settings = self._settings
        provider = choose(
            settings.provider, settings.model, settings.max_output_tokens, settings.timeout_s, os.environ
        )  # fmt: skip
        if provider is None:
            _log.info("no model is configured: steps that need one will say so")
        else:
            _log.info("a model is configured", provider=provider.name, model=provider.model)
        return provider

    async def _journal(self) -> Journal:
        return Journal(await self._get_pool())
