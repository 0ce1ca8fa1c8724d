"""Reads `streams.yaml` strictly: wiring with a gap is refused with its place and what to change.

The same rules hold in `schemas/rust/src/topology.rs`; the files in `tests/contract/topologies` judge both.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from octollm.errors import TopologyError
from octollm.topology import strict_yaml
from octollm.topology.file import RetryFile, TopicFile, TopologyFile, WorkFile
from octollm.topology.keys import PRIORITIES
from octollm.topology.model import ARM, EventStream, Ingest, Retry, Topic, Topology

_REQUIRED = ("tasks", "steps.done", "dead")
_KNOWN = ("tasks", "steps.done", "results", "dead")
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_LANE = re.compile(r"l[0-9]{1,4}")
_HANDLER = re.compile(r"program:[A-Za-z0-9_-]+|[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*:[A-Za-z0-9_]+")
_ONE_GROUP = "not one group name; a work stream has exactly one group"
_EVENT = re.compile(r"[A-Za-z0-9.]+")


def load_topology(path: Path, schemas_dir: Path) -> Topology:
    """The topology in `path`; `schemas_dir` is the folder of the event schemas. Raises TopologyError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TopologyError(
            f"{path}: cannot be read ({error}); set OCTOLLM_TOPOLOGY_FILE to a topology file"
        ) from error
    try:
        return parse_topology(text, schemas_dir)
    except TopologyError as error:
        raise TopologyError(f"{path}: {error}") from error


def parse_topology(text: str, schemas_dir: Path) -> Topology:
    """`load_topology` without reading the file itself."""
    try:
        raw = strict_yaml.load(text)
    except strict_yaml.YAMLError as error:
        raise TopologyError(f"not valid YAML: {error}") from error
    try:
        file = TopologyFile.model_validate(raw)
    except ValidationError as error:
        raise TopologyError(_explain(error.errors(include_url=False)[0])) from error
    _check(file, schemas_dir)
    return _freeze(file)


def _explain(fault: ErrorDetails) -> str:
    place = strict_yaml.place(fault)
    if place.endswith(".group") and fault["type"] not in {"missing", "extra_forbidden"}:
        return f"{place}: {_ONE_GROUP}"
    return strict_yaml.explain(fault)


def _check(file: TopologyFile, events: Path) -> None:
    _ensure(file.version == 1, f"version: is {file.version}, this program reads version 1")
    _distinct("lanes", file.lanes)
    for lane in file.lanes:
        _ensure(_LANE.fullmatch(lane), f"lanes: {lane} is no lane name; write l0 to l9999")
    _ensure(file.priorities == PRIORITIES, "priorities: must be [high, normal, low]; messages carry exactly these")
    _distinct("ingest.tenants", file.ingest.tenants)
    for tenant in file.ingest.tenants:
        _ensure(
            _TENANT.fullmatch(tenant),
            f"ingest.tenants: {tenant} is no tenant name; use lower-case letters, digits, _ and -",
        )
    _ensure(file.ingest.accepts == ("task.submission.v1",), "ingest.accepts: must be [task.submission.v1]")
    _check_work("ingest", file.ingest, events)
    for name in _REQUIRED:
        _ensure(name in file.topics, f"topics: {name} is missing; add it")
    for name, topic in file.topics.items():
        _check_topic(name, topic, events, lanes=len(file.lanes))
    _ensure("events" in file.live, "live: events is missing; add it")
    for name, live in file.live.items():
        _ensure(name not in file.topics, f"live.{name}: is also a topic; rename one of them")
        _check_accepts(f"live.{name}", live.accepts, events)


def _check_topic(name: str, topic: TopicFile, events: Path, lanes: int) -> None:
    at = f"topics.{name}"
    arm = name.removeprefix(ARM) if name.startswith(ARM) else None
    _ensure(
        name in _KNOWN if arm is None else _NAME.fullmatch(arm),
        f"{at}: unknown topic; known are {', '.join(_KNOWN)} and arm.<name>",
    )
    _check_work(at, topic, events)
    prioritised = arm is not None or name == "tasks"
    _ensure(
        topic.priorities == prioritised,
        f"{at}.priorities: must be {str(prioritised).lower()}; tasks and arms have priorities, others have none",
    )
    _ensure(
        prioritised or topic.window is None,
        f"{at}.window: belongs to tasks and arms only; remove it",
    )
    cap = topic.max_running_per_tenant
    if arm is None:
        _ensure(cap is None, f"{at}.max_running_per_tenant: belongs to arms only; remove it")
        _ensure(
            topic.timeout_s is None and topic.retry is None,
            f"{at}: timeout_s and retry belong to arms only; remove them",
        )
        return
    _ensure(topic.accepts == ("step.requested.v1",), f"{at}.accepts: an arm takes [step.requested.v1]")
    _ensure(topic.group == arm, f"{at}.group: is {topic.group}, must be the arm's name {arm}")
    _ensure(topic.timeout_s is not None, f"{at}.timeout_s: an arm needs one, at least 1")
    if topic.retry is None:
        raise TopologyError(f"{at}.retry: an arm needs one")
    _ensure(topic.retry.cap_ms >= topic.retry.base_ms, f"{at}.retry: cap_ms must be at least base_ms")
    _ensure(
        cap is None or cap >= lanes,
        f"{at}.max_running_per_tenant: is {cap}, must be at least {lanes}; each lane gets its share",
    )


def _check_work(at: str, work: WorkFile, events: Path) -> None:
    _check_accepts(at, work.accepts, events)
    _ensure(_NAME.fullmatch(work.group), f"{at}.group: {_ONE_GROUP}")
    _ensure(
        _HANDLER.fullmatch(work.handler),
        f"{at}.handler: {work.handler!r} is no handler; write package.module:Class or program:<name>",
    )
    _ensure(
        work.lease_s >= 3 * work.heartbeat_s,
        f"{at}.lease_s: is {work.lease_s}, must be at least three heartbeats ({3 * work.heartbeat_s})",
    )


def _check_accepts(at: str, accepts: Sequence[str], events: Path) -> None:
    _distinct(f"{at}.accepts", accepts)
    for event in accepts:
        _ensure(
            _EVENT.fullmatch(event) and (events / f"{event}.schema.json").is_file(),
            f"{at}.accepts: no schema for {event}; add schemas/events/{event}.schema.json or correct the name",
        )


def _distinct(at: str, names: Sequence[str]) -> None:
    for name in names:
        _ensure(names.count(name) == 1, f"{at}: {name} stands twice; remove one")


def _ensure(holds: object, message: str) -> None:
    if not holds:
        raise TopologyError(message)


def _freeze(file: TopologyFile) -> Topology:
    topics = {
        name: Topic(name=name, **{**dict(topic), "retry": _freeze_retry(topic.retry)})
        for name, topic in file.topics.items()
    }
    live = {name: EventStream(name=name, **dict(one)) for name, one in file.live.items()}
    return Topology(
        version=file.version,
        lanes=file.lanes,
        priorities=file.priorities,
        ingest=Ingest(**dict(file.ingest)),
        topics=MappingProxyType(topics),
        live=MappingProxyType(live),
    )


def _freeze_retry(retry: RetryFile | None) -> Retry | None:
    return None if retry is None else Retry(**dict(retry))
