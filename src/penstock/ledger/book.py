"""The only writer of balances, entries and postings.

A money transaction opens a sheet (locks the balances it will touch, in id order), posts entries to it in memory, and
closes it: each entry is written once under its unique key, one batch row carries the hash chain on, and each balance is
written once under its old version. Where many processes wait for one balance, a sheet may look first and lock last: then
each balance is moved, in one statement, by what the entries add up to, if it covers them in their order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Final

from penstock.core import ledger
from penstock.core.canonical import canonical
from penstock.core.errors import InvariantBroken
from penstock.core.ledger import Entry, is_stored
from penstock.core.money import Coin, CoinAmount
from penstock.db import CommitUnknown, Conflict, Database, DatabaseUnavailable, Tx

Key = tuple[str, str]
_Values = tuple[Any, ...]

COMMIT_TRIES: Final = 5
GENESIS: Final = "0" * 64
"""What the first batch of a committer follows."""

_BALANCES: Final = (
    # In id order, so that two transactions that lock them never wait for each other.
    "SELECT id, holder, coin_id, available, reserved, version FROM balance "
    "WHERE (holder, coin_id) IN (SELECT k.holder, k.coin_id FROM {ROWS k(holder TEXT, coin_id TEXT)}) ORDER BY id"
)
_LOCKED_BALANCES: Final = f"{_BALANCES} {{FOR_UPDATE}}"
_ENTRY: Final = (
    "entry(id {INT}, batch_id {INT}, ref_kind TEXT, ref_id TEXT, posting_kind TEXT, chain TEXT, block {INT}, note TEXT, "
    "at_ms {INT}, covers TEXT)"
)
_BATCH: Final = "batch(id {INT}, committer TEXT, number {INT}, previous_hash TEXT, hash TEXT, at_ms {INT})"
_POSTING: Final = "posting(entry_id {INT}, line {INT}, account TEXT, coin_id TEXT, amount {AMOUNT})"
_entry_of: Final = itemgetter("id", "ref_kind", "ref_id", "posting_kind", "chain", "block", "note", "at_ms", "covers")
_posting_of: Final = itemgetter("entry_id", "line", "account", "coin_id", "amount")
_NO_ROW: Final = -1
"""The version of a balance whose row is yet to be made."""


class Overdraft(Exception):
    """The entry would take a balance below zero. The sheet is as it was before."""

    def __init__(self, holder: str, coin_id: str, available: int, missing: int) -> None:
        super().__init__(f"{holder} is short")
        self.holder = holder
        self.coin_id = coin_id
        self.available = available
        self.missing = missing


class Unsure(Exception):
    """Balances that were only looked at, or that moved since, do not cover an entry. That proves nothing: lock them first and judge again."""


class Side:
    """What of a balance is available, or reserved: as it was read, as it is by now, and the least that it was on the way."""

    __slots__ = ("least", "now", "read")

    def __init__(self, units: int) -> None:
        self.read = self.now = self.least = units


@dataclass(slots=True)
class Balance:
    """A row as it was read and what becomes of it."""

    id: int
    version: int
    available: Side
    reserved: Side
    touched: bool = False


@dataclass(frozen=True, slots=True)
class Head:
    """The last link of a committer's chain."""

    committer: str = ""
    number: int = 0
    hash: str = GENESIS


class Sheet:
    """Balances, under lock or only looked at, and the entries posted to them so far; `head` is what their batch will follow."""

    def __init__(self, balances: dict[Key, Balance], head: Head = Head(), *, is_locked: bool = True) -> None:
        self.balances = balances
        self.head = head
        self.is_locked = is_locked
        self.entries: list[Entry] = []
        self.covers: dict[tuple[str, str, str], str] = {}

    def post(self, entry: Entry) -> None:
        """Apply an entry whole or not at all. Raises Overdraft, and Unsure instead where nothing is locked yet."""
        moved: list[tuple[Balance, Side, int]] = []
        for posting in entry.postings:
            if not is_stored(posting.account):
                continue
            holder, _, name = posting.account.rpartition(":")
            balance = self.balances[holder, posting.coin_id]
            side: Side = getattr(balance, name)
            after = side.now + posting.units
            if after < 0:
                for _, done, units in moved:
                    done.now -= units
                if not self.is_locked:
                    raise Unsure
                raise Overdraft(holder, posting.coin_id, balance.available.now, -after)
            side.now = after
            side.least = min(side.least, after)
            moved.append((balance, side, posting.units))
        for balance, _, _ in moved:
            balance.touched = True
        self.entries.append(entry)

    def cover(self, hashes: Mapping[tuple[str, str, str], str]) -> None:
        """Say what entries decided besides amounts, by (ref_kind, ref_id, posting_kind)."""
        self.covers.update(hashes)


class Book:
    """Writes for one committer, a room of one process or one of two in it: one transaction at a time, whose batches form one hash chain."""

    def __init__(self, next_ids: Callable[[int], list[int]], committer: Callable[[], str]) -> None:
        self._next_ids = next_ids
        self._committer = committer

    def open(self, tx: Tx, keys: Iterable[Key]) -> Sheet:
        """Lock the balances of these (holder, coin) pairs in id order; rows that do not exist are made, empty."""
        return Sheet(self._lock(tx, sorted(set(keys))), self._head(tx))

    def look(self, tx: Tx, keys: Iterable[Key]) -> Sheet:
        """The same without a lock where others may write: `close` takes it, last of all, so that nobody waits while everything else is
        written. An entry that turns out not to be covered raises Unsure, from `post` or from `close`, and the transaction begins again
        with `open`.
        """
        if tx.dialect == "sqlite":
            return self.open(tx, keys)  # whoever writes is alone
        wanted = sorted(set(keys))
        none = {key: Balance(0, _NO_ROW, Side(0), Side(0)) for key in wanted}
        return Sheet(none | self._read(tx, wanted, _BALANCES), self._head(tx), is_locked=False)

    def _head(self, tx: Tx) -> Head:
        committer = self._committer()
        # Read with the balances, so that nothing but writing is left when rows begin to wait for one another.
        head = tx.one("SELECT number, hash FROM batch WHERE committer = :committer ORDER BY number DESC LIMIT 1", committer=committer)
        return Head(committer, head["number"], head["hash"]) if head else Head(committer)

    def _lock(self, tx: Tx, wanted: list[Key]) -> dict[Key, Balance]:
        balances = self._read(tx, wanted, _LOCKED_BALANCES)
        if missing := [key for key in wanted if key not in balances]:
            self._make(tx, missing)
            balances = self._read(tx, wanted, _LOCKED_BALANCES)
        return balances

    def _make(self, tx: Tx, missing: list[Key]) -> None:
        rows = [(row_id, *key, 0) for key, row_id in zip(missing, self._next_ids(len(missing)), strict=True)]
        # Make the empty balances; somebody else may be doing the same.
        tx.run(
            "INSERT INTO balance (id, holder, coin_id, available, reserved, version) "
            "SELECT r.id, r.holder, r.coin_id, r.available, r.available, 0 "
            "FROM {ROWS r(id {INT}, holder TEXT, coin_id TEXT, available {AMOUNT})} WHERE true ON CONFLICT DO NOTHING",
            r=rows,
        )

    def _read(self, tx: Tx, keys: list[Key], sql: str) -> dict[Key, Balance]:
        rows = tx.all(sql, k=keys) if keys else []
        return {(r["holder"], r["coin_id"]): Balance(r["id"], r["version"], Side(r["available"]), Side(r["reserved"])) for r in rows}

    def close(self, tx: Tx, sheet: Sheet, at_ms: int) -> None:
        """Write what the sheet holds. Raises db.Conflict when an entry was posted before, Unsure as `look` says."""
        if not sheet.entries:
            return
        batch_id, *entry_ids = self._next_ids(1 + len(sheet.entries))
        numbered = [(i, (e.ref_kind, e.ref_id, e.posting_kind), e) for i, e in zip(entry_ids, sheet.entries, strict=True)]
        entries = [(i, batch_id, *key, e.chain, e.block, e.note, at_ms, sheet.covers.get(key, "")) for i, key, e in numbered]
        postings = [(i, line, p.account, p.coin_id, p.units) for i, _, e in numbered for line, p in enumerate(e.postings)]
        hashed = _link(sheet.head.hash, [(entry[0], *entry[2:]) for entry in entries], postings)
        # The facts of this transaction, and the next link.
        tx.insert(_ENTRY, entries)
        tx.insert(_POSTING, postings)
        tx.insert(_BATCH, [(batch_id, sheet.head.committer, sheet.head.number + 1, sheet.head.hash, hashed, at_ms)])
        touched = {key: balance for key, balance in sheet.balances.items() if balance.touched}
        if touched and sheet.is_locked:
            self._write_balances(tx, list(touched.values()))
        elif touched:
            # Last, because another process may wait for these rows, and does so until the commit.
            self._move_balances(tx, touched)

    def _write_balances(self, tx: Tx, touched: list[Balance]) -> None:
        # Each balance once, and only from the version that was read; the CHECKs refuse anything below zero.
        written = tx.run(
            "UPDATE balance SET available = b.available, reserved = b.reserved, version = balance.version + 1 "
            "FROM {ROWS b(id {INT}, available {AMOUNT}, reserved {AMOUNT}, version {INT})} "
            "WHERE balance.id = b.id AND balance.version = b.version",
            b=[(b.id, b.available.now, b.reserved.now, b.version) for b in touched],
        )
        if written != len(touched):
            raise InvariantBroken("a locked balance changed under its lock")

    def _move_balances(self, tx: Tx, touched: dict[Key, Balance]) -> None:
        """By what was posted, whatever they are by now. Raises Unsure where that does not cover every entry in its turn."""
        if missing := sorted(key for key, balance in touched.items() if balance.version == _NO_ROW):
            self._make(tx, missing)
        sides = [(key, balance.available, balance.reserved) for key, balance in touched.items()]
        # Locked in id order first. What was waited for is read again: `balance` is what is there now.
        moved = tx.run(
            "WITH held AS MATERIALIZED (SELECT balance.id, m.available, m.reserved, m.needs_available, m.needs_reserved FROM {ROWS m(holder TEXT, "
            "coin_id TEXT, available {AMOUNT}, reserved {AMOUNT}, needs_available {AMOUNT}, needs_reserved {AMOUNT})} "
            "JOIN balance ON balance.holder = m.holder AND balance.coin_id = m.coin_id ORDER BY balance.id {FOR_UPDATE} OF balance) "
            "UPDATE balance SET available = balance.available + held.available, reserved = balance.reserved + held.reserved, "
            "version = balance.version + 1 FROM held "
            "WHERE balance.id = held.id AND balance.available >= held.needs_available AND balance.reserved >= held.needs_reserved",
            m=[(*key, a.now - a.read, r.now - r.read, a.read - a.least, r.read - r.least) for key, a, r in sides],
        )
        if moved != len(touched):
            raise Unsure


def batch_hash(previous: str, entries: Iterable[Mapping[str, Any]], postings: Iterable[Mapping[str, Any]]) -> str:
    """The link of a batch: over the link before it and every row it wrote, in id order. Entries of before cover nothing else."""
    return _link(previous, map(_entry_of, entries), map(_posting_of, postings))


def _link(previous: str, entries: Iterable[_Values], postings: Iterable[_Values]) -> str:
    rows = [
        [entry if entry[-1] else entry[:-1] for entry in sorted(entries, key=itemgetter(0))],
        [(*posting[:-1], str(posting[-1])) for posting in sorted(postings, key=itemgetter(0, 1))],
    ]
    return hashlib.sha256(previous.encode() + canonical(rows)).hexdigest()


async def balances(database: Database, holder: str) -> dict[str, tuple[int, int]]:
    """Available and reserved per coin id, in coin units."""
    # What one holder owns.
    rows = await database.read(
        lambda tx: tx.all("SELECT coin_id, available, reserved FROM balance WHERE holder = :holder ORDER BY coin_id", holder=holder)
    )
    return {row["coin_id"]: (row["available"], row["reserved"]) for row in rows}


async def totals(database: Database, prefix: str) -> dict[tuple[str, str], int]:
    """Sums of house accounts whose name begins so, by (account, coin id)."""
    # House accounts have no stored balance; sums are taken outside of SQL, where no amount is too large.
    rows = await database.read(
        lambda tx: tx.all(
            # What is archived counts with its sums, also where rows of it are still here.
            "SELECT posting.account, posting.coin_id, posting.amount FROM posting JOIN entry ON entry.id = posting.entry_id "
            "JOIN batch ON batch.id = entry.batch_id WHERE posting.account LIKE :pattern AND NOT EXISTS (SELECT 1 FROM archive_head "
            "WHERE archive_head.committer = batch.committer AND archive_head.number >= batch.number) "
            "UNION ALL SELECT account, coin_id, amount FROM archive_total WHERE account LIKE :pattern",
            pattern=prefix + "%",
        )
    )
    return ledger.sums((row["account"], row["coin_id"], row["amount"]) for row in rows)


class Balances:
    """What the house owes, for the API."""

    def __init__(self, database: Database, coin: Callable[[str], Coin | None]) -> None:
        self._database = database
        self._coin = coin

    async def of(self, holder: str) -> dict[str, CoinAmount]:
        """Available amounts by coin id, one for every coin that the holder ever had."""
        owned = await balances(self._database, holder)
        return {
            coin.id: CoinAmount(coin, available) for coin_id, (available, _) in owned.items() if (coin := self._coin(coin_id)) is not None
        }


async def credit(database: Database, book: Book, command_id: int, holder: str, amount: CoinAmount, *, reason: str, at_ms: int) -> None:
    """Book declared funding of a holder. Running it twice with one command id raises db.Conflict and books once.

    After a COMMIT of unknown outcome it looks for the entry. Raises CommitUnknown when nobody can tell: who repeats it might book twice.
    """
    unknown: CommitUnknown | None = None

    def job(tx: Tx) -> None:
        # Only after a COMMIT of unknown outcome: it may be there.
        if unknown is not None and tx.one("SELECT id FROM entry WHERE ref_kind = 'credit' AND ref_id = :id", id=str(command_id)):
            return
        sheet = book.open(tx, [(holder, amount.coin.id)])
        sheet.post(ledger.credit(str(command_id), holder, amount.coin.id, amount.units, reason))
        book.close(tx, sheet, at_ms)

    for _ in range(COMMIT_TRIES):
        try:
            await database.write("credit", job)
        except CommitUnknown as error:
            unknown = error
        except (Conflict, DatabaseUnavailable):
            if unknown is None:
                raise
        else:
            return
    raise unknown or CommitUnknown("credit")
