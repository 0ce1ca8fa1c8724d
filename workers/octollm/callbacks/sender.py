"""The loop that sends callbacks. Any number of processes may run it at the same time.

An attempt is claimed in Postgres before it begins and recorded when it has ended. If the process dies in between, the
claim expires and the callback is sent again, with the same `webhook-id`.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog
from prometheus_client import Gauge

from octollm.callbacks.http import HttpSender
from octollm.callbacks.outcomes import ATTEMPTS, FINAL, Outcome, Result
from octollm.callbacks.schedule import DELAYS_S, next_delay_s
from octollm.callbacks.signature import signed_headers
from octollm.callbacks.store import Callback, CallbackStore
from octollm.callbacks.target import ForbiddenTargetError, TargetFinder
from octollm.errors import CallbacksError, StoreUnavailableError
from octollm.supervision import Supervisor
from octollm.topology.callbacks import CallbackRules, signing_keys

PENDING = Gauge("octollm_callbacks_pending", "Callbacks that wait to be sent, without those of disabled endpoints.")
OLDEST = Gauge("octollm_callbacks_oldest_pending_seconds", "Age of the oldest pending callback; 0: none.")
DISABLED = Gauge("octollm_callback_endpoints_disabled", "Endpoints that no callbacks are sent to.")
_IDLE_S = 0.5
"""How often due callbacks are looked for."""
_log = structlog.get_logger(__name__)


class Limits(NamedTuple):
    """How many attempts may run at the same time in one process."""

    total: int
    per_tenant: int
    """So that one tenant's receivers do not hold up those of others."""
    per_endpoint: int
    """So that one slow receiver does not hold up the others."""


class CallbackSender:
    """Sends what is due, many at a time."""

    def __init__(
        self,
        store: CallbackStore,
        rules: CallbackRules,
        targets: TargetFinder,
        http: HttpSender,
        limits: Limits,
        supervisor: Supervisor,
        *,
        timeout_s: float,
        delays_s: Sequence[float] = DELAYS_S,
    ) -> None:
        """`timeout_s`: for one attempt, with the resolution of the name. `delays_s`: between attempts."""
        self._store = store
        self._rules = rules
        self._targets = targets
        self._http = http
        self._limits = limits
        self._supervisor = supervisor
        self._timeout_s = timeout_s
        self._delays_s = delays_s
        self._running: Counter[tuple[str, str]] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Send callbacks for ever."""
        while True:
            self._ended.clear()
            if await self._begin_due():
                continue
            # The end of an attempt makes space for another one of the same endpoint.
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), _IDLE_S)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the attempts that run, then cancel what is left. Cancelled callbacks are sent again later."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)
        await self._supervisor.end(list(self._tasks))

    async def measure(self) -> None:
        """Update the gauges."""
        backlog = await self._store.backlog()
        PENDING.set(backlog.pending)
        OLDEST.set(backlog.oldest_s)
        DISABLED.set(backlog.disabled)

    async def _begin_due(self) -> int:
        """Begin attempts of callbacks that are due, as many as the limits allow. Return how many."""
        free = self._limits.total - len(self._tasks)
        if free <= 0:
            return 0
        try:
            claimed = await self._store.claim(
                free, self._running, self._limits.per_endpoint, self._limits.per_tenant
            )  # fmt: skip
        except StoreUnavailableError as error:
            _log.warning("callbacks cannot be read; the next try follows", error=error.message)
            return 0
        for callback in claimed:
            self._begin(callback)
        return len(claimed)

    def _begin(self, callback: Callback) -> None:
        key = (callback.tenant, callback.endpoint)
        task = self._supervisor.spawn_task(f"callback {callback.id}", self._attempt(callback))
        self._running[key] += 1
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]
            self._ended.set()

        task.add_done_callback(ended)

    async def _attempt(self, callback: Callback) -> None:
        until = asyncio.get_running_loop().time() + self._timeout_s
        try:
            result = await self._send(callback, until)
        except TimeoutError:
            result = Result(Outcome.TIMEOUT, detail=f"no answer within {self._timeout_s:g} s")
        except ForbiddenTargetError as error:
            result = Result(Outcome.FORBIDDEN, detail=error.message)
        except CallbacksError as error:
            result = Result(Outcome.NOT_CONFIGURED, detail=error.message)
        except OSError as error:
            result = Result(Outcome.UNREACHABLE, detail=f"the host cannot be resolved: {error}")
        except Exception as error:  # noqa: BLE001  producers choose the URL, receivers the answer: only theirs may fail
            _log.error("sending a callback failed within OctoLLM", error=repr(error)[:500], **_of(callback))
            result = Result(Outcome.INTERNAL, detail="OctoLLM failed; the log of the sender says why")
        ATTEMPTS.labels(result.outcome.value).inc()
        try:
            await self._record(callback, result)
        except StoreUnavailableError as error:
            _log.warning(
                "an attempt cannot be recorded; the callback is sent again", error=error.message, **_of(callback)
            )

    async def _send(self, callback: Callback, until: float) -> Result:
        url, secrets, hosts = self._receiver(callback)
        keys = signing_keys(secrets)
        if not keys:
            raise CallbacksError(f"no secret is set in {' or '.join(secrets)}")
        async with asyncio.timeout_at(until):
            target = await self._targets.find(url, hosts)
        body = callback.body.encode()
        headers = signed_headers(callback.message_id, callback.now_s, body, keys)
        return await self._http.post(target, headers, body, until)

    def _receiver(self, callback: Callback) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """Return the URL, the secrets and the only hosts allowed.

        Raises CallbacksError if it is not configured.
        """
        if callback.url is None:
            endpoint = self._rules.endpoints.get(callback.endpoint)
            if endpoint is None or endpoint.tenant != callback.tenant:
                raise CallbacksError(f"callbacks.yaml has no endpoint {callback.endpoint} of this tenant")
            return endpoint.url, endpoint.secrets, ()
        tenant = self._rules.tenants.get(callback.tenant)
        if tenant is None:
            raise CallbacksError(
                f"callbacks.yaml has no secrets for tenant {callback.tenant}; add tenants.{callback.tenant}.secrets"
            )
        return callback.url, tenant.secrets, tenant.hosts

    async def _record(self, callback: Callback, result: Result) -> None:
        if result.outcome is Outcome.DELIVERED:
            await self._store.record(callback, result, None)
            _log.info("callback delivered", status=result.status, **_of(callback))
            return
        delay_s = None
        if result.outcome not in FINAL:
            delay_s = next_delay_s(callback.failures + 1, result.retry_after_s, self._delays_s)
        disabled = await self._store.record(callback, result, delay_s)
        _log.warning(
            "a callback was not delivered",
            outcome=result.outcome.value,
            error=result.detail,
            next_attempt_s=None if delay_s is None else round(delay_s),
            **_of(callback),
        )
        if disabled:
            _log.error(
                "a callback endpoint is disabled: nothing is sent to it until `octollm callbacks enable`",
                **_of(callback),
            )


def _of(callback: Callback) -> Mapping[str, object]:
    """Return the fields of a log line.

    Of a submission's URL only the host: its path may contain a secret.
    """
    names = ("tenant", "task", "run", "attempt")
    receiver = callback.endpoint if callback.url is None else urlsplit(callback.endpoint).netloc
    return {"callback": callback.id, "receiver": receiver, **{name: getattr(callback, name) for name in names}}
