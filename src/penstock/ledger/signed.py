"""I9: what the signer's journal says it signed and what the attempt table holds are the same, digest by digest."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import sha256
from itertools import chain as chained

from penstock.core.intent import JournalEntry
from penstock.db import Row, Tx
from penstock.ledger.facts import ids_of, pages
from penstock.ledger.report import Report

Entries = Callable[[int], Awaitable[Sequence[JournalEntry]]]
"""The page of the journal behind the entry of a number, as `core.intent.Signer.entries` answers."""


class Said:
    """What the journal says so far: transaction and digest of the intent by attempt and version, and who is buried."""

    def __init__(self, entries: Entries) -> None:
        self._entries = entries
        self._after = 0
        self._signed: dict[tuple[int, int], tuple[str, bytes]] = {}
        self._dead: set[int] = set()
        self._unheard: dict[tuple[int, int], str] = {}
        self._unproved: dict[int, str] = {}

    async def hear(self) -> None:
        """Read on to the end. Raises SignLater while the signer is away."""
        while page := await self._entries(self._after):
            for entry in page:
                if entry.intent is not None:
                    digest = sha256(entry.intent.to_json().encode()).digest()
                    self._signed[entry.intent.attempt_id, entry.intent.version] = (entry.txid, digest)
                elif entry.kind == "death":
                    self._dead.add(entry.attempt_id)
            self._after = page[-1].number

    def compare(self, tx: Tx, report: Report) -> None:
        """Both ways, in pages. What the tables have and the journal has not said yet is kept until `close`."""
        for keys in pages(self._signed):
            attempt_ids = {attempt_id for attempt_id, _ in keys}
            stored, held, archived = _versions(tx, attempt_ids), _strays(tx, attempt_ids), _archived(tx, attempt_ids)
            for key in keys:
                if key in stored or (key not in held and key[0] not in archived):
                    self._check(report, key, stored.get(key))
        self._unheard = {
            key: row["chain"]
            for ids in pages(ids_of(tx, "attempt"))
            for key, row in _versions(tx, ids).items()
            if row["txid"] is not None and key not in self._signed
        }
        dead = chained.from_iterable(_dead(tx, ids) for ids in pages(ids_of(tx, "attempt", "state = 'dead'")))
        self._unproved = {row["id"]: row["chain"] for row in dead if row["id"] not in self._dead}

    def compare_archived(self, report: Report, versions: Iterable[Row], chain: str) -> None:
        """Versions out of an archive. A journal that began anew after them does not know them any more."""
        for version in versions:
            key = version["attempt_id"], version["number"]
            if key in self._signed:
                self._check(report, key, {**version, "chain": chain})

    def _check(self, report: Report, key: tuple[int, int], row: Row | None) -> None:
        what, (txid, digest) = f"version {key[1]} of attempt {key[0]}", self._signed[key]
        if row is None:
            report.add("I9", f"{what} was signed and the books do not know it")
        elif row["txid"] is not None and row["txid"] != txid:
            report.add("I9", f"{what} is transaction {txid} in the signer's journal and {row['txid']} in the books", chain=row["chain"])
        elif sha256(row["intent"].encode()).digest() != digest:
            report.add("I9", f"{what} is another intent in the books than the one that was signed", chain=row["chain"])

    def close(self, report: Report) -> None:
        """Name what the journal has not said by now: it says everything before the tables do."""
        for (attempt_id, number), chain in self._unheard.items():
            if (attempt_id, number) not in self._signed:
                report.add("I9", f"version {number} of attempt {attempt_id} has bytes that the signer's journal does not know", chain=chain)
        for attempt_id, chain in self._unproved.items():
            if attempt_id not in self._dead:
                report.add("I9", f"attempt {attempt_id} is dead and the signer's journal has no proof of it", chain=chain)
        report.close()


def _versions(tx: Tx, attempt_ids: Iterable[int]) -> dict[tuple[int, int], Row]:
    rows = tx.all(
        "SELECT version.attempt_id, version.number, version.txid, version.intent, lane.chain FROM version "
        "JOIN attempt ON attempt.id = version.attempt_id JOIN lane ON lane.id = attempt.lane_id "
        "WHERE version.attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": attempt_id} for attempt_id in attempt_ids],
    )
    return {(row["attempt_id"], row["number"]): row for row in rows}


def _strays(tx: Tx, attempt_ids: Iterable[int]) -> set[tuple[int, int]]:
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
