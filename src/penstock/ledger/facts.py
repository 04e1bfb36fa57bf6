"""What the audit reads, in pages: batches with their entries, orders and attempts with all that belongs to them.

Both readers of the audit (all from the first row, or what is new since the checkpoint) use these, so that neither holds a whole table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from penstock.db import Row, Tx
from penstock.ledger.book import GENESIS

T = TypeVar("T")

PAGE: Final = 1_000
"""Orders or attempts that are held at a time."""
BATCHES: Final = 500
ENTRIES: Final = 4_000
"""Entries of batches that are held at a time; a single batch may have more."""


class Head(NamedTuple):
    """How far a committer's chain is read."""

    number: int
    hash: str


FIRST: Final = Head(0, GENESIS)
"""Before the first batch."""


@dataclass(frozen=True, slots=True)
class Link:
    """One batch with every row it wrote."""

    batch: Row
    entries: list[Row]
    postings: list[Row]


@dataclass(slots=True)
class OrderFacts:
    """One order and all that belongs to it. `row` is None where others name an order that is not there."""

    id: int
    row: Row | None = None
    entries: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    history: list[Row] = field(default_factory=list)
    events: list[Row] = field(default_factory=list)
    decisions: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class AttemptFacts:
    """One attempt and all that belongs to it. `row` is None where others name an attempt that is not there."""

    id: int
    row: Row | None = None
    entries: list[Row] = field(default_factory=list)
    versions: list[Row] = field(default_factory=list)
    resources: set[str] = field(default_factory=set)
    orders: dict[int, Row] = field(default_factory=dict)


def pages(items: Iterable[T], size: int = PAGE) -> Iterator[list[T]]:
    """So many at a time."""
    rest = iter(items)
    while page := list(islice(rest, size)):
        yield page


_COMMITTERS: Final = (
    # One step through the index for each.
    "WITH RECURSIVE found(name) AS (SELECT MIN(committer) FROM batch UNION ALL "
    "SELECT (SELECT MIN(later.committer) FROM batch AS later WHERE later.committer > found.name) FROM found WHERE found.name IS NOT NULL) "
)


def committers(tx: Tx) -> list[str]:
    """Everyone who ever wrote a batch."""
    return [row["name"] for row in tx.all(f"{_COMMITTERS}SELECT name FROM found WHERE name IS NOT NULL")]


def ends(tx: Tx) -> dict[str, int]:
    """The number of the last batch of everyone who ever wrote one."""
    rows = tx.all(
        f"{_COMMITTERS}SELECT name, (SELECT MAX(number) FROM batch WHERE committer = found.name) AS number FROM found WHERE name IS NOT NULL"
    )
    return {row["name"]: row["number"] for row in rows}


def are_batches(tx: Tx, heads: Mapping[str, Head]) -> bool:
    """Whether each of these is a batch of its committer as it is stored."""
    rows = tx.all(
        "SELECT batch.committer, batch.number, batch.hash FROM {ROWS k(committer TEXT, number {INT})} "
        "JOIN batch ON batch.committer = k.committer AND batch.number = k.number",
        k=[(name, head.number) for name, head in heads.items()],
    )
    return {row["committer"]: Head(row["number"], row["hash"]) for row in rows} == heads


def links(tx: Tx, committer: str, after: int) -> Iterator[Link]:
    """A committer's batches with a number above `after`, in order."""
    while True:
        batches = tx.all(
            "SELECT id, committer, number, previous_hash, hash, at_ms FROM batch WHERE committer = :committer AND number > :after "
            "ORDER BY number LIMIT :limit",
            committer=committer,
            after=after,
            limit=BATCHES,
        )
        for group in _groups(tx, batches):
            yield from _filled(tx, group)
        if len(batches) < BATCHES:
            return
        after = batches[-1]["number"]


def _groups(tx: Tx, batches: Sequence[Row]) -> Iterator[list[Row]]:
    # How many rows each batch would bring, so that no group brings too many.
    counts = {
        row["batch_id"]: row["n"]
        for row in tx.all(
            "SELECT batch_id, COUNT(*) AS n FROM entry WHERE batch_id IN (SELECT k.id FROM {ROWS k(id {INT})}) GROUP BY batch_id",
            k=_ids(batch["id"] for batch in batches),
        )
    }
    group: list[Row] = []
    size = 0
    for batch in batches:
        count = counts.get(batch["id"], 0)
        if group and size + count > ENTRIES:
            yield group
            group, size = [], 0
        group.append(batch)
        size += count
    if group:
        yield group


def entries_of(tx: Tx, batch_ids: Sequence[int]) -> list[Row]:
    """The entries of these batches, each with its `lines` in order."""
    entries = tx.all("SELECT * FROM entry WHERE batch_id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=_ids(batch_ids))
    lines = _lines(tx, entries)
    return [{**entry, "lines": sorted(lines[entry["id"]], key=lambda line: line["line"])} for entry in entries]


def _filled(tx: Tx, batches: Sequence[Row]) -> Iterator[Link]:
    entries = tx.all(
        "SELECT * FROM entry WHERE batch_id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=_ids(batch["id"] for batch in batches)
    )
    lines = _lines(tx, entries)
    of_batch = _by(entries, "batch_id")
    for batch in batches:
        own = of_batch[batch["id"]]
        yield Link(batch, own, [line for entry in own for line in lines[entry["id"]]])


def _lines(tx: Tx, entries: Sequence[Row]) -> defaultdict[int, list[Row]]:
    return _by(
        tx.all(
            "SELECT entry_id, line, account, coin_id, amount FROM posting WHERE entry_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
            k=_ids(entry["id"] for entry in entries),
        ),
        "entry_id",
    )


def ids_of(tx: Tx, table: str, where: str = "true") -> Iterator[int]:
    """Every id of a table of ours, in order, a page at a time."""
    after = 0
    while page := tx.all(f"SELECT id FROM {table} WHERE {where} AND id > :after ORDER BY id LIMIT 10000", after=after):
        yield from (row["id"] for row in page)
        after = page[-1]["id"]


def orders(tx: Tx, ids: Sequence[int]) -> Iterator[OrderFacts]:
    """These orders with their entries, attempts, steps and events."""
    found = {order_id: OrderFacts(order_id) for order_id in ids}
    keys = _ids(ids)
    for row in tx.all(
        "SELECT orders.*, order_key.fingerprint, order_key.order_id AS key_order_id FROM orders LEFT JOIN order_key "
        "ON order_key.merchant_id = orders.merchant_id AND order_key.merchant_order_id = orders.merchant_order_id "
        "WHERE orders.id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=keys,
    ):
        found[row["id"]].row = row
    for entry in _entries(tx, "order", ids):
        found[int(entry["ref_id"])].entries.append(entry)
    for entry in _entries(tx, "decision", ids):
        found[int(entry["ref_id"])].decisions.append(entry)
    # `paid`: the books say that its coins have left for good.
    for row in tx.all(
        "SELECT attempt_order.order_id, attempt_order.live, attempt.id, attempt.state, attempt.txid, "
        "CASE WHEN attempt.state = 'final' AND EXISTS (SELECT 1 FROM entry WHERE ref_kind = 'attempt' AND posting_kind = 'final' "
        "AND ref_id = CAST(attempt.id AS TEXT)) THEN 1 ELSE 0 END AS paid "
        "FROM attempt_order JOIN attempt ON attempt.id = attempt_order.attempt_id "
        "WHERE attempt_order.order_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=keys,
    ):
        found[row["order_id"]].attempts.append(row)
    for row in tx.all(
        "SELECT id, order_id, at_ms, before, after, reason FROM order_history WHERE order_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=keys,
    ):
        found[row["order_id"]].history.append(row)
    # `accepted`: sends that the merchant answered with success.
    for row in tx.all(
        "SELECT outbox.id, outbox.order_id, outbox.merchant_id, outbox.body, outbox.state, "
        "(SELECT COUNT(*) FROM webhook_send WHERE webhook_send.outbox_id = outbox.id AND webhook_send.result = 'success') AS accepted "
        "FROM outbox WHERE outbox.order_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=keys,
    ):
        found[row["order_id"]].events.append(row)
    yield from found.values()


def attempts(tx: Tx, ids: Sequence[int]) -> Iterator[AttemptFacts]:
    """These attempts with their versions, resources, entries and orders."""
    found = {attempt_id: AttemptFacts(attempt_id) for attempt_id in ids}
    keys = _ids(ids)
    for row in tx.all(
        "SELECT attempt.*, lane.chain FROM attempt LEFT JOIN lane ON lane.id = attempt.lane_id "
        "WHERE attempt.id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=keys,
    ):
        found[row["id"]].row = row
    for entry in _entries(tx, "attempt", ids):
        found[int(entry["ref_id"])].entries.append(entry)
    paid: defaultdict[int, list[Row]] = defaultdict(list)
    for row in tx.all(
        "SELECT version_order.version_id, version_order.order_id, version_order.amount FROM version_order JOIN version "
        "ON version.id = version_order.version_id WHERE version.attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=keys,
    ):
        paid[row["version_id"]].append(row)
    for row in tx.all(
        "SELECT id, attempt_id, number, kind, intent, txid, sends, CASE WHEN raw IS NULL THEN 0 ELSE 1 END AS stored FROM version "
        "WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY attempt_id, number",
        k=keys,
    ):
        found[row["attempt_id"]].versions.append(version(row, paid[row["id"]]))
    for row in tx.all("SELECT attempt_id, name FROM attempt_resource WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=keys):
        found[row["attempt_id"]].resources.add(row["name"])
    for row in tx.all(
        "SELECT attempt_order.attempt_id, attempt_order.live, orders.id, orders.state, orders.net, orders.token_id, orders.coin_id, "
        "orders.destination, orders.memo, orders.seal FROM attempt_order JOIN orders ON orders.id = attempt_order.order_id "
        "WHERE attempt_order.attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=keys,
    ):
        found[row["attempt_id"]].orders[row["id"]] = row
    yield from found.values()


def moved_by_lane(tx: Tx, lane_id: int, account: str, *, after: int, until: int = 2**62) -> int:
    """What entries of blocks in (after, until] moved on a treasury account for one lane. Books are kept by network: an attempt's entries are
    its lane's, what was seen on an address is that address's, and what names neither counts for the first.
    """
    lanes = tx.all("SELECT id, chain, address FROM lane WHERE chain = (SELECT chain FROM lane WHERE id = :id) ORDER BY number", id=lane_id)
    rows = tx.all(
        "SELECT entry.ref_kind, entry.ref_id, posting.amount FROM entry JOIN posting ON posting.entry_id = entry.id "
        "WHERE entry.chain = :chain AND entry.block > :after AND entry.block <= :until AND posting.account = :account",
        chain=lanes[0]["chain"],
        after=after,
        until=until,
        account=account,
    )
    if len(lanes) > 1:
        ids = [int(row["ref_id"]) for row in rows if row["ref_kind"] == "attempt" and row["ref_id"].isdecimal()]
        attempt_rows = tx.all("SELECT id, lane_id FROM attempt WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=_ids(ids))
        lane_of = {("attempt", str(row["id"])): row["lane_id"] for row in attempt_rows}
        for row in rows:
            for lane in lanes if row["ref_kind"] == "seen" else ():
                if row["ref_id"].startswith(f"{lane['chain']}:{lane['address']}:"):
                    lane_of["seen", row["ref_id"]] = lane["id"]
        rows = [row for row in rows if lane_of.get((row["ref_kind"], row["ref_id"]), lanes[0]["id"]) == lane_id]
    return sum(row["amount"] for row in rows)


def version(row: Row, paid: Iterable[Row]) -> Row:
    """A version with what it `pays` by order, in base units, and what its intent `says`: nothing where that cannot be read."""
    try:
        intent: Any = msgspec.json.decode(row["intent"])
    except (TypeError, ValueError):
        intent = None
    says = intent if isinstance(intent, dict) else {}
    return {**row, "pays": {one["order_id"]: one["amount"] for one in paid}, "says": says}


def _entries(tx: Tx, kind: str, ids: Iterable[int]) -> list[Row]:
    """Entries about these rows, each with its `lines`."""
    entries = tx.all(
        "SELECT * FROM entry WHERE ref_kind = :kind AND ref_id IN (SELECT k.ref_id FROM {ROWS k(ref_id TEXT)})",
        kind=kind,
        k=[{"ref_id": str(row_id)} for row_id in ids],
    )
    lines = _lines(tx, entries)
    return [{**entry, "lines": lines[entry["id"]]} for entry in entries]


def _ids(ids: Iterable[int]) -> list[dict[str, int]]:
    return [{"id": row_id} for row_id in ids]


def _by(rows: Iterable[Row], name: str) -> defaultdict[Any, list[Row]]:
    found: defaultdict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[name]].append(row)
    return found
