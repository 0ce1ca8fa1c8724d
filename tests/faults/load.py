"""The producers of a campaign: a known load through every source, each try written down before it is sent.

A producer behaves as a careful one would: one idempotency key per submission, tried again until it is answered.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from redis.exceptions import RedisError

from octollm.protocol.connection import connect
from tests.faults.ledger import Log
from tests.faults.stage import Stage
from tests.faults.work import answer_to

_TIMEOUT_S = 60.0
_PAUSE_S = 0.2


@dataclass(frozen=True)
class Order:
    """One submission to make."""

    key: str
    source: str
    """`http0`, `http1`, `both` (the same over both ingresses) or `stream`."""
    tenant: str
    body: bytes
    expected: str
    answer: Any
    durability: str = ""
    """What it asks for beyond what the deployment promises."""


class Load:
    """Makes orders and pushes them."""

    def __init__(
        self, stage: Stage, log: Log, rng: random.Random, sources: Sequence[str] = ("http0", "http1", "stream")
    ) -> None:
        """`sources`: through which an order goes that names none."""
        self._stage = stage
        self._log = log
        self._rng = rng
        self._made = 0
        self._sources = sources
        # Without a limit on connections: requests that give up waiting for one leave httpx with none at all.
        self._client = httpx.AsyncClient(trust_env=False, timeout=5, limits=httpx.Limits())
        self._running: set[asyncio.Task[None]] = set()
        self.retry_after = 0
        """How often a producer was asked to come back later."""
        self.unconfirmed = 0
        """How many producers without a key got an answer that names a task as perhaps stored."""
        self.answered: Counter[str] = Counter()
        """How many 202s named each durability mode."""

    def order(
        self,
        do: dict[str, Any] | None = None,
        *,
        source: str | None = None,
        kind: str | None = None,
        expected: str = "succeeded",
        durability: str = "",
        deadline_s: int | None = None,
    ) -> Order:
        """The next one. Without a `kind` some go from step to step in a line; with neither `do` nor `kind` some are for
        the sandbox, and on streams some cannot be read.
        """
        self._made += 1
        number = self._made
        source = source or self._rng.choice(self._sources)
        tenant = self._rng.choice(("default", "other")) if source == "stream" else "default"
        key = f"order-{number}"
        if do is None and kind is None and source == "stream" and self._rng.random() < 0.05:
            return self._unreadable(key, tenant)
        if kind is None:
            chance = self._rng.random()
            kind = "sandbox" if do is None and chance < 0.1 else "line" if chance < 0.4 else "ledger"
        given = {"n": number} if do is None else {"n": number, "do": do}
        priority = self._rng.choice(("high", "normal", "normal", "low"))
        submission: dict[str, Any] = {"goal": "count", "kind": kind, "priority": priority, "input": given}
        if deadline_s is not None:
            submission["deadline_s"] = deadline_s
        body = json.dumps(submission).encode()
        answer = answer_to(kind, number) if expected == "succeeded" else None
        return Order(key, source, tenant, body, expected, answer, durability)

    def unreadable(self) -> Order:
        """One that is no submission at all: it has to become a dead letter."""
        self._made += 1
        return self._unreadable(f"order-{self._made}", self._rng.choice(("default", "other")))

    @staticmethod
    def _unreadable(key: str, tenant: str) -> Order:
        return Order(key, "stream", tenant, b'{"goal": "cut', "dead_letter", None)

    def send(self, order: Order) -> asyncio.Task[None]:
        """In the background; `settle` waits for all."""
        task = asyncio.ensure_future(self._push(order))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def steady(self, rate: float, until: Callable[[], bool], most: int) -> int:
        """Open loop: an order every 1/rate seconds until `until` is true or `most` are sent; how many were."""
        loop = asyncio.get_running_loop()
        due, sent = loop.time(), 0
        while sent < most and not until():
            self.send(self.order())
            sent += 1
            due += self._rng.expovariate(rate)
            await asyncio.sleep(max(0.0, due - loop.time()))
        return sent

    async def settle(self) -> None:
        """Wait until every producer has its answer or has given up."""
        while self._running:
            await asyncio.wait(set(self._running))

    async def close(self) -> None:
        """Nothing more is sent."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
        await self._client.aclose()

    async def _push(self, order: Order) -> None:
        """Until one answer is final."""
        deadline = asyncio.get_running_loop().time() + _TIMEOUT_S
        sources = {"both": ("http0", "http1")}.get(order.source, (order.source,))
        await asyncio.gather(*(self._submit(order, source, deadline) for source in sources))

    async def _submit(self, order: Order, source: str, deadline: float) -> None:
        send = self._stream if source == "stream" else self._http
        while True:
            self.invoke(order)
            if await send(order, source):
                return
            if asyncio.get_running_loop().time() > deadline:
                return
            await asyncio.sleep(_PAUSE_S * self._rng.uniform(0.5, 1.5))

    def invoke(self, order: Order) -> None:
        """Write a try down before it is sent."""
        self._log.write(
            what="invoke", key=order.key, tenant=order.tenant, source=order.source, expected=order.expected,
            answer=order.answer,
        )  # fmt: skip

    async def submit_once(self) -> None:
        """Submit over HTTP without an idempotency key, and believe the answer: nothing is sent again."""
        order = self.order({}, source=f"http{self._rng.randrange(2)}", kind="ledger")
        url = self._stage.of("reflex")[int(order.source[-1])].http
        headers = {"content-type": "application/json"}
        self._log.write(what="keyless", key=order.key)
        try:
            answer = await self._client.post(f"{url}/v1/tasks", content=order.body, headers=headers)
        except httpx.HTTPError:
            return
        task = answer.json().get("task")
        self.unconfirmed += int(answer.status_code == 503 and task is not None)
        self._log.write(what="answered", key=order.key, task=task)

    async def _http(self, order: Order, source: str) -> bool:
        url = self._stage.of("reflex")[int(source[-1])].http
        headers = {"content-type": "application/json", "idempotency-key": order.key}
        if order.durability:
            headers["octollm-durability"] = order.durability
        try:
            answer = await self._client.post(f"{url}/v1/tasks", content=order.body, headers=headers)
        except httpx.HTTPError as error:
            self._log.write(what="unknown", key=order.key, error=type(error).__name__)
            return False
        if answer.status_code == 202:
            mode = answer.json()["durability"]
            self._log.write(what="ok", key=order.key, task=answer.json()["task"], mode=mode)
            self.answered[mode] += 1
            return True
        if answer.status_code == 503:
            self.retry_after += int("retry-after" in answer.headers)
            self._log.write(what="unknown", key=order.key, status=503)
            return False
        self._log.write(what="fail", key=order.key, status=answer.status_code, said=answer.text[:300])
        return True

    async def _stream(self, order: Order, _source: str) -> bool:
        client = connect(f"redis://127.0.0.1:{self._stage.redis_port}/0", 5.0)
        try:
            fields = {"idempotency_key": order.key, "body": order.body}
            entry = await client.xadd(f"ingest:{order.tenant}", fields)  # type: ignore[arg-type]
        except (RedisError, OSError) as error:
            self._log.write(what="unknown", key=order.key, error=type(error).__name__)
            return False
        finally:
            await client.aclose()
        self._log.write(what="ok", key=order.key, entry=entry.decode())
        return True
