"""How far the last pass has read, and the sums up to there: what the next pass goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core import ledger
from penstock.db import Tx
from penstock.ledger import chain
from penstock.ledger.facts import Head
from penstock.ledger.report import Report
from penstock.ledger.rules import Terms, Totals

_HOLDERS = "{ROWS k(holder TEXT, coin_id TEXT)}"


@dataclass(slots=True)
class Checkpoint:
    """`heads` and the house's sums whole; of holders only those that this pass has touched, as sums by (account, coin)."""

    heads: dict[str, Head]
    house: Totals
    holders: Totals = field(default_factory=dict)
    moved: dict[str, Head] = field(default_factory=dict)

    @classmethod
    def load(cls, tx: Tx) -> Checkpoint:
        """The stored one; empty before the first pass."""
        heads = {row["committer"]: Head(row["number"], row["hash"]) for row in tx.all("SELECT committer, number, hash FROM audit_head")}
        house = {(r["account"], r["coin_id"]): r["amount"] for r in tx.all("SELECT account, coin_id, amount FROM audit_total")}
        return cls(heads, house)

    def moved_on(self, tx: Tx, heads: Mapping[str, Head], delta: Totals) -> Checkpoint:
        """The next one: these heads, and these sums on top."""
        after = Checkpoint(dict(heads), dict(self.house))
        after.moved = {name: head for name, head in heads.items() if self.heads.get(name) != head}
        touched = {(account.rpartition(":")[0], coin_id) for account, coin_id in delta if ledger.is_stored(account)}
        after.holders = _stored_sums(tx, touched)
        for key, units in delta.items():
            sums = after.holders if ledger.is_stored(key[0]) else after.house
            sums[key] = sums.get(key, 0) + units
        return after

    def balances_to_check(self, tx: Tx, after: Checkpoint) -> list[tuple[tuple[str, str], int, int]]:
        """Balances that this pass has touched, and those that are not what the checkpoint of before says. Their sums are added to `after`."""
        # Equal amounts are equal text on SQLite, so this needs no arithmetic.
        odd = tx.all(
            "SELECT balance.holder, balance.coin_id FROM balance LEFT JOIN audit_balance AS kept ON kept.holder = balance.holder "
            "AND kept.coin_id = balance.coin_id WHERE COALESCE(kept.available, :available) <> balance.available "
            "OR COALESCE(kept.reserved, :available) <> balance.reserved UNION SELECT kept.holder, kept.coin_id FROM audit_balance AS kept "
            "LEFT JOIN balance ON balance.holder = kept.holder AND balance.coin_id = kept.coin_id WHERE balance.holder IS NULL",
            available=0,
        )
        keys = {(row["holder"], row["coin_id"]) for row in odd}
        for key, units in _stored_sums(tx, keys).items():
            after.holders.setdefault(key, units)
        keys |= {(account.rpartition(":")[0], coin_id) for account, coin_id in after.holders}
        rows = tx.all(
            "SELECT holder, coin_id, available, reserved FROM balance WHERE (holder, coin_id) IN (SELECT k.holder, k.coin_id FROM "
            f"{_HOLDERS}) ORDER BY holder, coin_id",
            k=[{"holder": holder, "coin_id": coin_id} for holder, coin_id in keys],
        )
        return [((row["holder"], row["coin_id"]), row["available"], row["reserved"]) for row in rows]

    def store(self, tx: Tx, at_ms: int) -> None:
        """Instead of the one before, and tied to it where a chain has grown."""
        if not self.moved:
            return
        tx.run(
            "INSERT INTO audit_head (committer, number, hash) SELECT h.committer, h.number, h.hash "
            "FROM {ROWS h(committer TEXT, number {INT}, hash TEXT)} WHERE true "
            "ON CONFLICT (committer) DO UPDATE SET number = excluded.number, hash = excluded.hash",
            h=[{"committer": name, "number": head.number, "hash": head.hash} for name, head in self.moved.items()],
        )
        sums: dict[tuple[str, str], dict[str, int]] = {}
        for (account, coin_id), units in self.holders.items():
            holder, _, side = account.rpartition(":")
            sums.setdefault((holder, coin_id), {"available": 0, "reserved": 0})[side] = units
        tx.run(
            "INSERT INTO audit_balance (holder, coin_id, available, reserved) SELECT b.holder, b.coin_id, b.available, b.reserved "
            "FROM {ROWS b(holder TEXT, coin_id TEXT, available {AMOUNT}, reserved {AMOUNT})} WHERE true "
            "ON CONFLICT (holder, coin_id) DO UPDATE SET available = excluded.available, reserved = excluded.reserved",
            b=[{"holder": holder, "coin_id": coin_id, **both} for (holder, coin_id), both in sums.items()],
        )
        tx.run(
            "INSERT INTO audit_total (account, coin_id, amount) SELECT t.account, t.coin_id, t.amount "
            "FROM {ROWS t(account TEXT, coin_id TEXT, amount {AMOUNT})} WHERE true "
            "ON CONFLICT (account, coin_id) DO UPDATE SET amount = excluded.amount",
            t=[{"account": account, "coin_id": coin_id, "amount": units} for (account, coin_id), units in self.house.items()],
        )
        chain.append_checkpoint(tx, self.moved, at_ms)

    def compare(self, tx: Tx, report: Report, totals: Totals, later: Totals, terms: Terms) -> None:
        """I15: the stored sums are those of the postings up to the stored heads. Before the first pass there is nothing to compare."""
        if not self.heads:
            return
        expected = {key: units - later.get(key, 0) for key, units in totals.items()}
        stored = dict(self.house)
        for row in tx.all("SELECT holder, coin_id, available, reserved FROM audit_balance"):
            stored[ledger.available(row["holder"]), row["coin_id"]] = row["available"]
            stored[ledger.reserved(row["holder"]), row["coin_id"]] = row["reserved"]
        for key in sorted(key for key in stored.keys() | expected.keys() if stored.get(key, 0) != expected.get(key, 0)):
            have, want = terms.amount(stored.get(key, 0), key[1]), terms.amount(expected.get(key, 0), key[1])
            report.add("I15", f"the checkpoint says {have} for {key[0]}, and its postings up to there sum to {want}")


def _stored_sums(tx: Tx, keys: set[tuple[str, str]]) -> Totals:
    """What the stored checkpoint says of these holders; nothing for holders that are new."""
    found: Totals = {}
    for row in tx.all(
        "SELECT holder, coin_id, available, reserved FROM audit_balance WHERE (holder, coin_id) IN "
        f"(SELECT k.holder, k.coin_id FROM {_HOLDERS})",
        k=[{"holder": holder, "coin_id": coin_id} for holder, coin_id in keys],
    ):
        found[ledger.available(row["holder"]), row["coin_id"]] = row["available"]
        found[ledger.reserved(row["holder"]), row["coin_id"]] = row["reserved"]
    return found
