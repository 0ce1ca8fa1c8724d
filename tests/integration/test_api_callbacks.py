"""Callbacks over the API, the client and the command line: seen by their tenant, sent again, enabled again."""

import asyncio
import json
import subprocess

import pytest

from octollm.client import AsyncClient, UnknownError
from octollm.client.callbacks import verify
from tests.helpers.callbacks import SECRET, ended, in_state, orchestrator_with, rules, sending, stored
from tests.helpers.orchestrators import rows
from tests.helpers.programs import octollm
from tests.helpers.scripted_server import Answer, serving
from tests.helpers.stored_tasks import get, walk

OK = Answer.json({"ok": True})
NOWHERE = "http://127.0.0.1:9/"


@pytest.fixture(autouse=True)
def secrets(monkeypatch) -> None:
    monkeypatch.setenv("TEST_CALLBACK_SECRET", SECRET)


async def test_callbacks_are_listed_newest_first_and_narrowed(api, pool, book):
    making = orchestrator_with(pool, book, rules(NOWHERE))
    first = await ended(making)
    second = await ended(making, callback={"url": "https://hooks.example.com/x?token=1"})
    await rows(pool, f"UPDATE callbacks SET state = 'failed' WHERE task = '{first}' RETURNING 1")
    items = await walk(api, "/v1/callbacks", limit=1)
    assert [item["task"] for item in items] == [second, second, first]
    assert {item["endpoint"] for item in items} == {"e0", "https://hooks.example.com/x"}
    assert not any("body" in item or "url" in item for item in items)

    async def listed(**filters: str) -> list[str]:
        return [item["task"] for item in (await get(api, "/v1/callbacks", **filters))["items"]]

    assert await listed(state="failed") == [first]
    assert await listed(task=first) == [first]
    assert await listed(endpoint="e0", state="pending") == [second]
    assert (await api.get("/v1/callbacks", params={"state": "sent"})).status_code == 422


async def test_one_callback_shows_what_is_sent(api, pool, book):
    await ended(orchestrator_with(pool, book, rules()), callback={"url": "https://hooks.example.com/x?token=1"})
    (row,) = await stored(pool)
    found = await get(api, f"/v1/callbacks/{row['id']}")
    assert (found["url"], found["body"]["type"]) == ("https://hooks.example.com/x?token=1", "task.finished.v1")
    assert found["next_attempt_at"]
    of_task = await get(api, f"/v1/tasks/{row['task']}/provenance")
    assert [(one["id"], one["state"]) for one in of_task["callbacks"]] == [(row["id"], "pending")]
    for number in ("0", "x", "9" * 19, str(row["id"] + 1)):
        assert (await api.get(f"/v1/callbacks/{number}")).status_code == 404


async def test_a_callback_that_has_failed_is_sent_again_with_a_new_schedule(api, pool, book):
    async with serving(Answer(500), Answer(500), Answer(500), OK) as server:
        known = rules(server.url)
        task = await ended(orchestrator_with(pool, book, known))
        async with sending(pool, known, delays_s=[0]), AsyncClient(str(api.base_url)) as client:
            (row,) = await in_state(pool, "failed")
            assert (row["attempts"], row["failures"]) == (2, 2)
            answer = await client.redeliver(row["id"])
            assert (answer.id, answer.task, answer.accepted) == (row["id"], task, True)
            (row,) = await in_state(pool, "delivered")
            assert row["attempts"] == 4
            with pytest.raises(UnknownError, match="there is no callback 999"):
                await client.redeliver(999)
    assert len({request.headers["webhook-id"] for request in server.requests}) == 1
    assert verify(server.requests[-1].headers, server.requests[-1].body, [SECRET]).data["task"] == task


async def test_a_disabled_endpoint_is_seen_and_enabled(api, pool, book):
    async with serving(Answer(410), OK) as server:
        known = rules(server.url)
        making = orchestrator_with(pool, book, known)
        await ended(making)
        async with sending(pool, known), AsyncClient(str(api.base_url)) as client:
            (row,) = await in_state(pool, "failed")
            await ended(making)
            await client.redeliver(row["id"])
            (endpoint,) = (await client.callback_endpoint_page()).items
            assert (endpoint.endpoint, endpoint.failures, endpoint.pending) == ("e0", 1, 2)
            assert endpoint.disabled_at is not None
            assert "410" in endpoint.detail
            assert (await client.enable_callback_endpoint(endpoint.id)).endpoint == "e0"
            await in_state(pool, "delivered", 2)
            assert (await client.callback_endpoint_page()).items == []
            with pytest.raises(UnknownError, match="there is no failing endpoint"):
                await client.enable_callback_endpoint(endpoint.id)


async def test_another_tenant_sees_and_changes_nothing(api, pool, book):
    await ended(orchestrator_with(pool, book, rules(NOWHERE)))
    await rows(pool, "UPDATE callbacks SET state = 'failed', tenant = 'other' RETURNING 1")
    await rows(pool, "INSERT INTO callback_endpoints (tenant, name, detail) VALUES ('other', 'e0', 'd') RETURNING 1")
    (row,) = await stored(pool)
    (endpoint,) = await rows(pool, "SELECT id FROM callback_endpoints")
    for path in ("/v1/callbacks", "/v1/callback-endpoints"):
        assert (await get(api, path))["items"] == []
    assert (await api.get(f"/v1/callbacks/{row['id']}")).status_code == 404
    assert (await api.post(f"/v1/callbacks/{row['id']}/redeliver")).status_code == 404
    assert (await api.post(f"/v1/callback-endpoints/{endpoint['id']}/enable")).status_code == 404
    assert [row["state"] for row in await stored(pool)] == ["failed"]
    assert len(await rows(pool, "SELECT 1 FROM callback_endpoints")) == 1


async def test_only_a_post_changes_anything(api, pool, book):
    await ended(orchestrator_with(pool, book, rules(NOWHERE)))
    (row,) = await stored(pool)
    assert (await api.post(f"/v1/callbacks/{row['id']}/redeliver")).status_code == 202
    assert (await api.get(f"/v1/callbacks/{row['id']}/redeliver")).status_code == 405


async def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command; the API answers meanwhile."""
    return await asyncio.to_thread(octollm, *arguments, **environment)


async def test_the_commands(api, pool, book):
    task = await ended(orchestrator_with(pool, book, rules(NOWHERE)))
    async with sending(pool, rules(NOWHERE), delays_s=[]):
        (row,) = await in_state(pool, "failed")
    number = str(row["id"])
    address = {"OCTOLLM_REFLEX_URL": str(api.base_url).rstrip("/")}
    listed = await command("callbacks", "ls", "--task", task, "--json", **address)
    (item,) = json.loads(listed.stdout)["items"]
    assert (item["id"], item["state"], item["outcome"]) == (row["id"], "failed", "unreachable")
    shown = await command("callbacks", "show", number, **address)
    assert "task.finished.v1" in shown.stdout
    endpoints = json.loads((await command("callbacks", "endpoints", "--json", **address)).stdout)["items"]
    assert [one["endpoint"] for one in endpoints] == ["e0"]
    assert (await command("callbacks", "enable", str(endpoints[0]["id"]), **address)).returncode == 0
    assert (await command("callbacks", "redeliver", number, **address)).returncode == 0
    assert [one["state"] for one in await stored(pool)] == ["pending"]
    missing = await command("callbacks", "redeliver", "999", **address)
    assert (missing.returncode, "there is no callback 999" in missing.stderr) == (1, True)
