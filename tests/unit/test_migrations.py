"""The newest revision is known without alembic, which takes a second to load."""

import subprocess
import sys

from alembic.config import Config
from alembic.script import ScriptDirectory

from octollm.database.migrate import newest


def test_the_newest_revision_is_alembics_head():
    config = Config()
    config.set_main_option("script_location", "octollm.database:migrations")
    assert newest() == ScriptDirectory.from_config(config).get_current_head()


def test_a_worker_loads_nothing_that_only_few_need():
    heavy = ("alembic", "sqlalchemy", "numpy", "qdrant_client", "anthropic", "openai", "fastapi")
    script = f"import sys, octollm.runtime.worker; print([one for one in {heavy} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
