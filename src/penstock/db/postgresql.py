"""PostgreSQL behind the door: several writers at once, sessions that end by themselves when we are gone, and a standby that is only read."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import weakref
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import RowMaker
from psycopg.types.numeric import NumericLoader

from penstock.core.errors import InvariantBroken
from penstock.db.base import CommitUnknown, Conflict, Database, DatabaseRefused, DatabaseUnavailable, Row, T, Tx
from penstock.runtime import Runtime
from penstock.sql import Given, json_rows, postgresql_insert, row_columns, translate

_TRIES_MAX: Final = 8
_CONNECTIONS_MAX: Final = 8
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
    "random_page_cost": "1.1",
}
"""How soon the server notices that we are stopped or gone, so that nobody waits for ever for the locks of a dead machine; and that pages of an
index cost no seek: what is worked on is in memory, and its tables are not to be read from end to end because they are small yet.
"""
_BEGIN_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL idle_in_transaction_session_timeout = 0"
"""A read holds no locks and may think for long."""
_GONE: Final = (psycopg.OperationalError, psycopg.errors.IdleInTransactionSessionTimeout)


class PostgresTx(Tx):
    """Rows of several tables go out in one statement, because each wait for an answer costs more than its rows."""

    dialect = "postgresql"

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        super().__init__(connection)
        self._unwritten: dict[str, tuple[str, str]] = {}

    def _run(self, sql: str, parameters: dict[str, Any]) -> Any:
        self.write_out()
        return super()._run(sql, parameters)

    def insert(self, into: str, rows: Sequence[Given]) -> None:
        """New rows, with those of other tables, before the next statement."""
        if rows:
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


class _IntegerLoader(NumericLoader):
    """NUMERIC as int: every number in the schema is one."""

    def load(self, data: Any) -> int:  # type: ignore[override]
        return int(bytes(data).decode())


def _plain_rows(cursor: psycopg.Cursor[Any]) -> RowMaker[Row]:
    names = [column.name for column in cursor.description or ()]
    return lambda values: dict(zip(names, values, strict=True))


def _parameters(url: str) -> dict[str, Any]:
    """What a URL says. Raises DatabaseRefused without a word of it: where a letter of the password is not encoded, libpq takes a part of it
    for something else and would name it.
    """
    try:
        found = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        found = None
    if found is None or any("@" in str(found.get(name, "")) for name in ("host", "port", "dbname")):
        raise DatabaseRefused(
            "a PostgreSQL URL is like postgresql://user:password@host:5432/name, with %40 for @, %2F for / and %25 for % in the password"
        )
    return found


class PostgresDatabase(Database):
    """PostgreSQL: READ COMMITTED with row locks, durable commits only, bounded retry on conflicts."""

    dialect = "postgresql"
    _width = _CONNECTIONS_MAX
    _no_table = psycopg.errors.UndefinedTable
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
            wanted = {**self._wire, **_parameters(self._url)}
            connection = psycopg.connect(**wanted, autocommit=True, row_factory=_plain_rows)
            self._connections.add(connection)
            for name, value in _SESSION.items():
                connection.execute("SELECT set_config(%s, %s, false)", (name, value))
        except psycopg.OperationalError as error:
            words = str(error).strip().partition("\n")[0]  # libpq's: server, user or database, never the password
            raise DatabaseUnavailable(f"PostgreSQL does not answer; is it running, and is database.url right? {words}") from error
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
                connection.execute(statement, prepare=False)
                return connection
            except psycopg.OperationalError:
                self.breaks += 1
                connection.close()
        connection = self._connect()
        connection.execute(statement, prepare=False)
        return connection

    def _release(self, connection: psycopg.Connection[Row]) -> None:
        if not connection.closed:
            self._idle.put(connection)
        if self._is_over:  # a read that nobody waited for any longer ends after the house has closed
            self._close_idle()

    def _write(self, label: str, job: Callable[[Tx], T]) -> T:
        for attempt in range(1, _TRIES_MAX + 1):
            try:
                return self._write_once(label, job)
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure) as error:
                if attempt == _TRIES_MAX:
                    raise DatabaseUnavailable(f"{label}: {_TRIES_MAX} conflicts in a row") from error
            except psycopg.IntegrityError as error:
                raise Conflict(str(error)) from error
            except _GONE as error:
                self.breaks += 1
                raise DatabaseUnavailable(type(error).__name__) from error
        raise AssertionError

    def _write_once(self, label: str, job: Callable[[Tx], T]) -> T:
        connection = self._begin("BEGIN")
        try:
            tx = PostgresTx(connection)
            result = job(tx)
            tx.write_out()
            self._runtime.crash_point(f"{label}:before")
        except BaseException:
            if not connection.closed:
                connection.rollback()
            self._release(connection)
            raise
        try:
            outcome = connection.execute("COMMIT", prepare=False).statusmessage
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
            connection = self._begin(_BEGIN_READ)
            try:
                return job(PostgresTx(connection))
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
