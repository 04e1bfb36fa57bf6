"""What may leave the tables: of each committer the beginning of its chain, and orders that are over with all that belongs to them.

The two are chosen apart. A chain can only be cut in one place, and at any place some order is under way: its entries are in the archived
batches, and stay in the tables as well until the order is archived by a later run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from penstock.core import attempt as attempt_states
from penstock.core import snowflake
from penstock.db import Row, Tx
from penstock.ledger import archive, facts, rules
from penstock.ledger.facts import Head, OrderFacts
from penstock.ledger.report import Report
from penstock.ledger.rules import Terms

_OVER = "state IN ('succeeded', 'failed') AND archive IS NULL"


@dataclass(slots=True)
class Chosen:
    """What one archive will have. `heads` is how far each committer's chain goes with it; `after` where it begins."""

    heads: dict[str, Head]
    after: dict[str, Head]
    orders: list[int] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    events: list[int] = field(default_factory=list)
    """Orders whose event goes."""

    def __bool__(self) -> bool:
        return bool(self.heads or self.orders or self.events)


def choose(tx: Tx, until_ms: int, terms: Terms) -> Chosen:
    """What was over before a moment and is as the audit wants it."""
    chosen = Chosen(_cuts(tx, until_ms), archive.heads(tx))
    reach = {**chosen.after, **chosen.heads}
    links: dict[int, list[int]] = {}
    for page in facts.pages(_ended(tx, until_ms)):
        links |= _orders(tx, page, reach, terms)
    payers = _attempts(tx, sorted({attempt_id for ids in links.values() for attempt_id in ids}), reach, terms)
    _leave_entangled(links, payers)
    chosen.orders = sorted(links)
    chosen.attempts = sorted(attempt_id for attempt_id, order_ids in payers.items() if order_ids <= links.keys())
    # What was sent again while its order was archived, and has ended since.
    left = tx.all(
        "SELECT outbox.order_id FROM outbox JOIN orders ON orders.id = outbox.order_id "
        "WHERE orders.archive IS NOT NULL AND outbox.state <> 'due' AND outbox.ended_at_ms < :until_ms",
        until_ms=until_ms,
    )
    chosen.events = sorted({*links, *(row["order_id"] for row in left)})
    return chosen


def months(tx: Tx, before_ms: int) -> list[int]:
    """Where archives end: with each month since the oldest batch that is in none, and at last with `before_ms`."""
    reach = archive.heads(tx)
    firsts = [
        row["at_ms"]
        for committer in facts.committers(tx)
        if (row := tx.one("SELECT at_ms FROM batch WHERE committer = :committer AND number = :number", committer=committer,
                          number=reach[committer].number + 1 if committer in reach else 1)) is not None
    ]  # fmt: skip
    ends: list[int] = []
    moment = datetime.fromtimestamp(min([*firsts, before_ms]) / 1000, UTC)
    while True:
        moment = datetime(moment.year + moment.month // 12, moment.month % 12 + 1, 1, tzinfo=UTC)
        end_ms = int(moment.timestamp() * 1000)
        if end_ms >= before_ms:
            return [*ends, before_ms]
        ends.append(end_ms)


def _cuts(tx: Tx, until_ms: int) -> dict[str, Head]:
    """How far each chain can go: nothing that is newer or that no pass of the audit has read, and never its last batch."""
    reach = archive.heads(tx)
    audited = {row["committer"]: row["number"] for row in tx.all("SELECT committer, number FROM audit_head")}
    found = {}
    for committer in facts.committers(tx):
        begin = reach[committer].number if committer in reach else 0
        newer = tx.one(
            "SELECT number FROM batch WHERE committer = :committer AND number > :begin AND at_ms >= :until_ms ORDER BY number LIMIT 1",
            committer=committer,
            begin=begin,
            until_ms=until_ms,
        )
        last = tx.one("SELECT MAX(number) AS number FROM batch WHERE committer = :committer", committer=committer)
        ends = [audited.get(committer, 0), (last["number"] if last else 1) - 1, *([newer["number"] - 1] if newer else [])]
        row = tx.one("SELECT number, hash FROM batch WHERE committer = :committer AND number = :end", committer=committer, end=min(ends))
        if row is not None and row["number"] > begin:
            found[committer] = Head(row["number"], row["hash"])
    return found


def _ended(tx: Tx, until_ms: int) -> Iterator[int]:
    newest = snowflake.compose(max(until_ms, snowflake.EPOCH_MS), 0, 0)
    return facts.ids_of(tx, "orders", f"{_OVER} AND id < {newest} AND decided_at_ms < {int(until_ms)}")


def _orders(tx: Tx, ids: Sequence[int], reach: dict[str, Head], terms: Terms) -> dict[int, list[int]]:
    """Those that may go, each with its attempts."""
    beyond = _beyond(tx, ("order", "decision"), ids, reach)
    waiting = tx.all(
        "SELECT order_id FROM outbox WHERE state = 'due' AND order_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": order_id} for order_id in ids],
    )
    beyond |= {row["order_id"] for row in waiting}
    return {
        order.id: [paid["id"] for paid in order.attempts]
        for order in facts.orders(tx, ids)
        if order.id not in beyond and _is_over(order) and not _found(order, terms)
    }


def _is_over(order: OrderFacts) -> bool:
    return not any(paid["live"] or paid["state"] in attempt_states.LIVE for paid in order.attempts)


def _found(order: OrderFacts, terms: Terms) -> bool:
    report = Report()
    rules.check_order(report, order, terms)
    return bool(report.findings)


def _attempts(tx: Tx, ids: Iterable[int], reach: dict[str, Head], terms: Terms) -> dict[int, set[int]]:
    """The orders of each attempt; those of one that may not go are more than there are."""
    payers: dict[int, set[int]] = {}
    looks = {(row["lane_id"], row["token_id"]): row["block"] for row in tx.all("SELECT lane_id, token_id, block FROM treasury_seen")}
    native = {token.chain: token.id for token in terms.tokens.values() if token.is_native}
    for page in facts.pages(ids):
        beyond = _beyond(tx, ("attempt",), page, reach)
        for attempt in facts.attempts(tx, page):
            report = Report()
            rules.check_attempt(report, attempt, terms)
            row = attempt.row
            stays = row is None or report.findings or attempt.id in beyond or row["due_at_ms"] is not None or _unseen(row, looks, native)
            payers[attempt.id] = {*attempt.orders, *([-1] if stays else [])}
    return payers


def _unseen(attempt: Row, looks: Mapping[tuple[int, str], int], native: Mapping[str, str]) -> bool:
    """Whether the last look at the treasury was before its block: the next one counts with what left since."""
    tokens = (attempt["token_id"], native.get(attempt["chain"], ""))
    return attempt["block"] is not None and any(looks.get((attempt["lane_id"], token), -1) < attempt["block"] for token in tokens)


def _leave_entangled(links: dict[int, list[int]], payers: dict[int, set[int]]) -> None:
    """Whoever shares an attempt with an order that stays, stays."""
    while stay := {order_id for order_id, ids in links.items() if any(not payers[attempt_id] <= links.keys() for attempt_id in ids)}:
        for order_id in stay:
            del links[order_id]


def _beyond(tx: Tx, kinds: Sequence[str], ids: Sequence[int], reach: dict[str, Head]) -> set[int]:
    """Those that have an entry in a batch that is in no archive and goes into none now."""
    rows = tx.all(
        "SELECT entry.ref_id FROM {ROWS n(kind TEXT, ref_id TEXT)} JOIN entry ON entry.ref_kind = n.kind AND entry.ref_id = n.ref_id "
        "LEFT JOIN batch ON batch.id = entry.batch_id LEFT JOIN {ROWS r(committer TEXT, number {INT})} ON r.committer = batch.committer "
        "WHERE batch.number IS NULL OR batch.number > COALESCE(r.number, 0)",
        n=[{"kind": kind, "ref_id": str(row_id)} for kind in kinds for row_id in ids],
        r=[{"committer": committer, "number": head.number} for committer, head in reach.items()],
    )
    return {int(row["ref_id"]) for row in rows}
