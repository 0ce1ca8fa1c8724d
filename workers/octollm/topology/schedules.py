"""`schedules.yaml` as frozen objects: which tasks are submitted at which times, and for whom."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from octollm.contracts import TaskSubmission, read
from octollm.errors import ContractError, SchedulesError
from octollm.topology import cron, strict_yaml

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")


class _Closed(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class _Entry(_Closed):
    description: str
    cron: Annotated[str, AfterValidator(cron.check)]
    zone: str
    tenant: str
    submission: Mapping[str, object]


class _File(_Closed):
    version: int
    schedules: Mapping[str, _Entry]


@dataclass(frozen=True, slots=True)
class Schedule:
    """One of them."""

    name: str
    description: str
    cron: str
    zone: ZoneInfo
    tenant: str
    body: bytes
    """What is submitted, `task.submission.v1`."""

    def following(self, after: datetime, count: int = 1) -> list[datetime]:
        """The next times it is due."""
        return cron.following(self.cron, self.zone, after, count)

    def latest(self, now: datetime) -> datetime | None:
        """The newest time it was due."""
        return cron.latest(self.cron, self.zone, now)


def load_schedules(path: Path, tenants: Iterable[str]) -> tuple[Schedule, ...]:
    """Every schedule in `path`; `tenants`: who has an ingest stream.

    Raises SchedulesError that says what to change.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SchedulesError(
            f"{path}: cannot be read ({error}); set OCTOLLM_SCHEDULES_FILE to a file of schedules"
        ) from error
    try:
        return _parse(text, frozenset(tenants))
    except SchedulesError as error:
        raise SchedulesError(f"{path}: {error}") from error


def _parse(text: str, tenants: frozenset[str]) -> tuple[Schedule, ...]:
    try:
        file = _File.model_validate(strict_yaml.load(text))
    except strict_yaml.YAMLError as error:
        raise SchedulesError(f"not valid YAML: {error}") from error
    except ValidationError as error:
        raise SchedulesError(strict_yaml.explain(error.errors(include_url=False)[0])) from error
    if file.version != 1:
        raise SchedulesError(f"version: is {file.version}, this program reads version 1")
    return tuple(_schedule(name, entry, tenants) for name, entry in file.schedules.items())


def _schedule(name: str, entry: _Entry, tenants: frozenset[str]) -> Schedule:
    at = f"schedules.{name}"
    if not _NAME.fullmatch(name):
        raise SchedulesError(f"{at}: is no name; use a lower-case letter, then letters, digits, _ and -")
    if entry.tenant not in tenants:
        raise SchedulesError(f"{at}.tenant: has no ingest stream; add it to ingest.tenants in streams.yaml")
    try:
        zone = ZoneInfo(entry.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SchedulesError(f"{at}.zone: is no known time zone; use one like Europe/Berlin or UTC") from error
    try:
        # Written as JSON, since YAML has values that JSON has not.
        body = orjson.dumps(entry.submission)
        submission = read(TaskSubmission, body)
    except (TypeError, ContractError) as error:
        raise SchedulesError(f"{at}.submission: {error}") from error
    if submission.not_before is not None:
        raise SchedulesError(f"{at}.submission.not_before: is one moment and the schedule is many; remove it")
    return Schedule(name, entry.description, entry.cron, zone, entry.tenant, body)
