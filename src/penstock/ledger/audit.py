"""Recompute everything from postings and name what differs (failure model, section 4).

Reads one snapshot. "Stop" findings mean that the books can not be trusted; "alert" findings that somebody should look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from penstock.core import ledger
from penstock.core.money import LEDGER_DECIMALS, plain
from penstock.db import Database, Row, Tx
from penstock.ledger.book import GENESIS, batch_hash

Level = Literal["stop", "alert"]
NAMED_MAX: Final = 20
"""How many breaches of one invariant are named; the count tells the rest."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach of one invariant."""

    invariant: str
    level: Level
    text: str


@dataclass(slots=True)
class Report:
    """What was checked and what differs."""

    findings: list[Finding] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    balances: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def breaches(self) -> list[Finding]:
        """Stop-level findings."""
        return [f for f in self.findings if f.level == "stop"]

    @property
    def warnings(self) -> list[Finding]:
        """Alert-level findings."""
        return [f for f in self.findings if f.level == "alert"]

    def add(self, invariant: str, level: Level, texts: Iterator[str] | list[str]) -> None:
        """Name the first breaches, count the rest."""
        named = list(texts)
        self.findings += [Finding(invariant, level, text) for text in named[:NAMED_MAX]]
        if len(named) > NAMED_MAX:
            self.findings.append(Finding(invariant, level, f"and {len(named) - NAMED_MAX} more"))


@dataclass(slots=True)
class _Books:
    """The whole ledger of one snapshot, read once."""

    entries: dict[int, Row]
    postings: dict[int, list[Row]]
    totals: dict[tuple[str, str], int]
    orders: list[Row]


async def audit(database: Database, symbols: Mapping[str, str], native_coins: frozenset[str] = frozenset()) -> Report:
    """Check every invariant that one database can show. `symbols` names coins; `native_coins` are those that pay gas."""
    return await database.read(lambda tx: _audit(tx, symbols, native_coins))


def _audit(tx: Tx, symbols: Mapping[str, str], native_coins: frozenset[str]) -> Report:
    report = Report()
    books = _read(tx)
    report.counts = {
        "orders": len(books.orders),
        "entries": len(books.entries),
        "postings": sum(len(lines) for lines in books.postings.values()),
    }
    report.add("I1", "stop", _unbalanced(books))
    report.add("I1", "stop", _orphans(books))
    report.add("I3", "stop", _wrong_balances(tx, books))
    report.add("I4", "alert", _wrong_reserves(books))
    report.add("I5", "stop", _wrong_orders(books))
    report.add("I6", "stop", _wrong_transfers(tx))
    report.add("I8", "stop", _sent_without_bytes(tx))
    report.add("I12", "alert", _missing_events(tx))
    report.add("I13", "stop", _wrong_amounts(tx))
    report.add("I15", "alert", _broken_chains(tx, books))
    report.add("I10", "stop", _transit(tx, books))
    report.add("I11", "alert", _funding(books, symbols))
    report.add("I11", "alert", _gas_equity(books, symbols, native_coins))
    report.add("I16", "alert", _halted(tx))
    for (account, coin_id), units in sorted(books.totals.items()):
        if not ledger.is_stored(account):
            report.balances.setdefault(account, {})[symbols.get(coin_id, coin_id)] = plain(units, LEDGER_DECIMALS)
    return report


def _read(tx: Tx) -> _Books:
    entries = {row["id"]: row for row in tx.all("SELECT * FROM entry")}
    postings: defaultdict[int, list[Row]] = defaultdict(list)
    for row in tx.all("SELECT * FROM posting"):
        postings[row["entry_id"]].append(row)
    totals = ledger.sums((p["account"], p["coin_id"], p["amount"]) for lines in postings.values() for p in lines)
    orders = tx.all("SELECT id, payer, recipient, coin_id, value, fee, net, reserve, state, wire, merchant_pays_fee FROM orders")
    return _Books(entries, dict(postings), totals, orders)


def _unbalanced(books: _Books) -> Iterator[str]:
    for entry_id, lines in books.postings.items():
        sums: defaultdict[str, int] = defaultdict(int)
        for line in lines:
            sums[line["coin_id"]] += line["amount"]
        if any(sums.values()):
            yield f"entry {entry_id} does not sum to zero"


def _orphans(books: _Books) -> Iterator[str]:
    for entry_id in books.postings.keys() - books.entries.keys():
        yield f"postings of entry {entry_id} have no entry"


def _wrong_balances(tx: Tx, books: _Books) -> Iterator[str]:
    stored = {}
    for row in tx.all("SELECT holder, coin_id, available, reserved FROM balance"):
        stored[ledger.available(row["holder"]), row["coin_id"]] = row["available"]
        stored[ledger.reserved(row["holder"]), row["coin_id"]] = row["reserved"]
    computed = {key: units for key, units in books.totals.items() if ledger.is_stored(key[0])}
    for account, coin_id in sorted(stored.keys() | computed.keys()):
        have, want = stored.get((account, coin_id), 0), computed.get((account, coin_id), 0)
        if have != want:
            yield f"{account} stores {plain(have, LEDGER_DECIMALS)} and its postings sum to {plain(want, LEDGER_DECIMALS)}"


def _wrong_reserves(books: _Books) -> Iterator[str]:
    open_orders: defaultdict[tuple[str, str], int] = defaultdict(int)
    for order in books.orders:
        if order["state"] not in ("succeeded", "failed"):
            open_orders[ledger.reserved(order["payer"]), order["coin_id"]] += order["reserve"]
    held = {key: units for key, units in books.totals.items() if key[0].endswith(":reserved")}
    for key in sorted(open_orders.keys() | held.keys()):
        if open_orders.get(key, 0) != held.get(key, 0):
            yield f"{key[0]} holds {plain(held.get(key, 0), LEDGER_DECIMALS)}, open orders need {plain(open_orders.get(key, 0), LEDGER_DECIMALS)}"


def _wrong_orders(books: _Books) -> Iterator[str]:
    kinds: defaultdict[str, set[str]] = defaultdict(set)
    for entry in books.entries.values():
        if entry["ref_kind"] == "order":
            kinds[entry["ref_id"]].add(entry["posting_kind"])
    for order in books.orders:
        have = kinds.pop(str(order["id"]), set())
        want = _entries_of(order)
        if have != want:
            yield f"order {order['id']} is {order['state']} with entries {sorted(have)}; it should have {sorted(want)}"
    for order_id in kinds:
        yield f"entries of order {order_id} have no order"


def _entries_of(order: Row) -> set[str]:
    if order["recipient"]:
        return {"internal"}
    if order["state"] == "succeeded":
        return {"reserve", "settle"}
    return {"reserve", "release"} if order["state"] == "failed" else {"reserve"}


def _wrong_transfers(tx: Tx) -> Iterator[str]:
    # Orders whose final attempts paid more than once, or that succeeded with nothing paid and nothing under way.
    rows = tx.all(
        "SELECT orders.id, orders.state, orders.recipient, "
        "SUM(CASE WHEN attempt.state = 'final' AND paid.n = 1 THEN 1 ELSE 0 END) AS paid, "
        "SUM(CASE WHEN attempt.state IN ('bound', 'signed', 'sent', 'included') THEN 1 ELSE 0 END) AS live "
        "FROM orders LEFT JOIN attempt_order ON attempt_order.order_id = orders.id LEFT JOIN attempt ON attempt.id = attempt_order.attempt_id "
        "LEFT JOIN (SELECT ref_id, 1 AS n FROM entry WHERE ref_kind = 'attempt' AND posting_kind = 'final') AS paid "
        "ON paid.ref_id = CAST(attempt.id AS TEXT) WHERE orders.recipient = '' GROUP BY orders.id, orders.state, orders.recipient"
    )
    for row in rows:
        if row["paid"] > 1 or row["live"] > 1:
            yield f"order {row['id']} has {row['paid']} final transfers and {row['live']} live attempts"
        elif row["state"] == "succeeded" and not row["paid"] + row["live"]:
            yield f"order {row['id']} succeeded and nothing pays it"
        elif row["state"] == "failed" and row["paid"] + row["live"]:
            yield f"order {row['id']} failed and {row['paid'] + row['live']} attempts pay it"


def _sent_without_bytes(tx: Tx) -> Iterator[str]:
    for row in tx.all("SELECT id FROM version WHERE sends > 0 AND raw IS NULL"):
        yield f"version {row['id']} was sent and its bytes are not stored"


def _missing_events(tx: Tx) -> Iterator[str]:
    rows = tx.all(
        "SELECT orders.id FROM orders LEFT JOIN outbox ON outbox.order_id = orders.id "
        "WHERE orders.state IN ('succeeded', 'failed') AND outbox.id IS NULL"
    )
    for row in rows:
        yield f"order {row['id']} is decided and has no event"


def _wrong_amounts(tx: Tx) -> Iterator[str]:
    for row in tx.all("SELECT id, value, fee, net, merchant_pays_fee, recipient FROM orders"):
        want = row["value"] if row["recipient"] or row["merchant_pays_fee"] else row["value"] - row["fee"]
        if row["net"] != want:
            yield f"order {row['id']} pays {plain(row['net'], LEDGER_DECIMALS)} where {plain(want, LEDGER_DECIMALS)} was promised"
    for row in tx.all("SELECT id, gas_paid, fee_cap FROM attempt WHERE gas_paid IS NOT NULL"):
        if row["gas_paid"] > row["fee_cap"]:
            yield f"attempt {row['id']} paid {row['gas_paid']} for gas over its cap of {row['fee_cap']}"


def _broken_chains(tx: Tx, books: _Books) -> Iterator[str]:
    of_batch: defaultdict[int, list[Row]] = defaultdict(list)
    for entry in books.entries.values():
        of_batch[entry["batch_id"]].append(entry)
    heads: dict[str, tuple[int, str]] = {}
    for batch in tx.all("SELECT id, committer, number, previous_hash, hash FROM batch ORDER BY committer, number"):
        number, previous = heads.get(batch["committer"], (0, GENESIS))
        entries = of_batch.pop(batch["id"], [])
        lines: list[dict[str, Any]] = [line for entry in entries for line in books.postings.get(entry["id"], [])]
        if batch["number"] != number + 1 or batch["previous_hash"] != previous:
            yield f"batch {batch['number']} of {batch['committer']} does not follow batch {number}"
        elif batch_hash(previous, entries, lines) != batch["hash"]:
            yield f"batch {batch['number']} of {batch['committer']} does not hold the rows it was sealed over"
        heads[batch["committer"]] = (batch["number"], batch["hash"])
    for batch_id in of_batch:
        yield f"entries of batch {batch_id} have no batch"


def _transit(tx: Tx, books: _Books) -> Iterator[str]:
    # What was reported as paid and is not final yet.
    expected: defaultdict[str, int] = defaultdict(int)
    for row in tx.all(
        "SELECT orders.token_id, orders.net FROM orders JOIN attempt_order ON attempt_order.order_id = orders.id "
        "JOIN attempt ON attempt.id = attempt_order.attempt_id WHERE orders.state = 'succeeded' AND attempt_order.live = 1"
    ):
        expected[row["token_id"]] += row["net"]
    prefix = ledger.in_transit("")
    have = {account.removeprefix(prefix): units for (account, _), units in books.totals.items() if account.startswith(prefix)}
    for token_id in sorted(have.keys() | expected.keys()):
        if have.get(token_id, 0) != expected.get(token_id, 0):
            yield (
                f"{plain(have.get(token_id, 0), LEDGER_DECIMALS)} of token {token_id} is in transit in the books, "
                f"attempts under way pay {plain(expected.get(token_id, 0), LEDGER_DECIMALS)}"
            )


def _funding(books: _Books, symbols: Mapping[str, str]) -> Iterator[str]:
    for (account, coin_id), units in sorted(books.totals.items()):
        if account == ledger.FUNDING and units < 0:
            yield f"{plain(-units, LEDGER_DECIMALS)} {symbols.get(coin_id, coin_id)} of declared funding has not been seen on chain"


def _gas_equity(books: _Books, symbols: Mapping[str, str], native_coins: frozenset[str]) -> Iterator[str]:
    for coin_id in sorted(native_coins):
        equity = sum(books.totals.get((account, coin_id), 0) for account in (ledger.FUNDING, ledger.FEE_INCOME, ledger.NETWORK_COST))
        if equity < 0 and books.totals.get((ledger.FUNDING, coin_id), 0) >= 0:
            yield f"the house has spent {plain(-equity, LEDGER_DECIMALS)} {symbols.get(coin_id, coin_id)} more on gas than it owns"


def _halted(tx: Tx) -> Iterator[str]:
    for row in tx.all("SELECT chain, halted FROM lane WHERE halted <> ''"):
        yield f"nothing is sent on {row['chain']}: {row['halted']}"
