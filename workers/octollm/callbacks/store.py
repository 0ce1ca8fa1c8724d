"""Reads and writes callbacks in Postgres. Decides nothing."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from octollm.callbacks.outcomes import ENDPOINT_FAILURES, Outcome, Result
from octollm.database.pool import Pool, transaction
from octollm.database.queries import queries

_SQL = queries("octollm.callbacks", "callbacks")
_DISABLE_DAYS = 5
"""An endpoint whose attempts have only failed for longer is disabled."""


class Callback(NamedTuple):
    """A callback whose next attempt has begun."""

    id: int
    tenant: str
    task: str
    run: int
    endpoint: str
    url: str | None
    """None: the endpoint's URL in callbacks.yaml."""
    body: str
    attempt: int
    """From 1."""
    failures: int
    """Attempts that have failed since the callback was stored or redelivered."""
    now_s: int
    """Unix time by the database's clock."""

    @property
    def message_id(self) -> str:
        """The header `webhook-id`: the same in every attempt, and for every receiver of this end of a task."""
        return f"{self.task}.{self.run}"


class Backlog(NamedTuple):
    """What waits to be sent."""

    pending: int
    oldest_s: float
    """Age of the oldest of them in seconds; 0 if there is none."""
    disabled: int
    """Disabled endpoints."""


class CallbackStore:
    """The tables `callbacks` and `callback_endpoints`. Every method raises StoreUnavailableError."""

    def __init__(self, pool: Pool, lease_s: float) -> None:
        """`lease_s`: after how long an attempt without a result counts as lost."""
        self._pool = pool
        self._lease_s = lease_s

    async def claim(
        self,
        limit: int,
        running: Mapping[tuple[str, str], int],
        per_endpoint: int,
        per_tenant: int,
    ) -> Sequence[Callback]:
        """Begin the next attempt of up to `limit` callbacks that are due.

        `running`: attempts that run in this process by (tenant, endpoint). With those, at most `per_endpoint` of an
        endpoint and `per_tenant` of a tenant run here.
        """
        endpoints = {f"{tenant} {endpoint}": count for (tenant, endpoint), count in running.items()}
        tenants: dict[str, int] = {}
        for (tenant, _), count in running.items():
            tenants[tenant] = tenants.get(tenant, 0) + count
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(
                _SQL["claim"], limit, endpoints, tenants, per_endpoint, per_tenant, self._lease_s
            )
        return [Callback(*row) for row in rows]

    async def record(self, callback: Callback, result: Result, delay_s: float | None) -> bool:
        """Store how the callback's attempt ended. `delay_s`: until the next attempt; None: there is none.

        Return whether the result has disabled the endpoint.
        """
        outcome = result.outcome
        delivered = outcome is Outcome.DELIVERED
        state = "delivered" if delivered else "failed" if delay_s is None else "pending"
        values = (outcome.value, result.status, result.detail, result.response)
        endpoint = (callback.tenant, callback.endpoint)
        async with transaction(self._pool) as connection:
            await connection.execute(_SQL["record"], callback.id, callback.attempt, state, delay_s, *values)
            if delivered:
                await connection.execute(_SQL["record_success"], *endpoint)
            if outcome not in ENDPOINT_FAILURES:
                return False
            gone = outcome is Outcome.GONE
            return bool(
                await connection.fetchval(
                    _SQL["record_failure"], *endpoint, result.detail or outcome.value, gone, _DISABLE_DAYS
                )
            )

    async def backlog(self) -> Backlog:
        """Return what waits to be sent."""
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow(_SQL["backlog"])
        assert row is not None  # noqa: S101  an aggregate without GROUP BY always returns a row
        return Backlog(*row)
