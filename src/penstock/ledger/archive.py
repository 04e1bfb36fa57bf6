"""What the database remembers of archives: a chain of their own, how far they go, and the sums of what they hold.

From the commit that records an archive on, its batches are out of the books that are read here, whatever of them is still in the tables. What
recorded it is told in the chain of operator actions, so the checkpoints cover it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock.core import covers
from penstock.core.canonical import canonical, canonical_sorted
from penstock.db import Row, Tx
from penstock.ledger import chain
from penstock.ledger.book import GENESIS
from penstock.ledger.facts import Head, ids_of, pages
from penstock.ledger.report import Report

Totals = dict[tuple[str, str], int]

_BEGIN: Final = "archive"
_END: Final = "archive removed"
_SWEEP: Final = 2_000


@dataclass(frozen=True, slots=True)
class Archive:
    """One recorded archive. `heads` is how far its batches go, by committer."""

    number: int
    before_ms: int
    file: str
    sha256: str
    heads: Mapping[str, Head]


def listed(tx: Tx) -> list[Archive]:
    """All of them, oldest first; their heads as the table of heads says, which `check` compares."""
    heads: dict[int, dict[str, Head]] = {}
    for row in tx.all("SELECT archive, committer, number, hash FROM archive_head"):
        heads.setdefault(row["archive"], {})[row["committer"]] = Head(row["number"], row["hash"])
    rows = tx.all("SELECT number, before_ms, file, sha256 FROM archive ORDER BY number")
    return [Archive(row["number"], row["before_ms"], row["file"], row["sha256"], heads.get(row["number"], {})) for row in rows]


def unfinished(tx: Tx) -> list[Archive]:
    """Those of which something may still have to be removed."""
    ended = _ended(tx)
    return [archive for archive in listed(tx) if archive.file not in ended]


def heads(tx: Tx) -> dict[str, Head]:
    """How far each committer's chain is archived."""
    rows = tx.all(
        "SELECT committer, number, hash FROM archive_head WHERE NOT EXISTS (SELECT 1 FROM archive_head AS later "
        "WHERE later.committer = archive_head.committer AND later.number > archive_head.number)"
    )
    return {row["committer"]: Head(row["number"], row["hash"]) for row in rows}


def totals(tx: Tx) -> Totals:
    """The sums of all archived postings, by (account, coin id)."""
    return {(r["account"], r["coin_id"]): r["amount"] for r in tx.all("SELECT account, coin_id, amount FROM archive_total")}


def record(
    tx: Tx,
    *,
    number: int,
    before_ms: int,
    file: str,
    sha256: str,
    counts: Mapping[str, int],
    heads: Mapping[str, Head],
    sums: Totals,
    action_id: int,
    at_ms: int,
) -> None:
    """From this commit on the file is what its batches are read from. `sums` are its own. Raises Conflict where another has its number."""
    tx.run(
        "INSERT INTO archive_total (account, coin_id, amount) SELECT t.account, t.coin_id, t.amount "
        "FROM {ROWS t(account TEXT, coin_id TEXT, amount {AMOUNT})} WHERE true "
        "ON CONFLICT (account, coin_id) DO UPDATE SET amount = excluded.amount",
        t=[{"account": key[0], "coin_id": key[1], "amount": units} for key, units in _added(totals(tx), sums).items()],
    )
    last = tx.one("SELECT hash FROM archive WHERE number = :number", number=number - 1)
    told = {"counts": dict(counts), "heads": {name: list(head) for name, head in heads.items()}, "totals": _hash_of(totals(tx))}
    said = canonical_sorted(told).decode()
    row = {"number": number, "at_ms": at_ms, "before_ms": before_ms, "file": file, "sha256": sha256, "said": said}
    previous = last["hash"] if last is not None else GENESIS
    tx.run(
        "INSERT INTO archive (number, at_ms, before_ms, file, sha256, said, previous_hash, hash) "
        "VALUES (:number, :at_ms, :before_ms, :file, :sha256, :said, :previous_hash, :hash)",
        **row,
        previous_hash=previous,
        hash=_link(row, previous),
    )
    tx.run(
        "INSERT INTO archive_head (committer, number, hash, archive) SELECT h.committer, h.number, h.hash, :archive "
        "FROM {ROWS h(committer TEXT, number {INT}, hash TEXT)}",
        h=[{"committer": name, "number": head.number, "hash": head.hash} for name, head in heads.items()],
        archive=number,
    )
    chain.record_action(tx, action_id, action=_BEGIN, subject=file, reason=_link(row, previous), at_ms=at_ms)


def end(tx: Tx, archive: Archive, hashed: str, *, action_id: int, at_ms: int) -> None:
    """Nothing of it has to be removed any more, and what stays of its orders and attempts is for ever what was `kept`."""
    if archive.file not in _ended(tx):
        chain.record_action(tx, action_id, action=_END, subject=archive.file, reason=hashed, at_ms=at_ms)


def delete_entries(tx: Tx, entries: Iterable[Mapping[str, Any]]) -> None:
    """Entries with their postings, which are in a file. The database refuses any that no recorded archive has."""
    keys = [{"id": entry["id"]} for entry in entries]
    tx.run("DELETE FROM posting WHERE entry_id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=keys)
    tx.run("DELETE FROM entry WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=keys)


def sweep(tx: Tx) -> int:
    """Archived batches that have no entry any more, some of them. Returns how many that were."""
    found: list[int] = []
    for committer, head in heads(tx).items():
        rows = tx.all(
            "SELECT id FROM batch WHERE committer = :committer AND number <= :number "
            "AND NOT EXISTS (SELECT 1 FROM entry WHERE entry.batch_id = batch.id) ORDER BY number LIMIT :limit",
            committer=committer,
            number=head.number,
            limit=_SWEEP - len(found),
        )
        found += [row["id"] for row in rows]
        if len(found) >= _SWEEP:
            break
    tx.run("DELETE FROM batch WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=[{"id": batch_id} for batch_id in found])
    return len(found)


def _ended(tx: Tx) -> dict[str, str]:
    """What was kept of archives that are done with, by their files."""
    return {
        row["subject"]: row["reason"] for row in tx.all("SELECT subject, reason FROM operator_action WHERE action = :action", action=_END)
    }


def kept(tx: Tx, number: int) -> str:
    """A hash over what never changes in the orders and attempts that are in this archive: their rows stay."""
    seen = hashlib.sha256()
    where = f"archive = {int(number)}"
    for said in _kept_orders(tx, where):
        seen.update(said)
    for said in _kept_attempts(tx, where):
        seen.update(said)
    return seen.hexdigest()


def _kept_orders(tx: Tx, where: str) -> Iterator[bytes]:
    for ids in pages(ids_of(tx, "orders", where)):
        for row in tx.all(
            "SELECT orders.*, COALESCE(order_key.fingerprint, '') AS fingerprint FROM orders LEFT JOIN order_key "
            "ON order_key.order_id = orders.id AND order_key.merchant_id = orders.merchant_id "
            "AND order_key.merchant_order_id = orders.merchant_order_id "
            "WHERE orders.id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY orders.id",
            k=[{"id": order_id} for order_id in ids],
        ):
            yield _line(covers.accepted(row, row["fingerprint"]), covers.decided(row, (), ""), row["txid"])


def _kept_attempts(tx: Tx, where: str) -> Iterator[bytes]:
    for ids in pages(ids_of(tx, "attempt", where)):
        owned: dict[int, list[list[Any]]] = {attempt_id: [] for attempt_id in ids}
        page = [{"id": attempt_id} for attempt_id in ids]
        for row in tx.all(
            "SELECT attempt_id, order_id, '' AS name, live FROM attempt_order WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})}) "
            "UNION ALL SELECT attempt_id, 0, name, 0 FROM attempt_resource WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
            k=page,
        ):
            owned[row["attempt_id"]].append([row["order_id"], row["name"], row["live"]])
        rows = tx.all("SELECT * FROM attempt WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY id", k=page)
        for row in rows:
            yield _line(covers.retired(row), str(row["outflow"]), str(row["fee_cap"]), sorted(owned[row["id"]]))


def check(tx: Tx, report: Report) -> None:
    """I15: archives are one chain, their heads and sums are what it says, and the rows that stayed are what they were."""
    number, previous, said = 0, GENESIS, {"heads": {}, "totals": _hash_of({})}
    by_number = {archive.number: archive for archive in listed(tx)}
    for row in tx.all("SELECT * FROM archive ORDER BY number"):
        name = f"archive {row['number']}"
        if row["number"] != number + 1 or row["previous_hash"] != previous or row["hash"] != _link(row, previous):
            report.add("I15", f"{name} is not what it was when it was recorded, or does not follow archive {number}")
        number, previous = row["number"], row["hash"]
        try:
            said = json.loads(row["said"])
            heads = {committer: Head(*head) for committer, head in said["heads"].items()}
        except (KeyError, TypeError, ValueError):
            report.add("I15", f"what is said of {name} cannot be read")
            continue
        if heads != by_number[number].heads:
            report.add("I15", f"{name} went to other heads than the table of heads says")
        told = tx.one("SELECT reason FROM operator_action WHERE action = :action AND subject = :file", action=_BEGIN, file=row["file"])
        if told is None or told["reason"] != row["hash"]:
            report.add("I15", f"{name} is not the one that the chain of operator actions names")
    if said.get("totals") != _hash_of(totals(tx)):
        report.add("I15", "the sums of what is archived are not those that the last archive was recorded with")
    ended = _ended(tx)
    for archive in by_number.values():
        if archive.file in ended and ended[archive.file] != kept(tx, archive.number):
            report.add("I15", f"orders or attempts of archive {archive.number} are not what they were when the rest of them was archived")


def _added(have: Totals, more: Totals) -> Totals:
    """The new sums of what is moved."""
    return {key: have.get(key, 0) + units for key, units in more.items()}


def _hash_of(sums: Totals) -> str:
    seen = hashlib.sha256()
    for (account, coin_id), units in sorted(sums.items()):
        seen.update(_line(account, coin_id, str(units)))
    return seen.hexdigest()


def _link(row: Row, previous: str) -> str:
    return hashlib.sha256(
        _line("archive", row["number"], row["at_ms"], row["before_ms"], row["file"], row["sha256"], row["said"], previous)
    ).hexdigest()


def _line(*said: Any) -> bytes:
    return canonical(said) + b"\n"
