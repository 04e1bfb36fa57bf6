"""What the signer's journal has and the tables lack: found, adopted, or named for a person.

A database that was restored has forgotten attempts that the signer remembers. Each is put back as it was bound: slot, coins, versions
and orders, so that it is followed like any other and nothing is paid a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from msgspec.structs import replace

from penstock.catalog import Catalog
from penstock.core.intent import Intent, JournalEntry, Payment
from penstock.core.order import TERMINAL, Order, OrderState
from penstock.db import Row, Tx
from penstock.orders import attempts, store
from penstock.orders.attempts import Lane
from penstock.orders.choose import payment_of

HALTED: Final = "recovery: "
"""What the text begins with for which a lane stands until a person has looked at strays."""
UNOPENED: Final = "what was signed for a hot address is put back as soon as that has been looked at"
"""Why an attempt cannot be put back just now: the treasury opens the lane, and then it can."""


@dataclass(frozen=True, slots=True)
class Stray:
    """Versions of one attempt, lowest first, that the journal has and the tables lack; `dead` is the proof of its death, if it is buried."""

    attempt_id: int
    chain: str
    intents: tuple[Intent, ...]
    txids: tuple[str, ...]
    dead: str
    found_at_ms: int

    @property
    def first(self) -> Intent:
        """What never changes is the same in all."""
        return self.intents[0]


@dataclass(frozen=True, slots=True)
class Tools:
    """What adopting needs beside the transaction. `once` names what an intent pays only once for ever, `own` the hot addresses that a
    network can have.
    """

    catalog: Catalog
    next_ids: Callable[[int], list[int]]
    once: Callable[[Intent], Sequence[str]]
    own: Callable[[str], Sequence[str]]
    now_ms: int


def compare(tx: Tx, page: Sequence[JournalEntry], *, now_ms: int) -> None:
    """Mark the versions that the journal has, keep what the tables lack as strays, and move the checkpoint behind the page."""
    signs = [(entry, entry.intent) for entry in page if entry.intent is not None]
    stored = _stored(tx, [intent.attempt_id for _, intent in signs])
    agreed: list[dict[str, Any]] = []
    strays: list[dict[str, Any]] = []
    archived = _archived(tx, [intent.attempt_id for _, intent in signs])
    for entry, intent in signs:
        if intent.attempt_id in archived:
            continue  # over long ago; `penstock audit --archives` compares it
        row = stored.get((intent.attempt_id, intent.version))
        if row is not None and row["txid"] in (None, entry.txid) and Intent.from_json(row["intent"]) == intent:
            agreed.append({"id": row["id"]})
            continue
        why = "" if row is None else "the tables have other contents for the same version"
        strays.append(
            {"attempt_id": intent.attempt_id, "version": intent.version, "number": entry.number, "chain": intent.chain}
            | {"intent": intent.to_json(), "txid": entry.txid, "why": why, "found_at_ms": now_ms}
        )
    tx.run("UPDATE version SET journaled = 1 WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=agreed)
    tx.run(
        "INSERT INTO journal_stray (attempt_id, version, number, chain, intent, txid, dead, why, found_at_ms) "
        "SELECT s.attempt_id, s.version, s.number, s.chain, s.intent, s.txid, '', s.why, s.found_at_ms FROM {ROWS s(attempt_id {INT}, "
        "version {INT}, number {INT}, chain TEXT, intent TEXT, txid TEXT, why TEXT, found_at_ms {INT})} WHERE true ON CONFLICT DO NOTHING",
        s=strays,
    )
    # What is buried can be put back without a person: it pays nobody.
    tx.run(
        "UPDATE journal_stray SET dead = d.proof FROM {ROWS d(attempt_id {INT}, proof TEXT)} WHERE journal_stray.attempt_id = d.attempt_id",
        d=[{"attempt_id": entry.attempt_id, "proof": entry.text or "buried"} for entry in page if entry.kind == "death"],
    )
    tx.run(
        "UPDATE journal_checkpoint SET number = :number, hash = :hash, at_ms = :at_ms WHERE id = 1 AND number < :number",
        number=page[-1].number,
        hash=page[-1].hash,
        at_ms=now_ms,
    )


def _stored(tx: Tx, attempt_ids: Sequence[int]) -> dict[tuple[int, int], Row]:
    rows = tx.all(
        "SELECT id, attempt_id, number, intent, txid FROM version WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": attempt_id} for attempt_id in set(attempt_ids)],
    )
    return {(row["attempt_id"], row["number"]): row for row in rows}


def _archived(tx: Tx, attempt_ids: Sequence[int]) -> set[int]:
    rows = tx.all(
        "SELECT id FROM attempt WHERE archive IS NOT NULL AND id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        k=[{"id": attempt_id} for attempt_id in set(attempt_ids)],
    )
    return {row["id"] for row in rows}


def strays(tx: Tx, limit: int) -> list[Stray]:
    """The oldest, in the order in which they were signed."""
    ids = tx.all(
        "SELECT attempt_id, MIN(number) AS number FROM journal_stray GROUP BY attempt_id ORDER BY number LIMIT :limit", limit=limit
    )
    rows = tx.all(
        "SELECT attempt_id, version, chain, intent, txid, dead, found_at_ms FROM journal_stray "
        "WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY attempt_id, version",
        k=[{"id": row["attempt_id"]} for row in ids],
    )
    of: dict[int, list[Row]] = {row["attempt_id"]: [] for row in ids}
    for row in rows:
        of[row["attempt_id"]].append(row)
    return [
        Stray(
            attempt_id,
            versions[0]["chain"],
            tuple(Intent.from_json(row["intent"]) for row in versions),
            tuple(row["txid"] for row in versions),
            versions[0]["dead"],
            versions[0]["found_at_ms"],
        )
        for attempt_id, versions in of.items()
    ]


def spent(tx: Tx, keys: Sequence[str]) -> dict[str, Row]:
    """Which of these merchants' names of orders an attempt pays whose order is not here, and which attempt."""
    if not keys:
        return {}
    rows = tx.all(
        "SELECT key, attempt_id, txid, reason FROM spent_key WHERE key IN (SELECT k.name FROM {ROWS k(name TEXT)})",
        k=[{"name": key} for key in keys],
    )
    return {row["key"]: row for row in rows}


def adopt(tx: Tx, stray: Stray, tools: Tools) -> str:
    """Put an attempt back under its lane's lock. Why only a person can decide, "" when nothing is left to decide."""
    known = {lane.address: lane.number for lane in attempts.lanes(tx, stray.chain)}
    lane = attempts.lane_for_update(tx, stray.chain, known.get(stray.first.sender, 0))
    if lane is None or (stray.first.sender not in known and stray.first.sender in tools.own(stray.chain)):
        return UNOPENED
    clash = _clash(tx, lane, stray)
    orders = store.lock(tx, [payment.order_id for payment in stray.first.payments])
    lost = {} if stray.dead else {p.order_id: why for p in stray.first.payments if (why := _lost(tx, stray, p, orders, tools.catalog))}
    problem = clash or next(iter(lost.values()), "")
    reason = attempts.resumed_after(tx, stray.chain, HALTED, since_ms=stray.found_at_ms) if problem else ""
    if reason is None:
        what = f"attempt {stray.attempt_id}, transaction {stray.txids[-1]}, slot {stray.first.slot}: {problem}"
        tx.run("UPDATE journal_stray SET why = :why WHERE attempt_id = :id", why=what[:400], id=stray.attempt_id)
        return what
    if not clash:
        _insert(tx, lane, stray, [order for order in orders.values() if order.id not in lost], tools)
    if problem:
        _spend(tx, stray, [p for p in stray.first.payments if clash or p.order_id in lost], reason, tools)
    tx.run("DELETE FROM journal_stray WHERE attempt_id = :id", id=stray.attempt_id)
    return ""


def _clash(tx: Tx, lane: Lane, stray: Stray) -> str:
    """Why its rows cannot stand beside those that are there."""
    first = stray.first
    there = attempts.load(tx, [stray.attempt_id])
    if there:
        known = {version.number: version.intent for version in there[0].versions}
        same = replace(first, version=1, kind="pay", terms={}) == replace(there[0].newest.intent, version=1, kind="pay", terms={})
        return "" if same and not any(i.version in known for i in stray.intents) else "the tables have other contents for the same attempt"
    if first.sender != lane.address:
        return f"it was signed for {first.sender}, and the hot address here is {lane.address}"
    row = tx.one("SELECT id FROM attempt WHERE lane_id = :lane_id AND slot = :slot", lane_id=lane.id, slot=first.slot)
    if row is not None:
        return f"its slot belongs to attempt {row['id']} here"
    row = tx.one(
        "SELECT name, attempt_id FROM attempt_resource WHERE lane_id = :lane_id AND name IN (SELECT k.name FROM {ROWS k(name TEXT)}) LIMIT 1",
        lane_id=lane.id,
        k=[{"name": resource.name} for resource in first.resources],
    )
    return f"what it spends belongs to attempt {row['attempt_id']} here" if row is not None else ""


def _lost(tx: Tx, stray: Stray, payment: Payment, orders: Mapping[int, Order], catalog: Catalog) -> str:
    """Why a payment belongs to no order that could be settled by it."""
    order = orders.get(payment.order_id)
    name = f"order {payment.order_id} (merchant's {payment.key or 'name unknown'})"
    if order is None:
        return f"{name} is not in this database, and {payment.units} base units are paid to {payment.recipient}"
    token = catalog.token(order.token_id)
    if (
        (order.chain, order.token_id) != (stray.chain, stray.first.token_id)
        or token is None
        or payment_of(order, token) != replace(payment, weight=1)
    ):
        return f"{name} says other things here than what was signed"
    row = tx.one("SELECT attempt_id FROM attempt_order WHERE order_id = :id AND live = 1", id=order.id)
    if row is not None and row["attempt_id"] != stray.attempt_id:
        return f"{name} is under way with attempt {row['attempt_id']} here"
    if row is None and order.state in TERMINAL and not _decided_by(tx, order.id, stray.attempt_id):
        return f"{name} is {order.state} here without it"
    return ""


def _decided_by(tx: Tx, order_id: int, attempt_id: int) -> bool:
    """Whether an order ended by what the chain has made of this attempt: then no version of it can land any more."""
    # A final attempt keeps its orders; from one that a person has decided otherwise they are detached.
    row = tx.one(
        "SELECT attempt.id FROM attempt_order JOIN attempt ON attempt.id = attempt_order.attempt_id "
        "WHERE attempt_order.order_id = :order_id AND attempt.id = :attempt_id AND attempt.state = 'final'",
        order_id=order_id,
        attempt_id=attempt_id,
    )
    return row is not None


def _insert(tx: Tx, lane: Lane, stray: Stray, orders: Sequence[Order], tools: Tools) -> None:
    """The attempt, or the versions of it that are missing; its orders go with it."""
    version_ids = tools.next_ids(len(stray.intents))
    there = tx.one("SELECT id FROM attempt WHERE id = :id", id=stray.attempt_id)
    linked = {order.id for order in orders}
    if there is not None:
        attempts.insert_versions(tx, stray.intents, version_ids, now_ms=tools.now_ms, orders=linked)
    else:
        attempts.insert(tx, lane, [stray.first], version_ids[:1], now_ms=tools.now_ms, lease="", orders=linked)
        attempts.insert_versions(tx, stray.intents[1:], version_ids[1:], now_ms=tools.now_ms, orders=linked)
    tx.run("UPDATE version SET journaled = 1 WHERE attempt_id = :id", id=stray.attempt_id)
    if stray.dead:
        tx.run(
            "UPDATE attempt SET state = 'dead', seen = :seen, due_at_ms = NULL, lease = '' WHERE id = :id",
            seen=f"dead: {stray.dead}"[:200],
            id=stray.attempt_id,
        )
        tx.run("UPDATE attempt_order SET live = 0 WHERE attempt_id = :id", id=stray.attempt_id)
        return
    attempts.make_due(tx, [stray.attempt_id], tools.now_ms)
    _tell(tx, stray, orders, tools)


def _tell(tx: Tx, stray: Stray, orders: Sequence[Order], tools: Tools) -> None:
    """State and history of the orders say what happened."""
    text = f"adopted from the signer's journal: attempt {stray.attempt_id}, slot {stray.first.slot} on {stray.chain}, {stray.txids[-1]}"
    waiting = [order for order in orders if order.state in (OrderState.ACCEPTED, OrderState.HELD)]
    # What is decided is sealed with every step on the way there: another one would look like a past that was written anew.
    others = [order for order in orders if order not in waiting and order.state not in TERMINAL]
    ids = tools.next_ids(len(waiting) + len(others))
    moves = [store.Move(order, OrderState.SENDING, text, at_ms=tools.now_ms, hold_reason="") for order in waiting]
    store.move(tx, moves, next_ids=ids[: len(moves)])
    store.tell(tx, [(order, order.state, text) for order in others], at_ms=tools.now_ms, next_ids=ids[len(moves) :])


def _spend(tx: Tx, stray: Stray, payments: Sequence[Payment], reason: str, tools: Tools) -> None:
    """A person let it go on without these orders: whoever asks for them again is not paid again."""
    tx.run(
        "INSERT INTO spent_key (key, attempt_id, txid, reason) SELECT s.key, s.attempt_id, s.txid, s.reason "
        "FROM {ROWS s(key TEXT, attempt_id {INT}, txid TEXT, reason TEXT)} WHERE true ON CONFLICT DO NOTHING",
        s=[
            {"key": payment.key, "attempt_id": stray.attempt_id, "txid": stray.txids[-1], "reason": reason}
            for payment in payments
            if payment.key
        ],
    )
    tx.run(
        "INSERT INTO single_use (name, order_id) SELECT s.name, s.order_id FROM {ROWS s(name TEXT, order_id {INT})} "
        "WHERE true ON CONFLICT DO NOTHING",
        s=[{"name": name, "order_id": payment.order_id} for payment in payments[:1] for name in tools.once(stray.first)],
    )
