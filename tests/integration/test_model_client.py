"""The model with a real SDK, a real socket and a real journal: what is asked is asked once, and paid for once."""

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import structlog
from structlog.testing import capture_logs

from octollm.arms.base import ArmContext
from octollm.arms.prompting import ask_model
from octollm.contracts import StepRequested
from octollm.contracts.ids import new_task_id
from octollm.errors import NeedsPersonError, PermanentError, StoreUnavailableError, TransientError
from octollm.models.choose import choose
from octollm.models.client import JournalledModelClient
from octollm.models.journal import Journal
from octollm.ports import Question
from octollm.steps.timeout import run_with_timeout
from tests.helpers.mock_models import Break, MockModels, Refuse, Say
from tests.helpers.orchestrators import rows, submitted

SCHEMA = {"type": "object", "additionalProperties": False, "required": ["n"], "properties": {"n": {"type": "integer"}}}
ASKED = Question("plan", "You count.", "How many?", SCHEMA)
KEY = "sk-test-" + "q" * 24


@pytest.fixture
async def models(monkeypatch):
    async with MockModels() as server:
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        yield server


@pytest.fixture
async def provider(models):
    made = choose("anthropic", "", 512, 30, {"ANTHROPIC_API_KEY": KEY})
    assert made is not None
    yield made
    await made.close()


@pytest.fixture
async def step(orchestrator):
    """A step of a task that is really there."""
    task = new_task_id("l0")
    await orchestrator.handle([submitted(task)])
    return a_step(task)


def a_step(task: str, **fields: Any) -> StepRequested:
    named = {"run": 1, "step": "think", "round": 0, "attempt": 1, "tenant": "default", "arm": "planner"}
    rest = {"priority": "normal", "failures": 0, "input": {}, "timeout_s": 30}
    return StepRequested(task=task, **{**named, **rest, **fields})


def model(pool, provider, timeout_s=30.0, delivery=1) -> JournalledModelClient:
    async def journal() -> Journal:
        return Journal(pool)

    return JournalledModelClient(journal, provider, timeout_s, lambda: delivery)


async def calls(pool) -> list[asyncpg.Record]:
    return await rows(pool, "SELECT * FROM model_calls ORDER BY purpose, call, repair")


async def test_an_answer_is_journalled_with_what_it_cost(pool, provider, models, step):
    models.script(Say('{"n": 3}', input=1000, output=200))
    reply = await model(pool, provider, delivery=2).ask(step, ASKED)
    assert (reply.value, reply.provider, reply.model) == ({"n": 3}, "anthropic", "claude-sonnet-5-5")
    assert (reply.input_tokens, reply.output_tokens, reply.journalled) == (1000, 200, False)
    (row,) = await calls(pool)
    assert row["answer"] == {"text": '{"n": 3}', "stop": "end"}
    # 1,000 tokens at 2 dollars a million and 200 at 10.
    assert row["cost_usd"] == Decimal("0.004")
    about = {name: row[name] for name in ("task", "tenant", "arm", "step", "attempt", "delivery", "surplus_calls")}
    expected = {"task": step.task, "tenant": "default", "arm": "planner", "step": "think", "attempt": 1, "delivery": 2}
    assert about == {**expected, "surplus_calls": 0}
    assert row["asked_at"] <= row["answered_at"]


async def test_a_technical_retry_reads_the_journal_and_pays_nothing(pool, provider, models, step):
    models.script(Say('{"n": 3}'))
    first = await model(pool, provider).ask(step, ASKED)
    # A crash after the answer: another process, another attempt, the same question. Even without any model now.
    again = step.model_copy(update={"attempt": 2, "failures": 1})
    for other in (provider, None):
        second = await model(pool, other).ask(again, ASKED)
        assert second.value == first.value
        assert second.journalled
    assert len(models.requests) == 1
    (row,) = await calls(pool)
    assert row["attempt"] == 1


async def test_asking_something_else_or_in_another_round_is_another_call(pool, provider, models, step):
    models.script(*(Say(f'{{"n": {number}}}') for number in range(5)))
    asking = model(pool, provider)
    others = [
        (step, ASKED),
        (step, Question("plan", "You count.", "How many now?", SCHEMA)),
        (step, Question("plan", "You count.", "How many?", SCHEMA, call=2)),
        (step, Question("check", "You count.", "How many?", SCHEMA)),
        (step.model_copy(update={"round": 1}), ASKED),
    ]
    for number, (of, question) in enumerate(others):
        assert (await asking.ask(of, question)).value == {"n": number}
    assert len(await calls(pool)) == 5


async def test_an_answer_that_breaks_its_schema_is_repaired_and_each_repair_is_journalled(pool, provider, models, step):
    models.script(Say("three"), Say('{"n": "three"}'), Say('{"n": 3}', input=50, output=5))
    reply = await model(pool, provider).ask(step, ASKED)
    assert reply.value == {"n": 3}
    assert (reply.input_tokens, reply.output_tokens) == (11 + 11 + 50, 7 + 7 + 5)
    assert [(row["call"], row["repair"]) for row in await calls(pool)] == [(1, 0), (1, 1), (1, 2)]
    last = models.requests[2].body["messages"]
    assert [one["role"] for one in last] == ["user", "assistant", "user", "assistant", "user"]
    assert "- n:" in last[4]["content"]
    # A retry goes the same way through the journal.
    assert (await model(pool, None).ask(step, ASKED)).journalled


async def test_a_crash_between_two_repairs_pays_only_for_what_is_missing(pool, provider, models, step):
    models.script(Say("three"), Refuse(529), Say('{"n": 3}'))
    with pytest.raises(TransientError):
        await model(pool, provider).ask(step, ASKED)
    assert (await model(pool, provider).ask(step, ASKED)).value == {"n": 3}
    assert len(models.requests) == 3


async def always_faulty(_value):
    return ["no good"]


async def below_three(value):
    return [] if value["n"] == 3 else ["too few"]


async def test_the_schema_and_the_arms_rules_share_one_budget(pool, provider, models, step):
    models.script(Say("no"), Say('{"n": 3}'), Say('{"n": 3}'))
    context = ArmContext(structlog.get_logger(), "w", Path(), model=model(pool, provider))
    with pytest.raises(PermanentError) as caught:
        await ask_model(context, step, ASKED, always_faulty, "counting")
    assert caught.value.code == "model_answer_unusable"
    assert len(models.requests) == 3


async def test_an_answer_that_keeps_its_schema_in_the_last_repair_is_accepted(pool, provider, models, step):
    models.script(Say("no"), Say('{"n": 1}'), Say('{"n": 3}'))
    context = ArmContext(structlog.get_logger(), "w", Path(), model=model(pool, provider))
    accepted = await ask_model(context, step, ASKED, below_three, "counting")
    assert accepted.value == {"n": 3}


async def test_after_two_repairs_it_is_over(pool, provider, models, step):
    models.script(*(Say("no") for _ in range(3)))
    with pytest.raises(PermanentError) as caught:
        await model(pool, provider).ask(step, ASKED)
    assert caught.value.code == "model_answer_invalid"
    assert len(await calls(pool)) == 3


@pytest.mark.parametrize(
    ("stop", "code"),
    [
        ("max_tokens", "model_output_too_long"),
        ("refusal", "model_refused"),
        ("context", "model_input_too_long"),
        ("pause", "model_stopped"),
    ],
)
async def test_an_answer_that_is_none_is_paid_for_once_and_never_used(pool, provider, models, step, stop, code):
    models.script(Say('{"n": 3}', stop=stop))
    for _ in range(2):
        with pytest.raises(PermanentError) as caught:
            await model(pool, provider).ask(step, ASKED)
        assert caught.value.code == code
    (row,) = await calls(pool)
    assert row["output_tokens"] == 7


async def test_without_a_model_it_says_what_to_do(pool, step):
    with pytest.raises(PermanentError, match="ANTHROPIC_API_KEY") as caught:
        await model(pool, None).ask(step, ASKED)
    assert caught.value.code == "needs_model"


async def test_a_call_that_takes_too_long_is_cut_off_and_leaves_no_socket(pool, provider, models, step):
    models.script(Break("stall"))
    with pytest.raises(TransientError) as caught:
        await model(pool, provider, timeout_s=0.3).ask(step, ASKED)
    assert caught.value.code == "model_timeout"
    async with asyncio.timeout(60):
        await models.hung_up.wait()
    assert await calls(pool) == []


async def test_of_two_workers_on_one_step_the_second_goes_on_with_the_first_ones_answer(pool, provider, models, step):
    """A worker that lost its lease and the step's new worker ask at the same time: both are paid, one counts."""
    models.script(*(Say(f'{{"n": {number}}}', input=1000, output=0, after=2) for number in (1, 2)))
    replies = await asyncio.gather(*(model(pool, provider, delivery=number).ask(step, ASKED) for number in (1, 2)))
    (row,) = await calls(pool)
    assert {reply.text for reply in replies} == {row["answer"]["text"]}
    assert (row["surplus_calls"], row["surplus_cost_usd"]) == (1, Decimal("0.002"))


async def test_an_answer_whose_write_is_repeated_is_not_billed_twice(pool, provider, models, step, monkeypatch):
    models.script(Say('{"n": 3}'))
    keep = Journal.keep
    tries = 0

    async def lost_reply(self, *args):
        nonlocal tries
        tries += 1
        kept = await keep(self, *args)
        if tries == 1:
            raise StoreUnavailableError("Postgres: the connection was lost after COMMIT was sent")
        return kept

    monkeypatch.setattr(Journal, "keep", lost_reply)
    client = model(pool, provider)
    with pytest.raises(StoreUnavailableError):  # the consumer calls the arm again
        await client.ask(step, ASKED)
    assert (await client.ask(step, ASKED)).value == {"n": 3}
    (row,) = await calls(pool)
    assert (tries, row["surplus_calls"], len(models.requests)) == (2, 0, 1)


async def test_a_step_that_ends_while_postgres_hangs_does_not_pay_again(pool, provider, models, step, monkeypatch):
    """The time limit passes between the model's answer and the end of its write: the write is not part of the limit."""
    models.script(Say('{"n": 3}'))
    keep, hangs = Journal.keep, True

    async def hanging(self, *args):
        if hangs:
            await asyncio.Event().wait()
        return await keep(self, *args)

    monkeypatch.setattr(Journal, "keep", hanging)
    client = model(pool, provider)
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            await run_with_timeout(2, client.ask(step, ASKED))
    hangs = False
    assert (await run_with_timeout(30, client.ask(step, ASKED))).value == {"n": 3}
    (row,) = await calls(pool)
    assert (row["surplus_calls"], len(models.requests)) == (0, 1)


async def test_text_that_postgres_would_not_take_is_kept_readable(pool, provider, models, step):
    models.script(Say("a\0b \ud83d"))
    reply = await model(pool, provider).ask(step, Question("chat", "x", "y"))
    assert reply.text == "a\ufffdb ?"
    assert reply.value is None


async def test_neither_logs_nor_the_journal_hold_the_key_or_the_prompt(pool, provider, models, step):
    models.script(Say('{"n": 3}'), Refuse(401, "authentication_error", KEY))
    with capture_logs() as logs:
        await model(pool, provider).ask(step, ASKED)
        with pytest.raises(NeedsPersonError):
            await model(pool, provider).ask(step, Question("plan", "s", "another", SCHEMA))
    assert [line["event"] for line in logs] == ["a model answered"]
    reported = repr(logs) + repr(await calls(pool))
    assert KEY not in reported
    assert "How many?" not in reported
