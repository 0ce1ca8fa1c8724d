"""Callbacks on a real Postgres with real receivers: signed, repeated, given up, disabled."""

import asyncio
from typing import Any

import pytest

from octollm.callbacks.http import HttpSender
from octollm.callbacks.outcomes import Result
from octollm.callbacks.sender import Limits
from octollm.callbacks.target import Target
from tests.helpers.callbacks import (
    OLD_SECRET,
    SECRET,
    attempted,
    ended,
    in_state,
    is_signed,
    make_due,
    message,
    orchestrator_with,
    receiver,
    rules,
    sending,
    stored,
)
from tests.helpers.orchestrators import (
    rows,
)
from tests.helpers.scripted_server import DROP, Answer, serving
from tests.helpers.waiting import until

OK = Answer.json({"ok": True})
NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def secrets(monkeypatch) -> None:
    monkeypatch.setenv("TEST_CALLBACK_SECRET", SECRET)
    monkeypatch.setenv("TEST_OLD_SECRET", OLD_SECRET)


async def test_a_callback_is_signed_and_sent_once(pool, book):
    async with serving(OK) as server:
        known = rules(f"{server.url}/hook?token=1")
        task = await ended(orchestrator_with(pool, book, known), metadata={"order": "7"})
        async with sending(pool, known), sending(pool, known):
            (row,) = await in_state(pool, "delivered")
        (request,) = server.requests
    assert (request.method, request.target) == ("POST", "/hook?token=1")
    assert request.headers["host"] == server.url.removeprefix("http://")
    assert request.headers["content-type"] == "application/json"
    assert request.headers["webhook-id"] == f"{task}.1"
    assert is_signed(request, SECRET)
    assert is_signed(request, OLD_SECRET)
    assert not is_signed(request, SECRET[:-4] + "AAAA")
    body = message(request)
    assert (body["type"], body["data"]["task"], body["data"]["state"]) == ("task.finished.v1", task, "cancelled")
    assert (row["attempts"], row["outcome"], row["status"], row["response"]) == (1, "delivered", 200, '{"ok":true}')


async def test_two_senders_send_each_callback_once(pool, book):
    async with serving(OK) as server:
        known = rules(server.url)
        making = orchestrator_with(pool, book, known)
        tasks = {await ended(making) for _ in range(20)}
        async with sending(pool, known), sending(pool, known):
            await in_state(pool, "delivered", 20)
        assert sorted(request.headers["webhook-id"] for request in server.requests) == sorted(f"{t}.1" for t in tasks)


@pytest.mark.parametrize(
    ("answer", "outcome", "status"),
    [
        (Answer(500, b"broken"), "refused", 500),
        (Answer(302, headers={"Location": "http://169.254.169.254/"}), "refused", 302),
        (Answer(404), "refused", 404),
        (DROP, "unreachable", None),
    ],
)
async def test_a_failed_attempt_is_repeated_with_the_same_id(pool, book, answer, outcome, status):
    async with serving(answer, OK) as server:
        known = rules(server.url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            row = await attempted(pool)
            assert (row["state"], row["outcome"], row["status"]) == ("pending", outcome, status)
            (waits,) = await rows(pool, "SELECT next_attempt_at - attempted_at AS pause FROM callbacks")
            assert 5 <= waits["pause"].total_seconds() <= 6
            await make_due(pool)
            await in_state(pool, "delivered")
    first, second = server.requests
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert is_signed(second, SECRET)


async def test_a_refused_connection_is_repeated(pool, book):
    known = rules(NOWHERE)
    await ended(orchestrator_with(pool, book, known))
    async with sending(pool, known):
        row = await attempted(pool)
    assert (row["state"], row["outcome"]) == ("pending", "unreachable")


async def test_a_receiver_that_does_not_answer_in_time_is_given_up(pool, book):
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with receiver(silent) as url:
        known = rules(url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known, timeout_s=0.3):
            row = await attempted(pool)
    assert (row["state"], row["outcome"]) == ("pending", "timeout")


async def test_a_receiver_that_answers_byte_by_byte_is_given_up(pool, book):
    async def dripping(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-More: ")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    async with receiver(dripping) as url:
        known = rules(url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known, timeout_s=0.5):
            row = await attempted(pool)
    assert (row["state"], row["outcome"]) == ("pending", "timeout")


@pytest.mark.parametrize("header", ["3600", "Wed, 01 Jan 2200 00:00:00 GMT"])
async def test_the_receivers_pause_is_respected(pool, book, header):
    async with serving(Answer(503, headers={"Retry-After": header})) as server:
        known = rules(server.url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            await attempted(pool)
            (waits,) = await rows(pool, "SELECT next_attempt_at - attempted_at AS pause FROM callbacks")
    assert waits["pause"].total_seconds() in {3600, 86_400}


async def test_after_the_last_attempt_the_callback_has_failed(pool, book):
    async with serving(Answer(500)) as server:
        known = rules(server.url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known, delays_s=[0, 0, 0]):
            (row,) = await in_state(pool, "failed")
        assert (row["attempts"], len(server.requests)) == (4, 4)


async def test_a_receiver_that_is_gone_is_disabled_and_its_callbacks_wait(pool, book):
    async with serving(Answer(410), OK) as server:
        known = rules(server.url)
        making = orchestrator_with(pool, book, known)
        await ended(making)
        async with sending(pool, known) as sender:
            (row,) = await in_state(pool, "failed")
            assert row["outcome"] == "gone"
            (endpoint,) = await rows(pool, "SELECT * FROM callback_endpoints")
            assert endpoint["disabled_at"] is not None
            await ended(making)
            # Absence is proved by what comes after it: another endpoint's callback, which is younger.
            async with serving(OK) as other:
                both = rules(server.url, other.url)
                await ended(orchestrator_with(pool, book, both), goal="other")
                async with sending(pool, both):
                    await in_state(pool, "delivered")
            assert len(server.requests) == 1
            await sender.measure()
            await rows(pool, "DELETE FROM callback_endpoints RETURNING 1")
            await in_state(pool, "delivered", 3)


async def test_an_endpoint_is_disabled_after_five_days_of_failures_only(pool, book):
    async with serving(Answer(500), Answer(500), OK, Answer(500)) as server:
        known = rules(server.url)
        making = orchestrator_with(pool, book, known)
        await ended(making)
        async with sending(pool, known):
            await attempted(pool)
            await rows(pool, "UPDATE callback_endpoints SET failing_since = now() - interval '4 days' RETURNING 1")
            await make_due(pool)
            await attempted(pool, 2)
            (endpoint,) = await rows(pool, "SELECT * FROM callback_endpoints")
            assert (endpoint["failures"], endpoint["disabled_at"]) == (2, None)
            await make_due(pool)
            await in_state(pool, "delivered")
            assert await rows(pool, "SELECT * FROM callback_endpoints") == []
            await rows(pool, "DELETE FROM callbacks RETURNING 1")
            await ended(making)
            await attempted(pool)
            await rows(pool, "UPDATE callback_endpoints SET failing_since = now() - interval '6 days' RETURNING 1")
            await make_due(pool)
            await attempted(pool, 2)
            (endpoint,) = await rows(pool, "SELECT * FROM callback_endpoints")
            assert endpoint["disabled_at"] is not None


async def test_a_slow_receiver_does_not_hold_up_a_fast_one(pool, book):
    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with receiver(silent) as slow, serving(OK) as fast:
        known = rules(slow, fast.url)
        # All of the slow one's are older.
        for name in ("e0", "e1"):
            one = known.model_copy(update={"endpoints": {name: known.endpoints[name]}})
            for _ in range(10):
                await ended(orchestrator_with(pool, book, one))
        async with sending(pool, known, limits=Limits(4, 4, 2)):
            found = await in_state(pool, "delivered", 10)
            assert {row["endpoint"] for row in found} == {"e1"}
            (busy,) = await rows(
                pool, "SELECT count(*) AS n FROM callbacks WHERE endpoint = 'e0' AND attempts > 0"
            )  # fmt: skip
            assert busy["n"] == 2


async def test_a_fault_within_one_attempt_affects_no_other(pool, book, monkeypatch):
    send = HttpSender.post

    async def broken(self: HttpSender, target: Target, *arguments: Any) -> Result:
        if target.url.target == "/broken":
            raise RuntimeError("for the test")
        return await send(self, target, *arguments)

    monkeypatch.setattr(HttpSender, "post", broken)
    async with serving(OK) as server:
        known = rules(f"{server.url}/broken", f"{server.url}/fine")
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            (fine,) = await in_state(pool, "delivered")
            (row,) = await until(
                lambda: rows(pool, "SELECT * FROM callbacks WHERE outcome = 'internal'"), "the recorded fault"
            )  # fmt: skip
    assert (fine["endpoint"], row["endpoint"], row["state"]) == ("e1", "e0", "pending")


async def test_an_attempt_whose_process_died_is_repeated_with_the_same_id(pool, book):
    held = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        held.set()
        await reader.read()

    async with receiver(silent) as url:
        known = rules(url)
        task = await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            await held.wait()
    (row,) = await stored(pool)
    assert (row["state"], row["attempts"], row["outcome"]) == ("pending", 1, None)
    async with serving(OK) as server:
        await make_due(pool)  # the lease expires
        async with sending(pool, rules(server.url)):
            (row,) = await in_state(pool, "delivered")
        (request,) = server.requests
    assert (row["attempts"], request.headers["webhook-id"]) == (2, f"{task}.1")


async def test_a_late_result_of_a_lost_attempt_changes_nothing(pool, book):
    release = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await release.wait()
        writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with receiver(slow) as url, serving(OK) as server:
        known = rules(url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known) as first:
            await until(lambda: _begun(pool), "the first attempt")
            await make_due(pool)
            async with sending(pool, rules(server.url)):
                await in_state(pool, "delivered")
            release.set()
            await first.drain(10)
    (row,) = await stored(pool)
    assert (row["state"], row["status"]) == ("delivered", 200)


async def _begun(pool) -> bool:
    return bool(await rows(pool, "SELECT 1 FROM callbacks WHERE attempts = 1"))


async def test_a_callback_without_a_secret_waits_and_says_why(pool, book, monkeypatch):
    monkeypatch.delenv("TEST_CALLBACK_SECRET")
    monkeypatch.delenv("TEST_OLD_SECRET")
    async with serving(OK) as server:
        known = rules(server.url)
        await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known):
            row = await attempted(pool)
            assert (row["state"], row["outcome"]) == ("pending", "not_configured")
            assert "TEST_CALLBACK_SECRET" in row["detail"]
            assert server.requests == []
            monkeypatch.setenv("TEST_CALLBACK_SECRET", SECRET)
            await make_due(pool)
            await in_state(pool, "delivered")


async def test_an_endpoint_that_was_removed_is_reported(pool, book):
    await ended(orchestrator_with(pool, book, rules(NOWHERE)))
    async with sending(pool, rules()):
        row = await attempted(pool)
    assert (row["outcome"], row["detail"]) == ("not_configured", "callbacks.yaml has no endpoint e0 of this tenant")


async def test_a_url_of_a_submission_is_signed_with_its_tenants_secret(pool, book):
    async with serving(OK) as server:
        known = rules(server.url).model_copy(update={"endpoints": {}})
        url = f"{server.url}/path?token=1"
        await ended(orchestrator_with(pool, book, known), callback={"url": url})
        async with sending(pool, known):
            (row,) = await in_state(pool, "delivered")
        (request,) = server.requests
    assert (request.target, is_signed(request, SECRET)) == ("/path?token=1", True)
    assert (row["endpoint"], row["url"]) == (f"{server.url}/path", url)


async def test_a_host_that_the_tenant_may_not_name_is_forbidden(pool, book):
    async with serving(OK) as server:
        known = rules(server.url)
        tenant = known.tenants["default"].model_copy(update={"hosts": ("hooks.example.com",)})
        known = known.model_copy(update={"endpoints": {}, "tenants": {"default": tenant}})
        await ended(orchestrator_with(pool, book, known), callback={"url": server.url})
        async with sending(pool, known):
            (row,) = await in_state(pool, "failed")
        assert (row["outcome"], server.requests) == ("forbidden", [])


async def test_a_url_of_a_tenant_without_secrets_waits(pool, book):
    async with serving(OK) as server:
        known = rules(server.url).model_copy(update={"endpoints": {}, "tenants": {}})
        await ended(orchestrator_with(pool, book, known), callback={"url": server.url})
        async with sending(pool, known):
            row = await attempted(pool)
        assert (row["state"], row["outcome"], server.requests) == ("pending", "not_configured", [])
    assert "tenants.default.secrets" in row["detail"]
