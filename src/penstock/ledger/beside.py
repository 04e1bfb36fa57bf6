"""A long audit beside the work: a process that reads the books for one pass and says what it finds. Both ends of its pipe.

It decides and writes nothing: who asks judges what it says, stores it, and asks for the next part. It is told where the database is and what
coins there are; no passphrase and no key, because the audit compares hashes, and to verify an order's seal is the signer's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

import msgspec
import structlog

from penstock import child, logs
from penstock.child import Child, ChildFailed
from penstock.core.errors import InvariantBroken
from penstock.core.money import Token
from penstock.db import Database, Row, Tx, open_database
from penstock.ledger.audit import look_again
from penstock.ledger.checkpoint import Checkpoint
from penstock.ledger.facts import Head
from penstock.ledger.report import Finding, Report
from penstock.ledger.rules import Terms, Totals
from penstock.runtime import Runtime, SystemRuntime
from penstock.sql import Given

log = structlog.get_logger()

Look = Callable[[Terms, int | None], Awaitable[tuple[Report, Checkpoint]]]
"""`look_again` on a snapshot, wherever that is done. Raises what the database raises, and ChildFailed."""

WORDS: Final = ("-m", "penstock.ledger.beside")
ANSWER_S: Final = 90.0
"""A part takes a second or two; the last one, with every open order, as long as there are some. Shorter than the lease of whoever asks."""
END_S: Final = 1.0
"""It has nothing to finish."""
NICE: Final = 10
"""Where cores are few, those who pay come first: a pass has a minute."""
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
_HEADER: Final = struct.Struct(">I")
_Sum = tuple[str, str, int]


class _Asked(msgspec.Struct):
    """One question, a line of JSON: `look_again` and what it is to be told."""

    symbols: dict[str, str]
    tokens: dict[str, Token]
    now_ms: int | None
    entries_max: int | None


class _Said(msgspec.Struct, forbid_unknown_fields=True):
    """One answer, JSON behind its length: the report, and the checkpoint with its sums as account, coin and units."""

    findings: list[Finding]
    counts: dict[str, int]
    whole: bool
    heads: dict[str, Head]
    moved: dict[str, Head]
    house: list[_Sum]
    holders: list[_Sum]


class Beside(Child):
    """The process of one pass: its first question starts it."""

    def __init__(self, runtime: Runtime, url: str, environment: Mapping[str, str]) -> None:
        super().__init__(runtime, "audit", WORDS, environment, {"database": url}, end_s=END_S)

    async def look(self, terms: Terms, entries_max: int | None) -> tuple[Report, Checkpoint]:
        """As `look_again`. Raises ChildFailed where it does not start, ends, is silent or answers what is no answer, and from then on."""
        asked = _Asked(dict(terms.symbols), dict(terms.tokens), terms.now_ms, entries_max)
        try:
            if self._process is None:
                await self.start()
            async with asyncio.timeout(ANSWER_S):
                said = msgspec.json.decode(await self._answer(msgspec.json.encode(asked) + b"\n"), type=_Said)
        except (OSError, TimeoutError, EOFError, ValueError, RuntimeError) as error:  # the last is uvloop's word for a pipe that is closed
            await self.stop()
            raise ChildFailed(f"the audit's process gave no answer: {type(error).__name__}") from error
        return _read(said)

    async def _answer(self, question: bytes) -> bytes:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise ChildFailed("the audit's process was not started")
        process.stdin.write(question)
        await process.stdin.drain()
        (size,) = _HEADER.unpack(await process.stdout.readexactly(_HEADER.size))
        if size > ANSWER_BYTES_MAX:
            raise ValueError("an answer that long is none")
        return await process.stdout.readexactly(size)


@contextlib.asynccontextmanager
async def beside(runtime: Runtime, url: str, environment: Mapping[str, str]) -> AsyncIterator[Look]:
    """A process for one pass over the database at `url`; it ends with the pass."""
    process = Beside(runtime, url, environment)
    try:
        yield process.look
    finally:
        await process.stop()


def _read(said: _Said) -> tuple[Report, Checkpoint]:
    after = Checkpoint(said.heads, _totals(said.house), _totals(said.holders), said.moved)
    return Report(said.findings, said.counts, whole=said.whole), after


def _totals(sums: list[_Sum]) -> Totals:
    return {(account, coin_id): units for account, coin_id, units in sums}


def _sums(totals: Totals) -> list[_Sum]:
    return [(account, coin_id, units) for (account, coin_id), units in totals.items()]


# ---------------------------------------------------------------------------------------------------------------------- the child


class _Questions(asyncio.Protocol):
    """What comes over the pipe, line by line; None at its end."""

    def __init__(self) -> None:
        self._line = b""
        self.asked: asyncio.Queue[_Asked | None] = asyncio.Queue()
        self.is_over = False

    def data_received(self, data: bytes) -> None:
        self._line += data
        if self._line.endswith(b"\n"):
            self.asked.put_nowait(msgspec.json.decode(self._line, type=_Asked))
            self._line = b""

    def eof_received(self) -> None:
        self.is_over = True
        self.asked.put_nowait(None)


class _Over(Exception):
    """Nobody waits for what is being read."""


class _WhileAsked(Tx):
    """A transaction that goes no further than the statement in which the pipe ends: nothing is lost by that."""

    def __init__(self, tx: Tx, questions: _Questions) -> None:
        self.dialect = tx.dialect
        self._tx = tx
        self._questions = questions

    def all(self, sql: str, **parameters: Any) -> list[Row]:
        if self._questions.is_over:
            raise _Over
        return self._tx.all(sql, **parameters)

    def one(self, sql: str, **parameters: Any) -> Row | None:
        if self._questions.is_over:
            raise _Over
        return self._tx.one(sql, **parameters)

    def insert(self, into: str, rows: Sequence[Given]) -> None:
        raise InvariantBroken(f"a reading writes nothing, and no {len(rows)} rows into {into}")


async def _answer_all(database: Database) -> None:
    _, questions = await asyncio.get_running_loop().connect_read_pipe(_Questions, os.fdopen(0, "rb", buffering=0))
    child.say("ready")
    while (asked := await questions.asked.get()) is not None:
        body = msgspec.json.encode(await database.read(partial(_looked, asked, questions)))
        sys.stdout.buffer.write(_HEADER.pack(len(body)) + body)
        sys.stdout.buffer.flush()


def _looked(asked: _Asked, questions: _Questions, tx: Tx) -> _Said:
    report, after = look_again(_WhileAsked(tx, questions), Terms(asked.symbols, asked.tokens, asked.now_ms), asked.entries_max)
    return _Said(report.findings, report.counts, report.whole, after.heads, after.moved, _sums(after.house), _sums(after.holders))


def _never(_: Tx) -> None:
    raise InvariantBroken("the audit's process writes nothing")


def main() -> int:
    """What the parent starts. Says "ready", answers, and ends with the pipe; 1 when it cannot read the books."""
    first = child.told()
    logs.configure(logging.INFO)
    os.nice(NICE)
    try:
        database = open_database(SystemRuntime(), first["database"])
        database.fence = _never
        asyncio.run(_answer_all(database))
    except _Over:
        return 0
    except Exception as error:  # noqa: BLE001  whatever it is, the parent reads on by itself
        log.error("audit.beside.ended", error=type(error).__name__, detail=str(error)[:200])  # noqa: TRY400
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
