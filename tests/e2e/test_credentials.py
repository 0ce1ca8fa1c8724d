"""API keys on the whole stack: the command line makes them, the reflex and the API check them."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import redis

from octollm.api.openapi import openapi
from octollm.contracts.ids import new_task_id
from tests.helpers.programs import Up, ask, octollm, up
from tests.helpers.waiting import until_sync

READS = sorted(route for route, methods in openapi()["paths"].items() if "get" in methods)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A stack that nobody may use without a credential."""
    folder = tmp_path_factory.mktemp("closed")
    with up(folder, OCTOLLM_REFLEX_ANONYMOUS="off", OCTOLLM_API_ANONYMOUS="off") as running:
        yield running


def keys(stack: Up, *arguments: str) -> dict[str, Any]:
    """What `octollm keys` prints."""
    stores = {
        "OCTOLLM_POSTGRES_DSN": stack.addresses["postgres"],
        "OCTOLLM_REDIS_URL": stack.addresses["redis"],
    }
    done = octollm("keys", *arguments, "--json", **stores)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found.get("published", True) is True
    return found


def key_for(stack: Up, tenant: str, *scopes: str) -> str:
    """A new key that every process knows."""
    options = [option for scope in scopes for option in ("--scope", scope)]
    key: str = keys(stack, "create", "--tenant", tenant, *options)["api_key"]
    for base in (stack.http, str(stack.addresses["api"])):
        until_sync(lambda: status(base, "/v1/tasks", key) != 401, "the new key")  # noqa: B023  called at once
    return key


def get(base: str, path: str, key: str | None) -> httpx.Response:
    return ask("GET", f"{base}{path}", headers={} if key is None else {"Authorization": f"Bearer {key}"})


def status(base: str, path: str, key: str | None) -> int:
    return get(base, path, key).status_code


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["type"].rpartition(":")[2]


def note(stack: Up, key: str | None) -> httpx.Response:
    body = json.dumps({"goal": "keep it", "kind": "note", "input": {"text": "a note"}})
    headers = {"Content-Type": "application/json"} | ({} if key is None else {"X-Api-Key": key})
    return ask("POST", f"{stack.http}/v1/tasks", content=body, headers=headers)


def test_every_route_belongs_to_the_tenant_of_the_key(closed):
    ours, theirs = key_for(closed, "acme", "submit", "read", "cancel"), key_for(closed, "other", "admin")
    submitted = note(closed, ours)
    assert (submitted.status_code, submitted.json()["tenant"]) == (202, "acme")
    task = submitted.json()["task"]
    path = f"/v1/tasks/{task}"
    until_sync(lambda: get(closed.http, path, ours).json()["state"] == "succeeded", "the end of the task")
    bases = (closed.http, str(closed.addresses["api"]))
    paths = [route.format(task=task, dead_letter=1) for route in READS if "callback" not in route]
    assert len(paths) > 9
    for base in bases:
        for one in paths:
            missing = one.endswith("/1")
            assert status(base, one, ours) == (404 if missing else 200), one
            answer = get(base, one, theirs)
            assert answer.status_code == 404 or answer.json()["items"] == [], one
            assert code(get(base, one, None)) == (401, "missing_credential")
            altered = ours[:-1] + ("b" if ours[-1] == "a" else "a")
            assert code(get(base, one, altered)) == (401, "invalid_credential")
    headers = {"Authorization": f"Bearer {theirs}"}
    assert ask("DELETE", f"{closed.http}{path}", headers=headers).status_code == 404
    assert ask("POST", f"{closed.http}{path}/runs", headers=headers).status_code in {202, 404}
    assert get(closed.http, path, ours).json()["run"] == 1


def test_a_key_may_do_what_its_scopes_say(closed):
    reads, submits = key_for(closed, "acme", "read"), key_for(closed, "acme", "submit")
    assert code(note(closed, reads)) == (403, "insufficient_scope")
    task = note(closed, submits).json()["task"]
    assert code(get(closed.http, f"/v1/tasks/{task}", submits)) == (403, "insufficient_scope")
    assert status(closed.http, f"/v1/tasks/{task}", reads) == 200
    for key in (reads, submits):
        headers = {"Authorization": f"Bearer {key}"}
        for method, path in (("DELETE", f"/v1/tasks/{task}"), ("POST", f"/v1/tasks/{task}/runs")):
            assert code(ask(method, f"{closed.http}{path}", headers=headers)) == (403, "insufficient_scope")
    assert code(note(closed, None)) == (401, "missing_credential")


def test_the_command_line_and_doctor_use_the_key(closed):
    key = key_for(closed, "acme", "submit", "read")
    environment = {"OCTOLLM_REFLEX_URL": closed.http, "OCTOLLM_API_KEY": key}
    submit = ("submit", "--goal", "keep it", "--kind", "note", "--input", '{"text": "a"}', "--wait")
    assert octollm(*submit, **environment).returncode == 0
    checks = json.loads(octollm("doctor", "--json", **environment).stdout)["checks"]
    (check,) = [one for one in checks if one["name"] == "credential"]
    assert (check["verdict"], key[:17] in check["found"]) == ("ok", True)
    refused = octollm(*submit, OCTOLLM_REFLEX_URL=closed.http)
    assert refused.returncode == 1
    assert "OCTOLLM_API_KEY" in refused.stderr


def test_a_revoked_key_stops_within_a_second_everywhere(closed):
    key = key_for(closed, "acme", "read")
    keys(closed, "revoke", key[:17])
    began = time.monotonic()
    for base in (closed.http, str(closed.addresses["api"])):
        until_sync(lambda: status(base, "/v1/tasks", key) == 401, "the end of the key", 5)  # noqa: B023  called at once
    assert time.monotonic() - began < 1


def test_a_rotated_key_and_its_successor_both_work(closed):
    key = key_for(closed, "acme", "read")
    successor = keys(closed, "rotate", key[:17], "--overlap", "1h")["api_key"]
    until_sync(lambda: status(closed.http, "/v1/tasks", successor) == 200, "the successor")
    assert status(closed.http, "/v1/tasks", key) == 200


def test_keys_come_back_when_redis_has_lost_them(closed):
    key = key_for(closed, "acme", "read")
    path = f"/v1/tasks/{new_task_id('l0')}"
    with redis.Redis.from_url(closed.addresses["redis"]) as client:
        client.delete("{api-keys}", "{api-keys}:version", "{api-keys}:number")
        lost = until_sync(lambda: status(closed.http, path, key) in {404, 503} and 1, "an answer")
        assert lost
        until_sync(lambda: client.exists("{api-keys}:version"), "the publication")
    until_sync(lambda: status(closed.http, path, key) == 404, "the key")


def test_a_key_is_revoked_although_redis_is_full(closed):
    key, stays = key_for(closed, "acme", "read"), key_for(closed, "acme", "read")
    path = f"/v1/tasks/{new_task_id('l0')}"
    with redis.Redis.from_url(closed.addresses["redis"]) as client:
        client.config_set("maxmemory", "1")
        try:
            keys(closed, "revoke", key[:17])
            until_sync(lambda: status(closed.http, path, key) == 401, "the end of the key", 3)
            assert status(closed.http, path, stays) == 404
        finally:
            client.config_set("maxmemory", "0")


def test_the_last_use_is_listed(closed):
    key = key_for(closed, "acme", "read")
    assert status(closed.http, "/v1/tasks", key) == 200

    def used() -> bool:
        return any(one["key"] == key[:17] and one["last_used_at"] for one in keys(closed, "ls")["items"])

    until_sync(used, "the last use")


def test_no_secret_is_in_a_file_a_metric_or_an_argument(closed):
    key = key_for(closed, "acme", "submit", "read")
    unknown = f"octo_{'a' * 12}_{'234567' * 8}2345"
    for sent in (key, unknown):
        note(closed, sent)
        for path in ("/v1/tasks", "/v1/nowhere", f"/v1/tasks/{new_task_id('l0')}/events"):
            for base in (closed.http, str(closed.addresses["api"])):
                get(base, path, sent)
                ask("GET", f"{base}{path}", headers={"Authorization": sent, "X-Api-Key": sent})
    family = [psutil.Process(closed.process.pid), *psutil.Process(closed.process.pid).children(recursive=True)]
    holders = {
        one.pid: one.environ()["OCTOLLM_API_SECRET"] for one in family if one.environ().get("OCTOLLM_API_SECRET")
    }
    assert [pid for pid, value in holders.items() if value] == [closed.addresses["reflex_pid"]]
    secret = holders[closed.addresses["reflex_pid"]]
    assert len(secret) == 64
    canaries = [key[-52:], unknown[-52:], secret]
    shown = "\0".join(argument for one in family for argument in one.cmdline())
    metrics = [value for name, value in closed.addresses.items() if name.startswith("metrics_")]
    shown += "".join(ask("GET", url).text for url in [*metrics, f"{closed.addresses['api']}/metrics"])
    assert "octollm_api_authentications_total" in shown
    assert not [canary for canary in canaries if canary in shown]
    files = [path for path in Path(closed.addresses["data"]).rglob("*") if path.is_file()]
    assert any(path.name == "octollm-reflex.log" for path in files)
    assert not [path for path in files if any(canary.encode() in path.read_bytes() for canary in canaries)]
