"""The role `callbacks`: sends callbacks until it has to stop.

It needs Postgres and the network, not Redis.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from octollm.callbacks.http import HttpSender
from octollm.callbacks.sender import CallbackSender, Limits
from octollm.callbacks.store import CallbackStore
from octollm.callbacks.target import Resolver, TargetFinder
from octollm.database.migrate import migrate
from octollm.database.pool import open_pool
from octollm.observability.metrics import MetricsServer
from octollm.periodic import PeriodicJob, run_periodically
from octollm.runtime.connect_retry import until_reachable
from octollm.runtime.store_watch import ASKS, PostgresCheck, StoreWatch
from octollm.settings.files import callbacks_path
from octollm.settings.loader import Settings
from octollm.supervision import Supervisor
from octollm.topology.callbacks import CallbackRules, load_callbacks, unusable_secrets

ROLE = "callbacks"
_MEASURE_S = 10
_LEASE_S = 45
"""How much longer than an attempt its claim lasts."""
_log = structlog.get_logger(__name__)


def load_rules(settings: Settings) -> CallbackRules:
    """Read `callbacks.yaml`. Raises CallbacksError; secrets that cannot be used are only logged."""
    rules = load_callbacks(callbacks_path(settings))
    for problem in unusable_secrets(rules):
        _log.warning("callbacks cannot be signed and wait", problem=problem)
    return rules


async def run_callbacks(settings: Settings, stop: asyncio.Event) -> None:
    """Send callbacks until `stop` is set; wait for Postgres while it is unavailable.

    Raises CallbacksError before anything is connected, and WorkerError if background work ends unexpectedly.
    """
    rules = load_rules(settings)
    dsn = settings.postgres.dsn
    supervisor, watch = Supervisor(), StoreWatch({})
    state: list[str] = ["starting"]

    def not_ready_reasons() -> list[str]:
        failure = [] if supervisor.failure is None else [supervisor.failure]
        return [*state, *failure, *watch.reasons()]

    async def migrated() -> bool:
        await migrate(dsn)
        return True

    async with AsyncExitStack() as exits:
        exits.push_async_callback(supervisor.stop)
        server = exits.enter_context(MetricsServer(settings.worker.metrics_listen, not_ready_reasons, supervisor))
        _log.info("starting", roles=[ROLE], metrics=server.address)
        state[:] = ["Postgres is unavailable"]
        if await until_reachable("Postgres", dsn, migrated, stop) is None:
            return
        postgres = PostgresCheck(dsn)
        exits.callback(postgres.close)
        watch = StoreWatch({"Postgres": (postgres, ASKS)})
        watch.start(supervisor)
        async with sending(settings, rules, supervisor):
            state.clear()
            _log.info("ready", roles=[ROLE])
            await supervisor.run_until(stop)
            state[:] = ["stopping"]
            _log.info("stopping: no callbacks are begun, running ones may finish", drain_s=settings.worker.drain_s)
    _log.info("stopped", roles=[ROLE])


@asynccontextmanager
async def sending(settings: Settings, rules: CallbackRules, supervisor: Supervisor) -> AsyncIterator[CallbackSender]:
    """Send callbacks while the block runs; at its end, running attempts may finish for `worker.drain_s`."""
    given = settings.callbacks
    pool = await open_pool(settings.postgres.dsn, settings.postgres.pool_size)
    resolver, http = Resolver(given.max_attempts), HttpSender(given.timeout_s)
    sender = CallbackSender(
        CallbackStore(pool, given.timeout_s + _LEASE_S),
        rules,
        TargetFinder(rules.network, resolver),
        http,
        Limits(given.max_attempts, given.max_attempts_per_tenant, given.max_attempts_per_endpoint),
        supervisor,
        timeout_s=given.timeout_s,
    )
    measure = PeriodicJob("measure callbacks", _MEASURE_S, sender.measure)
    loops = [
        supervisor.spawn_loop("send callbacks", sender.run()),
        supervisor.spawn_loop(measure.name, run_periodically(measure)),
    ]
    try:
        yield sender
    finally:
        await supervisor.end(loops)
        await sender.drain(settings.worker.drain_s)
        await http.close()
        resolver.close()
        await pool.close()
