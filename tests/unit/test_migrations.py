"""Rules for migration files, and what starting a worker does not import."""

import subprocess
import sys

import pytest

from octollm.database.migrate import load_migrations, newest_revision
from octollm.errors import StartError


def test_the_releases_own_migrations_are_read_in_order():
    revisions = [one.revision for one in load_migrations()]
    assert revisions == sorted(revisions)
    assert newest_revision() == revisions[-1]


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        ({"1_short.sql": "-- compatible-from: 0001\n"}, "name it NNNN_words.sql"),
        ({"0001_no_header.sql": "SELECT 1;\n"}, "begin it with"),
        ({"0001_future.sql": "-- compatible-from: 0002\n"}, "not newer than its own"),
        ({"0001_a.sql": "-- compatible-from: 0001\n", "0001_b.sql": "-- compatible-from: 0001\n"}, "same revision"),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused(tmp_path, files, problem):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(StartError, match=problem):
        load_migrations(tmp_path)


def test_a_worker_imports_nothing_that_only_few_roles_need():
    heavy = ("numpy", "qdrant_client", "anthropic", "openai", "fastapi")
    script = f"import sys, octollm.runtime.worker; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
