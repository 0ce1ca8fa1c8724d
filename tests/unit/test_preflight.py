"""What `octollm up` refuses before it starts anything."""

import os
from pathlib import Path

import pytest

from octollm.devstack import preflight
from octollm.errors import SettingsError
from octollm.settings.loader import load_settings


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("OCTOLLM_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_fine():
    preflight.check(load_settings())


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("OCTOLLM_REFLEX_LISTEN", "somewhere:8080", "reflex.listen is refused: must be an IP address"),
        ("OCTOLLM_REFLEX_LISTEN", "192.0.2.1:8080", r"nothing can listen on 192\.0\.2\.1 here"),
        ("OCTOLLM_API_LISTEN", "192.0.2.1:0", "nothing can listen on 192.0.2.1 here"),
        ("OCTOLLM_WORKER_METRICS_LISTEN", "192.0.2.1:0", "OCTOLLM_WORKER_METRICS_LISTEN"),
        ("OCTOLLM_EXECUTOR_METRICS_LISTEN", "no-such-host.invalid:0", "OCTOLLM_EXECUTOR_METRICS_LISTEN"),
        ("OCTOLLM_EXECUTOR_WORKSPACE_DIR", "/nowhere/at-all", "the workspace folder /nowhere/at-all is no folder"),
    ],
)
def test_a_setting_that_some_program_would_refuse_later(monkeypatch, name, value, said):
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=said):
        preflight.check(load_settings())


@pytest.mark.parametrize("listen", ["localhost:0", "127.0.0.1:8080", "0.0.0.0:0"])
def test_what_is_wanted_is_taken(monkeypatch, tmp_path: Path, listen):
    monkeypatch.setenv("OCTOLLM_REFLEX_LISTEN", listen)
    monkeypatch.setenv("OCTOLLM_EXECUTOR_WORKSPACE_DIR", str(tmp_path))
    preflight.check(load_settings())
