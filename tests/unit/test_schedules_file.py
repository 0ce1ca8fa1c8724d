"""A wrong file of schedules refuses to load and says where and what to change."""

from pathlib import Path

import pytest

from octollm.contracts import TaskSubmission, read
from octollm.errors import SchedulesError
from octollm.resources import share_dir
from octollm.topology.schedules import load_schedules

GOOD = """
version: 1
schedules:
  morning-note:
    description: a note on every working day
    cron: 30 7 * * MON-FRI
    zone: Europe/Berlin
    tenant: default
    submission: {goal: keep a note, kind: note, input: {text: good morning}}
"""


def load(folder: Path, text: str):
    file = folder / "schedules.yaml"
    file.write_text(text)
    return load_schedules(file, ["default", "acme"])


def test_a_good_one_is_what_it_says(tmp_path):
    (one,) = load(tmp_path, GOOD)
    assert (one.name, one.cron, one.zone.key, one.tenant) == (
        "morning-note", "30 7 * * MON-FRI", "Europe/Berlin", "default",
    )  # fmt: skip
    assert read(TaskSubmission, one.body).input == {"text": "good morning"}


def test_the_one_that_ships_has_none_and_its_example_is_good(tmp_path):
    shipped = (share_dir() / "schedules.yaml").read_text()
    assert load(tmp_path, shipped) == ()
    example = shipped[shipped.index("# schedules:") : shipped.index("version: 1")].replace("# ", "")
    assert [one.name for one in load(tmp_path, f"version: 1\n{example}")] == ["morning-note"]


@pytest.mark.parametrize(
    ("old", "new", "reported"),
    [
        ("version: 1", "version: 2", "version: is 2"),
        ("version: 1\n", "", "version: missing; add it"),
        ("    zone:", "    zones: UTC\n    zone:", "schedules.morning-note.zones: unknown key"),
        ("morning-note:", "Morning:", "schedules.Morning: is no name"),
        ("30 7 * * MON-FRI", "30 25 * * *", "schedules.morning-note.cron: Bad hour"),
        ("30 7 * * MON-FRI", "hourly", "schedules.morning-note.cron: must have five fields"),
        ("30 7 * * MON-FRI", "5", "schedules.morning-note.cron: Input should be a valid string"),
        ("Europe/Berlin", "Europe/Bern-West", "schedules.morning-note.zone: is no known time zone"),
        ("Europe/Berlin", "/etc/passwd", "schedules.morning-note.zone: is no known time zone"),
        ("Europe/Berlin", "Europe", "schedules.morning-note.zone: is no known time zone"),
        ("Europe/Berlin", '""', "schedules.morning-note.zone: is no known time zone"),
        ("tenant: default", "tenant: nobody", "schedules.morning-note.tenant: has no ingest stream"),
        ("goal: keep a note, ", "", "schedules.morning-note.submission: goal"),
        ("kind: note", "kind: Note", "schedules.morning-note.submission: kind"),
        ("kind: note", "not_before: 2026-01-01T00:00:00.000Z", "schedules.morning-note.submission.not_before"),
        ("  morning-note:", "  morning-note: {}\n  morning-note:", "stands twice"),
        ("schedules:", "schedules: [", "not valid YAML"),
    ],
)
def test_a_wrong_one_says_where_and_what(tmp_path, old, new, reported):
    assert old in GOOD
    with pytest.raises(SchedulesError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert reported in str(caught.value)
    assert str(tmp_path / "schedules.yaml") in str(caught.value)


def test_one_that_is_not_there_names_the_setting(tmp_path):
    with pytest.raises(SchedulesError, match="OCTOLLM_SCHEDULES_FILE"):
        load_schedules(tmp_path / "none.yaml", ["default"])
