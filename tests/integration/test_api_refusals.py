"""What the API does not answer: another tenant's, what was asked wrongly, and what the database cannot say now."""

import asyncio
import base64
import socket

import httpx
import orjson
import pytest
import structlog

from octollm.api.app import create_app
from octollm.api.authentication import Authenticator
from octollm.api.hosts import AllowedHosts
from octollm.api.openapi import openapi
from octollm.api.store import open_store
from octollm.contracts.ids import new_task_id
from octollm.credentials.table import KeyTable
from octollm.errors import SettingsError, StartError, StoreUnavailableError
from octollm.runtime.api_role import TASK, run_api, serve_api
from octollm.settings.loader import load_settings
from tests.helpers.callers import Reflex
from tests.helpers.orchestrators import rows
from tests.helpers.stored_tasks import failed, finished, get, model_call, store_dead_letter
from tests.helpers.waiting import until

ROUTES = sorted(route for route, methods in openapi()["paths"].items() if "get" in methods)
COMMANDS = sorted(route for route, methods in openapi()["paths"].items() if "post" in methods)
OF_ONE = [route for route in ROUTES if "{" in route]
LISTS = [route for route in ROUTES if "{" not in route]


def refusal(answer: httpx.Response, status: int, field: str | None = None) -> dict[str, object]:
    """The problem, in the form that all have."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, object] = answer.json()
    assert set(found) - {"field"} == {"type", "title", "status", "detail"}
    assert (found["status"], found.get("field")) == (status, field)
    assert "Traceback" not in answer.text
    return found


@pytest.fixture
async def ours(api, orchestrator, pool) -> dict[str, object]:
    """Something of the tenant `default` behind every address."""
    task = await finished(orchestrator, pool)
    await model_call(pool, task)
    await store_dead_letter(pool, "1-1", b"x")
    (row,) = await rows(pool, "SELECT id FROM dead_letters")
    (callback,) = await rows(
        pool, f"INSERT INTO callbacks (tenant, task, run, endpoint, body) VALUES ('default', '{task}', 1, 'e', '{{}}') "
        "RETURNING id"
    )  # fmt: skip
    (endpoint,) = await rows(
        pool, "INSERT INTO callback_endpoints (tenant, name, detail) VALUES ('default', 'e', 'd') RETURNING id"
    )  # fmt: skip
    return {"task": task, "dead_letter": row["id"], "callback": callback["id"], "endpoint": endpoint["id"]}


async def test_nobody_finds_or_lists_anothers(api, ours):
    """The tenant matrix: every address that there is, as OpenAPI names them."""
    assert (len(OF_ONE), len(LISTS), len(COMMANDS)) == (8, 5, 2)
    for route in OF_ONE:
        path = route.format(**ours)
        assert (await api.get(path)).status_code == 200, path
        assert (await api.get(path, auth=Reflex("default"))).status_code == 200, path
        refusal(await api.get(path, auth=Reflex("other")), 404)
    for route in LISTS:
        assert (await get(api, route))["items"] != []
        other = (await api.get(route, auth=Reflex("other"))).json()
        assert (other["items"], other["next"]) == ([], None)
        assert other.get("total", {"calls": 0})["calls"] == 0
    for route in COMMANDS:
        refusal(await api.post(route.format(**ours), auth=Reflex("other")), 404)
        assert (await api.post(route.format(**ours))).status_code == 202


async def test_a_cursor_of_one_tenant_shows_another_nothing(api, ours, orchestrator):
    await failed(orchestrator)
    cursor = (await get(api, "/v1/tasks", limit=1))["next"]
    answer = await api.get("/v1/tasks", params={"cursor": cursor}, auth=Reflex("other"))
    assert answer.json() == {"items": [], "next": None}


def cursor(value: object) -> str:
    return base64.urlsafe_b64encode(orjson.dumps(value)).decode().rstrip("=")


OF_TASKS = [
    ("limit=0", "limit"),
    ("limit=201", "limit"),
    ("limit=-1", "limit"),
    ("limit=many", "limit"),
    ("limit=9999999999999999999999", "limit"),
    ("limit=", "limit"),
    ("state=done", "state"),
    ("state=%00", "state"),
    ("priority=urgent", "priority"),
    ("kind=%00", "kind"),
    ("kind=" + "k" * 64, "kind"),
    ("source=%00", "source"),
    ("text=", "text"),
    ("text=%00", "text"),
    ("text=" + "x" * 201, "text"),
    ("since=yesterday", "since"),
    ("since=2026-01-31T12:00:00", "since"),
    ("since=0001-01-01T00:00:00%2B14:00", "since"),
    ("since=9999-12-31T23:59:59-14:00", "since"),
    ("until=99999999999999999999", "until"),
    ("colour=red", "colour"),
    ("colour" * 100 + "=red", ("colour" * 100)[:80]),
    ("cursor=", "cursor"),
    ("cursor=x", "cursor"),
    ("cursor=%C3%A4", "cursor"),
    ("cursor=" + "x" * 5000, "cursor"),
    ("cursor=" + cursor([]), "cursor"),
    ("cursor=" + cursor({"a": 1}), "cursor"),
    ("cursor=" + cursor([1, "x"]), "cursor"),
    ("cursor=" + cursor(["2026-01-31T12:00:00", "x"]), "cursor"),
    ("cursor=" + cursor(["2026-01-31T12:00:00Z", "a\0b"]), "cursor"),
    ("cursor=" + cursor(["0001-01-01T00:00:00+14:00", "x"]), "cursor"),
    ("cursor=" + cursor(["2026-01-31T12:00:00Z", "x", 1]), "cursor"),
]
OF_PARTS = [
    ("runs", "run=1", "run"),
    ("runs", "cursor=" + cursor([True]), "cursor"),
    ("runs", "cursor=" + cursor([-1]), "cursor"),
    ("steps", "run=0", "run"),
    ("steps", "run=2147483648", "run"),
    ("steps", "cursor=" + cursor([1, 1, None]), "cursor"),
    ("attempts", "cursor=" + cursor([1]), "cursor"),
    ("events", "after=1", "after"),
    ("events", "after=1-1-1", "after"),
    ("events", "after=2147483648-1", "after"),
    ("events", "after=1-99999999999", "after"),
    ("events", "after=-1-1", "after"),
    ("events", "limit=1001", "limit"),
    ("events", "cursor=x", "cursor"),
    ("provenance", "run=0", "run"),
]
OF_COSTS = ["group=week", "task=%00", "cursor=x", "limit=0"]


async def test_what_cannot_be_asked_is_refused_by_name(api, ours):
    for query, field in OF_TASKS:
        refusal(await api.get(f"/v1/tasks?{query}"), 422, field)
    for part, query, field in OF_PARTS:
        refusal(await api.get(f"/v1/tasks/{ours['task']}/{part}?{query}"), 422, field)
    for query in OF_COSTS:
        refusal(await api.get(f"/v1/costs?{query}"), 422, query.partition("=")[0])


async def test_what_is_no_task_is_not_found(api):
    for task in (new_task_id("l0"), "x", "%00", "..%2Ftasks", "l0-" + "O" * 26, "%F0%9F%90%99", "%20"):
        for part in ("", "/runs", "/steps", "/attempts", "/events", "/provenance"):
            refusal(await api.get(f"/v1/tasks/{task}{part}"), 404)


async def test_a_run_that_never_was_has_no_provenance(api, ours):
    refusal(await api.get(f"/v1/tasks/{ours['task']}/provenance?run=2"), 404)


async def test_other_addresses_and_methods_are_not_there(api, ours):
    numbers = ("0", "1.5", "9223372036854775808", "%D9%A1")
    for path in ("/", "/v1", "/v1/", "/v2/tasks", "/v1/tasks/", "/docs", "/openapi.json"):
        refusal(await api.get(path), 404)
    for number in numbers:
        refusal(await api.get(f"/v1/dead-letters/{number}"), 404)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        refusal(await api.request(method, "/v1/tasks", content=b"{"), 405)


async def test_a_far_cursor_and_a_far_event_are_simply_past_the_end(api, ours):
    far = cursor([2**63 - 1, 2**63 - 1, "x"])
    assert (await get(api, f"/v1/tasks/{ours['task']}/steps", cursor=far))["items"] == []
    assert (await get(api, f"/v1/tasks/{ours['task']}/events", after="2147483647-2147483647"))["items"] == []


async def test_a_fault_of_ours_is_reported_to_the_log_and_not_to_callers(api, ours, pool):
    await pool.execute("UPDATE dead_letters SET body = $1", {"secret": "hunter2"})
    with structlog.testing.capture_logs() as log:
        found = refusal(await api.get("/v1/dead-letters"), 500)
    assert [line["event"] for line in log] == ["a request failed unexpectedly"]
    assert "hunter2" not in str(found)
    assert "KeyError" not in str(found)
    metrics = (await api.get("/metrics")).text
    assert 'octollm_api_requests_total{route="/v1/dead-letters",status="500"}' in metrics


async def test_counts_by_declared_address(api, ours):
    await api.get(f"/v1/tasks/{ours['task']}")
    await api.get("/nowhere/at/all")
    metrics = (await api.get("/metrics")).text
    assert 'octollm_api_requests_total{route="/v1/tasks/{task}",status="200"}' in metrics
    assert 'octollm_api_requests_total{route="other",status="404"}' in metrics
    assert str(ours["task"]) not in metrics
    assert "nowhere" not in metrics


async def test_without_a_database_everything_is_503_and_comes_back(dsn, monkeypatch):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", f"postgresql://127.0.0.1:{nobody.getsockname()[1]}/x")
        monkeypatch.setenv("OCTOLLM_API_LISTEN", "127.0.0.1:0")
        async with (
            serve_api(load_settings()) as url,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
        ):
            answer = await client.get("/v1/tasks")
            refusal(answer, 503)
            assert answer.headers["retry-after"] == "1"
            ready = await client.get("/readyz")
            assert (ready.status_code, ready.json()["ready"]) == (503, False)
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            refusal(await client.get("/v1/tasks?limit=0"), 422, "limit")


async def test_a_lost_connection_is_503_and_the_next_one_works(api, ours, pool):
    await get(api, "/v1/tasks")
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'octollm-api'"
    await pool.execute(cut)
    statuses = []

    async def works() -> bool:
        statuses.append((await api.get("/v1/tasks")).status_code)
        return statuses[-1] == 200

    await until(works)
    assert set(statuses) <= {200, 503}


async def test_a_database_of_another_shape_is_said_so(api, pool):
    await pool.execute("DELETE FROM schema_migrations WHERE revision > '0001'")
    await pool.execute("UPDATE schema_migrations SET revision = '0000'")
    ready = await api.get("/readyz")
    assert (ready.status_code, "revision 0000" in ready.text) == (503, True)
    await pool.execute("DROP TABLE schema_migrations")
    assert "migrates the database" in (await api.get("/readyz")).text


async def test_a_question_that_takes_too_long_is_cut_off(dsn, pool):
    async with open_store(dsn, 2, statement_s=0.2) as store:
        authenticator = Authenticator(KeyTable(pool), AllowedHosts(loopback=True, url=""), "", anonymous=True)
        app = httpx.ASGITransport(create_app(store, authenticator))
        async with httpx.AsyncClient(transport=app, base_url="http://api") as client, pool.acquire() as other:
            async with other.transaction():
                await other.execute("LOCK TABLE tasks")
                answer = await client.get("/v1/tasks")
            found = refusal(answer, 503)
            assert found["type"] == "urn:octollm:problem:too_slow"
            assert (await client.get("/v1/tasks")).status_code == 200


async def test_it_cannot_write(dsn):
    async with open_store(dsn, 1) as store:
        with pytest.raises(StoreUnavailableError, match="read-only"):
            async with store.reading() as connection:
                await connection.execute("DELETE FROM tasks")


async def test_a_request_that_runs_when_it_stops_is_answered(dsn, pool, monkeypatch):
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_API_LISTEN", "127.0.0.1:0")
    serving = serve_api(load_settings())
    url = await serving.__aenter__()
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client, pool.acquire() as other:
        async with other.transaction():
            await other.execute("LOCK TABLE tasks")
            asked = asyncio.create_task(client.get("/v1/tasks"))
            waits = "SELECT wait_event_type FROM pg_stat_activity WHERE application_name = 'octollm-api'"

            async def waiting() -> bool:
                # Not on `other`: within a transaction the view stands still.
                return await pool.fetchval(waits) == "Lock"

            await until(waiting)
            stopping = asyncio.create_task(serving.__aexit__(None, None, None))

            async def closed() -> bool:
                try:
                    async with httpx.AsyncClient(trust_env=False, timeout=60) as late:
                        await late.get(f"{url}/healthz")
                except httpx.ConnectError:
                    return True
                except httpx.TransportError:
                    pass  # it was in the backlog when the listener closed: the next one tells
                return False

            await until(closed)
        assert (await asked).status_code == 200
        await stopping


async def test_an_end_by_itself_is_an_error_and_a_requested_stop_is_none(dsn, monkeypatch):
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_API_LISTEN", "127.0.0.1:0")
    heard: list[StartError] = []
    async with serve_api(load_settings(), failed=heard.append):
        pass
    assert heard == []
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(run_api(load_settings(), asyncio.Event()))

        async def serves() -> bool:
            return any(line["event"] == "API started" for line in logs)

        await until(serves)
    (serving,) = [task for task in asyncio.all_tasks() if task.get_name() == TASK]
    serving.cancel()
    with pytest.raises(StartError, match="the API ended"):
        await running


async def test_a_taken_port_says_which_setting_to_change(monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        monkeypatch.setenv("OCTOLLM_API_LISTEN", f"127.0.0.1:{other.getsockname()[1]}")
        with pytest.raises(SettingsError, match="OCTOLLM_API_LISTEN"):
            async with serve_api(load_settings()):
                pass
