"""`schemas/generate.py` writes everything in one run, whatever depends on what."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_one_run_follows_a_changed_schema(tmp_path: Path) -> None:
    for part in ("schemas", "workers/octollm"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("target", "__pycache__"))
    (tmp_path / "docs").mkdir()
    for file in ("docs/openapi.json", "pyproject.toml"):
        shutil.copy(ROOT / file, tmp_path / file)
    schema = tmp_path / "schemas/events/task.status.v1.schema.json"
    changed = json.loads(schema.read_text())
    changed["properties"]["note"] = {"type": "string", "maxLength": 10, "description": "A new field."}
    schema.write_text(json.dumps(changed))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "workers")}

    def generate(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "schemas/generate.py", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    before = generate("--check")
    assert before.returncode == 1
    assert "task_status_v1_schema.py" in before.stderr
    written = generate()
    assert written.returncode == 0, written.stderr
    assert "A new field." in (tmp_path / "docs/openapi.json").read_text()
    after = generate("--check")
    assert (after.returncode, after.stderr) == (0, "")
