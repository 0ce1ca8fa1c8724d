"""Direct hand-off on a real Redis and a real Postgres: from arm to arm in one script, and the same rows as without."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from octollm.contracts import Chained, InlineOutput, StepDone, StepRequested, StepSucceeded, StoredOutput, read
from octollm.contracts.ids import new_task_id
from octollm.database.outputs import store_output
from octollm.database.pool import transaction
from octollm.orchestrator.reconciler import Reconciler
from octollm.orchestrator.service import Orchestrator
from octollm.plans import chain
from octollm.plans.recipes import load_recipes
from octollm.resources import schemas_path
from octollm.runtime.arm_role import chain_to
from octollm.runtime.roles import python_roles
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import load_topology
from tests.helpers.consumers import KEYS, consuming, fields, judge, step, topology
from tests.helpers.orchestrators import done, message_builder, rows, sends, submitted
from tests.helpers.publishers import FakePublisher
from tests.helpers.tasks import ended, put
from tests.helpers.waiting import until

BUILDER = message_builder(direct_handoff=True)

LINE = """
recipe: line
version: 1
description: four redactions and a verdict, one after the other
deadline_s: 60
input: {type: object, properties: {text: {type: string}}}
steps:
  one: {arm: guardian, input: {mode: redact, value: {text: {$: task.input.text}}}}
  two: {arm: guardian, needs: [one], input: {mode: redact, value: {from: {$: steps.one.output.value}}}}
  three: {arm: guardian, needs: [two], input: {mode: redact, value: {from: {$: steps.two.output.value}}}}
  four: {arm: guardian, needs: [three], input: {mode: redact, value: {$: "[steps.one.output, steps.three.output]"}}}
  verdict:
    arm: judge
    needs: [four]
    input: {checks: [{check: numeric, value: {$: length(steps.four.output.value)}, expected: 2}]}
answer: {$: steps.four.output.value}
"""
WIDE = """
recipe: wide
version: 1
description: a fan-out and a join with a longer side, judged and repaired
deadline_s: 60
input: {type: object, properties: {text: {type: string}}}
steps:
  one: {arm: guardian, input: {mode: redact, value: {text: {$: task.input.text}, round: {$: round}}}}
  left: {arm: guardian, needs: [one], input: {mode: redact, value: {of: {$: steps.one.output.value}}}}
  more: {arm: guardian, needs: [left], input: {mode: redact, value: {of: {$: steps.left.output.value}}}}
  right: {arm: guardian, needs: [one], input: {mode: redact, value: {why: {$: steps.verdict.output.reasons}}}}
  both: {arm: guardian, needs: [more, right], input: {mode: redact, value: {round: {$: round}}}}
  verdict:
    arm: judge
    needs: [both]
    input: {checks: [{check: numeric, value: {$: steps.both.output.value.round}, expected: 1}]}
answer: {left: {$: steps.more.output.value}, right: {$: steps.right.output.value}}
repair: {judge: verdict, redo: one, max: 2}
"""
FAILING = """
recipe: failing
version: 1
description: its second step cannot work, and nothing after it runs
deadline_s: 60
input: {type: object, properties: {text: {type: string}}}
steps:
  one: {arm: guardian, input: {mode: redact, value: {text: {$: task.input.text}}}}
  two: {arm: guardian, needs: [one], input: {mode: nothing of this kind}}
  three: {arm: guardian, needs: [two], input: {mode: redact, value: {}}}
answer: null
"""
UNPLANNED = """
recipe: unplanned
version: 1
description: a reference that cannot be evaluated
deadline_s: 60
input: {type: object, properties: {text: {type: string}}}
steps:
  one: {arm: guardian, input: {mode: redact, value: {text: {$: task.input.text}}}}
  two: {arm: guardian, needs: [one], input: {mode: redact, value: {$: sum(steps.one.output.value.text)}}}
answer: null
"""
RECIPES = {"line": LINE, "wide": WIDE, "failing": FAILING, "unplanned": UNPLANNED}
TABLES = {
    "tasks": "SELECT kind, state, reason, detail, round, seq, result FROM tasks ORDER BY kind",
    "steps": """SELECT kind, step, steps.round, arm, steps.state, attempt, failures, output, error, early_results
        FROM steps JOIN tasks ON tasks.id = task ORDER BY kind, step, steps.round""",
    "attempts": """SELECT kind, step, attempts.round, attempt, delivery, outcome, error_code
        FROM attempts JOIN tasks ON tasks.id = task ORDER BY kind, step, attempts.round, attempt""",
}


@asynccontextmanager
async def running(monkeypatch: pytest.MonkeyPatch, folder: Path, *, direct: bool) -> AsyncIterator[None]:
    """All Python roles."""
    monkeypatch.setenv("OCTOLLM_ORCHESTRATOR_RECIPES_DIR", str(folder))
    monkeypatch.setenv("OCTOLLM_HANDOFF_DIRECT", str(direct).lower())
    settings = load_settings()
    known = load_topology(topology_path(settings), schemas_path())
    stop = asyncio.Event()
    work = asyncio.create_task(run_roles(list(python_roles(known)), settings, known, concurrency=None, stop=stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(work, 120)


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    """A folder of them."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    for name, text in RECIPES.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder


def plain(value: Any) -> Any:
    """Without what differs between any two runs."""
    if isinstance(value, dict):
        left_out = {"task", "finished_at", "duration_ms", "at"}
        return {key: plain(item) for key, item in value.items() if key not in left_out}
    return [plain(item) for item in value] if isinstance(value, list) else value


async def test_the_same_tasks_end_in_the_same_rows_with_it_and_without(
    redis_server, client, dsn, pool, monkeypatch, recipes
):
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    found: dict[bool, dict[str, list[Any]]] = {}
    reported: dict[bool, dict[str, list[str]]] = {}
    for direct in (False, True):
        async with running(monkeypatch, recipes, direct=direct):
            tasks = [await put(client, kind=kind, input={"text": "to ada@example.org"}) for kind in RECIPES]
            for task in tasks:
                await ended(client, task)
        found[direct] = {name: [plain(dict(row)) for row in await rows(pool, query)] for name, query in TABLES.items()}
        events = await rows(
            pool, "SELECT kind, body FROM events JOIN tasks ON tasks.id = task ORDER BY kind, events.seq"
        )
        reported[direct] = {kind: [] for kind in RECIPES}
        for row in events:
            reported[direct][row["kind"]].append(f"{row['body']['event']} {row['body'].get('step')}")
        sent = {row["sent_by"].startswith("chained") for row in await rows(pool, "SELECT sent_by FROM steps")}
        assert sent == ({False, True} if direct else {False})
        assert await client.hlen(KEYS.in_flight) == 0
        await rows(pool, "DELETE FROM tasks RETURNING 1")
    assert found[True] == found[False]
    assert [row["state"] for row in found[True]["tasks"]] == ["failed", "succeeded", "failed", "succeeded"]
    assert reported[True]["line"] == reported[False]["line"]
    # Where two branches run next to each other, their events have no order of their own.
    assert {kind: sorted(one) for kind, one in reported[True].items()} == {
        kind: sorted(one) for kind, one in reported[False].items()
    }


@pytest.fixture
def direct(pool, tmp_path: Path) -> Orchestrator:
    (tmp_path / "line.yaml").write_text(LINE)
    return Orchestrator(pool, load_recipes(tmp_path, frozenset({"guardian", "judge"})), BUILDER, 3600)


def work(one: StepRequested, value: Any) -> tuple[Any, StepRequested | None]:
    """As an arm does it: the message it tells, and the one it sends on."""
    output = {"value": value}
    follows = chain.next_request(one, output)
    reported = None if follows is None else Chained(step=follows.step, attempt=follows.attempt)
    made = InlineOutput(at="inline", value=output)
    return done(
        one, model=partial(StepSucceeded, outcome="succeeded", output=made, chained=reported, builds_on=one.builds_on)
    ), follows


async def begun(direct: Orchestrator) -> StepRequested:
    (first,) = sends(*await direct.handle([submitted(new_task_id("l0"), kind="line", input={"text": "x"})]))
    assert first.continuation is not None
    assert [one.step for one in first.continuation.steps] == ["two", "three", "four", "verdict"]
    return first


async def test_ends_out_of_order_wait_in_their_rows_also_numbers_that_jsonb_would_change(direct, pool):
    first = await begun(direct)
    ends, one = [], first
    for value in (1e16, -0.0, [1.5e300, 2**63]):
        end, follows = work(one, value)
        assert follows is not None
        ends.append(end)
        one = follows
    for end in reversed(ends[1:]):
        assert sends(*await direct.handle([end, end])) == []
    kept = await rows(
        pool, "SELECT step, state, output, cardinality(early_results) AS early_results FROM steps ORDER BY step"
    )
    assert [tuple(row) for row in kept] == [
        ("one", "sent", None, None),
        ("three", "sent", None, 1),
        ("two", "sent", None, 1),
    ]
    publisher = FakePublisher(_only_the_first)
    assert await Reconciler(pool, BUILDER, publisher, -1).run(10) == 0
    assert publisher.republished == []


async def _only_the_first(in_flight: str) -> bool:
    return ".one." in in_flight


async def test_what_came_early_is_committed_when_its_turn_has_come(direct, pool):
    first = await begun(direct)
    ends, one = [], first
    for value in (1e16, -0.0, [1.5e300, 2**63]):
        end, follows = work(one, value)
        ends.append(end)
        one = follows or one
    for end in (ends[2], ends[1], ends[0]):
        assert sends(*await direct.handle([end])) == []
    found = await rows(pool, "SELECT step, state, attempt, early_results FROM steps ORDER BY sent_at, step")
    assert {tuple(row) for row in found} == {
        ("one", "succeeded", 1, None),
        ("two", "succeeded", 1, None),
        ("three", "succeeded", 1, None),
        ("four", "sent", 1, None),
    }
    assert [row["outcome"] for row in await rows(pool, "SELECT outcome FROM attempts")] == ["succeeded"] * 3


async def test_a_lost_step_is_sent_again_with_its_rest_at_a_higher_attempt(direct, pool):
    await begun(direct)
    publisher = FakePublisher()
    assert await Reconciler(pool, BUILDER, publisher, -1).run(10) == 1
    assert [(one.step, one.attempt, one.continuation.attempt) for one in publisher.republished] == [("one", 2, 2)]


async def test_a_result_of_another_lineage_is_dropped_once_and_its_step_sent_again(direct, pool):
    first = await begun(direct)
    ours, _ = work(first, "ours")
    _, follows = work(first, "others")
    assert follows is not None
    others, _ = work(follows, "of others")
    assert sends(*await direct.handle([others])) == []
    (again,) = sends(*await direct.handle([ours]))
    assert (again.step, again.attempt, again.input["value"], again.builds_on) == ("two", 2, {"from": "ours"}, None)
    # Had its publication been lost, the event that is met again sends it again; the other one does not.
    assert sends(*await direct.handle([ours])) == [again]
    assert sends(*await direct.handle([others])) == []
    found = await rows(pool, "SELECT step, outcome, error_code FROM attempts ORDER BY step")
    assert [tuple(row) for row in found] == [
        ("one", "succeeded", None),
        ("two", "dropped", "built_on_another_output"),
    ]


async def test_a_large_output_that_came_early_is_fetched_again_or_made_again(direct, pool):
    for there in (True, False):
        first = await begun(direct)
        one, follows = work(first, "x")
        assert follows is not None
        raw = orjson.dumps({"value": "x" * 100_000 + str(there)})
        digest = hashlib.sha256(raw).hexdigest()
        async with transaction(pool) as connection:
            await store_output(connection, "default", digest, raw)
        stored = StoredOutput(at="postgres", sha256=digest, bytes=len(raw))
        reported = partial(StepSucceeded, outcome="succeeded", output=stored, builds_on=follows.builds_on)
        await direct.handle([done(follows, model=reported)])
        if not there:
            await rows(pool, f"DELETE FROM outputs WHERE sha256 = '{digest}' RETURNING 1")
        found = sends(*await direct.handle([one]))
        # The next step's input is the orchestrator's to make: what is large is not chained.
        assert [(step.step, step.attempt) for step in found] == ([("three", 1)] if there else [])
        (row,) = await rows(pool, f"SELECT * FROM steps WHERE task = '{first.task}' AND step = 'two'")
        assert (row["state"], row["early_results"]) == ("succeeded" if there else "sent", None)


# What an arm does -------------------------------------------------------------------------------------------------

REST: dict[str, Any] = {
    "attempt": 3,
    "steps": [{"step": "next", "arm": "guardian", "timeout_s": 7, "input": {"of": {"$": "steps.check.output.x"}}}],
    "seen": {"task": {}, "steps": {}, "round": 0},
    "digests": {},
}
NEXT = KEYS.stream(topology().topics["arm.guardian"], "normal")


async def through_an_arm(redis_server, client, output: dict[str, Any], **changes: Any) -> StepDone:
    """What a judge tells of a step with a rest."""
    await client.xadd(KEYS.stream(judge()), fields(step(**{"continuation": REST, **changes})))

    async def work(_one: StepRequested) -> dict[str, Any]:
        return output

    async def kept(*_: Any) -> None:
        pass

    async def reported() -> bool:
        return await client.xlen(KEYS.done) == 1

    chain_next = chain_to(topology(), "l0")
    async with consuming(redis_server.url, client, judge(), work, keep=kept, chain_next=chain_next):
        await until(reported)
    ((_, entry),) = await client.xrange(KEYS.done)
    return read(StepDone, entry[b"body"])


async def test_an_arm_tells_its_end_and_sends_the_next_step_in_one_breath(redis_server, client):
    reported = (await through_an_arm(redis_server, client, {"x": [1]}, builds_on={"before": "0" * 64})).root
    assert isinstance(reported, StepSucceeded)
    assert reported.chained == Chained(step="next", attempt=3)
    assert reported.builds_on == {"before": "0" * 64}
    ((entry, message),) = await client.xrange(NEXT)
    follows = read(StepRequested, message[b"body"])
    assert (follows.step, follows.arm, follows.attempt, follows.timeout_s, follows.input, follows.continuation) == (
        "next", "guardian", 3, 7, {"of": [1]}, None,
    )  # fmt: skip
    assert follows.builds_on == {"check": chain.digest({"x": [1]})}
    assert message[b"id"].decode() == f"{follows.task}.1.next.0.3"
    assert await client.hget(KEYS.in_flight, f"{follows.task}.1.next.0") == f"{NEXT} {entry.decode()}".encode()


@pytest.mark.parametrize(
    ("output", "changes"),
    [
        ({"x": "x" * 70_000}, {}),
        ({"x": 1}, {"continuation": {**REST, "steps": [{**REST["steps"][0], "arm": "unheard-of"}]}}),
        ({"x": 1}, {"continuation": {**REST, "steps": [{**REST["steps"][0], "input": {"of": {"$": "sum(steps)"}}}]}}),
        (
            {"x": 1},
            {"continuation": {**REST, "seen": {"steps": {}, "task": [], "round": 0}, "steps": REST["steps"] * 2}},
        ),
    ],
    ids=["large", "no such arm", "not resolvable", "of another shape"],
)
async def test_what_an_arm_cannot_send_is_left_to_the_orchestrator(redis_server, client, output, changes):
    reported = (await through_an_arm(redis_server, client, output, **changes)).root
    assert isinstance(reported, StepSucceeded)
    assert reported.chained is None
    assert await client.xlen(NEXT) == 0


async def test_of_an_ended_run_nothing_is_chained(redis_server, client):
    one = step(continuation=REST)
    await client.zadd(KEYS.ended_runs, {f"{one.task}.1 default": 2**40})
    await client.xadd(KEYS.stream(judge()), fields(one))

    async def work(_one: StepRequested) -> dict[str, Any]:
        return {"x": 1}

    async def gone() -> bool:
        return await client.xlen(KEYS.stream(judge())) == 0

    async with consuming(redis_server.url, client, judge(), work, chain_next=chain_to(topology(), "l0")):
        await until(gone)
    assert (await client.xlen(NEXT), await client.xlen(KEYS.done)) == (0, 0)
