"""Every event schema is readable JSON, closed, and requires only what it describes."""

import json
import unittest
from pathlib import Path

EVENTS = Path(__file__).resolve().parents[2] / "schemas" / "events"


class SchemasAreClosed(unittest.TestCase):
    def test_each_object_is_closed(self) -> None:
        files = sorted(EVENTS.glob("*.schema.json"))
        self.assertEqual(len(files), 9)
        for file in files:
            schema = json.loads(file.read_bytes())
            for part in [schema, *schema.get("$defs", {}).values()]:
                if "properties" in part:
                    self.assertIs(part["additionalProperties"], False, file.name)
                    self.assertLessEqual(set(part["required"]), set(part["properties"]), file.name)
