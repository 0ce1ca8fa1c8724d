"""`octollm topology`: checks and draws `streams.yaml`."""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Annotated

import typer

from octollm.cli.output import JsonOption, emit_json, error_line, out
from octollm.resources import schemas_path
from octollm.runtime.roles import missing_handlers
from octollm.settings.files import topology_path
from octollm.settings.loader import load_settings
from octollm.topology import Ingest, Topic, Topology, load_topology
from octollm.topology.graph import edges, mermaid


class Format(StrEnum):
    """Output formats."""

    TEXT = "text"
    MERMAID = "mermaid"


def topology(
    *,
    form: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TEXT,
    handlers: Annotated[
        bool,
        typer.Option("--handlers", help="Also check that every handler can be imported and every program exists."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """Check the topology and draw it.

    The exit code is 1 if it is invalid.
    """
    path = topology_path(load_settings())
    found = load_topology(path, schemas_path())
    missing = missing_handlers(found) if handlers else []
    if as_json:
        emit_json({"file": str(path), "problems": missing, **_as_object(found)})
    elif form is Format.MERMAID:
        out().print(mermaid(found), soft_wrap=True)
    else:
        _print_text(found, str(path))
    for problem in missing:
        error_line(problem)
    if missing:
        raise typer.Exit(1)


def _as_object(found: Topology) -> dict[str, object]:
    return {
        "version": found.version,
        "lanes": list(found.lanes),
        "priorities": list(found.priorities),
        "ingest": {
            "streams": [f"ingest:{tenant}" for tenant in found.ingest.tenants],
            "group": found.ingest.group,
            "handler": found.ingest.handler,
        },
        "topics": [
            {
                "name": topic.name,
                "description": topic.description,
                "accepts": list(topic.accepts),
                "group": topic.group,
                "handler": topic.handler,
                "priorities": topic.priorities,
                "concurrency": topic.concurrency,
                "lease_s": topic.lease_s,
                "max_deliveries": topic.max_deliveries,
                "window": topic.window,
                "max_running_per_tenant": topic.max_running_per_tenant,
            }
            for topic in found.topics.values()
        ],
        "live": [{"name": live.name, "accepts": list(live.accepts)} for live in found.live.values()],
        "edges": [{"from": start, "event": event, "to": end} for start, event, end in edges(found)],
    }


def _print_text(found: Topology, path: str) -> None:
    print_line = partial(out().print, soft_wrap=True)
    print_line(f"{path} is valid.")
    print_line(f"lanes {', '.join(found.lanes)}; priorities {', '.join(found.priorities)}")
    ingest = found.ingest
    for tenant in ingest.tenants:
        print_line(f"\ningest:{tenant}: {ingest.description}")
        _print_work(print_line, ingest)
    for topic in found.topics.values():
        streams = f" (one stream each: {', '.join(found.priorities)})" if topic.priorities else ""
        print_line(f"\n{topic.name}: {topic.description}{streams}")
        _print_work(print_line, topic)
        if topic.window is not None:
            print_line(f"  beyond {topic.window} unread entries, messages wait in one queue per tenant")
        if topic.max_running_per_tenant is not None:
            print_line(f"  at most {topic.max_running_per_tenant} running messages per tenant")
    for live in found.live.values():
        print_line(f"\n{live.name}: {live.description}")
        print_line(f"  {', '.join(live.accepts)} -> event streams; the newest {live.max_length} are kept")
    print_line("\nroutes")
    for start, event, end in edges(found):
        print_line(f"  {start} --{event}--> {end}")


def _print_work(print_line: Callable[[str], None], work: Topic | Ingest) -> None:
    print_line(f"  {', '.join(work.accepts)} -> {work.group} [{work.handler}]")
    print_line(
        f"  {work.concurrency} at once, lease {work.lease_s} s renewed every {work.heartbeat_s} s, "
        f"at most {work.max_deliveries} deliveries"
    )
