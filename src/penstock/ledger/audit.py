"""The audit in two readings of one set of rules: everything from the first row, or what is new since a checkpoint.

Each reads one snapshot, in pages. What is new is found over the gap-free batch numbers of each committer: the orders and attempts that new
entries name, and all that are open, are read with everything that belongs to them; sums go on from those that the checkpoint holds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from penstock.core import ledger
from penstock.core.money import LEDGER_DECIMALS, plain
from penstock.core.order import TERMINAL
from penstock.db import Database, Row, Tx
from penstock.ledger import archive, archive_audit, chain, facts, guards, late, rules
from penstock.ledger.checkpoint import Checkpoint
from penstock.ledger.facts import Head
from penstock.ledger.report import NAMED_MAX, Finding, Report
from penstock.ledger.rules import Terms, Totals
from penstock.ledger.signed import Entries, Said

__all__ = ["NAMED_MAX", "Finding", "Report", "Terms", "audit", "look_again", "recompute"]

OPEN: Final = "state NOT IN ('succeeded', 'failed')"
"""Word for word the condition of the index orders_open."""
LIVE: Final = "state IN ('bound', 'signed', 'sent', 'included')"


@dataclass(slots=True)
class Reading:
    """What one reading has gathered so far: `moved` are the sums of the postings it read, by (account, coin)."""

    report: Report
    terms: Terms
    heads: dict[str, Head]
    moved: Totals = field(default_factory=dict)
    open_orders: Totals = field(default_factory=dict)
    entries: int = 0
    postings: int = 0
    orders: int = 0
    order_entries: int = 0
    whole: bool = True

    def links(self, tx: Tx, entries_max: int | None = None) -> Iterator[facts.Link]:
        """Every batch beyond the heads, checked; the heads move on. With `entries_max` it stops at the first batch behind so many entries:
        the reading is not `whole` then.
        """
        for committer in facts.committers(tx):
            head = self.heads.get(committer, facts.FIRST)
            for link in facts.links(tx, committer, head.number):
                if entries_max is not None and self.entries >= entries_max:
                    self.whole = False
                    return
                head = self.heads[committer] = rules.check_link(self.report, head, link)
                self.entries += len(link.entries)
                self.postings += len(link.postings)
                for line in link.postings:
                    key = line["account"], line["coin_id"]
                    self.moved[key] = self.moved.get(key, 0) + line["amount"]
                yield link

    def check_orders(self, tx: Tx, order_ids: Iterable[int]) -> None:
        """Every rule about orders."""
        for page in facts.pages(order_ids):
            for order in facts.orders(tx, page):
                if order.row is not None and order.row["archive"] is not None:
                    continue  # archive.check compares what stayed of it
                self.orders += order.row is not None
                self.order_entries += len(order.entries)
                rules.check_order(self.report, order, self.terms)
                if order.row is not None and order.row["state"] not in TERMINAL:
                    key = order.row["payer"], order.row["coin_id"]
                    self.open_orders[key] = self.open_orders.get(key, 0) + order.row["reserve"]

    def check_attempts(self, tx: Tx, attempt_ids: Iterable[int]) -> None:
        """Every rule about attempts."""
        for page in facts.pages(attempt_ids):
            for attempt in facts.attempts(tx, page):
                if attempt.row is not None and attempt.row["archive"] is not None:
                    continue
                rules.check_attempt(self.report, attempt, self.terms)

    def check_house(self, tx: Tx, house: Totals) -> None:
        """Every rule about the accounts that are the house's, and what is held back."""
        # Balances that hold something back: few beside all of them.
        rows = tx.all("SELECT holder, coin_id, reserved FROM balance WHERE reserved <> :reserved", reserved=0)
        rules.check_reserves(self.report, {(r["holder"], r["coin_id"]): r["reserved"] for r in rows}, self.open_orders, self.terms)
        rules.check_house(self.report, house, _under_way(tx), self.terms)
        looks: defaultdict[str, list[Row]] = defaultdict(list)
        for look in tx.all("SELECT treasury_seen.* FROM treasury_seen JOIN lane ON lane.id = treasury_seen.lane_id ORDER BY lane.number"):
            looks[look["token_id"]].append(look)
        for token_id, of_lanes in looks.items():
            rules.check_looks(self.report, token_id, of_lanes, _held_at(tx, house, token_id, of_lanes, self.terms), self.terms)
        if self.terms.now_ms is not None:
            late.check(tx, self.report, self.terms.now_ms)


async def audit(
    database: Database,
    symbols: Mapping[str, str],
    terms: Terms | None = None,
    *,
    journal: Entries | None = None,
    wanted_head: str = "",
    archives: Path | None = None,
) -> Report:
    """Check every invariant from the first row that is in no archive. `symbols` names coins where no `terms` are given, I9 is checked where
    there is a `journal`, the files of archives where their folder is named.

    Raises SignLater while the journal's signer is away.
    """
    said = None if journal is None else Said(journal)
    if said is not None:
        await said.hear()

    def job(tx: Tx) -> Report:
        report = recompute(tx, terms or Terms(symbols), said, wanted_head)
        if archives is not None:
            archive_audit.check(tx, report, archives, terms or Terms(symbols), said)
        return report

    report = await database.read(job)
    if said is not None:
        await said.hear()
        said.close(report)
    return report


def recompute(tx: Tx, terms: Terms, said: Said | None = None, wanted_head: str = "") -> Report:
    """The reading of everything that is in no archive, on one snapshot; who brings what the journal has `said` closes it."""
    reading = Reading(Report(), terms, archive.heads(tx), archive.totals(tx))
    report, kept = reading.report, Checkpoint.load(tx)
    witness = chain.Witness(kept.heads)
    for link in reading.links(tx):
        witness.see(link)
    reading.check_orders(tx, facts.ids_of(tx, "orders", "archive IS NULL"))
    reading.check_attempts(tx, facts.ids_of(tx, "attempt", "archive IS NULL"))
    _check_strays(tx, reading)
    report.head = chain.check(tx, report, wanted_head)
    archive.check(tx, report)
    kept.compare(tx, report, reading.moved, witness.later, terms)
    house = {key: units for key, units in reading.moved.items() if not ledger.is_stored(key[0])}
    rules.check_balances(report, balances(tx), dict(reading.moved), terms)
    reading.check_house(tx, house)
    if said is not None:
        said.compare(tx, report)
    late.check_halted(tx, report)
    guards.check(tx, report)
    report.counts = {"orders": reading.orders, "entries": reading.entries, "postings": reading.postings, "committers": len(reading.heads)}
    for (account, coin_id), units in sorted(house.items()):
        report.balances.setdefault(account, {})[terms.symbols.get(coin_id, coin_id)] = plain(units, LEDGER_DECIMALS)
    report.close()
    return report


def look_again(tx: Tx, terms: Terms, entries_max: int | None = None) -> tuple[Report, Checkpoint]:
    """The reading of what is new since the stored checkpoint, on one snapshot, and the checkpoint that follows from it.

    With `entries_max` of a part of it where there are more entries, or more orders and attempts under way. A part is not `whole`: what is
    under way is not read, and sums that lag behind say nothing about balances as they are, so nothing is compared with them.
    """
    kept = Checkpoint.load(tx)
    reading = Reading(Report(), terms, dict(kept.heads))
    order_ids: set[int] = set()
    attempt_ids: set[int] = set()
    for link in reading.links(tx, entries_max):
        for entry in link.entries:
            ids = {"order": order_ids, "attempt": attempt_ids}.get(entry["ref_kind"])
            if ids is not None and entry["ref_id"].isdecimal():
                ids.add(int(entry["ref_id"]))
    if reading.whole:
        open_ids, live_ids = _few(facts.ids_of(tx, "orders", OPEN), entries_max), _few(facts.ids_of(tx, "attempt", LIVE), entries_max)
        reading.whole = open_ids is not None and live_ids is not None
        order_ids.update(open_ids or ())
        attempt_ids.update(live_ids or ())
    reading.report.whole = reading.whole
    reading.check_orders(tx, sorted(order_ids))
    reading.check_attempts(tx, sorted(attempt_ids))
    after = kept.moved_on(tx, reading.heads, reading.moved)
    if reading.whole:
        stored = kept.balances_to_check(tx, after)  # adds to the sums that the next line copies
        rules.check_balances(reading.report, stored, dict(after.holders), terms)
        reading.check_house(tx, after.house)
    guards.check(tx, reading.report)
    reading.report.counts = {"orders": reading.orders, "entries": reading.entries, "postings": reading.postings}
    reading.report.close()
    return reading.report, after


def _few(ids: Iterator[int], most: int | None) -> list[int] | None:
    """All of them, or None where there are more."""
    found = list(islice(ids, None if most is None else most + 1))
    return found if most is None or len(found) <= most else None


def balances(tx: Tx) -> Iterator[tuple[tuple[str, str], int, int]]:
    """Every stored balance: (holder, coin id), available and reserved; a page at a time."""
    after = ("", "")
    while page := tx.all(
        "SELECT holder, coin_id, available, reserved FROM balance WHERE (holder, coin_id) > (:holder, :coin_id) "
        "ORDER BY holder, coin_id LIMIT 5000",
        holder=after[0],
        coin_id=after[1],
    ):
        for row in page:
            yield (row["holder"], row["coin_id"]), row["available"], row["reserved"]
        after = page[-1]["holder"], page[-1]["coin_id"]


def _under_way(tx: Tx) -> dict[str, int]:
    """By token, what was reported as paid and is not final yet."""
    found: defaultdict[str, int] = defaultdict(int)
    for row in tx.all(
        "SELECT orders.token_id, orders.net FROM attempt_order JOIN orders ON orders.id = attempt_order.order_id "
        "WHERE attempt_order.live = 1 AND orders.state = 'succeeded'"
    ):
        found[row["token_id"]] += row["net"]
    return found


def _held_at(tx: Tx, house: Totals, token_id: str, looks: Sequence[Row], terms: Terms) -> int:
    """What the books let the lanes of a network hold together, each at the block of its look: everything, but for its entries of later ones."""
    token = terms.tokens.get(token_id)
    if token is None:
        return 0
    account = ledger.treasury(token.id)
    beyond = sum(facts.moved_by_lane(tx, look["lane_id"], account, after=look["block"]) for look in looks)
    return beyond - house.get((account, token.coin.id), 0)


def _check_strays(tx: Tx, reading: Reading) -> None:
    """Rows that no reading by batch, order or attempt has met. They are looked for only where the counts differ."""
    report = reading.report
    if _count(tx, "entry") != reading.entries:
        for row in tx.all(
            "SELECT entry.id, entry.batch_id FROM entry LEFT JOIN batch ON batch.id = entry.batch_id WHERE batch.id IS NULL "
            "ORDER BY entry.id LIMIT 100"
        ):
            report.add("I15", f"entry {row['id']} belongs to batch {row['batch_id']}, which is not there")
    if _count(tx, "posting") != reading.postings:
        for row in tx.all(
            "SELECT DISTINCT posting.entry_id, posting.coin_id FROM posting LEFT JOIN entry ON entry.id = posting.entry_id "
            "WHERE entry.id IS NULL ORDER BY posting.entry_id LIMIT 100"
        ):
            report.add("I1", f"postings of entry {row['entry_id']} have no entry", coin_id=row["coin_id"])
    if _count(tx, "entry", "ref_kind = 'order'") != reading.order_entries:
        for row in tx.all(
            "SELECT entry.ref_id FROM entry LEFT JOIN orders ON CAST(orders.id AS TEXT) = entry.ref_id "
            "WHERE entry.ref_kind = 'order' AND orders.id IS NULL ORDER BY entry.id LIMIT 100"
        ):
            report.add("I5", f"entries of order {row['ref_id']} have no order")
    for table, invariant, what in (("outbox", "I12", "an event"), ("order_history", "I5", "a step")):
        for row in tx.all(
            f"SELECT DISTINCT {table}.order_id FROM {table} LEFT JOIN orders ON orders.id = {table}.order_id WHERE orders.id IS NULL "
            f"ORDER BY {table}.order_id LIMIT 100"
        ):
            report.add(invariant, f"there is {what} of order {row['order_id']}, which is not there")
    for row in tx.all(
        "SELECT single_use.name, single_use.order_id FROM single_use LEFT JOIN orders ON orders.id = single_use.order_id "
        "WHERE orders.id IS NULL ORDER BY single_use.name LIMIT 100"
    ):
        report.add("I7", f"order {row['order_id']}, which used {row['name']:.80} up, is not there")
    for row in tx.all(
        "SELECT order_key.merchant_id, order_key.order_id FROM order_key LEFT JOIN orders ON orders.id = order_key.order_id "
        "WHERE orders.id IS NULL ORDER BY order_key.order_id LIMIT 100"
    ):
        report.add("I5", f"order {row['order_id']}, which an id of merchant {row['merchant_id']} stands for, is not there")


def _count(tx: Tx, table: str, where: str = "true") -> int:
    row = tx.one(f"SELECT COUNT(*) AS n FROM {table} WHERE {where}")
    return int(row["n"]) if row else 0
