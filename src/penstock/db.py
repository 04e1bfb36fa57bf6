"""One small API over sqlite3 and psycopg: the same SQL text, labelled transactions, integers for amounts.

    database.write("intake", job)   one transaction; its label names the crash points `intake:before` and `intake:after`
    database.read(job)              one snapshot, no write
    tx.one / tx.all / tx.run        SQL with named parameters `:x`; what a statement may say stands in `sql`

A job may run more than once, so it touches nothing but its transaction.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import queue
import re
import socket
import sqlite3
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import RowMaker
from psycopg.types.numeric import NumericLoader

from penstock.core.errors import InvariantBroken
from penstock.runtime import Runtime
from penstock.sql import Given, amount_columns, json_rows, migrations, plain_rows, postgresql_insert, row_columns, sqlite_insert, translate

T = TypeVar("T")
Row = dict[str, Any]

_ATTEMPTS_MAX: Final = 8
_POSTGRES_CONNECTIONS: Final = 8
_MIGRATION_LOCK: Final = 0x70656E73746F636B
_WIRE: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "5",
    "keepalives_interval": "3",
    "keepalives_count": "3",
    "tcp_user_timeout": "15000",
}
"""How soon we notice that the server's machine is gone; what the URL says wins."""
_SESSION: Final = {
    "idle_in_transaction_session_timeout": "10s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
}
"""How soon the server notices that we are stopped or gone, so that nobody waits for ever for the locks of a dead machine."""
_CLOSED: Final = -1
"""No descriptor: another file may have its number by now."""
_GONE: Final = (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout)


class DatabaseRefused(Exception):
    """The database is not one that money may be kept in; the text says which setting is wrong and what would be right."""


class DatabaseUnavailable(Exception):
    """No connection, disk full, or too many conflicts: nothing was committed."""


class CommitUnknown(Exception):
    """The connection broke while COMMIT was under way: look for the rows, assume nothing."""


class Conflict(Exception):
    """A constraint refused the rows: somebody else was first. Nothing was committed."""


class Tx:
    """One open transaction. Not for use after its job has returned."""

    def __init__(self, dialect: str, connection: sqlite3.Connection | psycopg.Connection[Row]) -> None:
        self.dialect = dialect
        self._connection: Any = connection
        self._unwritten: dict[str, tuple[str, str]] = {}

    def _run(self, sql: str, parameters: dict[str, Any]) -> Any:
        self.write_out()
        amounts = amount_columns()
        for name, value in parameters.items():
            if isinstance(value, list | tuple):
                parameters[name] = json_rows(value, row_columns(sql)[name])
            elif name in amounts and self.dialect == "sqlite" and value is not None:
                parameters[name] = str(value)
        return self._connection.execute(translate(sql, self.dialect), parameters)

    def all(self, sql: str, **parameters: Any) -> list[Row]:
        """Every row."""
        cursor = self._run(sql, parameters)
        return _sqlite_all(cursor) if self.dialect == "sqlite" else list(cursor.fetchall())

    def one(self, sql: str, **parameters: Any) -> Row | None:
        """The first row, or None."""
        row: Row | None = self._run(sql, parameters).fetchone()
        return row

    def run(self, sql: str, **parameters: Any) -> int:
        """How many rows it touched."""
        return int(self._run(sql, parameters).rowcount)

    def insert(self, into: str, rows: Sequence[Given]) -> None:
        """New rows; `into` is "table(column TYPE, ...)", of two columns or more. Where one cannot be, this raises what the driver raises, or
        the next statement does: PostgreSQL gets the rows of several tables in one, because each wait for an answer costs more than its rows.
        """
        if self.dialect == "sqlite":
            # Five times cheaper than reading them out of JSON again.
            statement, columns = sqlite_insert(into)
            self._connection.executemany(statement, plain_rows(rows, columns))
        elif rows:
            table = into.partition("(")[0]
            if table in self._unwritten:
                self.write_out()
            self._unwritten[table] = into, json_rows(rows, row_columns(postgresql_insert(into))[table])

    def write_out(self) -> None:
        """Write what `insert` still has. Every other statement does that first, and so does the end of the transaction."""
        if self._unwritten:
            unwritten, self._unwritten = self._unwritten, {}
            statement = postgresql_insert(*(into for into, _ in unwritten.values()))
            self._connection.execute(translate(statement, self.dialect), {table: rows for table, (_, rows) in unwritten.items()})


class Database(ABC):
    """A database of either kind. `open` checks its settings, `migrate` brings the schema up to date."""

    dialect: str
    breaks: int = 0
    """How often a connection was lost: whoever answers now may be another server that has forgotten commits."""
    fence: Callable[[Tx], None] | None = None
    """What every transaction makes sure of before its job: that this process may still write (`orders/seat`)."""
    _lane: str
    _width: int

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
        except (sqlite3.OperationalError, psycopg.errors.UndefinedTable):
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


def _sqlite_rows() -> Callable[[sqlite3.Cursor, tuple[Any, ...]], Row]:
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


def _sqlite_all(cursor: sqlite3.Cursor) -> list[Row]:
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


class SqliteDatabase(Database):
    """SQLite: WAL, synchronous=FULL, one writer connection, readers beside it. Writers of several processes take turns at a lock of the kernel:
    SQLite's own way to wait is to sleep up to 100 ms and try again, which idles, and is unfair.
    """

    dialect = "sqlite"
    _width = 1

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
            raise DatabaseUnavailable(f"{self._path}: {error}") from error
        connection.row_factory = _sqlite_rows()
        try:
            self._check(connection)
        except sqlite3.OperationalError as error:
            connection.close()
            raise DatabaseUnavailable(f"{self._path}: {error}") from error
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
        for _ in range(_ATTEMPTS_MAX):
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
            raise DatabaseUnavailable(str(error)) from error
        try:
            result = job(Tx("sqlite", connection))
            self._runtime.crash_point(f"{label}:before")
            connection.execute("COMMIT")
        except BaseException as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError):
                raise Conflict(str(error)) from error
            if isinstance(error, sqlite3.OperationalError) and "no such" not in str(error) and "syntax" not in str(error):
                raise DatabaseUnavailable(str(error)) from error
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
            return job(Tx("sqlite", connection))
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


class _IntegerLoader(NumericLoader):
    """NUMERIC as int: every number in the schema is one."""

    def load(self, data: Any) -> int:  # type: ignore[override]
        return int(bytes(data).decode())


def _plain_rows(cursor: psycopg.Cursor[Any]) -> RowMaker[Row]:
    names = [column.name for column in cursor.description or ()]
    return lambda values: dict(zip(names, values, strict=True))


class PostgresDatabase(Database):
    """PostgreSQL: READ COMMITTED with row locks, durable commits only, bounded retry on conflicts."""

    dialect = "postgresql"
    _width = _POSTGRES_CONNECTIONS
    _wire: Mapping[str, str] = _WIRE

    def __init__(self, runtime: Runtime, url: str) -> None:
        super().__init__(runtime)
        self._lane = f"postgresql-{id(self):x}"
        self._url = url
        self._idle: queue.SimpleQueue[psycopg.Connection[Row]] = queue.SimpleQueue()
        self._connections: weakref.WeakSet[psycopg.Connection[Row]] = weakref.WeakSet()
        self._is_over = False

    def greet(self) -> None:
        """Connect once, so that a wrong address or setting is known before anything begins. Raises as `open_database`."""
        self._release(self._connect())

    def _connect(self) -> psycopg.Connection[Row]:
        try:
            wanted = {**self._wire, **conninfo_to_dict(self._url)}
            connection = psycopg.connect(**wanted, autocommit=True, row_factory=_plain_rows)  # type: ignore[arg-type]
            self._connections.add(connection)
            for name, value in _SESSION.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable("PostgreSQL does not answer") from error
        connection.adapters.register_loader("numeric", _IntegerLoader)
        connection.prepare_threshold = 2
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            row = connection.execute(f"SHOW {setting}").fetchone()
            value = next(iter(row.values())) if row else "unknown"
            if value not in ("on", "remote_apply"):
                connection.close()
                raise DatabaseRefused(f"PostgreSQL runs with {setting}={value}; it must be on, or a crash could lose a payout")
        return connection

    def _begin(self, statement: str) -> psycopg.Connection[Row]:
        """A connection with an open transaction. One that died while it was idle is replaced: nothing had begun on it."""
        while True:
            try:
                connection = self._idle.get_nowait()
            except queue.Empty:
                break
            try:
                connection.execute(statement)
                return connection
            except psycopg.OperationalError:
                self.breaks += 1
                connection.close()
        connection = self._connect()
        connection.execute(statement)
        return connection

    def _release(self, connection: psycopg.Connection[Row]) -> None:
        if not connection.closed:
            self._idle.put(connection)
        if self._is_over:  # a read that nobody waited for any longer ends after the house has closed
            self._close_idle()

    def _write(self, label: str, job: Callable[[Tx], T]) -> T:
        for attempt in range(1, _ATTEMPTS_MAX + 1):
            try:
                return self._write_once(label, job)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
                if attempt == _ATTEMPTS_MAX:
                    raise DatabaseUnavailable(f"{label}: {_ATTEMPTS_MAX} conflicts in a row") from error
            except psycopg.IntegrityError as error:
                raise Conflict(str(error)) from error
            except _GONE as error:
                self.breaks += 1
                raise DatabaseUnavailable(type(error).__name__) from error
        raise AssertionError

    def _write_once(self, label: str, job: Callable[[Tx], T]) -> T:
        connection = self._begin("BEGIN")
        try:
            tx = Tx("postgresql", connection)
            result = job(tx)
            tx.write_out()
            self._runtime.crash_point(f"{label}:before")
        except BaseException:
            if not connection.closed:
                connection.rollback()
            self._release(connection)
            raise
        try:
            outcome = connection.execute("COMMIT").statusmessage
        except _GONE as error:
            self.breaks += 1
            connection.close()
            raise CommitUnknown(label) from error
        finally:
            self._release(connection)
        if outcome != "COMMIT":
            raise InvariantBroken(f"{label}: the job went on after an error of the database, and PostgreSQL answered COMMIT with {outcome}")
        self._runtime.crash_point(f"{label}:after")
        return result

    def _read(self, job: Callable[[Tx], T]) -> T:
        try:
            connection = self._begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")  # a read holds no locks and may think for long
                return job(Tx("postgresql", connection))
            finally:
                if not connection.closed:
                    connection.rollback()
                self._release(connection)
        except _GONE as error:
            self.breaks += 1
            raise DatabaseUnavailable(type(error).__name__) from error

    def _close(self) -> None:
        self._is_over = True
        self._close_idle()

    def _close_idle(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()


class StandbyDatabase(PostgresDatabase):
    """A hot standby of PostgreSQL, only ever read. It connects when it is first asked, and never keeps a caller who gave up waiting."""

    _wire = MappingProxyType({**_WIRE, "connect_timeout": "2", "tcp_user_timeout": "2000"})

    def _write(self, label: str, job: Callable[[Tx], T]) -> T:
        del job
        raise InvariantBroken(f"{label}: a standby is not written to")

    def give_up(self) -> None:
        """Break every connection: nobody waits any longer for a server that has not answered."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)  # not close(): a thread may be reading from it at this moment


def open_database(runtime: Runtime, url: str) -> Database:
    """`sqlite:///path` or a PostgreSQL URL. Raises DatabaseRefused or DatabaseUnavailable."""
    if url.startswith("sqlite:///"):
        return SqliteDatabase(runtime, Path(url.removeprefix("sqlite:///")))
    if url.startswith(("postgresql://", "postgres://")):
        database = PostgresDatabase(runtime, url)
        database.greet()
        return database
    raise DatabaseRefused("a database URL begins with sqlite:/// or postgresql://")
