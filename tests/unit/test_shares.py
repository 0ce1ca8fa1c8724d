"""How processes are shared among tenants."""

import asyncio
import random
from collections import Counter
from contextlib import suppress

import pytest

from octollm.isolation.shares import Shares


class Users:
    """Tasks that hold a process each until their event is set."""

    def __init__(self, total: int) -> None:
        self.shares = Shares(total)
        self.held: Counter[str] = Counter()
        self.begun: list[str] = []
        """Who got a process, in order."""
        self.tasks: list[tuple[str, asyncio.Task[None], asyncio.Event]] = []

    async def ask(self, tenant: str, times: int = 1) -> None:
        for _ in range(times):
            end = asyncio.Event()
            self.tasks.append((tenant, asyncio.ensure_future(self._use(tenant, end)), end))
            await settle()

    async def end_one(self, tenant: str) -> None:
        """End the one that got its process first."""
        one = next(one for one in self.tasks if one[0] == tenant and not one[2].is_set())
        one[2].set()
        await one[1]
        await settle()

    async def _use(self, tenant: str, end: asyncio.Event) -> None:
        async with self.shares.one(tenant):
            self.held[tenant] += 1
            self.begun.append(tenant)
            try:
                await end.wait()
            finally:
                self.held[tenant] -= 1

    async def close(self) -> None:
        for _, task, _ in self.tasks:
            task.cancel()
        await asyncio.gather(*(task for _, task, _ in self.tasks), return_exceptions=True)


async def settle() -> None:
    """Let every task go on as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
async def users():
    made = Users(8)
    yield made
    await made.close()


async def test_a_tenant_gets_half_of_what_the_others_leave(users):
    await users.ask("a", 20)
    assert users.held["a"] == 4
    await users.ask("b", 20)
    assert users.held["b"] == 2
    for tenant in ("c", "d"):
        await users.ask(tenant, 20)
        assert users.held[tenant] == 1
    assert users.held.total() == 8


async def test_who_holds_fewest_is_next_and_equals_take_turns(users):
    await users.ask("a", 20)
    await users.ask("b", 20)
    for tenant in ("c", "d", "e", "f"):
        await users.ask(tenant, 3)
    before = len(users.begun)
    for _ in range(4):
        await users.end_one("a")
    # The last process that is free stays for a tenant that holds none.
    assert users.begun[before:] == ["e", "f", "a"]
    await users.ask("g")
    assert users.begun[before:] == ["e", "f", "a", "g"]


async def test_one_that_gives_up_waiting_costs_the_others_nothing(users):
    await users.ask("a", 6)
    await users.ask("b", 3)
    for _, task, _ in users.tasks[4:6]:
        task.cancel()
    await settle()
    # One is cancelled just when its turn has come.
    _, waiting, _ = users.tasks[8]
    users.tasks[0][2].set()
    users.tasks[6][2].set()
    await asyncio.sleep(0)
    waiting.cancel()
    await settle()
    await users.close()
    again = Users(8)
    again.shares = users.shares
    await again.ask("a", 5)
    assert again.held["a"] == 4
    await again.close()


@pytest.mark.parametrize("seed", range(20))
async def test_nobody_holds_more_than_there_are_and_everybody_gets_a_turn(seed):
    chance = random.Random(seed)
    total = chance.randint(1, 9)
    shares, held, served = Shares(total), Counter[str](), Counter[str]()

    async def use(tenant: str) -> None:
        async with shares.one(tenant):
            held[tenant] += 1
            served[tenant] += 1
            try:
                assert held.total() <= total
                for _ in range(chance.randint(0, 4)):
                    await asyncio.sleep(0)
            finally:
                held[tenant] -= 1

    wanted = [chance.choice("abcdef") for _ in range(200)]
    tasks = [asyncio.ensure_future(use(tenant)) for tenant in wanted]
    for task in chance.sample(tasks, 60):
        task.cancel()
        await asyncio.sleep(0)
    async with asyncio.timeout(10):
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
    assert set(served) == set(wanted)
    async with shares.one("z"):
        pass
