"""SQLite behind the door: one writer, whose turn it is among the processes of a home, and readers beside it."""

from __future__ import annotations

import fcntl
import os
import queue
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Final

from penstock.db.base import Conflict, Database, DatabaseRefused, DatabaseUnavailable, Row, T, Tx
from penstock.runtime import Runtime
from penstock.sql import Given, amount_columns, plain_rows, sqlite_insert

_TRIES_MAX: Final = 8
_ROWS_MAX: Final = 128
"""In one statement: more are not faster."""
_ROWS_FEW: Final = 16
_CLOSED: Final = -1
"""No descriptor: another file may have its number by now."""


class SqliteTx(Tx):
    """Amounts go in as text: 64 bits cannot hold them."""

    dialect = "sqlite"

    def _run(self, sql: str, parameters: dict[str, Any]) -> Any:
        for name in amount_columns().intersection(parameters):
            if isinstance(parameters[name], int):
                parameters[name] = str(parameters[name])
        return super()._run(sql, parameters)

    def all(self, sql: str, **parameters: Any) -> list[Row]:
        """Every row."""
        return _all(self._run(sql, parameters))

    def insert(self, into: str, rows: Sequence[Given]) -> None:
        """New rows, many in a statement: three times cheaper than reading them out of JSON again, and twice than one by one. Each statement
        lets other threads have the interpreter, which then is not to be had back before they have done with it.
        """
        begin, left = 0, len(rows)
        while left:
            # Of few sizes, so that there are few statements to prepare.
            count = left if left <= _ROWS_FEW else min(_ROWS_MAX, 1 << left.bit_length() - 1)
            statement, columns = sqlite_insert(into, count)
            self._connection.execute(statement, tuple(chain.from_iterable(plain_rows(rows[begin : begin + count], columns))))
            begin, left = begin + count, left - count


def _rows() -> Callable[[sqlite3.Cursor, tuple[Any, ...]], Row]:
    """Rows by name, amounts as int. What is known of a result's columns holds as long as its rows come one after the other."""
    amounts = amount_columns()
    described: Any = None
    names: list[str] = []
    integers: list[str] = []

    def row(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> Row:
        nonlocal described, names, integers
        if cursor.description is not described:
            described = cursor.description
            names = [column[0] for column in described]
            integers = [name for name in names if name in amounts]
        found: Row = dict(zip(names, values, strict=True))
        for name in integers:
            if found[name] is not None:
                found[name] = int(found[name])
        return found

    return row


def _all(cursor: sqlite3.Cursor) -> list[Row]:
    """The same for all rows of a result at once, at two thirds of the cost."""
    cursor.row_factory = None
    values = cursor.fetchall()
    if not values:
        return []
    amounts = amount_columns()
    names = [column[0] for column in cursor.description]
    rows: list[Row] = list(map(dict, map(partial(zip, names), values)))
    for name in names:
        if name in amounts:
            for row in rows:
                if row[name] is not None:
                    row[name] = int(row[name])
    return rows


def _sentence(error: sqlite3.OperationalError) -> str:
    """What SQLite says; a full disk is an "I/O error" to it where it maps a file."""
    return f"{error}; is there room on it?" if "disk" in str(error) else str(error)


class SqliteDatabase(Database):
    """SQLite: WAL, synchronous=FULL, one writer connection, readers beside it. Writers of several processes take turns at a lock of the kernel:
    SQLite's own way to wait is to sleep up to 100 ms and try again, which idles, and is unfair.
    """

    dialect = "sqlite"
    _width = 1
    _no_table = sqlite3.OperationalError

    def __init__(self, runtime: Runtime, path: Path) -> None:
        super().__init__(runtime)
        self._lane = f"sqlite-{id(self):x}"
        self._path = path
        self._writer = self._connect()
        try:
            self._turn = _turn_of(path)
        except DatabaseRefused:
            self._writer.close()
            raise
        self._readers: queue.SimpleQueue[sqlite3.Connection] = queue.SimpleQueue()

    def _connect(self) -> sqlite3.Connection:
        if sqlite3.sqlite_version_info < (3, 38, 0):
            raise DatabaseRefused(f"SQLite {sqlite3.sqlite_version} is too old; 3.38 or newer is needed")
        try:
            connection = sqlite3.connect(self._path, timeout=30, isolation_level=None, check_same_thread=False, cached_statements=512)
        except sqlite3.OperationalError as error:
            raise DatabaseUnavailable(f"{self._path}: {error}; its folder must be there, and ours to write") from error
        connection.row_factory = _rows()
        try:
            self._check(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            raise DatabaseUnavailable(f"{self._path}: {_sentence(error)}") from error
        except sqlite3.DatabaseError as error:
            connection.close()
            raise DatabaseRefused(f"{self._path}: {error}") from error
        except DatabaseRefused:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        mode = self._journal_mode(connection)
        if mode != "wal":
            raise DatabaseRefused(f"SQLite keeps {self._path.name} in journal mode {mode!r}; only WAL on a local disk is safe here")
        for pragma in ("synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")
        level = connection.execute("PRAGMA synchronous").fetchone()["synchronous"]
        if level != 2:
            raise DatabaseRefused(f"SQLite runs with synchronous={level}; FULL (2) is needed")

    def _journal_mode(self, connection: sqlite3.Connection) -> object:
        for _ in range(_TRIES_MAX):
            try:
                return connection.execute("PRAGMA journal_mode = WAL").fetchone()["journal_mode"]
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    raise
            # Another process opens the same new file. The switch does not wait for a lock; this does.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        return "still locked by another process"

    def _write(self, label: str, job: Callable[[Tx], T]) -> T:
        fcntl.flock(self._turn, fcntl.LOCK_EX)  # a process that is killed lets it go
        try:
            result = self._write_once(label, job)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)
        self._runtime.crash_point(f"{label}:after")
        return result

    def _write_once(self, label: str, job: Callable[[Tx], T]) -> T:
        connection = self._writer
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            raise DatabaseUnavailable(_sentence(error)) from error
        try:
            result = job(SqliteTx(connection))
            self._runtime.crash_point(f"{label}:before")
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                raise Conflict(str(error)) from error
            if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error) and "syntax" not in str(error):
                raise DatabaseUnavailable(_sentence(error)) from error
            raise
        return result

    def _read(self, job: Callable[[Tx], T]) -> T:
        try:
            connection = self._readers.get_nowait()
        except queue.Empty:
            connection = self._connect()
            connection.execute("PRAGMA query_only = ON")
        try:
            connection.execute("BEGIN")
            return job(SqliteTx(connection))
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            self._readers.put(connection)

    def _close(self) -> None:
        while not self._readers.empty():
            self._readers.get().close()
        self._writer.close()
        if self._turn != _CLOSED:
            os.close(self._turn)
        self._turn = _CLOSED


def _turn_of(path: Path) -> int:
    """The file at which writers take turns. It belongs to whoever owns the database, as SQLite's own files beside it do. Raises
    DatabaseRefused.
    """
    beside = path.with_name(f"{path.name}-turn")
    try:
        owner = path.stat()
        turn = os.open(beside, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, owner.st_mode & 0o666)
        if os.geteuid() == 0:
            os.fchown(turn, owner.st_uid, owner.st_gid)
    except OSError as error:
        raise DatabaseRefused(f"{beside}: {error.strerror}") from error
    return turn
