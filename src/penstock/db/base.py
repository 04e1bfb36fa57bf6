"""What both databases are to the rooms: transactions, their errors, and the schema brought up to date."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar

from penstock.runtime import Runtime
from penstock.sql import Given, json_rows, migrations, row_columns, translate

T = TypeVar("T")
Row = dict[str, Any]

_MIGRATION_LOCK: Final = 0x70656E73746F636B


class DatabaseRefused(Exception):
    """The database is not one that money may be kept in; the text says which setting is wrong and what would be right."""


class DatabaseUnavailable(Exception):
    """No connection, disk full, or too many conflicts: nothing was committed."""


class CommitUnknown(Exception):
    """The connection broke while COMMIT was under way: look for the rows, assume nothing."""


class Conflict(Exception):
    """A constraint refused the rows: somebody else was first. Nothing was committed."""


class Tx(ABC):
    """One open transaction. Not for use after its job has returned."""

    dialect: str

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def _run(self, sql: str, parameters: dict[str, Any]) -> Any:
        for name, value in parameters.items():
            if isinstance(value, list | tuple):
                parameters[name] = json_rows(value, row_columns(sql)[name])
        return self._connection.execute(translate(sql, self.dialect), parameters)

    def all(self, sql: str, **parameters: Any) -> list[Row]:
        """Every row."""
        return list(self._run(sql, parameters).fetchall())

    def one(self, sql: str, **parameters: Any) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._run(sql, parameters).fetchone()
        return row

    def run(self, sql: str, **parameters: Any) -> int:
        """How many rows it touched."""
        return int(self._run(sql, parameters).rowcount)

    @abstractmethod
    def insert(self, into: str, rows: Sequence[Given]) -> None:
        """New rows; `into` is "table(column TYPE, ...)", of two columns or more. Where one cannot be, this raises what the driver raises, or
        the next statement does.
        """


class Database(ABC):
    """A database of either kind. `open` checks its settings, `migrate` brings the schema up to date."""

    dialect: str
    breaks: int = 0
    """How often a connection was lost: whoever answers now may be another server that has forgotten commits."""
    fence: Callable[[Tx], None] | None = None
    """What every transaction makes sure of before its job: that this process may still write (`orders/seat`)."""
    _lane: str
    _width: int
    _no_table: type[Exception]

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def write(self, label: str, job: Callable[[Tx], T]) -> T:
        """Run `job` in one transaction and commit it. A job may run more than once and must touch nothing but its Tx.

        Raises Conflict, DatabaseUnavailable or CommitUnknown; whatever the job or the fence raises rolls back.
        """

        def fenced(tx: Tx) -> T:
            if self.fence is not None:
                self.fence(tx)
            return job(tx)

        return await self._runtime.in_thread(f"{self._lane}-write", lambda: self._write(label, fenced), width=self._width)

    async def read(self, job: Callable[[Tx], T]) -> T:
        """Run `job` on a consistent snapshot."""
        return await self._runtime.in_thread(f"{self._lane}-read", lambda: self._read(job), width=2)

    async def migrate(self) -> list[str]:
        """Apply what is missing, each migration in one transaction; names of those applied."""
        return await self._runtime.in_thread(f"{self._lane}-write", self._migrate, width=self._width)

    def _migrate(self) -> list[str]:
        def current(tx: Tx) -> int:
            if tx.dialect == "postgresql":
                # IF NOT EXISTS is no protection against another process that creates the table at the same moment.
                tx.run("SELECT pg_advisory_xact_lock(:key)", key=_MIGRATION_LOCK)
            tx.run(
                "CREATE TABLE IF NOT EXISTS schema_version (number {INT} PRIMARY KEY, name TEXT NOT NULL, at_ms {INT} NOT NULL) {STRICT}"
            )
            row = tx.one("SELECT MAX(number) AS number FROM schema_version")
            return int(row["number"] or 0) if row else 0

        done = self._write("migrate:look", current)
        applied = []
        for number, name, text in migrations():
            if number > done and self._write(f"migrate:{number:04d}", partial(self._apply, number=number, name=name, text=text)):
                applied.append(name)
        return applied

    def _apply(self, tx: Tx, *, number: int, name: str, text: str) -> bool:
        if tx.dialect == "postgresql":
            tx.run("LOCK TABLE schema_version IN EXCLUSIVE MODE")
        if tx.one("SELECT number FROM schema_version WHERE number = :number", number=number):
            return False
        for statement in re.sub(r"--[^\n]*", "", text).split(";"):
            if statement.strip():
                tx.run(statement)
        tx.run("INSERT INTO schema_version VALUES (:number, :name, :at_ms)", number=number, name=name, at_ms=self._runtime.now_ms())
        return True

    async def pending_migrations(self) -> list[str]:
        """Names of migrations that have not been applied."""

        def job(tx: Tx) -> set[int]:
            return {row["number"] for row in tx.all("SELECT number FROM schema_version")}

        try:
            done = await self.read(job)
        except self._no_table:
            done = set()
        return [name for number, name, _ in migrations() if number not in done]

    async def close(self) -> None:
        """Close every connection."""
        await self._runtime.in_thread(f"{self._lane}-write", self._close, width=self._width)

    @abstractmethod
    def _write(self, label: str, job: Callable[[Tx], T]) -> T: ...

    @abstractmethod
    def _read(self, job: Callable[[Tx], T]) -> T: ...

    @abstractmethod
    def _close(self) -> None: ...
