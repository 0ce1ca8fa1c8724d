"""Who may read what from the API: every route with every kind of credential, on a real Postgres."""

import time
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
import structlog
from prometheus_client import REGISTRY

from octollm.api.openapi import openapi
from octollm.credentials import keys
from octollm.credentials.key import new_key
from octollm.credentials.keys import Lifetime
from octollm.credentials.table import KeyTable
from octollm.errors import CredentialError, CredentialsUnavailableError
from octollm.runtime.api_role import serve_api
from octollm.settings.loader import load_settings
from tests.helpers.callers import SECRET, Reflex, signed
from tests.helpers.stored_tasks import finished, model_call, store_dead_letter
from tests.helpers.waiting import until

ROUTES = sorted(route for route, methods in openapi()["paths"].items() if "get" in methods)
COMMANDS = sorted(route for route, methods in openapi()["paths"].items() if set(methods) - {"get"})
FOREVER = Lifetime()


@pytest.fixture
async def ours(orchestrator, pool) -> dict[str, object]:
    """Something of the tenant `default` behind every address."""
    task = await finished(orchestrator, pool)
    await model_call(pool, task)
    await store_dead_letter(pool, "1-1", b"x")
    number = await pool.fetchval("SELECT id FROM dead_letters")
    callback = await pool.fetchval(
        "INSERT INTO callbacks (tenant, task, run, endpoint, body) VALUES ('default', $1, 1, 'e', $2) RETURNING id",
        task,
        "{}",
    )
    endpoint = await pool.fetchval(
        "INSERT INTO callback_endpoints (tenant, name, detail) VALUES ('default', 'e', 'd') RETURNING id"
    )
    return {"task": task, "dead_letter": number, "callback": callback, "endpoint": endpoint}


@pytest.fixture
async def paths(ours) -> list[str]:
    """Every address that is read."""
    return [route.format(**ours) for route in ROUTES]


@pytest.fixture
async def made(pool) -> dict[str, str]:
    """Keys by what they are."""

    async def make(tenant: str, *scopes: Any, lifetime: Lifetime = FOREVER) -> str:
        key, _ = await keys.create(pool, tenant, scopes, lifetime)
        return key.text

    found = {
        "right": await make("default", "submit", "read", "cancel"),
        "read-only": await make("default", "read"),
        "admin": await make("default", "admin"),
        "of another tenant": await make("other", "admin"),
        "submit-only": await make("default", "submit", "cancel", "operate"),
        "revoked": await make("default", "read"),
        "expired": await make("default", "read", lifetime=Lifetime(lasts=timedelta(0))),
    }
    await keys.revoke(pool, found["revoked"][5:17])
    last = found["right"][-1]
    found["altered"] = found["right"][:-1] + ("b" if last == "a" else "a")
    found["of an unknown id"] = new_key().text
    found["truncated"] = found["right"][:-1]
    found["odd"] = "octo_" + "x" * 10_000
    found["a token"] = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0."
    return found


@pytest.fixture
async def strict(dsn, made, monkeypatch):
    """A client of an API that asks for a credential."""
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_API_LISTEN", "127.0.0.1:0")
    monkeypatch.setenv("OCTOLLM_API_SECRET", SECRET)
    monkeypatch.setenv("OCTOLLM_API_ANONYMOUS", "off")
    async with (
        serve_api(load_settings()) as url,
        httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as client,
    ):
        yield client


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def refusal(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    assert answer.json()["type"] == f"urn:octollm:problem:{code}"
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert ("retry-after" in answer.headers) == (status == 503)


async def test_the_matrix_of_routes_and_keys(strict, paths, made):
    assert len(paths) == 13
    for path in [*paths, "/v1/unheard-of", "/v2"]:
        known = path in paths
        for name in ("right", "read-only", "admin"):
            for headers in (bearer(made[name]), {"X-Api-Key": made[name]}):
                answer = await strict.get(path, headers=headers)
                assert answer.status_code == (200 if known else 404), (path, name)
        theirs = await strict.get(path, headers=bearer(made["of another tenant"]))
        if theirs.status_code == 200:
            assert theirs.json()["items"] == [], path
        else:
            refusal(theirs, 404, "not_found")
        refusal(await strict.get(path), 401, "missing_credential")
        refusal(await strict.get(path, headers=bearer(made["submit-only"])), 403, "insufficient_scope")
        for name in ("revoked", "expired", "altered", "of an unknown id", "truncated", "odd", "a token"):
            refusal(await strict.get(path, headers=bearer(made[name])), 401, "invalid_credential")
        for value in (made["right"], f"Basic {made['right']}", "Bearer", f"Bearer {made['right']} x", ""):
            refusal(await strict.get(path, headers={"Authorization": value}), 401, "invalid_credential")
        twice = [("Authorization", f"Bearer {made['right']}"), ("X-Api-Key", made["of another tenant"])]
        refusal(await strict.get(path, headers=twice), 401, "invalid_credential")


async def test_refusals_of_keys_do_not_tell_what_was_wrong(strict, made):
    names = ("revoked", "altered", "of an unknown id")
    assert len({(await strict.get("/v1/tasks", headers=bearer(made[name]))).text for name in names}) == 1


async def test_the_matrix_of_routes_and_headers_of_the_reflex(strict, paths):
    for path in paths:
        assert (await strict.get(path, auth=Reflex("default"))).status_code == 200
        assert (await strict.get(path, auth=Reflex("default", "read"))).status_code == 200
        theirs = await strict.get(path, auth=Reflex("other"))
        assert theirs.status_code == 404 or theirs.json()["items"] == []
        refusal(await strict.get(path, auth=Reflex("default", "submit")), 403, "insufficient_scope")
        good = signed("default", "GET", path)
        for value in (
            signed("default", "GET", f"{path}x"),
            signed("default", "GET", f"{path}?limit=1"),
            signed("default", "DELETE", path),
            signed("default", "GET", path, secret=SECRET[::-1]),
            good.replace("tenant=default", "tenant=other"),
            good[:-1],
            "",
        ):
            refusal(await strict.get(path, headers={"octollm-caller": value}), 401, "invalid_credential")
        old = signed("default", "GET", path, expires_in_s=-1)
        refusal(await strict.get(path, headers={"octollm-caller": old}), 401, "expired_credential")
        refusal(await strict.get(path, headers=[("octollm-caller", good)] * 2), 401, "invalid_credential")
        # What used to be believed.
        refusal(await strict.get(path, headers={"octollm-tenant": "default"}), 401, "missing_credential")


async def test_a_query_is_signed_too(strict):
    for target in ("/v1/tasks?limit=1", "/v1/tasks?", "/v1/tasks?text=%C3%A4%20b", "/v1/%74asks"):
        value = signed("default", "GET", target)
        assert (await strict.get(target, headers={"octollm-caller": value})).status_code == 200, target
    replayed = signed("default", "GET", "/v1/tasks?limit=1")
    refusal(await strict.get("/v1/tasks?limit=2", headers={"octollm-caller": replayed}), 401, "invalid_credential")


async def test_the_matrix_of_commands_and_keys(strict, ours, made, pool):
    assert len(COMMANDS) == 2
    operator = (await keys.create(pool, "default", ["operate"], FOREVER))[0].text
    stranger = (await keys.create(pool, "other", ["operate"], FOREVER))[0].text

    async def known() -> bool:
        return (await strict.get("/v1/tasks", headers=bearer(stranger))).status_code == 403

    await until(known, "the new keys")
    for path in [route.format(**ours) for route in COMMANDS]:
        refusal(await strict.post(path, headers=bearer(stranger)), 404, "not_found")
        refusal(await strict.post(path, auth=Reflex("other")), 404, "not_found")
        refusal(await strict.post(path, auth=Reflex("default", "cancel,read,submit")), 403, "insufficient_scope")
        replayed = signed("default", "GET", path)
        refusal(await strict.post(path, headers={"octollm-caller": replayed}), 401, "invalid_credential")
        refusal(await strict.post(path), 401, "missing_credential")
        for name in ("right", "read-only"):
            refusal(await strict.post(path, headers=bearer(made[name])), 403, "insufficient_scope")
        for name in ("revoked", "expired", "altered", "of an unknown id"):
            refusal(await strict.post(path, headers=bearer(made[name])), 401, "invalid_credential")
        assert (await strict.post(path, headers=bearer(operator))).status_code == 202
        # What is asked for is done by now, so the answer may differ.
        assert (await strict.post(path, headers=bearer(made["admin"]))).status_code not in {401, 403}
        assert (await strict.post(path, auth=Reflex("default", "operate"))).status_code not in {401, 403}


async def test_what_changes_something_needs_the_scope_operate(strict, paths, made):
    """Also under an address that has no such route: a new one is protected before its own code runs."""
    for method in ("POST", "PUT", "PATCH", "DELETE", "ODD"):
        refusal(await strict.request(method, paths[0], headers=bearer(made["right"])), 403, "insufficient_scope")
        allowed = await strict.request(method, paths[0], headers=bearer(made["admin"]))
        assert allowed.status_code == 405


async def test_probes_are_open(strict):
    for path in ("/healthz", "/readyz", "/metrics", "/v1/openapi.json"):
        assert (await strict.get(path)).status_code == 200


async def test_without_a_secret_no_header_is_believed(dsn, monkeypatch):
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_API_LISTEN", "127.0.0.1:0")
    async with serve_api(load_settings()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        value = signed("other", "GET", "/v1/tasks", secret="")
        answer = await client.get("/v1/tasks", headers={"octollm-caller": value})
        refusal(answer, 401, "invalid_credential")
        assert "OCTOLLM_API_SECRET" in answer.json()["detail"]


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
async def test_beyond_loopback_anonymous_access_has_to_be_wanted(dsn, listen, monkeypatch):
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_API_LISTEN", listen)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        async with serve_api(load_settings()) as url:
            local = f"http://127.0.0.1:{url.rpartition(':')[2]}"
            refusal(await client.get(f"{local}/v1/tasks"), 401, "missing_credential")
        monkeypatch.setenv("OCTOLLM_API_ANONYMOUS", "on")
        with structlog.testing.capture_logs() as logs:
            async with serve_api(load_settings()) as url:
                local = f"http://127.0.0.1:{url.rpartition(':')[2]}"
                assert (await client.get(f"{local}/v1/tasks")).status_code == 200
                other = {"Host": "api.example.org", "Origin": "http://evil.test"}
                refusal(await client.get(f"{local}/v1/tasks", headers=other), 403, "foreign_host")
        assert any("anyone who reaches this address" in line["event"] for line in logs)


async def test_a_foreign_host_is_refused_without_a_credential_only(api, pool, made):
    for headers in ({"Host": "evil.test"}, {"Origin": "http://evil.test"}):
        for path in ("/v1/tasks", "/metrics"):
            refusal(await api.get(path, headers=headers), 403, "foreign_host")
        assert (await api.get("/v1/tasks", headers=headers, auth=Reflex("default"))).status_code == 200


async def test_keys_take_effect_and_lose_it_within_a_second(strict, pool):
    key, _ = await keys.create(pool, "default", ["read"], FOREVER)

    async def answers(status: int) -> bool:
        return (await strict.get("/v1/tasks", headers=bearer(key.text))).status_code == status

    await until(lambda: answers(200), "the new key", 1)
    await keys.revoke(pool, key.id)
    began = time.monotonic()
    await until(lambda: answers(401), "the end of the revoked key", 1)
    assert time.monotonic() - began < 1


async def test_a_key_that_expires_is_refused_at_once(pool):
    """Between two comparisons with Postgres, too."""
    now = 1000.0
    table = KeyTable(pool, lambda: now)
    key, _ = await keys.create(pool, "default", ["read"], Lifetime(lasts=timedelta(seconds=2.5)))
    await table.refresh()
    assert table.caller_of(key.text).tenant == "default"
    now += 2.9
    with pytest.raises(CredentialError) as caught:
        table.caller_of(key.text)
    assert caught.value.code == "expired_credential"


async def test_keys_fail_closed_when_postgres_is_unavailable_for_long(pool, dsn):
    now = 1000.0
    table = KeyTable(pool, lambda: now)
    key, _ = await keys.create(pool, "default", ["read"], FOREVER)
    with pytest.raises(CredentialsUnavailableError, match="not read from Postgres yet"):
        table.caller_of(key.text)
    await table.refresh()
    assert table.caller_of(key.text).tenant == "default"
    await pool.execute("ALTER TABLE api_key_changes RENAME TO gone")
    await pool.close()
    with structlog.testing.capture_logs() as logs:
        await table.refresh()
        await table.refresh()
    assert [line["log_level"] for line in logs] == ["warning"]
    now += 2.9
    assert table.caller_of(key.text).tenant == "default"
    with pytest.raises(CredentialError):
        table.caller_of(new_key().text)
    now += 0.2
    for text in (key.text, new_key().text):
        with pytest.raises(CredentialsUnavailableError, match="could not be read from Postgres for 3 s"):
            table.caller_of(text)


async def test_a_canary_key_appears_nowhere(strict, made, capfd):
    canaries = [made[name][-20:] for name in ("right", "revoked", "of an unknown id")]
    with structlog.testing.capture_logs() as logs:
        answers = [
            await strict.get(path, headers=headers)
            for name in ("right", "revoked", "of an unknown id")
            for path in ("/v1/tasks?limit=0", "/v1/tasks", "/nowhere")
            for headers in (bearer(made[name]), {"X-Api-Key": made[name]}, {"Authorization": made[name]})
        ]
        metrics = (await strict.get("/metrics")).text
    assert metrics.count("octollm_api_authentications_total") > 2
    seen = metrics + repr(logs) + "".join(f"{answer.headers} {answer.text}" for answer in answers)
    seen += "".join(capfd.readouterr())
    assert not [canary for canary in canaries if canary in seen]
    assert REGISTRY.get_sample_value("octollm_api_authentications_total", {"result": "invalid_credential"})


async def test_the_last_use_is_stored_also_after_an_outage(pool):
    table = KeyTable(pool)
    key, _ = await keys.create(pool, "default", ["read"], FOREVER)
    await table.refresh()
    table.caller_of(key.text)
    await pool.execute("ALTER TABLE api_keys RENAME TO gone")
    with pytest.raises(asyncpg.UndefinedTableError):
        await table.report_uses()
    await pool.execute("ALTER TABLE gone RENAME TO api_keys")
    await table.report_uses()
    (record,) = await keys.list_keys(pool, None, 1)
    assert record.last_used_at is not None
    assert abs(record.last_used_at - record.created_at) < timedelta(minutes=1)


async def test_an_api_that_stops_stores_the_last_uses(dsn, pool, made, monkeypatch):
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_API_LISTEN", "127.0.0.1:0")
    async with serve_api(load_settings()) as url, httpx.AsyncClient(base_url=url, trust_env=False) as client:
        assert (await client.get("/v1/tasks", headers=bearer(made["right"]))).status_code == 200
        assert (await client.get("/v1/tasks", headers=bearer(made["altered"]))).status_code == 401
    used = await pool.fetch("SELECT id FROM api_keys WHERE last_used_at IS NOT NULL")
    assert [row["id"] for row in used] == [made["right"][5:17]]
