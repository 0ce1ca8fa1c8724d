"""Record the queries of this release and the tables they were written for: `python -m tests.compat.record`.

Each release leaves one file, `tests/compat/<newest revision>.json`. Once a migration is added, the files of earlier
revisions never change, and `tests/integration/test_schema_compatibility.py` checks them against the new schema.
"""

import asyncio
import json
import tempfile
from pathlib import Path
from typing import Any

import asyncpg

from octollm.database.migrate import migrate, newest_revision
from octollm.database.queries import queries
from octollm.devstack.embedded.postgres import EmbeddedPostgres
from octollm.resources import checkout

FOLDER = Path(__file__).parent
Recorded = dict[str, Any]


async def describe(connection: asyncpg.Connection) -> Recorded:
    """Describe this release: each query with the types of its parameters and columns, and each table's columns."""
    described = {name: await _query(connection, sql) for name, sql in _queries().items()}
    columns = await connection.fetch(
        "SELECT table_name, array_agg(column_name::text ORDER BY column_name) AS columns"
        " FROM information_schema.columns WHERE table_schema = 'public' GROUP BY table_name ORDER BY table_name"
    )
    return {"queries": described, "tables": {row["table_name"]: row["columns"] for row in columns}}


async def problems(connection: asyncpg.Connection, recorded: Recorded) -> list[str]:
    """Return, one sentence each, what code of a recorded release could not do with the database's schema."""
    found = []
    for name, query in recorded["queries"].items():
        try:
            now = await _query(connection, query["sql"])
        except asyncpg.PostgresError as error:
            found.append(f"{name}: {error}")
            continue
        if now["parameters"] != query["parameters"]:
            found.append(f"{name}: parameters {query['parameters']} are now {now['parameters']}")
        found += [
            f"{name}: column {column} was {type_} and is now {now['columns'].get(column, 'missing')}"
            for column, type_ in query["columns"].items()
            if now["columns"].get(column) != type_
        ]
    required = await connection.fetch(
        "SELECT table_name, column_name FROM information_schema.columns"
        " WHERE table_schema = 'public' AND is_nullable = 'NO'"
    )
    tables = recorded["tables"]
    found += [
        f"{table}.{column} is new and must be nullable: the release inserts rows without it"
        for table, column in required
        if table in tables and column not in tables[table]
    ]
    return found


def _queries() -> dict[str, str]:
    root = checkout()
    assert root is not None
    found: dict[str, str] = {}
    for file in sorted((root / "workers" / "octollm").glob("*/sql/*.sql")):
        package = f"octollm.{file.parent.parent.name}"
        found |= {f"{package}/{file.stem}/{name}": sql for name, sql in queries(package, file.stem).items()}
    return found


async def _query(connection: asyncpg.Connection, sql: str) -> Recorded:
    prepared = await connection.prepare(sql)
    return {
        "sql": sql,
        "parameters": [one.name for one in prepared.get_parameters()],
        "columns": {one.name: one.type.name for one in prepared.get_attributes()},
    }


async def _main() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # a short path, since it has to hold a socket
        server = await EmbeddedPostgres.start(Path(folder) / "postgres", ephemeral=True)
        try:
            await migrate(server.dsn)
            connection = await asyncpg.connect(server.dsn)
            recorded = await describe(connection)
            await connection.close()
        finally:
            await server.stop()
    text = json.dumps(recorded, indent=1, sort_keys=True, ensure_ascii=False)
    (FOLDER / f"{newest_revision()}.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    asyncio.run(_main())
