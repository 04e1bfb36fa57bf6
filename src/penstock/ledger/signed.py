"""I9: what the signer's journal says it signed and what the attempt table holds are the same, digest by digest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain as chained
from typing import Any, Literal

from penstock.db import Row, Tx
from penstock.ledger.facts import ids_of, pages
from penstock.ledger.report import Report


@dataclass(frozen=True, slots=True)
class JournalLine:
    """One entry of the signer's journal: a version that it signed, or the death of an attempt. `intent` is the SHA-256 of the canonical
    intent, hexadecimal.
    """

    kind: Literal["sign", "death"]
    attempt_id: int
    version: int = 0
    txid: str = ""
    intent: str = ""


Journal = Iterable[JournalLine]


def digest_of(intent: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical text of an intent's fields (core.intent.Intent.to_json)."""
    text = json.dumps(intent, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def compare(tx: Tx, report: Report, journal: Journal | None) -> None:
    """Both ways, in pages; without a journal nothing is said."""
    if journal is None:
        return
    known: set[tuple[int, int]] = set()
    dead: set[int] = set()
    for page in pages(journal):
        stored = _versions(tx, {line.attempt_id for line in page})
        for line in page:
            if line.kind == "death":
                dead.add(line.attempt_id)
                continue
            known.add((line.attempt_id, line.version))
            _check(report, line, stored.get((line.attempt_id, line.version)))
    for ids in pages(ids_of(tx, "attempt")):
        for (attempt_id, number), row in _versions(tx, ids).items():
            if row["txid"] is not None and (attempt_id, number) not in known:
                report.add(
                    "I9", f"version {number} of attempt {attempt_id} has bytes that the signer's journal does not know", chain=row["chain"]
                )
    for row in chained.from_iterable(_dead(tx, ids) for ids in pages(ids_of(tx, "attempt", "state = 'dead'"))):
        if row["id"] not in dead:
            report.add("I9", f"attempt {row['id']} is dead and the signer's journal has no proof of it", chain=row["chain"])


def _check(report: Report, line: JournalLine, row: Row | None) -> None:
    what = f"version {line.version} of attempt {line.attempt_id}"
    if row is None:
        report.add("I9", f"{what} was signed and the books do not know it")
    elif row["txid"] is not None and row["txid"] != line.txid:
        report.add("I9", f"{what} is transaction {line.txid} in the signer's journal and {row['txid']} in the books", chain=row["chain"])
    elif line.intent and hashlib.sha256(row["intent"].encode()).hexdigest() != line.intent:
        report.add("I9", f"{what} is another intent in the books than the one that was signed", chain=row["chain"])


def _versions(tx: Tx, attempt_ids: Iterable[int]) -> dict[tuple[int, int], Row]:
    rows = tx.all(
        "SELECT version.attempt_id, version.number, version.txid, version.intent, lane.chain FROM version "
        "JOIN attempt ON attempt.id = version.attempt_id JOIN lane ON lane.id = attempt.lane_id "
        "WHERE version.attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": attempt_id} for attempt_id in attempt_ids],
    )
    return {(row["attempt_id"], row["number"]): row for row in rows}


def _dead(tx: Tx, attempt_ids: Iterable[int]) -> list[Row]:
    # Attempts that never got a signature have nothing that could land, and the signer may not know them.
    return tx.all(
        "SELECT attempt.id, lane.chain FROM attempt JOIN lane ON lane.id = attempt.lane_id WHERE attempt.id IN (SELECT k.id FROM "
        "{ROWS k(id {INT})}) AND EXISTS (SELECT 1 FROM version WHERE version.attempt_id = attempt.id AND version.raw IS NOT NULL)",
        k=[{"id": attempt_id} for attempt_id in attempt_ids],
    )
