"""What the lines of an archive say, from the tables and back: each is whole by itself, so that a rule can be checked on it alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from penstock.db import Row, Tx
from penstock.ledger import facts
from penstock.ledger.facts import AttemptFacts, Link, OrderFacts

Line = dict[str, Any]


def of_orders(tx: Tx, ids: Sequence[int]) -> Iterator[Line]:
    """Each order with its entries, steps, attempts and event."""
    for found in facts.orders(tx, ids):
        if found.row is not None:
            said = {name: _ordered(getattr(found, name)) for name in ("entries", "attempts", "history", "events", "decisions")}
            yield {"order": {"id": found.id, "row": _without(found.row, "archive"), **said}}


def of_attempts(tx: Tx, ids: Sequence[int]) -> Iterator[Line]:
    """Each attempt with its versions, their bytes and what they pay."""
    keys = [{"id": attempt_id} for attempt_id in ids]
    versions: dict[int, list[Row]] = {attempt_id: [] for attempt_id in ids}
    for row in tx.all(
        "SELECT * FROM version WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY attempt_id, number", k=keys
    ):
        versions[row["attempt_id"]].append({**row, "orders": []})
    by_id = {version["id"]: version for rows in versions.values() for version in rows}
    for row in tx.all(
        "SELECT version_order.* FROM version_order JOIN version ON version.id = version_order.version_id "
        "WHERE version.attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY version_order.version_id, version_order.order_id",
        k=keys,
    ):
        by_id[row["version_id"]]["orders"].append(row)
    for found in facts.attempts(tx, ids):
        if found.row is not None:
            yield {
                "attempt": {
                    "id": found.id,
                    "row": _without(found.row, "archive"),
                    "entries": _ordered(found.entries),
                    "versions": versions[found.id],
                    "resources": sorted(found.resources),
                    "orders": [found.orders[order_id] for order_id in sorted(found.orders)],
                }
            }


def of_events(tx: Tx, order_ids: Sequence[int]) -> Iterator[Line]:
    """The events of these orders that wait for nobody, with every send."""
    keys = [{"id": order_id} for order_id in order_ids]
    events = tx.all("SELECT * FROM outbox WHERE state <> 'due' AND order_id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY id", k=keys)
    sends: dict[int, list[Row]] = {event["id"]: [] for event in events}
    for row in tx.all(
        "SELECT * FROM webhook_send WHERE outbox_id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY outbox_id, number",
        k=[{"id": event_id} for event_id in sends],
    ):
        sends[row["outbox_id"]].append(row)
    for event in events:
        yield {"event": {"id": event["id"], "row": event, "sends": sends[event["id"]]}}


def of_batch(link: Link) -> Line:
    """A batch with every row it wrote."""
    lines: dict[int, list[Row]] = {entry["id"]: [] for entry in link.entries}
    for posting in sorted(link.postings, key=lambda posting: (posting["entry_id"], posting["line"])):
        lines[posting["entry_id"]].append(posting)
    entries = [{**entry, "lines": lines[entry["id"]]} for entry in sorted(link.entries, key=lambda entry: entry["id"])]
    return {"batch": {"id": link.batch["id"], "row": link.batch, "entries": entries}}


def order_facts(said: Mapping[str, Any]) -> OrderFacts:
    """What an order's line says. Raises KeyError or TypeError."""
    return OrderFacts(**said)


def attempt_facts(said: Mapping[str, Any]) -> AttemptFacts:
    """What an attempt's line says. Raises KeyError or TypeError."""
    versions = [facts.version({**row, "stored": int(row["raw"] is not None)}, row["orders"]) for row in said["versions"]]
    orders = {order["id"]: order for order in said["orders"]}
    return AttemptFacts(said["id"], said["row"], said["entries"], versions, set(said["resources"]), orders)


def link_of(said: Mapping[str, Any]) -> Link:
    """What a batch's line says. Raises KeyError or TypeError."""
    return Link(said["row"], said["entries"], [line for entry in said["entries"] for line in entry["lines"]])


def same(told: Any, have: Any) -> bool:
    """Whether the tables still say what a line told; columns that came later tell nothing."""
    if told == have:
        return True
    if isinstance(told, Mapping):
        return isinstance(have, Mapping) and all(name in have and same(value, have[name]) for name, value in told.items())
    if isinstance(told, list):
        return isinstance(have, list) and len(told) == len(have) and all(map(same, told, have))
    return False


def _ordered(rows: list[Row]) -> list[Row]:
    """By id, entries with their lines in order: what was read twice is said the same way."""
    inside = [{**row, "lines": sorted(row["lines"], key=lambda line: line["line"])} if "lines" in row else row for row in rows]
    return sorted(inside, key=lambda row: row["id"])


def _without(row: Row, name: str) -> Row:
    return {column: value for column, value in row.items() if column != name}
