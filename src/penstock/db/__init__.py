"""One small API over sqlite3 and psycopg: the same SQL text, labelled transactions, integers for amounts.

    database.write("intake", job)   one transaction; its label names the crash points `intake:before` and `intake:after`
    database.read(job)              one snapshot, no write
    tx.one / tx.all / tx.run        SQL with named parameters `:x`; what a statement may say stands in `sql`

A job may run more than once, so it touches nothing but its transaction.
"""

from __future__ import annotations

from pathlib import Path

from penstock.db.base import CommitUnknown, Conflict, Database, DatabaseRefused, DatabaseUnavailable, Row, Tx
from penstock.db.postgresql import PostgresDatabase, StandbyDatabase
from penstock.db.sqlite import SqliteDatabase
from penstock.runtime import Runtime

__all__ = [
    "CommitUnknown",
    "Conflict",
    "Database",
    "DatabaseRefused",
    "DatabaseUnavailable",
    "Row",
    "SqliteDatabase",
    "StandbyDatabase",
    "Tx",
    "open_database",
]


def open_database(runtime: Runtime, url: str) -> Database:
    """`sqlite:///path` or a PostgreSQL URL. Raises DatabaseRefused or DatabaseUnavailable."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(runtime, Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgres://")):
        database = PostgresDatabase(runtime, url)
        database.greet()
        return database
    raise DatabaseRefused("a database URL begins with sqlite:/// or postgresql://")
