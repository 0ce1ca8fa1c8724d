"""What a worker says about a step's end is written without the model: each kind is read back by it here."""

import asyncio

import pytest

from octollm.contracts import StepDone, StepRequested, read, write
from octollm.errors import PermanentError, TransientError
from octollm.protocol.handoff import Entry
from octollm.protocol.operations import Publish
from octollm.resources import schemas_path, share_dir
from octollm.steps.runner import StepRunner
from octollm.topology import LaneKeys, load_topology

STEP = StepRequested(
    task="l0-01jd0000000000000000000001", run=2, step="check", round=1, attempt=3, tenant="acme", arm="judge",
    priority="low", failures=0, input={"a": 1}, timeout_s=5,
)  # fmt: skip
ENTRY = Entry(
    "{l0}:arm.judge:low", "7-0", 4,
    {
        b"type": b"step.requested.v1", b"id": b"l0-01jd0000000000000000000001.2.check.1.3", b"tenant": b"acme",
        b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", b"body": write(STEP),
    },
)  # fmt: skip


def reported(work):
    async def keep(tenant, sha256, raw):
        raise AssertionError("stored only when the entry is finished")

    topic = load_topology(share_dir() / "streams.yaml", schemas_path()).topics["arm.judge"]
    ending = asyncio.run(StepRunner(topic, LaneKeys("l0"), "w1", work, keep)(ENTRY))
    [message] = [one for one in ending.operations if isinstance(one, Publish) and one.stream == "{l0}:steps.done"]
    assert message.fields["type"] == "step.done.v1"
    assert message.fields["id"] == ENTRY.fields[b"id"]
    assert (message.fields["tenant"], message.fields["traceparent"]) == ("acme", ENTRY.fields[b"traceparent"])
    body = message.fields["body"]
    assert isinstance(body, bytes)
    done = read(StepDone, body).root
    about = (done.task, done.run, done.step, done.round, done.attempt, done.tenant, done.arm)
    assert about == (STEP.task, 2, "check", 1, 3, "acme", "judge")
    assert (done.worker, done.delivery) == ("w1", 4)
    return done


async def small(_step):
    return {"text": "é", "list": [1, 2.5, None]}


async def large(_step):
    return {"text": "x" * 70_000}


async def wrong(_step):
    raise PermanentError("no_such_file", "there is no such file")


async def busy(_step):
    raise TransientError("busy", "later", retry_after_s=2)


async def broken(_step):
    await asyncio.sleep(0)
    raise ConnectionResetError(104, "Connection reset by peer: http://user:secret@host/")


async def slow_peer(_step):
    async with asyncio.timeout(0):
        await asyncio.sleep(60)


async def wrong_input(_step):
    return {"n": int(float("inf"))}


def test_an_output_travels_in_the_message():
    done = reported(small)
    assert (done.outcome, done.output.at, done.output.value) == (
        "succeeded",
        "inline",
        {"text": "é", "list": [1, 2.5, None]},
    )


def test_a_large_output_travels_by_its_digest():
    done = reported(large)
    assert (done.outcome, done.output.at, done.output.bytes) == ("succeeded", "postgres", 70_011)


def test_a_failure_travels_with_its_code():
    done = reported(wrong)
    assert (done.outcome, done.error.code, done.error.message) == ("failed", "no_such_file", "there is no such file")


def test_what_the_same_input_always_causes_fails_at_once_with_its_cause():
    done = reported(wrong_input)
    assert (done.outcome, done.error.code) == ("failed", "internal")
    assert done.error.message == "the arm broke: OverflowError: cannot convert float infinity to integer"


def test_a_fault_that_may_pass_is_tried_again_and_its_cause_shows_no_password():
    done = reported(broken)
    assert done.error.message.startswith("the arm broke: ConnectionResetError: [Errno 104] Connection reset by peer")
    assert "secret" not in done.error.message


def test_a_time_limit_of_the_arm_is_reported_even_if_it_has_no_message():
    done = reported(slow_peer)
    assert (done.error.code, done.error.message) == ("timeout", "the arm ran into a time limit of its own: no message")


@pytest.mark.parametrize(("work", "code"), [(busy, "busy"), (broken, "internal")])
def test_a_retry_travels_with_its_delay(work, code: str):
    done = reported(work)
    assert (done.outcome, done.error.code, done.next_attempt, done.failures) == ("retrying", code, 4, 1)
    assert done.delay_ms >= 0
