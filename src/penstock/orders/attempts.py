"""Attempts, versions and lanes as rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from penstock.core.attempt import AttemptState
from penstock.core.intent import Intent, Resource, Signed
from penstock.db import Row, Tx
from penstock.ledger.chain import record_action
from penstock.rails.base import VersionView

LEASE_MS: Final = 8_000
"""How long a new attempt is left to whoever bound it, before it is due. Who is slower does no harm: two that go on with one attempt send
the same bytes."""
REASON_MAX: Final = 400
"""How much is kept of why a lane stands, in characters."""


@dataclass(frozen=True, slots=True)
class Lane:
    """A hot address; `next_slot` is read and raised only under the row's lock."""

    id: int
    chain: str
    number: int
    address: str
    next_slot: int
    halted: str


@dataclass(frozen=True, slots=True)
class Version:
    """One transaction on the attempt's resource; `txid` and `raw` are None until the signer's bytes are stored."""

    id: int
    attempt_id: int
    number: int
    kind: str
    intent: Intent
    txid: str | None
    raw: bytes | None
    sends: int

    @classmethod
    def unsigned(cls, intent: Intent, version_id: int) -> Version:
        """As `insert_versions` has just written it."""
        return cls(version_id, intent.attempt_id, intent.version, intent.kind, intent, None, None, 0)

    def view(self, *, given: bool) -> VersionView:
        """As a rail sees a signed version."""
        assert self.txid is not None and self.raw is not None  # noqa: S101,PT018  the schema's CHECK ties both
        return VersionView(self.number, self.txid, self.raw, self.intent, given)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One conflict resource with every version that was made for it."""

    id: int
    lane_id: int
    chain: str
    slot: int
    token_id: str
    state: AttemptState
    due_at_ms: int | None
    seen: str
    versions: tuple[Version, ...]

    @property
    def newest(self) -> Version:
        """The latest version; the one to send again, once it is signed."""
        return self.versions[-1]

    @property
    def signed(self) -> list[Version]:
        """Versions that can land."""
        return [version for version in self.versions if version.raw is not None]

    def views(self) -> list[VersionView]:
        """As a rail sees what was signed."""
        return [version.view(given=self.state is not AttemptState.SIGNED) for version in self.signed]


def lane_for_update(tx: Tx, chain: str, number: int = 0) -> Lane | None:
    """One lane of a network, locked: nonce and liquidity are taken under this lock."""
    row = tx.one(
        "SELECT id, chain, number, address, next_slot, halted FROM lane WHERE chain = :chain AND number = :number {FOR_UPDATE}",
        chain=chain,
        number=number,
    )
    return Lane(**row) if row else None


def lanes(tx: Tx, chain: str) -> list[Lane]:
    """Every lane that a network ever had here, in order of their numbers."""
    rows = tx.all("SELECT id, chain, number, address, next_slot, halted FROM lane WHERE chain = :chain ORDER BY number", chain=chain)
    return [Lane(**row) for row in rows]


def holds(tx: Tx) -> dict[str, str]:
    """Networks on which nothing is bound because a start has not come to its end, and why, as whoever works has written it down."""
    return {row["chain"]: row["reason"] for row in tx.all("SELECT chain, reason FROM recovery_hold ORDER BY chain")}


def halt_lane(tx: Tx, chain: str, reason: str) -> None:
    """Bind nothing more on this network until a person has looked; the first reason stays."""
    tx.run("UPDATE lane SET halted = :reason WHERE chain = :chain AND halted = ''", chain=chain, reason=reason[:REASON_MAX])


def is_halted(tx: Tx, chain: str) -> bool:
    """Whether nothing may be signed on this network until a person has looked."""
    return tx.one("SELECT id FROM lane WHERE chain = :chain AND halted <> ''", chain=chain) is not None


def resume_lane(tx: Tx, chain: str, reason: str, *, action_id: int, now_ms: int) -> str | None:
    """A person has looked: bind again. Returns why it stood, None when it did not; kept with the person's reason."""
    stood = [locked for lane in lanes(tx, chain) if (locked := lane_for_update(tx, chain, lane.number)) is not None and locked.halted]
    if not stood:
        return None
    tx.run("UPDATE lane SET halted = '' WHERE chain = :chain", chain=chain)
    # What the signer refused is asked for again: nothing behind its slot can land before it does.
    tx.run(
        "UPDATE attempt SET due_at_ms = :now_ms, lease = '' WHERE lane_id IN (SELECT id FROM lane WHERE chain = :chain) "
        "AND due_at_ms IS NULL AND state IN ('bound', 'signed', 'sent', 'included')",
        now_ms=now_ms,
        chain=chain,
    )
    # Who looks at the books later sees that it stood, why, and why it went on.
    record_action(tx, action_id, action="resume", subject=f"{chain}: {stood[0].halted}", reason=reason, at_ms=now_ms)
    return stood[0].halted


def resumed_after(tx: Tx, chain: str, began: str, *, since_ms: int = 0) -> str | None:
    """The reason of the person who resumed a lane that stood because of what begins so; None when nobody did since."""
    # Newest first; commands are few.
    row = tx.one(
        "SELECT reason FROM operator_action WHERE action = 'resume' AND SUBSTR(subject, 1, :length) = :began AND at_ms > :since_ms "
        "ORDER BY at_ms DESC, id DESC LIMIT 1",
        length=len(f"{chain}: {began}"),
        began=f"{chain}: {began}",
        since_ms=since_ms,
    )
    return str(row["reason"]) if row is not None else None


BEFORE_A_PERSON: Final = "needs a person"
"""How `seen` begins of an attempt that only a person can judge."""


def live_count(tx: Tx, lane_id: int) -> int:
    """How many attempts of the lane are not final yet."""
    row = tx.one(
        "SELECT COUNT(*) AS n FROM attempt WHERE lane_id = :lane_id AND state IN ('bound', 'signed', 'sent', 'included')", lane_id=lane_id
    )
    return int(row["n"]) if row else 0


def unsigned(tx: Tx) -> list[tuple[str, int]]:
    """What is bound anywhere and waits for its signature: token and base units of each. What the signer refused rests, and is not among it."""
    rows = tx.all("SELECT token_id, outflow FROM attempt WHERE due_at_ms IS NOT NULL AND state = 'bound'")
    return [(row["token_id"], row["outflow"]) for row in rows]


def free_coins(tx: Tx, lane_id: int) -> list[Resource]:
    """Coins of the lane that no attempt has ever owned, as last seen."""
    rows = tx.all(
        "SELECT name, units FROM lane_coin WHERE lane_id = :lane_id AND NOT EXISTS (SELECT 1 FROM attempt_resource "
        "WHERE attempt_resource.lane_id = lane_coin.lane_id AND attempt_resource.name = lane_coin.name) ORDER BY name",
        lane_id=lane_id,
    )
    return [Resource(row["name"], row["units"]) for row in rows]


def take_over(tx: Tx, now_ms: int) -> None:
    """What a dead process has bound is due now. Only for the one process that can be sure to be alone."""
    # It becomes due by itself; this only saves the wait.
    tx.run("UPDATE attempt SET due_at_ms = :now_ms, lease = '' WHERE lease <> '' AND due_at_ms IS NOT NULL", now_ms=now_ms)


def retired_count(tx: Tx, lane_id: int) -> int:
    """How many slots of the lane are behind us for good: one more than the highest final one."""
    row = tx.one("SELECT MAX(slot) AS last FROM attempt WHERE lane_id = :lane_id AND state = 'final'", lane_id=lane_id)
    return row["last"] + 1 if row is not None and row["last"] is not None else 0


def insert(
    tx: Tx,
    lane: Lane,
    intents: Sequence[Intent],
    version_ids: Sequence[int],
    *,
    now_ms: int,
    lease: str,
    orders: Collection[int] | None = None,
) -> None:
    """Bind: one attempt, its first version and its orders for each intent, and the lane's next slot behind them. `orders` are those of
    its payments that are in this database, where not all are.
    """
    rows: list[dict[str, Any]] = [
        {
            "id": intent.attempt_id,
            "lane_id": lane.id,
            "slot": intent.slot,
            "token_id": intent.token_id,
            "outflow": sum(payment.units for payment in intent.payments),
            "fee_cap": intent.fee_cap,
            "state": "bound",
            "txid": "",
            "seen": "",
            "created_at_ms": now_ms,
            "due_at_ms": now_ms + LEASE_MS,
            "lease": lease,
            "lease_until_ms": now_ms + LEASE_MS,
        }
        for intent in intents
    ]
    # The resources; UNIQUE (lane, slot) makes each belong to one attempt for ever.
    tx.insert(
        "attempt(id {INT}, lane_id {INT}, slot {INT}, token_id TEXT, state TEXT, outflow {AMOUNT}, fee_cap {AMOUNT}, txid TEXT, seen TEXT, "
        "created_at_ms {INT}, due_at_ms {INT}, lease TEXT, lease_until_ms {INT})",
        rows,
    )
    # One live attempt an order, by the partial unique index.
    tx.insert(
        "attempt_order(attempt_id {INT}, order_id {INT}, live {INT})",
        [
            {"attempt_id": intent.attempt_id, "order_id": payment.order_id, "live": 1}
            for intent in intents
            for payment in intent.payments
            if orders is None or payment.order_id in orders
        ],
    )
    # What each attempt owns beside its slot, for ever: an outpoint or a payment hash belongs to one of them.
    tx.insert(
        "attempt_resource(lane_id {INT}, name TEXT, attempt_id {INT})",
        [{"lane_id": lane.id, "name": r.name, "attempt_id": intent.attempt_id} for intent in intents for r in intent.resources],
    )
    insert_versions(tx, intents, version_ids, now_ms=now_ms, orders=orders)
    _take_slots(tx, lane, [intent.slot for intent in intents])


def _take_slots(tx: Tx, lane: Lane, slots: Sequence[int]) -> None:
    """No slot is handed out twice, and none is left out: those between are remembered."""
    end = max([lane.next_slot, *(slot + 1 for slot in slots)])
    tx.run("UPDATE lane SET next_slot = :next_slot WHERE id = :id", next_slot=end, id=lane.id)
    if list(slots) == list(range(lane.next_slot, end)):
        return
    between = [{"slot": slot} for slot in range(lane.next_slot, end)]
    taken = [{"slot": slot} for slot in slots]
    tx.run("INSERT INTO lane_gap (lane_id, slot) SELECT :lane_id, k.slot FROM {ROWS k(slot {INT})}", lane_id=lane.id, k=between)
    tx.run("DELETE FROM lane_gap WHERE lane_id = :lane_id AND slot IN (SELECT k.slot FROM {ROWS k(slot {INT})})", lane_id=lane.id, k=taken)


def free_slots(tx: Tx, lane: Lane, count: int) -> list[int]:
    """The next slots to hand out: gaps first, since what comes after a gap waits for it."""
    rows = tx.all("SELECT slot FROM lane_gap WHERE lane_id = :lane_id ORDER BY slot LIMIT :count", lane_id=lane.id, count=count)
    gaps = [row["slot"] for row in rows]
    return gaps + [lane.next_slot + place for place in range(count - len(gaps))]


def insert_versions(
    tx: Tx, intents: Sequence[Intent], version_ids: Sequence[int], *, now_ms: int, orders: Collection[int] | None = None
) -> None:
    """Say what will be signed, before it is. Raises db.Conflict when this version number exists."""
    rows = [
        {
            "id": version_id,
            "attempt_id": intent.attempt_id,
            "number": intent.version,
            "kind": intent.kind,
            "intent": intent.to_json(),
            "sends": 0,
            "verdict": "",
            "created_at_ms": now_ms,
        }
        for intent, version_id in zip(intents, version_ids, strict=True)
    ]
    # Versions without bytes: the signer's come in the next transaction.
    tx.insert(
        "version(id {INT}, attempt_id {INT}, number {INT}, kind TEXT, intent TEXT, sends {INT}, verdict TEXT, created_at_ms {INT})", rows
    )
    # What each version pays.
    tx.insert(
        "version_order(version_id {INT}, order_id {INT}, output {INT}, amount {AMOUNT}, weight {INT})",
        [
            {"version_id": version_id, "order_id": payment.order_id, "output": output, "amount": payment.units, "weight": payment.weight}
            for intent, version_id in zip(intents, version_ids, strict=True)
            if intent.kind == "pay"
            for output, payment in enumerate(intent.payments)
            if orders is None or payment.order_id in orders
        ],
    )


def store_signed(tx: Tx, signed: Sequence[Signed]) -> None:
    """The signer's bytes, before a node sees the first of them. Running twice changes nothing."""
    rows = [{"attempt_id": s.attempt_id, "number": s.version, "txid": s.txid, "raw": s.raw.hex()} for s in signed]
    tx.run(
        "UPDATE version SET txid = s.txid, raw = s.raw FROM {ROWS s(attempt_id {INT}, number {INT}, txid TEXT, raw TEXT)} "
        "WHERE version.attempt_id = s.attempt_id AND version.number = s.number AND version.raw IS NULL",
        s=rows,
    )
    tx.run(
        "UPDATE attempt SET state = 'signed' WHERE state = 'bound' AND id IN (SELECT s.attempt_id FROM {ROWS s(attempt_id {INT})})",
        s=rows,
    )


def record_sent(tx: Tx, sent: Iterable[tuple[Version, str]], *, now_ms: int, due_at_ms: int) -> None:
    """What the nodes said of bytes we gave them; none of it is terminal."""
    rows = [
        {"version_id": v.id, "attempt_id": v.attempt_id, "verdict": verdict[:200], "at_ms": now_ms, "due_at_ms": due_at_ms}
        for v, verdict in sent
    ]
    tx.run(
        "UPDATE version SET sends = version.sends + 1, verdict = s.verdict, sent_at_ms = s.at_ms "
        "FROM {ROWS s(version_id {INT}, verdict TEXT, at_ms {INT})} WHERE version.id = s.version_id",
        s=rows,
    )
    tx.run(
        "UPDATE attempt SET state = CASE WHEN state = 'signed' THEN 'sent' ELSE state END, due_at_ms = s.due_at_ms, lease = '' "
        "FROM {ROWS s(attempt_id {INT}, due_at_ms {INT})} "
        "WHERE attempt.id = s.attempt_id AND attempt.state IN ('signed', 'sent', 'included')",
        s=rows,
    )


def record_giving(tx: Tx, attempt_ids: Sequence[int]) -> set[int]:
    """That bytes are about to be given to nodes; those of the attempts that are still under way, and may be."""
    keys = [{"id": attempt_id} for attempt_id in attempt_ids]
    tx.run("UPDATE attempt SET state = 'sent' WHERE state = 'signed' AND id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=keys)
    rows = tx.all("SELECT id FROM attempt WHERE state IN ('sent', 'included') AND id IN (SELECT k.id FROM {ROWS k(id {INT})})", k=keys)
    return {row["id"] for row in rows}


def give_back(tx: Tx, attempt_id: int) -> None:
    """The slot of a dead attempt that nothing was ever signed for may be handed out again; what was bound behind it waits for it."""
    row = tx.one(
        "SELECT lane_id, slot FROM attempt WHERE id = :id AND state = 'dead' AND slot >= 0 AND NOT EXISTS "
        "(SELECT 1 FROM version WHERE attempt_id = :id AND (raw IS NOT NULL OR journaled = 1))",
        id=attempt_id,
    )
    if row is None:
        return
    tx.run("UPDATE attempt SET slot = -id WHERE id = :id", id=attempt_id)
    tx.run("DELETE FROM attempt_resource WHERE attempt_id = :id", id=attempt_id)
    tx.run("INSERT INTO lane_gap (lane_id, slot) VALUES (:lane_id, :slot)", lane_id=row["lane_id"], slot=row["slot"])


def detach(tx: Tx, attempt_id: int, order_id: int) -> None:
    """A person has decided that an order ends without this attempt. It keeps slot and resources and is followed on; what it should pay
    after all is nobody's, and stops the network.
    """
    tx.run("DELETE FROM attempt_order WHERE attempt_id = :id AND order_id = :order_id", id=attempt_id, order_id=order_id)
    tx.run(
        "DELETE FROM version_order WHERE order_id = :order_id AND version_id IN (SELECT id FROM version WHERE attempt_id = :id)",
        id=attempt_id,
        order_id=order_id,
    )


def detached(tx: Tx, some: Sequence[Attempt]) -> dict[int, int]:
    """How many payments of each are for orders here that a person has ended without it; those with none are left out."""
    pairs = [(attempt.id, payment.order_id) for attempt in some for payment in attempt.newest.intent.payments]
    if not pairs:
        return {}
    # Orders that a restored database has forgotten are none of these: whoever asked for them was told that they are paid.
    rows = tx.all(
        "SELECT k.attempt_id, COUNT(*) AS n FROM {ROWS k(attempt_id {INT}, order_id {INT})} JOIN orders ON orders.id = k.order_id "
        "LEFT JOIN attempt_order AS link ON link.attempt_id = k.attempt_id AND link.order_id = k.order_id "
        "WHERE link.order_id IS NULL GROUP BY k.attempt_id",
        k=pairs,
    )
    return {row["attempt_id"]: row["n"] for row in rows}


def opening(tx: Tx, lane_id: int) -> set[str]:
    """Tokens that an attempt under way lets the lane hold."""
    rows = tx.all(
        "SELECT attempt.token_id FROM attempt JOIN version ON version.attempt_id = attempt.id WHERE attempt.lane_id = :lane_id "
        "AND attempt.state IN ('bound', 'signed', 'sent', 'included') AND version.kind = 'open'",
        lane_id=lane_id,
    )
    return {row["token_id"] for row in rows}


def make_due(tx: Tx, attempt_ids: Sequence[int], now_ms: int) -> None:
    """Whoever works takes them up at once. What is final or dead is nobody's business any more."""
    tx.run(
        "UPDATE attempt SET due_at_ms = :now_ms, lease = '' WHERE state IN ('bound', 'signed', 'sent', 'included') "
        "AND id IN (SELECT k.id FROM {ROWS k(id {INT})})",
        now_ms=now_ms,
        k=[{"id": attempt_id} for attempt_id in attempt_ids],
    )


def newest_intent(tx: Tx, order_id: int) -> Intent | None:
    """What the newest transaction for an order says; None when none was bound."""
    row = tx.one(
        "SELECT version.intent FROM version JOIN attempt_order ON attempt_order.attempt_id = version.attempt_id "
        "WHERE attempt_order.order_id = :order_id ORDER BY version.attempt_id DESC, version.number DESC LIMIT 1",
        order_id=order_id,
    )
    return Intent.from_json(row["intent"]) if row is not None else None


def due(tx: Tx, *, now_ms: int, limit: int, chains_but: Sequence[str] = (), ids_but: Sequence[Mapping[str, int]] = ()) -> list[Attempt]:
    """Attempts that are due, with their versions; none of those networks, and none of those rows."""
    # Oldest due first. One that is over cannot be followed, and would take every batch down with it.
    rows = tx.all(
        "SELECT id FROM attempt WHERE due_at_ms <= :now_ms AND state IN ('bound', 'signed', 'sent', 'included') "
        "AND lane_id NOT IN (SELECT lane.id FROM lane JOIN {ROWS k(chain TEXT)} ON k.chain = lane.chain) "
        "AND id NOT IN (SELECT h.id FROM {ROWS h(id {INT})}) ORDER BY due_at_ms LIMIT :limit",
        now_ms=now_ms,
        limit=limit,
        k=[{"chain": chain} for chain in chains_but],
        h=list(ids_but),
    )
    return load(tx, [row["id"] for row in rows])


def load(tx: Tx, attempt_ids: Sequence[int]) -> list[Attempt]:
    """Attempts by id, lowest slot first."""
    if not attempt_ids:
        return []
    keys = [{"id": attempt_id} for attempt_id in attempt_ids]
    versions: dict[int, list[Version]] = {}
    for row in tx.all(
        "SELECT id, attempt_id, number, kind, intent, txid, raw, sends FROM version "
        "WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY attempt_id, number",
        k=keys,
    ):
        versions.setdefault(row["attempt_id"], []).append(_version(row))
    rows = tx.all(
        "SELECT attempt.id, lane_id, chain, slot, token_id, state, due_at_ms, seen FROM attempt JOIN lane ON lane.id = attempt.lane_id "
        "WHERE attempt.id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY lane_id, slot",
        k=keys,
    )
    return [Attempt(**{**row, "state": AttemptState(row["state"])}, versions=tuple(versions.get(row["id"], ()))) for row in rows]


def _version(row: Row) -> Version:
    raw = bytes.fromhex(row["raw"]) if row["raw"] is not None else None
    return Version(**{**row, "intent": Intent.from_json(row["intent"]), "raw": raw})
