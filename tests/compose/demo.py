"""`make compose-demo`: builds the images, runs compose.yaml from them, and proves that the stack does what it says.

Skipped with its reason and exit code 0 where there can be no engine. Leaves no container, network, volume, process or
mount; the images stay in build/compose.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import asyncpg
import httpx
import redis

from tests.compose import images
from tests.compose.engine import ROOT, UnavailableError, engine
from tests.compose.stack import PROJECT, WEBHOOK_SECRET, Stack, stack

JUDGES = 4
_TASKS = 200
_TIMEOUT_S = 120
_STREAM = "{l0}:arm.judge:normal"
_NETWORKS = {
    "executor": {"inside"},
    "orchestrator": {"inside"},
    "archive": {"inside"},
    "callbacks": {"inside", "outside"},
    "guardian": {"inside"},
    "judge": {"inside"},
    "memory": {"inside", "outside"},
    "retriever": {"inside", "outside"},
    "planner": {"inside", "outside"},
    "coder": {"inside", "outside"},
    "api": {"inside", "ingress"},
}


def main() -> int:
    """0: proved, or skipped for a reason that was printed."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended from outside it tidies up as well
    ready = subprocess.run([ROOT / ".ci" / "setup-compose"], capture_output=True, text=True, check=False)
    if ready.returncode == 3:
        return _skip(ready.stderr.strip())
    try:
        _prove()
    except UnavailableError as error:
        return _skip(str(error))
    except (RuntimeError, AssertionError) as error:
        print(f"compose-demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("compose-demo stopped before its end; nothing was left", file=sys.stderr)
        return 130
    print("compose-demo: all as expected")
    return 0


def _skip(why: str) -> int:
    print(f"compose-demo skipped: {why}")
    return 0


def _prove() -> None:
    with engine() as found:
        version = found.run("version", "--format", "{{.Server.Version}}").strip()
        tell(f"Docker {version}, {' '.join(found.compose)}")
        try:
            timed("stand-ins for the images of Python, Redis and Postgres", lambda: images.make_stand_ins(found, tell))
            timed("packages (wheel with both programs, locked dependencies)", lambda: images.make_packages(found))
            with stack(found, images.variables()) as composed:
                composed.compose("config", "--quiet")
                timed("images", lambda: composed.compose("build", "reflex", "executor", "orchestrator"))
                for name, size in images.sizes(found).items():
                    tell(f"{name}: {size / 1e6:.0f} MB")
                _run(composed)
        finally:
            if not found.own:
                images.remove(found)


def _run(composed: Stack) -> None:
    def up() -> None:
        composed.up()
        composed.until_healthy(count)

    count = len(composed.compose("config", "--services").split())
    count -= "qdrant" in composed.compose("config", "--services").split()
    tell(
        "Qdrant is left out, for want of its image: QDRANT_URL is empty, memory keeps no vectors, search is by keywords"
    )
    timed(f"up: {count} services healthy", up)
    timed("the demo's tasks", lambda: _demo(composed))
    timed("the API next to the reflex answers what was stored", lambda: _read(composed))
    timed(f"--scale judge={JUDGES}: so many consumers, and all of them work", lambda: _scale(composed, count))
    timed("a judge is killed while it holds work: the others finish it", lambda: _kill(composed))
    timed("the containers keep to their walls", lambda: _walls(composed))


def _demo(composed: Stack) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OCTOLLM_")},
        "OCTOLLM_REFLEX_URL": composed.http_url,
        "OCTOLLM_REDIS_URL": composed.redis_url,
        "OCTOLLM_POSTGRES_DSN": composed.postgres_dsn,
        WEBHOOK_SECRET: composed.environment[WEBHOOK_SECRET],
    }
    done = subprocess.run([sys.executable, "-m", "octollm", "demo", "--against"], env=environment, check=False)
    assert done.returncode == 0, "not every task of the demo came out as expected"


def _read(composed: Stack) -> None:
    with httpx.Client(trust_env=False, timeout=30) as client:
        here, there = (client.get(f"{url}/v1/tasks").json() for url in (composed.api_url, composed.http_url))
    assert here["items"], f"the API knows no task: {here}"
    assert here == there, f"the reflex forwards something else than the API answers: {there}"


def _scale(composed: Stack, count: int) -> None:
    composed.up("--no-recreate", "--scale", f"judge={JUDGES}")
    composed.until_healthy(count + JUDGES - 1)
    tasks = _submit(composed, _TASKS)
    _until_all_succeeded(composed, tasks)
    # Looked at only now: up to Redis 7.0 a consumer that has waited only is not listed.
    with redis.Redis.from_url(composed.redis_url, decode_responses=True) as client:
        hosts = {one["name"].partition("-")[0] for one in client.xinfo_consumers(_STREAM, "judge")}
    assert hosts == set(composed.containers("judge")), f"the consumers are {hosts}"
    shares = asyncio.run(_shares(composed, tasks))
    tell(f"steps of {_TASKS} tasks by judge: {sorted(shares.values())}")
    assert len(shares) == JUDGES, f"only {len(shares)} judges worked: {shares}"


def _kill(composed: Stack) -> None:
    """Stopped first, so that what Redis hands it is certainly in its hands when it dies."""
    victim = next(iter(composed.containers("judge")))
    tasks: list[str] = []
    with redis.Redis.from_url(composed.redis_url, decode_responses=True) as client:

        def held() -> int:
            found = client.xinfo_consumers(_STREAM, "judge")
            return sum(one["pending"] for one in found if one["name"].startswith(victim))

        def stopped_with_work() -> bool:
            # Stopped while there is work for all of them. Between two reads it holds nothing: then once more.
            with ThreadPoolExecutor(1) as pool:
                sending = pool.submit(_submit, composed, _TASKS // 2)
                composed.engine.run("kill", "--signal", "STOP", victim)
                tasks.extend(sending.result())
            # What was on its way to Redis when it was stopped has arrived once the number stays.
            before, current = -1, held()
            while before != current:
                time.sleep(0.5)
                before, current = current, held()
            if not current:
                composed.engine.run("kill", "--signal", "CONT", victim)
            return current > 0

        _until(stopped_with_work, "the stopped judge was handed nothing")
        tell(f"killed with {held()} steps in its hands")
    composed.engine.run("kill", victim)
    _until_all_succeeded(composed, tasks)
    reclaimed = asyncio.run(
        _query(composed, "SELECT count(*) FROM attempts WHERE task = ANY($1) AND delivery > 1", tasks)
    )
    assert reclaimed > 0, "no step was reclaimed"
    tell(f"{reclaimed} steps were reclaimed by others")


def _walls(composed: Stack) -> None:
    """What compose.yaml says of every program, asked from inside; its networks, asked of Docker."""
    question = "import os; print(os.getuid(), int(open('/proc/self/status').read().split('CapEff:')[1].split()[0], 16))"
    for service, networks in _NETWORKS.items():
        container = next(one for one, state in composed.containers(service).items() if "(healthy)" in state)
        said = composed.engine.run("exec", container, "python3", "-c", question).strip()
        user = 10002 if service == "executor" else 10001
        assert said == f"{user} 0", f"user and capabilities in {service}: {said}"
        written = subprocess.run(
            [composed.engine.docker, "exec", container, "sh", "-c", "echo >/opt/octollm/file"],
            env=composed.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert "Read-only file system" in written.stderr, f"{service} can write its own files"
        found = json.loads(composed.engine.run("inspect", "--format", "{{json .NetworkSettings.Networks}}", container))
        assert set(found) == {f"{PROJECT}_{name}" for name in networks}, f"{service} is in {set(found)}"
    internal = composed.engine.run("network", "inspect", "--format", "{{.Internal}}", f"{PROJECT}_inside").strip()
    assert internal == "true", "the network inside has a way out"
    doctor = composed.compose("exec", "-T", "executor", "/opt/octollm/bin/octollm-executor", "doctor")
    assert "isolation      namespaces" in doctor, doctor


def _submit(composed: Stack, number: int) -> list[str]:
    body = {"goal": "keep it", "kind": "note", "input": {"text": "hello"}}
    with httpx.Client(base_url=composed.http_url, trust_env=False, timeout=30) as client:

        def one(_number: int) -> str:
            answer = client.post("/v1/tasks", json=body)
            assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
            return str(answer.json()["task"])

        with ThreadPoolExecutor(8) as threads:
            return list(threads.map(one, range(number)))


def _until_all_succeeded(composed: Stack, tasks: list[str]) -> None:
    question = "SELECT count(*) FROM tasks WHERE id = ANY($1) AND state = 'succeeded'"
    _until(
        lambda: asyncio.run(_query(composed, question, tasks)) == len(tasks), f"not all {len(tasks)} tasks succeeded"
    )


async def _query(composed: Stack, question: str, tasks: list[str]) -> int:
    connection = await asyncpg.connect(composed.postgres_dsn)
    try:
        return int(await connection.fetchval(question, tasks))
    finally:
        await connection.close()


async def _shares(composed: Stack, tasks: list[str]) -> dict[str, int]:
    connection = await asyncpg.connect(composed.postgres_dsn)
    try:
        rows = await connection.fetch(
            "SELECT worker, count(*) FROM attempts WHERE step = 'verdict' AND task = ANY($1) GROUP BY worker", tasks
        )
        return {row["worker"]: row["count"] for row in rows}
    finally:
        await connection.close()


def _until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{otherwise} within {_TIMEOUT_S} s")
        time.sleep(0.2)


def tell(line: str) -> None:
    """Progress."""
    print(f"    {line}", flush=True)


def timed(what: str, work: Callable[[], object]) -> None:
    """Says what is done and how long it took."""
    print(f"==> {what}", flush=True)
    began = time.monotonic()
    work()
    tell(f"{time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    sys.exit(main())
