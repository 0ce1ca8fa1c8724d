"""What OctoLLM needs, looked at piece by piece. Owns the checks; changes nothing and prints nothing."""

import asyncio
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import asyncpg
import httpx2
import orjson

from octollm.client import (
    ApiError,
    AsyncClient,
    ForbiddenError,
    UnauthenticatedError,
    UnknownError,
    UnreachableError,
)
from octollm.client.credentials import API_KEY, resolve
from octollm.database.migrate import current_revision, newest_revision, revision_problem
from octollm.devstack.embedded.postgres import binaries_dir
from octollm.devstack.embedded.redis import find_server
from octollm.errors import OctoError, StartError
from octollm.observability.logging import without_passwords
from octollm.protocol.connection import probe
from octollm.resources import schemas_path
from octollm.runtime.connect_retry import ADVICE, cause
from octollm.runtime.programs import EXECUTOR, REFLEX, find_program, program_version
from octollm.runtime.roles import missing_handlers
from octollm.settings.files import callbacks_path, schedules_path, topology_path, webhooks_path
from octollm.settings.loader import Settings, is_set, load_settings
from octollm.settings.redis_url import redis_url
from octollm.topology import load_topology
from octollm.topology.callbacks import load_callbacks
from octollm.topology.callbacks import unusable_secrets as unusable_callback_secrets
from octollm.topology.schedules import load_schedules
from octollm.topology.webhook_secrets import unusable_secrets
from octollm.topology.webhooks import load_webhooks

_NO_TASK = f"l0-{'0' * 26}"
"""A valid id that no task has."""


class Verdict(StrEnum):
    """How a check came out."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    verdict: Verdict
    found: str
    todo: str | None = None

    def as_object(self) -> dict[str, str]:
        """For JSON."""
        known = {"name": self.name, "verdict": self.verdict.value, "found": self.found}
        return known if self.todo is None else {**known, "todo": self.todo}


async def examine() -> list[Check]:
    """All checks; without readable settings the ones that need them are left out."""
    checks = [_python()]
    try:
        settings = load_settings()
    except OctoError as error:
        return [*checks, Check("settings", Verdict.FAIL, str(error), "correct it, then run doctor again")]
    checks.append(Check("settings", Verdict.OK, "every key is known and every value fits"))
    checks += [
        _topology(settings),
        _schedules(settings),
        _webhooks(settings),
        _callbacks(settings),
        _redis_server(settings),
        _postgres_binaries(),
        _program(REFLEX),
        _program(EXECUTOR),
    ]
    checks.append(await _sandbox())
    checks += await asyncio.gather(_redis(settings), _postgres(settings), _reflex(settings), _credential(settings))
    return checks


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    return Check("python", Verdict.OK, found)  # an older one does not get as far as here


def _topology(settings: Settings) -> Check:
    path = topology_path(settings)
    try:
        missing = missing_handlers(load_topology(path, schemas_path()))
    except OctoError as error:
        return Check("topology", Verdict.FAIL, str(error), f"correct {path}")
    if missing:
        return Check("topology", Verdict.FAIL, "; ".join(missing), f"correct {path} or add what is missing")
    return Check("topology", Verdict.OK, f"{path} is correct, every handler is there")


def _schedules(settings: Settings) -> Check:
    path = schedules_path(settings)
    try:
        found = load_schedules(path, load_topology(topology_path(settings), schemas_path()).ingest.tenants)
    except OctoError as error:
        return Check("schedules", Verdict.FAIL, str(error), f"correct {path}")
    return Check("schedules", Verdict.OK, f"{len(found)} in {path}")


def _webhooks(settings: Settings) -> Check:
    path = webhooks_path(settings)
    try:
        sources = load_webhooks(path)
    except OctoError as error:
        return Check("webhooks", Verdict.FAIL, str(error), f"correct {path}")
    unusable = list(unusable_secrets(sources))
    if unusable:
        return Check("webhooks", Verdict.FAIL, "; ".join(unusable), "set another secret here and at the sender")
    return Check("webhooks", Verdict.OK, f"{len(sources)} in {path}, no secret is weak")


def _callbacks(settings: Settings) -> Check:
    path = callbacks_path(settings)
    try:
        rules = load_callbacks(path)
    except OctoError as error:
        return Check("callbacks", Verdict.FAIL, str(error), f"correct {path}")
    unusable = unusable_callback_secrets(rules)
    if unusable:
        return Check("callbacks", Verdict.WARN, "; ".join(unusable), "set the secret where `worker callbacks` runs")
    return Check("callbacks", Verdict.OK, f"{len(rules.endpoints)} endpoints in {path}, every secret is usable")


def _redis_server(settings: Settings) -> Check:
    try:
        path, version = find_server(settings.redis.server)
    except StartError as error:
        verdict = Verdict.WARN if is_set("redis", "url") else Verdict.FAIL
        found, _, todo = str(error).partition("; ")
        return Check("redis-server", verdict, found, todo)
    return Check("redis-server", Verdict.OK, f"{version} at {path}")


def _postgres_binaries() -> Check:
    try:
        return Check("postgres binaries", Verdict.OK, str(binaries_dir()))
    except StartError as error:
        verdict = Verdict.WARN if is_set("postgres", "dsn") else Verdict.FAIL
        found, _, todo = str(error).partition("; ")
        return Check("postgres binaries", verdict, found, todo)


def _program(name: str) -> Check:
    try:
        path = find_program(name)
        return Check(name, Verdict.OK, f"{program_version(path)} at {path}")
    except StartError as error:
        found, _, todo = str(error).partition("; ")
        return Check(name, Verdict.FAIL, found, todo or "build it again: `cargo build --release`")


async def _sandbox() -> Check:
    """The executor knows best what isolation it can reach here."""
    try:
        path = find_program(EXECUTOR)
        process = await asyncio.create_subprocess_exec(
            path, "doctor", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        output, errors = await asyncio.wait_for(process.communicate(), 30)
        answer = orjson.loads(output)
    except StartError as error:
        return Check("sandbox", Verdict.FAIL, "not known without the executor", str(error).partition("; ")[2])
    except (OSError, TimeoutError) as error:
        return Check("sandbox", Verdict.FAIL, f"the executor's own check does not run: {cause(error)}")
    except orjson.JSONDecodeError:
        said = (errors or output).decode(errors="replace").strip()[:500]
        return Check("sandbox", Verdict.FAIL, f"the executor's own check failed: {said or process.returncode}")
    return _judge_sandbox(answer, process.returncode == 0)


def _judge_sandbox(answer: object, passed: bool) -> Check:  # noqa: FBT001 (two facts of one answer)
    facts = answer if isinstance(answer, dict) else {}
    found = ", ".join(f"{name}: {value}" for name, value in facts.items() if name not in {"ok", "todo"})
    if passed:
        return Check("sandbox", Verdict.OK, found)
    todo = (
        facts.get("todo") or "allow user namespaces or a kernel with Landlock; without both the executor refuses steps"
    )
    return Check("sandbox", Verdict.FAIL, found, str(todo))


async def _redis(settings: Settings) -> Check:
    address = without_passwords(settings.redis.url)
    try:
        facts = await asyncio.wait_for(probe(redis_url(settings.redis)), settings.redis.connect_timeout_s + 5)
    except (OSError, TimeoutError, OctoError) as error:
        return _unreachable("redis", "Redis", address, error, chosen=is_set("redis", "url"))
    version, appendonly, policy = (str(facts.get(name, "")) for name in ("version", "appendonly", "maxmemory_policy"))
    found = f"{facts['product']} {version} at {address}, appendonly {appendonly}, maxmemory-policy {policy}"
    if not version.split(".")[0].isdigit() or int(version.split(".")[0]) < 7:
        return Check("redis", Verdict.FAIL, found, "use Redis 7.0 or newer, or Valkey 8")
    if policy not in {"noeviction", ""}:
        return Check(
            "redis",
            Verdict.FAIL,
            found,
            "`CONFIG SET maxmemory-policy noeviction`: an evicted key is a lost task",
        )
    if appendonly == "no":
        return Check("redis", Verdict.WARN, found, "`CONFIG SET appendonly yes`: without it a restart loses tasks")
    missing = _durability(settings, facts)
    return Check("redis", Verdict.FAIL, found, missing) if missing else Check("redis", Verdict.OK, found)


def _durability(settings: Settings, facts: Mapping[str, str]) -> str | None:
    """What this Redis lacks for the 202 that the deployment needs."""
    needed, replicas = settings.reflex.durability, settings.reflex.durability_replicas
    if needed == "fsync" and (facts.get("appendonly"), facts.get("appendfsync")) != ("yes", "always"):
        return "`CONFIG SET appendfsync always`: reflex.durability is fsync, so nothing is taken without"
    if needed == "fsync" and facts.get("no_appendfsync_on_rewrite") == "yes":
        return "`CONFIG SET no-appendfsync-on-rewrite no`: during a rewrite nothing is synced, so nothing is taken"
    if needed == "replicated" and int(facts["replicas"]) < replicas:
        known = facts["replicas"]
        return f"start replicas: reflex.durability is replicated({replicas}), and {known} follow this Redis"
    return None


async def _postgres(settings: Settings) -> Check:
    address = without_passwords(settings.postgres.dsn)
    try:
        connection = await asyncpg.connect(settings.postgres.dsn, timeout=5)
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        return _unreachable("postgres", "Postgres", address, error, chosen=is_set("postgres", "dsn"))
    try:
        version = connection.get_server_version()
        current = await current_revision(connection)
        problem = await revision_problem(connection)
    finally:
        await connection.close()
    found = (
        f"version {version.major}.{version.minor} at {address}, migration {current or 'none'} of {newest_revision()}"
    )
    if version.major < 15:
        return Check("postgres", Verdict.FAIL, found, "use PostgreSQL 15 or newer")
    if problem is not None:
        return Check("postgres", Verdict.FAIL, found, problem)
    return Check("postgres", Verdict.OK, found)


async def _reflex(settings: Settings) -> Check:
    url = f"{settings.reflex.url}/readyz"
    try:
        async with httpx2.AsyncClient(timeout=5, trust_env=False) as client:
            answer = await client.get(url)
    except httpx2.TransportError as error:
        todo = "start it with `octollm up` or `octollm-reflex`, or set OCTOLLM_REFLEX_URL"
        verdict = Verdict.FAIL if is_set("reflex", "url") else Verdict.WARN
        return Check("reflex", verdict, f"{settings.reflex.url} cannot be reached ({cause(error)})", todo)
    if answer.is_success:
        return Check("reflex", Verdict.OK, f"ready at {settings.reflex.url}")
    said = answer.text.strip()[:300]
    return Check("reflex", Verdict.FAIL, f"{url} answers {answer.status_code}: {said}", "see the reason it gives")


async def _credential(settings: Settings) -> Check:
    """Which credential the command line sends, and whether the reflex accepts it.

    Shows only the public part of a key.
    """
    todo = f"set {API_KEY} to a valid key; `octollm keys create` makes one"
    try:
        url, credential = resolve(settings.reflex.url if is_set("reflex", "url") else None, None)
    except OctoError as error:
        return Check("credential", Verdict.FAIL, str(error), todo)
    sends = "none is sent" if credential is None else f"{credential.visible} from {credential.source}"
    try:
        async with AsyncClient(url, retry_for_s=0) as client:
            await client.status(_NO_TASK)
    except UnknownError:
        pass  # the answer to a caller that may read
    except ForbiddenError:
        return Check("credential", Verdict.WARN, f"{sends}; {url} accepts it, and it lacks the scope read")
    except UnauthenticatedError as error:
        return Check("credential", Verdict.FAIL, f"{sends}: {error}", todo)
    except UnreachableError:
        return Check("credential", Verdict.WARN, f"{sends}; not tried, since {url} cannot be reached")
    except ApiError as error:
        return Check("credential", Verdict.WARN, f"{sends}; it could not be tried: {error}")
    return Check("credential", Verdict.OK, f"{sends}; {url} {'asks for none' if credential is None else 'accepts it'}")


def _unreachable(name: str, product: str, address: str, error: BaseException, *, chosen: bool) -> Check:
    """A failure when someone chose this address; else only worth knowing."""
    found = f"{address} cannot be reached ({cause(error)})"
    if chosen:
        return Check(name, Verdict.FAIL, found, ADVICE[product])
    return Check(
        name,
        Verdict.WARN,
        found,
        f"nothing for `octollm up`, which starts its own; for single workers {ADVICE[product]}",
    )
