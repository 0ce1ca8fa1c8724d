"""The model client of a worker process.

It is chosen from the settings at start, and connects with the first request.
"""

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
    """The `ModelClient` (see `ports.py`) that all arms of one process share."""

    def __init__(self, settings: ModelsSettings, get_pool: Callable[[], Awaitable[Pool]]) -> None:
        """Raises SettingsError if the configured provider cannot be used."""
        self._settings = settings
        self._get_pool = get_pool
        self._provider: Provider | None = self._choose()
        self._client = JournalledModelClient(self._journal, self._provider, settings.timeout_s, delivery_count)

    async def ask(self, step: StepRequested, question: Question) -> Reply:
        """See `ModelClient.ask`."""
        return await self._client.ask(step, question)

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
            _log.info("no model is configured: steps that need one fail with needs_model")
        else:
            _log.info("model configured", provider=provider.name, model=provider.model)
        return provider

    async def _journal(self) -> Journal:
        return Journal(await self._get_pool())
