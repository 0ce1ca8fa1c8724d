"""`octollm schedules`: checks `schedules.yaml` and prints when each schedule is due."""

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
    count: Annotated[int, typer.Option(min=1, max=100, help="How many of the next due times to print for each.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help=JsonOption)] = False,
) -> None:
    """List the schedules and when they are due next.

    Times are in each schedule's time zone.
    """
    settings = load_settings()
    path = schedules_path(settings)
    tenants = load_topology(topology_path(settings), schemas_path()).ingest.tenants
    found, now = load_schedules(path, tenants), datetime.now(UTC)
    if as_json:
        items = [{**_facts(one), "next": [as_text(moment) for moment in one.following(now, count)]} for one in found]
        emit_json({"file": str(path), "items": items})
    elif not found:
        note(f"{path} contains no schedules")
    else:
        rows: list[dict[str, object]] = []
        for one in found:
            times = [f"{moment.astimezone(one.zone):%Y-%m-%d %H:%M %Z}" for moment in one.following(now, count)]
            rows.append({**_facts(one), "next": times[0] if times else "never"})
            rows += [{"next": time} for time in times[1:]]
        out().print(table(rows, _COLUMNS))


def _facts(schedule: Schedule) -> dict[str, object]:
    facts = {name: getattr(schedule, name) for name in ("name", "description", "cron", "tenant")}
    return {**facts, "zone": schedule.zone.key}
