"""API keys from the command line to Redis, on a real Postgres and a real Redis."""

import asyncio
import hashlib
from datetime import timedelta
from typing import Any

import orjson
import pytest

from octollm.credentials import keys
from octollm.credentials.key import new_key
from octollm.credentials.keys import Lifetime
from octollm.credentials.publisher import KeyPublisher, Publication, publication_of
from octollm.credentials.snapshot import read_snapshot
from octollm.protocol.key_registry import KeyRegistry
from octollm.resources import schemas_path
from octollm.runtime.worker import run_roles
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import load_topology
from tests.helpers.commands import octollm
from tests.helpers.waiting import until

KEYS, VERSION, NUMBER, USED = ("{api-keys}", "{api-keys}:version", "{api-keys}:number", "{api-keys}:used")


@pytest.fixture
async def registry(redis_server):
    made = KeyRegistry(redis_server.url, 5)
    yield made
    await made.close()


@pytest.fixture
def publisher(pool, registry) -> KeyPublisher:
    return KeyPublisher(pool, registry)


@pytest.fixture
def stores(dsn, redis_server, monkeypatch) -> None:
    monkeypatch.setenv("OCTOLLM_POSTGRES_DSN", dsn)
    monkeypatch.setenv("OCTOLLM_REDIS_URL", redis_server.url)


async def run(*arguments: str) -> Any:
    """What `octollm keys` prints with --json."""
    result = await octollm("keys", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


async def publication(pool) -> Publication:
    async with pool.acquire() as connection:
        return publication_of(await read_snapshot(connection))


async def published(client) -> dict[str, Any]:
    return {ident.decode(): orjson.loads(record) for ident, record in (await client.hgetall(KEYS)).items()}


async def test_a_new_key_is_alone_on_standard_output_and_only_its_hash_is_stored(stores, pool, client):
    result = await octollm("keys", "create", "--tenant", "acme", "--scope", "read", "--scope", "submit", "--name", "ci")
    assert result.exit_code == 0
    key = result.stdout.strip()
    ident = key[5:17]
    assert result.stdout == f"{key}\n"
    assert f"octo_{ident}" in result.stderr
    assert key not in result.stderr
    row = dict(await pool.fetchrow("SELECT * FROM api_keys"))
    assert (row["id"], row["tenant"], row["name"], row["scopes"]) == (ident, "acme", "ci", ["submit", "read"])
    assert row["hash"] == hashlib.sha256(key.encode()).digest()
    expires_at_ms = int(row["expires_at"].timestamp() * 1000)
    assert row["expires_at"] - row["created_at"] == timedelta(days=90)
    assert await published(client) == {
        ident: {
            "tenant": "acme", "hash": row["hash"].hex(), "scopes": ["read", "submit"], "expires_at_ms": expires_at_ms,
        }
    }  # fmt: skip
    assert await client.get(VERSION)
    kept = repr(row) + repr([await client.dump(one) for one in await client.keys("*")])
    assert key[-52:] not in kept


async def test_keys_are_listed_with_what_became_of_them(stores):
    first = await run("create", "--tenant", "acme", "--expires", "never")
    second = await run("create", "--scope", "admin", "--expires", "12h")
    await run("revoke", first["key"])
    listed = (await run("ls"))["items"]
    assert [(one["key"], one["state"], one["tenant"]) for one in listed] == [
        (second["key"], "valid", "default"), (first["key"], "revoked", "acme"),
    ]  # fmt: skip
    assert listed[1]["expires_at"] is None
    assert listed[0]["scopes"] == ["admin"]
    assert [one["key"] for one in (await run("ls", "--tenant", "acme"))["items"]] == [first["key"]]
    assert await run("ls", "--limit", "1") == {"items": listed[:1], "complete": False}
    table = await octollm("keys", "ls")
    assert first["key"] in table.stdout
    assert first["api_key"] not in table.stdout


async def test_a_revoked_key_leaves_redis_at_once_and_stays_revoked(stores, client):
    made = await run("create")
    version = await client.get(VERSION)
    revoked = await run("revoke", made["key"])
    assert (revoked["changed"], revoked["published"], revoked["state"]) == (True, True, "revoked")
    assert await published(client) == {}
    assert await client.get(VERSION) not in {None, version}
    again = await run("revoke", made["key"].removeprefix("octo_"))
    assert (again["changed"], again["revoked_at"]) == (False, revoked["revoked_at"])


async def test_a_rotated_key_has_one_successor_and_expires_after_the_overlap(stores, pool, client):
    old = await run("create", "--tenant", "acme", "--scope", "operate", "--expires", "30d", "--name", "ops")
    new = await run("rotate", old["key"], "--overlap", "2h")
    assert new["api_key"] != old["api_key"]
    assert (new["tenant"], new["scopes"], new["name"], new["replaces"]) == ("acme", ["operate"], "ops", old["key"])
    assert set(await published(client)) == {old["key"][5:], new["key"][5:]}
    row = await pool.fetchrow("SELECT expires_at - now() AS left FROM api_keys WHERE id = $1", old["key"][5:])
    assert timedelta(hours=1.9) < row["left"] <= timedelta(hours=2)
    lifetime = await pool.fetchval("SELECT expires_at - created_at FROM api_keys WHERE id = $1", new["key"][5:])
    assert lifetime == timedelta(days=30)
    refused = await octollm("keys", "rotate", old["key"])
    assert refused.exit_code == 1
    assert f"{new['key']} replaces it" in str(refused.exception)
    at_once = await run("rotate", new["key"], "--overlap", "0s", "--expires", "never")
    assert set(await published(client)) == {old["key"][5:], at_once["key"][5:]}
    assert "is expired" in str((await octollm("keys", "rotate", new["key"])).exception)


async def test_a_rotation_does_not_lengthen_a_key(stores, pool):
    old = await run("create", "--expires", "1h")
    await run("rotate", old["key"], "--overlap", "7d")
    row = await pool.fetchrow("SELECT expires_at - created_at AS lifetime FROM api_keys WHERE id = $1", old["key"][5:])
    assert row["lifetime"] == timedelta(hours=1)


WHOLE = new_key().text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "--tenant", "A b"), "lower-case letters"),
        (("create", "--scope", "everything"), "everything is none of submit, read"),
        (("create", "--expires", "soon"), "a future time"),
        (("create", "--expires", "2020-01-01"), "a future time"),
        (("create", "--expires", "999999w"), "at most ten years"),
        (("create", "--expires", "0s"), "a future time"),
        (("create", "--name", "x" * 101), "1 to 100 printable"),
        (("create", "--name", "a\nb"), "1 to 100 printable"),
        (("rotate", "octo_aaaaaaaaaaaa", "--overlap", "forever"), "like 0s, 30m, 24h"),
        (("rotate", "octo_aaaaaaaaaaaa", "--overlap", "91d"), "at most 90d"),
        (("revoke", "ci"), "octo_ and 12 characters"),
        (("revoke", WHOLE), "this is a whole key"),
    ],
)
async def test_what_is_wrong_is_said(arguments, message):
    result = await octollm("keys", *arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert WHOLE[-52:] not in result.output


async def test_an_unknown_key_is_an_error(stores):
    for command in ("revoke", "rotate"):
        result = await octollm("keys", command, "octo_aaaaaaaaaaaa")
        assert result.exit_code == 1
        assert "there is no key octo_aaaaaaaaaaaa" in str(result.exception)


async def test_a_change_is_kept_while_redis_is_unavailable(stores, redis_server, pool, monkeypatch):
    await redis_server.stop()
    monkeypatch.setenv("OCTOLLM_REDIS_CONNECT_TIMEOUT_S", "0.5")
    result = await octollm("keys", "create")
    assert result.exit_code == 0
    assert "it takes effect when an orchestrator publishes it" in " ".join(result.stderr.split())
    assert await pool.fetchval("SELECT count(*) FROM api_keys") == 1


async def test_an_unmigrated_database_is_said(stores, pool):
    await pool.execute("DELETE FROM schema_migrations WHERE revision = '0002'")
    result = await octollm("keys", "ls")
    assert "start an orchestrator of this version" in str(result.exception)


async def test_a_state_that_was_read_before_a_revocation_does_not_bring_the_key_back(pool, publisher, registry, client):
    key, _ = await keys.create(pool, "default", ["read"], Lifetime())
    early = await publication(pool)
    await keys.revoke(pool, key.id)
    await publisher.publish()
    newest = await registry.publish(early.snapshot.number, early.version, early.records)
    assert newest > early.snapshot.number
    assert await published(client) == {}
    assert await publisher.run() is False


async def test_an_older_transaction_that_commits_later_has_the_higher_number(pool):
    await keys.create(pool, "default", ["read"], Lifetime())
    async with pool.acquire() as first, pool.acquire() as second:
        await first.execute("BEGIN")
        await first.execute("UPDATE api_keys SET revoked_at = now()")
        waiting = asyncio.create_task(second.execute("UPDATE api_keys SET tenant = 'acme'"))
        before = (await publication(pool)).snapshot.number
        assert not waiting.done()
        await first.execute("COMMIT")
        await waiting
    assert (await publication(pool)).snapshot.number == before + 2


async def test_keys_that_redis_has_lost_are_published_again(pool, publisher, client):
    key, _ = await keys.create(pool, "default", ["read"], Lifetime())
    assert await publisher.run() is True
    assert await publisher.run() is False
    losses = ["FLUSHALL", f"DEL {KEYS}", f"DEL {VERSION}", f"SET {KEYS} x", f"SET {NUMBER} x", f"SET {NUMBER} 1"]
    for loss in losses:
        await client.execute_command(*loss.split())
        assert await publisher.run() is True, loss
        assert set(await published(client)) == {key.id}
        assert await publisher.run() is False


async def test_publishers_agree_and_write_nothing_that_is_published(pool, registry, client):
    some = [KeyPublisher(pool, registry) for _ in range(4)]
    for _ in range(3):
        await keys.create(pool, "default", ["read"], Lifetime())
        await asyncio.gather(*(one.run() for one in some))
    version, number = await client.get(VERSION), await client.get(NUMBER)
    assert [await one.run() for one in some] == [False] * 4
    assert (await client.get(VERSION), await client.get(NUMBER)) == (version, number)
    assert len(await published(client)) == 3


async def test_a_database_that_was_restored_from_a_backup_counts_again(pool, publisher, client):
    await keys.create(pool, "default", ["read"], Lifetime())
    await publisher.run()
    backup = await pool.fetch("SELECT * FROM api_key_changes")
    late, _ = await keys.create(pool, "default", ["read"], Lifetime())
    await publisher.run()
    await pool.execute("DELETE FROM api_keys WHERE id = $1", late.id)
    await pool.execute("UPDATE api_key_changes SET number = $1", backup[0]["number"])
    assert await publisher.run() is True
    assert late.id not in await published(client)
    assert await publisher.run() is False


async def test_a_key_leaves_redis_when_it_expires(pool, publisher, client):
    stays, _ = await keys.create(pool, "default", ["read"], Lifetime(lasts=timedelta(hours=1)))
    await keys.create(pool, "default", ["read"], Lifetime(lasts=timedelta(seconds=0.5)))
    await publisher.run()

    async def only_one() -> bool:
        await publisher.run()
        return set(await published(client)) == {stays.id}

    await until(only_one, "the end of the expired key")


async def test_a_change_by_hand_is_published_too(pool, publisher, client):
    await keys.create(pool, "default", ["read"], Lifetime())
    await publisher.run()
    await pool.execute("UPDATE api_keys SET revoked_at = now()")
    assert await publisher.run() is True
    assert await published(client) == {}
    await pool.execute("TRUNCATE api_keys")
    assert await publisher.run() is True


async def test_a_key_is_revoked_although_redis_is_full(pool, publisher, client):
    key, _ = await keys.create(pool, "default", ["read"], Lifetime())
    await publisher.run()
    await client.config_set("maxmemory", "1")
    await keys.revoke(pool, key.id)
    await publisher.run()
    assert await published(client) == {}


async def test_last_uses_are_copied_and_those_of_no_key_deleted(pool, publisher, client):
    key, _ = await keys.create(pool, "default", ["read"], Lifetime())
    at = 1_790_000_000_123
    await client.hset(USED, mapping={key.id: at, "aaaaaaaaaaaa": at, "odd": "x", "far": 10**30})
    await publisher.copy_last_uses()
    (record,) = await keys.list_keys(pool, None, 10)
    assert record.last_used_at is not None
    assert record.last_used_at.timestamp() == pytest.approx(at / 1000)
    assert set(await client.hkeys(USED)) == {key.id.encode(), b"odd", b"far"}
    await client.hset(USED, key.id, at - 1000)
    await publisher.copy_last_uses()
    assert (await keys.list_keys(pool, None, 10))[0].last_used_at == record.last_used_at


async def test_an_orchestrator_publishes_the_keys_by_itself(stores, pool, client):
    key, _ = await keys.create(pool, "default", ["read"], Lifetime())
    stop = asyncio.Event()
    settings = load_settings()
    topology = load_topology(topology_path(settings), schemas_path())
    work = asyncio.create_task(run_roles(["orchestrator"], settings, topology, concurrency=None, stop=stop))

    async def there() -> bool:
        assert not work.done()
        return set(await published(client)) == {key.id}

    try:
        await until(there, "the publication")
        await client.flushall()
        await until(there, "the publication after a loss")
        await keys.revoke(pool, key.id)

        async def gone() -> bool:
            return await published(client) == {} and await client.get(VERSION) is not None

        await until(gone, "the end of the key")
    finally:
        stop.set()
        await work
