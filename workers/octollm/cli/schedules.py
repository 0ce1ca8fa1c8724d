"""`octollm schedules`: checks `schedules.yaml` and tells when what is due."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from octollm.cli.lists import table
from octollm.cli.output import JsonOption, emit_json, note, out
from octollm.contracts.ids import as_text
from octollm.resources import schemas_path
from octollm.settings.files import schedules_path, topology_path
from octollm.settings.loader import load_settings
from octollm.topology import load_topology
from octollm.topology.schedules import Schedule, load_schedules

_COLUMNS = ("name", "cron", "zone", "tenant", "next", "description")


def schedules(
    *,
    count: Annotated[int, typer.Option(min=1, max=100, help="How many of the next times to tell.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """List the tasks that are submitted by the clock, with the next times by their own clocks."""
    settings = load_settings()
    path = schedules_path(settings)
    tenants = load_topology(topology_path(settings), schemas_path()).ingest.tenants
    found, now = load_schedules(path, tenants), datetime.now(UTC)
    if as_json:
        items = [{**_about(one), "next": [as_text(moment) for moment in one.following(now, count)]} for one in found]
        emit_json({"file": str(path), "items": items})
    elif not found:
        note(f"{path} has no schedules")
    else:
        rows: list[dict[str, object]] = []
        for one in found:
            times = [f"{moment.astimezone(one.zone):%Y-%m-%d %H:%M %Z}" for moment in one.following(now, count)]
            rows.append({**_about(one), "next": times[0] if times else "never"})
            rows += [{"next": time} for time in times[1:]]
        out().print(table(rows, _COLUMNS))


def _about(one: Schedule) -> dict[str, object]:
    same = {name: getattr(one, name) for name in ("name", "description", "cron", "tenant")}
    return {**same, "zone": one.zone.key}
