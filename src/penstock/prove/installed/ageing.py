"""Makes a database of today one of before: the schema after some of the migrations, with every row that fits into it.

What an older version wrote is what today's writes without the columns and tables that came later, and with hashes over what there was to
cover then.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from penstock.db import Database, Row, Tx, open_database
from penstock.ledger.book import GENESIS, batch_hash
from penstock.runtime import SystemRuntime
from penstock.sql import migrations

COVERS_SINCE = 4
"""The migration since which the hash of a batch covers more than amounts."""


def age(url: str, last: int) -> int:
    """Rebuild the database as it was after migration `last`; how many rows it has. Nothing else may use it meanwhile."""
    runtime = SystemRuntime()
    try:
        database = open_database(runtime, url)
        rows = database._read(_everything)
        database._close()
        if last < COVERS_SINCE:
            _uncover(rows)
        if database.dialect == "sqlite":
            path = Path(url.removeprefix("sqlite:///"))
            for file in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
                file.unlink(missing_ok=True)
        database = open_database(runtime, url)
        try:
            return database._write("age", lambda tx: _rebuild(tx, database, rows, last))
        finally:
            database._close()
    finally:
        runtime.close()


def _tables(last: int) -> list[str]:
    """In the order in which they were made: none refers to a later one."""
    return [name for number, _, text in migrations() if number <= last for name in re.findall(r"CREATE TABLE (\w+)", text)]


def _everything(tx: Tx) -> dict[str, list[Row]]:
    return {table: tx.all(f"SELECT * FROM {table}") for table in _tables(max(number for number, _, _ in migrations()))}


def _uncover(rows: dict[str, list[Row]]) -> None:
    """Chain the batches again over entries that cover amounts alone."""
    for entry in rows["entry"]:
        entry["covers"] = ""
    heads: dict[str, str] = {}
    for batch in sorted(rows["batch"], key=lambda row: (row["committer"], row["number"])):
        entries = [row for row in rows["entry"] if row["batch_id"] == batch["id"]]
        ids = {entry["id"] for entry in entries}
        batch["previous_hash"] = heads.get(batch["committer"], GENESIS)
        batch["hash"] = batch_hash(batch["previous_hash"], entries, [row for row in rows["posting"] if row["entry_id"] in ids])
        heads[batch["committer"]] = batch["hash"]


def _rebuild(tx: Tx, database: Database, rows: dict[str, list[Row]], last: int) -> int:
    if tx.dialect == "postgresql":
        tx.run("DROP SCHEMA public CASCADE")
        tx.run("CREATE SCHEMA public")
    tx.run("CREATE TABLE schema_version (number {INT} PRIMARY KEY, name TEXT NOT NULL, at_ms {INT} NOT NULL) {STRICT}")
    for number, name, text in migrations():
        if number <= last:
            database._apply(tx, number=number, name=name, text=text)
    count = 0
    for table in _tables(last):
        tx.run(f"DELETE FROM {table}")  # what the migration put there
        columns = _columns(tx, table)
        for row in rows[table]:
            kept: dict[str, Any] = {name: value for name, value in row.items() if name in columns}
            tx.run(f"INSERT INTO {table} ({', '.join(kept)}) VALUES ({', '.join(':' + name for name in kept)})", **kept)
            count += 1
    return count


def _columns(tx: Tx, table: str) -> set[str]:
    if tx.dialect == "sqlite":
        return {row["name"] for row in tx.all("SELECT name FROM pragma_table_info(:t)", t=table)}
    rows = tx.all("SELECT column_name AS name FROM information_schema.columns WHERE table_schema = 'public' AND table_name = :t", t=table)
    return {row["name"] for row in rows}
