"""I9: what the signer's journal says it signed and what the attempt table holds are the same, digest by digest."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha256
from itertools import chain as chained

from penstock.core.intent import JournalEntry
from penstock.db import Row, Tx
from penstock.ledger.facts import ids_of, pages
from penstock.ledger.report import Report

Entries = Callable[[int], Awaitable[Sequence[JournalEntry]]]
"""The page of the journal behind the entry of a number, as `core.intent.Signer.entries` answers."""


_Key = tuple[int, int]
_Signed = tuple[str, bytes]


class Said:
    """What the journal says so far: transaction and digest of the intent by attempt and version, and who is buried.

    In a file without a name, which ends with it: a journal may be longer than memory.
    """

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._after = 0
        self._unheard: dict[_Key, str] = {}
        self._unproved: dict[int, str] = {}
        self._sql = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._sql.close)
        self._sql.execute("CREATE TABLE signed (attempt, version, txid, digest, PRIMARY KEY (attempt, version)) WITHOUT ROWID")
        self._sql.execute("CREATE TABLE dead (attempt PRIMARY KEY) WITHOUT ROWID")

    async def hear(self) -> None:
        """Read on to the end. Raises SignLater while the signer is away."""
        while page := await self._entries(self._after):
            intents = [(entry.intent, entry.txid) for entry in page if entry.intent is not None]
            self._sql.execute("BEGIN")
            self._sql.executemany(
                "INSERT OR REPLACE INTO signed VALUES (?, ?, ?, ?)",
                [(one.attempt_id, one.version, txid, sha256(one.to_json().encode()).digest()) for one, txid in intents],
            )
            self._sql.executemany("INSERT OR IGNORE INTO dead VALUES (?)", [(entry.attempt_id,) for entry in page if entry.kind == "death"])
            self._sql.execute("COMMIT")
            self._after = page[-1].number

    def _signed(self, key: _Key) -> _Signed | None:
        found: _Signed | None = self._sql.execute("SELECT txid, digest FROM signed WHERE attempt = ? AND version = ?", key).fetchone()
        return found

    def _is_dead(self, attempt_id: int) -> bool:
        return self._sql.execute("SELECT 1 FROM dead WHERE attempt = ?", (attempt_id,)).fetchone() is not None

    def compare(self, tx: Tx, report: Report) -> None:
        """Both ways, in pages. What the tables have and the journal has not said yet is kept until `close`."""
        for signed in pages(self._sql.execute("SELECT attempt, version, txid, digest FROM signed")):
            attempt_ids = {row[0] for row in signed}
            stored, held, archived = _versions(tx, attempt_ids), _strays(tx, attempt_ids), _archived(tx, attempt_ids)
            for attempt_id, number, txid, digest in signed:
                key = attempt_id, number
                if key in stored or (key not in held and attempt_id not in archived):
                    _check(report, key, (txid, digest), stored.get(key))
        self._unheard = {
            key: row["chain"]
            for ids in pages(ids_of(tx, "attempt"))
            for key, row in _versions(tx, ids).items()
            if row["txid"] is not None and self._signed(key) is None
        }
        dead = chained.from_iterable(_dead(tx, ids) for ids in pages(ids_of(tx, "attempt", "state = 'dead'")))
        self._unproved = {row["id"]: row["chain"] for row in dead if not self._is_dead(row["id"])}

    def compare_archived(self, report: Report, versions: Iterable[Row], chain: str) -> None:
        """Versions out of an archive. A journal that began anew after them does not know them any more."""
        for version in versions:
            key = version["attempt_id"], version["number"]
            if (signed := self._signed(key)) is not None:
                _check(report, key, signed, {**version, "chain": chain})

    def close(self, report: Report) -> None:
        """Name what the journal has not said by now: it says everything before the tables do."""
        for (attempt_id, number), chain in self._unheard.items():
            if self._signed((attempt_id, number)) is None:
                report.add("I9", f"version {number} of attempt {attempt_id} has bytes that the signer's journal does not know", chain=chain)
        for attempt_id, chain in self._unproved.items():
            if not self._is_dead(attempt_id):
                report.add("I9", f"attempt {attempt_id} is dead and the signer's journal has no proof of it", chain=chain)
        report.close()


def _check(report: Report, key: _Key, signed: _Signed, row: Row | None) -> None:
    what, (txid, digest) = f"version {key[1]} of attempt {key[0]}", signed
    if row is None:
        report.add("I9", f"{what} was signed and the books do not know it")
    elif row["txid"] is not None and row["txid"] != txid:
        report.add("I9", f"{what} is transaction {txid} in the signer's journal and {row['txid']} in the books", chain=row["chain"])
    elif sha256(row["intent"].encode()).digest() != digest:
        report.add("I9", f"{what} is another intent in the books than the one that was signed", chain=row["chain"])


def _versions(tx: Tx, attempt_ids: Iterable[int]) -> dict[_Key, Row]:
    rows = tx.all(
        "SELECT version.attempt_id, version.number, version.txid, version.intent, lane.chain FROM version "
        "JOIN attempt ON attempt.id = version.attempt_id JOIN lane ON lane.id = attempt.lane_id "
        "WHERE version.attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": attempt_id} for attempt_id in attempt_ids],
    )
    return {(row["attempt_id"], row["number"]): row for row in rows}


def _strays(tx: Tx, attempt_ids: Iterable[int]) -> set[_Key]:
    """What a start has found in the journal alone: it holds the network, and says so itself."""
    rows = tx.all(
        "SELECT attempt_id, version FROM journal_stray WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": attempt_id} for attempt_id in attempt_ids],
    )
    return {(row["attempt_id"], row["version"]) for row in rows}


def _archived(tx: Tx, attempt_ids: Iterable[int]) -> set[int]:
    rows = tx.all(
        "SELECT id FROM attempt WHERE archive IS NOT NULL AND id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": attempt_id} for attempt_id in attempt_ids],
    )
    return {row["id"] for row in rows}


def _dead(tx: Tx, attempt_ids: Iterable[int]) -> list[Row]:
    # Attempts that never got a signature have nothing that could land, and the signer may not know them.
    return tx.all(
        "SELECT attempt.id, lane.chain FROM attempt JOIN lane ON lane.id = attempt.lane_id WHERE attempt.id IN (SELECT k.id FROM "
        "{ROWS k(id {INT})}) AND EXISTS (SELECT 1 FROM version WHERE version.attempt_id = attempt.id AND version.raw IS NOT NULL)",
        k=[{"id": attempt_id} for attempt_id in attempt_ids],
    )
