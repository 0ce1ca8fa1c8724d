"""Both clients against a server that refuses, is busy, answers falsely, and breaks off in the middle."""

import math
import time
from datetime import datetime

import orjson
import pytest

from octollm.client import (
    ApiError,
    BusyError,
    ParameterError,
    RefusedError,
    TaskEvent,
    UnfinishedError,
    UnknownError,
    UnreachableError,
    WaitingStep,
)
from tests.helpers.scripted_server import (
    AT,
    DROP,
    TASK,
    WAITING,
    Answer,
    Asyncio,
    Blocking,
    Made,
    frame,
    problem,
    serving,
    status,
)

ACCEPTED = {
    "task": TASK, "tenant": "default", "state": "accepted", "durability": "redis", "duplicate": False,
    "status_url": f"/v1/tasks/{TASK}",
}  # fmt: skip


@pytest.fixture(params=[Blocking, Asyncio])
def made(request: pytest.FixtureRequest) -> Made:
    kind: Made = request.param
    return kind


FINISHED = {"event": "finished", "state": "succeeded"}


async def test_a_submission_that_breaks_off_is_sent_again_with_the_same_key_and_bytes(made):
    busy = problem(503, "busy", "too many tasks", **{"Retry-After": "0"})
    async with serving(DROP, busy, Answer.json(ACCEPTED, 202)) as server, made(server.url) as client:
        accepted = await client.call("submit", "keep it", kind="note", input={"text": "ä"}, priority="high")
    assert (accepted.task, accepted.duplicate) == (TASK, False)
    assert len(server.requests) == 3
    assert len({(one.body, one.headers["idempotency-key"]) for one in server.requests}) == 1
    body = orjson.loads(server.requests[0].body)
    assert body == {"goal": "keep it", "kind": "note", "input": {"text": "ä"}, "priority": "high"}


async def test_two_submissions_without_a_key_are_two_tasks(made):
    async with serving(Answer.json(ACCEPTED, 202)) as server, made(server.url) as client:
        await client.call("submit", "keep it")
        await client.call("submit", "keep it")
        await client.call("submit", "keep it", idempotency_key="mine", durability="stored")
    assert "octollm-durability" not in server.requests[0].headers
    assert server.requests[2].headers["octollm-durability"] == "stored"
    first, second, third = (one.headers["idempotency-key"] for one in server.requests)
    assert first != second
    assert third == "mine"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"goal": ""}, "goal"),
        ({"goal": "g", "kind": "No Kind"}, "kind"),
        ({"goal": "g", "input": {"a": object()}}, "input"),
        ({"goal": "g", "input": {"a": [{"b": math.nan}]}}, "input"),
        ({"goal": "g", "input": {"a": (1, -math.inf)}}, "input"),
        ({"goal": "g", "not_before": datetime(2026, 1, 1)}, "not_before"),  # noqa: DTZ001  it has no zone
        ({"goal": "g", "idempotency_key": "two words"}, "idempotency_key"),
        ({"goal": "g", "durability": "stored\r\nx: y"}, "durability"),
    ],
)
async def test_what_cannot_be_sent_is_refused_before_it_is_sent(made, arguments, field):
    async with serving(Answer.json(ACCEPTED, 202)) as server, made(server.url) as client:
        with pytest.raises(ParameterError) as caught:
            await client.call("submit", **arguments)
    assert caught.value.field == field
    assert server.requests == []


async def test_a_refusal_names_status_code_and_field_and_is_not_repeated(made):
    refusal = problem(422, "schema", "goal: too long", "goal")
    async with serving(refusal) as server, made(server.url) as client:
        with pytest.raises(RefusedError) as caught:
            await client.call("submit", "g")
    assert (caught.value.status, caught.value.code, caught.value.field) == (422, "schema", "goal")
    assert "goal: too long" in caught.value.message
    assert len(server.requests) == 1


async def test_who_stays_busy_is_given_up_on_with_what_it_asked_for(made):
    busy = problem(503, "busy", "too many tasks are waiting", **{"Retry-After": "7"})
    async with serving(busy) as server, made(server.url, retry_for_s=1) as client:
        with pytest.raises(BusyError, match="too many tasks") as caught:
            await client.call("submit", "g")
    assert caught.value.retry_after_s == 7
    assert len(server.requests) == 1  # waiting for so long is not worth it with this time-out


async def test_a_submission_above_the_quota_is_sent_again_after_the_time_that_was_named(made):
    refused = problem(429, "quota_exceeded", "the tenant has used up its quota of requests", **{"Retry-After": "1"})
    async with serving(refused, Answer.json(ACCEPTED, 202)) as server, made(server.url) as client:
        begun = time.monotonic()
        accepted = await client.call("submit", "g")
    assert accepted.task == TASK
    assert time.monotonic() - begun >= 1
    assert len({one.headers["idempotency-key"] for one in server.requests}) == 1
    assert len(server.requests) == 2


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://[half", "http://x y"])
async def test_nobody_there(made, url):
    async with made(url, retry_for_s=0) as client:
        with pytest.raises(UnreachableError, match="cannot be reached"):
            await client.call("status", TASK)


@pytest.mark.parametrize("name", ["status", "cancel", "provenance"])
async def test_an_unknown_task(made, name):
    async with serving(problem(404, "not_found", "there is nothing here")) as server, made(server.url) as client:
        with pytest.raises(UnknownError):
            await client.call(name, TASK)


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"5", b"{}", b'{"task": 5}', b"\xff"])
async def test_what_is_no_octollm_is_said_so(made, content):
    async with serving(Answer(200, content)) as server, made(server.url) as client:
        for name, arguments in (("status", (TASK,)), ("task_page", ()), ("submit", ("g",))):
            with pytest.raises(ApiError, match="really an OctoLLM reflex"):
                await client.call(name, *arguments)


async def test_a_fault_of_theirs_is_no_refusal_of_ours(made):
    async with serving(problem(500, "internal", "something is wrong")) as server, made(server.url) as client:
        with pytest.raises(ApiError, match="something is wrong") as caught:
            await client.call("status", TASK)
    assert type(caught.value) is ApiError


async def test_an_id_stays_one_segment_of_the_path(made):
    async with serving(problem(404, "not_found", "nothing")) as server, made(server.url) as client:
        for ident in ("../../metrics", "a/b?c#d", "..", "ä"):
            with pytest.raises(UnknownError):
                await client.call("status", ident)
    assert [one.target.count("/") for one in server.requests] == [3, 3, 3, 3]
    assert all(one.target.startswith("/v1/tasks/") for one in server.requests)


async def test_wait_sits_out_an_outage_once_the_task_was_seen(made):
    answers = (status("running"), DROP, problem(503, "redis", "unavailable"), status("running"), status("failed"))
    async with serving(*answers) as server, made(server.url, retry_for_s=0) as client:
        ended = await client.call("wait", TASK, 30)
    assert ended.state == "failed"
    assert len(server.requests) == 5


async def test_wait_asks_the_reflex_to_answer_at_the_end(made):
    async with serving(status("running"), status("succeeded")) as server, made(server.url) as client:
        assert (await client.call("wait", TASK, 10)).state == "succeeded"
    targets = [request.target for request in server.requests]
    assert targets[0] == f"/v1/tasks/{TASK}"
    assert targets[1] in {f"/v1/tasks/{TASK}?wait=9s", f"/v1/tasks/{TASK}?wait=10s"}


async def test_many_tasks_are_one_request_and_each_has_its_result(made):
    refused = {"type": "urn:octollm:problem:schema", "status": 422, "title": "x", "detail": "too long", "field": "goal"}
    busy = {"type": "urn:octollm:problem:overloaded", "status": 503, "title": "x", "detail": "busy"}
    accepted = {**ACCEPTED, "status": 202}
    first, second = ({"items": items} for items in ([accepted, refused, busy], [accepted]))
    tasks = [{"goal": "a", "idempotency_key": "k"}, {"goal": "b"}, {"goal": "c", "input": {"text": "ä"}}]
    async with serving(Answer.json(first), Answer.json(second)) as server, made(server.url) as client:
        results = await client.call("submit_many", tasks)
    assert [type(one).__name__ for one in results] == ["Accepted", "RefusedError", "Accepted"]
    assert (results[1].code, results[1].field) == ("schema", "goal")
    sent, again = ([orjson.loads(line) for line in one.body.split(b"\n")] for one in server.requests)
    assert [one["goal"] for one in sent] == ["a", "b", "c"]
    assert sent[0]["idempotency_key"] == "k"
    assert len({one["idempotency_key"] for one in sent}) == 3
    assert again == [sent[2]]
    assert {one.headers["content-type"] for one in server.requests} == {"application/x-ndjson"}


async def test_more_tasks_than_fit_into_a_request_are_several_requests(made):
    full = Answer.json({"items": [{**ACCEPTED, "status": 202}] * 1000})
    rest = Answer.json({"items": [{**ACCEPTED, "status": 202}]})
    async with serving(full, rest) as server, made(server.url) as client:
        assert len(await client.call("submit_many", [{"goal": "x"}] * 1001)) == 1001
        with pytest.raises(ParameterError):
            await client.call("submit_many", [{"goal": "x", "input": {"a": math.nan}}])
        assert await client.call("submit_many", []) == []
    assert [len(one.body.split(b"\n")) for one in server.requests] == [1000, 1]


async def test_wait_ends_in_time(made):
    async with serving(status("running")) as server, made(server.url) as client:
        with pytest.raises(UnfinishedError, match="still running"):
            await client.call("wait", TASK, 0.2)


async def test_cancel_says_why(made):
    answer = Answer.json({"task": TASK, "state": "running"}, 202)
    async with serving(answer) as server, made(server.url) as client:
        found = await client.call("cancel", TASK, "no longer needed")
    assert found.state == "running"
    (request,) = server.requests
    assert (request.method, request.target) == ("DELETE", f"/v1/tasks/{TASK}?detail=no+longer+needed")


async def test_events_go_on_where_the_connection_broke_and_come_once(made):
    answers = (
        Answer.stream(": hello\n\n", frame(1, "accepted"), frame(2, "planned"), "id: 1-3\nevent: fin", cut=True),
        DROP,
        problem(503, "redis", "unavailable"),
        Answer.stream(frame(2, "planned"), WAITING, frame(3, "step_sent", step="run", arm="executor")),
        Answer.stream(frame(4, "finished", state="succeeded")),
    )
    async with serving(*answers) as server, made(server.url) as client:
        events = await client.collect("events", TASK)
    assert [(event.seq, event.event) for event in events] == [
        (1, "accepted"), (2, "planned"), (3, "step_sent"), (4, "finished"),
    ]  # fmt: skip
    assert [one.headers.get("last-event-id") for one in server.requests] == [None, "1-2", "1-2", "1-2", "1-3"]


async def test_watch_also_tells_what_waits(made):
    stream = Answer.stream(frame(1, "accepted"), WAITING, frame(2, "finished", state="cancelled"))
    async with serving(stream) as server, made(server.url) as client:
        found = await client.collect("watch", TASK)
    assert [type(one) for one in found] == [TaskEvent, WaitingStep, TaskEvent]
    assert (found[1].arm, found[1].for_s) == ("executor", 12)


async def test_an_earlier_run_in_the_middle_ends_nothing(made):
    stream = Answer.stream(
        frame(1, "accepted"), frame(2, "finished", state="failed"),
        frame(1, "planned", run=2), frame(2, "finished", run=2, state="succeeded"),
    )  # fmt: skip
    async with serving(stream) as server, made(server.url) as client:
        events = await client.collect("events", TASK)
    assert [(event.run, event.seq) for event in events] == [(1, 1), (1, 2), (2, 1), (2, 2)]


async def test_nothing_more_is_the_end(made):
    async with serving(Answer(204)) as server, made(server.url) as client:
        assert await client.collect("events", TASK, "1-9") == []
    assert [one.headers["last-event-id"] for one in server.requests] == ["1-9"]


async def test_an_event_that_only_a_newer_server_knows_is_passed_over(made):
    stream = Answer.stream("id: 1-1\nevent: danced\ndata: {}\n\n", frame(2, "finished", state="succeeded"))
    async with serving(stream) as server, made(server.url) as client:
        assert [event.event for event in await client.collect("events", TASK)] == ["finished"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (problem(404, "not_found", "nothing"), UnknownError),
        (problem(422, "parameter", "Last-Event-ID", "Last-Event-ID"), RefusedError),
        (Answer.json({}), ApiError),
        (Answer.stream("event: finished\ndata: {}\n\n"), ApiError),
        (Answer.stream(frame(1, "accepted"), cut=True), UnreachableError),
        (Answer.stream(": nothing\n\n"), UnreachableError),
    ],
)
async def test_streams_that_lead_nowhere(made, answer, error):
    # Every sign of life renews the time-out; after the last one no answer comes.
    async with serving(answer, DROP) as server, made(server.url, retry_for_s=0.3) as client:
        with pytest.raises(error):
            await client.collect("events", TASK)


@pytest.mark.parametrize("after", ["", "x", "1", "1-1\n", "\r\nevil: 1"])
async def test_a_place_that_is_none_is_refused_before_it_is_sent(made, after):
    async with serving(Answer(204)) as server, made(server.url) as client:
        with pytest.raises(ParameterError):
            await client.collect("events", TASK, after)
    assert server.requests == []


async def test_lists_ask_for_a_page_at_a_time(made):
    def page(number: int, following: str | None) -> Answer:
        item = {
            "task": f"t{number}", "tenant": "default", "state": "running", "source": "http", "priority": "low",
            "run": 1, "created_at": AT, "updated_at": AT, "a_newer_field": 1,
        }  # fmt: skip
        return Answer.json({"items": [item], "next": following})

    async with serving(page(1, "c1"), page(2, "c2"), page(3, None)) as server, made(server.url) as client:
        found = await client.collect("tasks", state="running", text="a b&c")
    assert [item.task for item in found] == ["t1", "t2", "t3"]
    assert [one.target for one in server.requests] == [
        "/v1/tasks?state=running&text=a+b%26c",
        "/v1/tasks?state=running&text=a+b%26c&cursor=c1",
        "/v1/tasks?state=running&text=a+b%26c&cursor=c2",
    ]
