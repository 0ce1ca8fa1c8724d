"""What the documentation shows, for tests that try it."""

import re
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def shown_sources() -> Sequence[str]:
    """Return each file of webhook sources that docs/webhooks.md shows."""
    return _YAML.findall((ROOT / "docs/webhooks.md").read_text())
