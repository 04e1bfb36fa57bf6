"""One transaction for a decision: states by compare-and-set, ledger entries, and the webhook's outbox row."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from penstock.catalog import Catalog
from penstock.core import covers, ledger
from penstock.core.attempt import Decision, Outcome, check_move
from penstock.core.errors import InvariantBroken
from penstock.core.event import Absent, Dead, FailedOnChain, Final, Included, Observation, Pending, Suspicious
from penstock.core.intent import Payment
from penstock.core.money import Coin, Token, TokenAmount, plain
from penstock.core.order import TERMINAL, Order, OrderState
from penstock.db import Database, Row, Tx
from penstock.ledger.book import Book, Key, Sheet, Unsure
from penstock.orders import adopt, attempts, store
from penstock.orders.attempts import Attempt
from penstock.orders.intake import Outbox, event_row
from penstock.orders.store import Move
from penstock.runtime import Runtime

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen of an attempt and what follows; `due_at_ms` is when to look again, None for never."""

    attempt: Attempt
    seen: Observation
    decision: Decision
    due_at_ms: int | None


@dataclass(frozen=True, slots=True)
class ByWord:
    """What a person's word does to an order."""

    move: Move
    entries: Sequence[ledger.Entry] = ()


@dataclass(slots=True)
class _Changes:
    """What one transaction will write, gathered verdict by verdict."""

    sheet: Sheet
    now_ms: int
    moves: list[Move] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    retired: list[int] = field(default_factory=list)
    unsigned: list[int] = field(default_factory=list)
    paid_by: list[dict[str, Any]] = field(default_factory=list)
    halts: dict[str, str] = field(default_factory=dict)
    spent: dict[str, Row] = field(default_factory=dict)


class Settler:
    """Writes decisions of `follow`, and the operator's cancellations."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        database: Database,
        catalog: Catalog,
        book: Book,
        outbox: Outbox,
        next_ids: Callable[[int], list[int]],
        rate_text: Callable[[Coin], str],
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._catalog = catalog
        self._book = book
        self._outbox = outbox
        self._next_ids = next_ids
        self._rate_text = rate_text
        self._turn = asyncio.Lock()
        """One at a time: the batches of a committer are one chain, and of two that write its next link one would meet a Conflict."""
        self.decided: Callable[[], None] = lambda: None

    async def apply(self, verdicts: Sequence[Verdict]) -> None:
        """All verdicts in one transaction. Raises store.LostRace or db.Conflict, and then none of them is written."""
        async with self._turn:
            try:
                count = await self._database.write("settle", lambda tx: self._apply(tx, verdicts, self._book.look))
            except Unsure:
                count = await self._database.write("settle", lambda tx: self._apply(tx, verdicts, self._book.open))
        if count:
            self.decided()

    def _apply(self, tx: Tx, verdicts: Sequence[Verdict], opened: Callable[[Tx, Iterable[Key]], Sheet]) -> int:
        ours = self._lock(tx, verdicts)
        links = tx.all(
            "SELECT attempt_id, order_id FROM attempt_order WHERE live = 1 AND attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY order_id",
            k=[{"id": verdict.attempt.id} for verdict in ours],
        )
        orders = store.lock(tx, [link["order_id"] for link in links])
        of_attempt: defaultdict[int, list[Order]] = defaultdict(list)
        for link in links:
            of_attempt[link["attempt_id"]].append(orders[link["order_id"]])
        decisive = [v for v in ours if v.decision.outcome in (Outcome.REPORT, Outcome.SETTLE, Outcome.FAIL)]
        keys = {(o.payer, o.coin_id) for v in decisive for o in of_attempt[v.attempt.id] if o.state not in TERMINAL}
        changes = _Changes(opened(tx, keys), self._runtime.now_ms())
        changes.spent = adopt.spent(tx, [p.key for v in ours for p in _unclaimed(v.attempt, of_attempt[v.attempt.id])])
        for verdict in ours:
            self._decide(changes, verdict, of_attempt[verdict.attempt.id])
        return self._write(tx, changes)

    def _lock(self, tx: Tx, verdicts: Sequence[Verdict]) -> list[Verdict]:
        """Those whose attempt is still as it was when it was claimed: whoever has written of it since has put it off, or moved it."""
        rows = tx.all(
            "SELECT id, state, due_at_ms FROM attempt WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})}) ORDER BY id {FOR_UPDATE}",
            k=[{"id": verdict.attempt.id} for verdict in verdicts],
        )
        now = {row["id"]: (row["state"], row["due_at_ms"]) for row in rows}
        return [v for v in verdicts if now.get(v.attempt.id) == (v.attempt.state.value, v.attempt.due_at_ms)]

    def _decide(self, changes: _Changes, verdict: Verdict, orders: Sequence[Order]) -> None:
        attempt, seen, decision = verdict.attempt, verdict.seen, verdict.decision
        if decision.state is not attempt.state:
            check_move(attempt.state, decision.state)
        said = self._describe(verdict)
        row: dict[str, Any] = {
            "id": attempt.id,
            "state": decision.state.value,
            "seen": said[:200],
            "seen_at_ms": changes.now_ms,
            "seen_block": getattr(seen, "through", None),
            "due_at_ms": verdict.due_at_ms,
            "txid": "",
            "block": None,
            "gas_paid": None,
            "native_rate": "",
            "failed": 0,
        }
        changes.rows.append(row)
        match seen:
            case Included(txid=txid, block=block):
                row["txid"], row["block"] = txid, block
                self._included(changes, decision, orders, txid, said)
            case Final(txid=txid, block=block, fee=fee):
                row["txid"], row["block"] = txid, block
                self._gas(changes, row, attempt, fee)
                self._final(changes, attempt, orders, row, said)
            case FailedOnChain(txid=txid, block=block, fee=fee, detail=detail):
                row["txid"], row["block"], row["failed"] = txid, block, 1
                self._gas(changes, row, attempt, fee)
                self._failed(changes, attempt, orders, txid, detail)
            case Dead(proof=proof):
                self._dead(changes, attempt, orders, f"attempt proved dead: {proof}")
            case Suspicious(detail=detail, alone=alone):
                # The same as before has stopped the lane before, and whoever resumed it has seen it.
                if attempt.seen != row["seen"] and not alone:
                    changes.halts[attempt.chain] = f"{detail} (attempt {attempt.id})"
                changes.moves += [
                    Move(o, OrderState.QUARANTINED, detail, at_ms=changes.now_ms)
                    for o in orders
                    if o.state in (OrderState.SENDING, OrderState.CONFIRMING)
                ]
            case Absent() | Pending():
                if decision.outcome is Outcome.UNDO:
                    self._undone(changes, orders)

    def _describe(self, verdict: Verdict) -> str:
        network = self._catalog.network(verdict.attempt.chain)
        counted = network is not None and (network.is_test or network.param("reports_at_depth", default=False))
        return describe(verdict.seen, self._catalog.native(verdict.attempt.chain), network.confirmations if network and counted else None)

    def _included(self, changes: _Changes, decision: Decision, orders: Sequence[Order], txid: str, said: str) -> None:
        for order in orders:
            if order.state in TERMINAL:
                continue
            if decision.outcome is Outcome.REPORT:
                self._succeed(changes, order, txid, said)
            elif order.state is OrderState.SENDING:
                changes.moves.append(Move(order, OrderState.CONFIRMING, said, at_ms=changes.now_ms, txid=txid))

    def _undone(self, changes: _Changes, orders: Sequence[Order]) -> None:
        changes.moves += [
            Move(o, OrderState.SENDING, "its block was undone; the same bytes are sent again", at_ms=changes.now_ms, txid="")
            for o in orders
            if o.state is OrderState.CONFIRMING
        ]

    def _succeed(self, changes: _Changes, order: Order, txid: str, reason: str) -> None:
        changes.sheet.post(ledger.settle(order.id, order.payer, order.token_id, order.coin_id, net=order.net, fee=order.fee))
        changes.moves.append(Move(order, OrderState.SUCCEEDED, reason, at_ms=changes.now_ms, txid=txid, decided_at_ms=changes.now_ms))

    def _final(self, changes: _Changes, attempt: Attempt, orders: Sequence[Order], row: Mapping[str, Any], said: str) -> None:
        txid = row["txid"]
        for order in orders:
            if order.state is OrderState.FAILED:
                raise InvariantBroken(f"order {order.id} failed and its attempt {attempt.id} paid")
            if order.state is not OrderState.SUCCEEDED:
                self._succeed(changes, order, txid, said)
            elif order.txid != txid:
                changes.paid_by.append({"id": order.id, "txid": txid})
        if attempt.newest.intent.payments:  # none where the house only opened a token
            self._paid(changes, attempt, orders, row["block"])
        changes.retired.append(attempt.id)

    def _paid(self, changes: _Changes, attempt: Attempt, orders: Sequence[Order], block: int) -> None:
        """The coins have left. What was paid for orders that are not under way with this attempt is the house's, and a person's business."""
        token = self._catalog.token(attempt.token_id)
        if token is None:
            raise InvariantBroken(f"attempt {attempt.id} paid a token that is not in the catalogue, {attempt.token_id}")
        unclaimed = _unclaimed(attempt, orders)
        units = TokenAmount(token, sum(payment.units for payment in unclaimed)).to_coin().units
        reasons = {row["reason"]: None for p in unclaimed if (row := changes.spent.get(p.key)) is not None}
        if any(payment.key not in changes.spent for payment in unclaimed):
            changes.halts[attempt.chain] = f"attempt {attempt.id} has paid for orders that are not under way with it"
        entry = ledger.final(
            attempt.id,
            token.id,
            token.coin.id,
            sum(order.net for order in orders),
            chain=attempt.chain,
            block=block,
            unclaimed=units,
            note="; ".join(reasons),
        )
        changes.sheet.post(entry)

    def _gas(self, changes: _Changes, row: dict[str, Any], attempt: Attempt, fee: int) -> None:
        native = self._catalog.native(attempt.chain)
        row["gas_paid"], row["native_rate"] = fee, self._rate_text(native.coin)
        units = TokenAmount(native, fee).to_coin().units
        entry = ledger.gas(attempt.id, native.id, native.coin.id, units, chain=attempt.chain, block=row["block"])
        cover = covers.retired({**row, "lane_id": attempt.lane_id, "slot": attempt.slot, "token_id": attempt.token_id})
        changes.sheet.post(entry)
        changes.sheet.cover({(entry.ref_kind, entry.ref_id, entry.posting_kind): cover})

    def _failed(self, changes: _Changes, attempt: Attempt, orders: Sequence[Order], txid: str, detail: str) -> None:
        changes.retired.append(attempt.id)
        for order in orders:
            if order.state is OrderState.SUCCEEDED:
                changes.halts[attempt.chain] = f"order {order.id} was reported as paid before finality and then failed on chain"
                continue
            changes.sheet.post(ledger.release(order.id, order.payer, order.coin_id, order.reserve))
            changes.moves.append(
                Move(order, OrderState.FAILED, detail, at_ms=changes.now_ms, txid=txid, fail_reason=detail, decided_at_ms=changes.now_ms)
            )

    def _dead(self, changes: _Changes, attempt: Attempt, orders: Sequence[Order], reason: str) -> None:
        """Another try is allowed. What a person has to judge stays with the person; what was reported as paid is not paid again."""
        changes.retired.append(attempt.id)
        if not attempt.signed:
            changes.unsigned.append(attempt.id)
        for order in orders:
            if order.state is OrderState.SUCCEEDED:
                changes.halts[attempt.chain] = f"order {order.id} was reported as paid before finality and then its {reason}"
            elif order.state is not OrderState.QUARANTINED:
                changes.moves.append(Move(order, OrderState.ACCEPTED, reason, at_ms=changes.now_ms, due_at_ms=changes.now_ms, txid=""))

    def _write(self, tx: Tx, changes: _Changes) -> int:
        store.move(tx, changes.moves, next_ids=self._next_ids(len(changes.moves)) if changes.moves else [])
        decided = [move.moved() for move in changes.moves if move.after in TERMINAL]
        if decided:
            ids = self._next_ids(len(decided))
            events = [event_row(o, i, changes.now_ms) for o, i in zip(decided, ids, strict=True)]
            self._outbox.enqueue(tx, events)
            changes.sheet.cover(_covers(tx, decided, events))
        # What the attempts are now; a failed one took gas but none of its outflow.
        tx.run(
            "UPDATE attempt SET state = a.state, seen = a.seen, seen_at_ms = a.seen_at_ms, seen_block = a.seen_block, due_at_ms = a.due_at_ms, "
            "lease = '', txid = a.txid, block = a.block, gas_paid = a.gas_paid, native_rate = a.native_rate, "
            "outflow = CASE WHEN a.failed = 1 THEN a.outflow ELSE attempt.outflow END "
            "FROM {ROWS a(id {INT}, state TEXT, seen TEXT, seen_at_ms {INT}, seen_block {INT}, due_at_ms {INT}, txid TEXT, block {INT}, "
            "gas_paid {AMOUNT}, native_rate TEXT, failed {INT}, outflow {AMOUNT})} WHERE attempt.id = a.id",
            a=[{**row, "outflow": 0} for row in changes.rows],
        )
        for attempt_id in changes.unsigned:
            attempts.give_back(tx, attempt_id)
        # Orders of attempts that are over may be bound again, should a person or a proof allow it.
        tx.run(
            "UPDATE attempt_order SET live = 0 WHERE attempt_id IN (SELECT k.id FROM {ROWS k(id {INT})})",
            k=[{"id": attempt_id} for attempt_id in changes.retired],
        )
        if changes.paid_by:
            # Reported early with one version, and after a reorg another one was paid: whoever asks gets the one that is on the chain.
            tx.run(
                "UPDATE orders SET txid = k.txid FROM {ROWS k(id {INT}, txid TEXT)} WHERE orders.id = k.id AND orders.state = 'succeeded'",
                k=changes.paid_by,
            )
        for chain, reason in changes.halts.items():
            if attempts.resumed_after(tx, chain, reason[: attempts.REASON_MAX]) is not None:
                continue  # a person let the lane go on in spite of this very attempt, which may look otherwise in between
            log.error("lane.halted", chain=chain, reason=reason)
            attempts.halt_lane(tx, chain, reason)
        # Last, since it locks balances that the intake waits for.
        self._book.close(tx, changes.sheet, changes.now_ms)
        self._runtime.crash_point("settle:booked")
        return len(decided)

    async def by_word(self, order_id: int, make: Callable[[Tx, Order, int], ByWord]) -> Order:
        """A person's decision in one transaction: state, history, ledger and event. Raises what `make` raises, and then nothing is written."""

        def job(tx: Tx) -> Order:
            order = store.lock(tx, [order_id])[order_id]
            changes = _Changes(self._book.open(tx, [(order.payer, order.coin_id)]), self._runtime.now_ms())
            word = make(tx, order, changes.now_ms)
            for entry in word.entries:
                changes.sheet.post(entry)
            changes.moves.append(word.move)
            self._write(tx, changes)
            return store.lock(tx, [order_id])[order_id]

        async with self._turn:
            order = await self._database.write("decide", job)
        self.decided()
        return order

    async def cancel(self, order_id: int, reason: str) -> Order | None:
        """A person's word: fail an order that nothing was bound for; None when it is too late or unknown. Its money is back at once."""
        return await self._unbound(order_id, f"cancelled: {reason}")

    async def refuse(self, order_id: int, reason: str) -> Order | None:
        """Fail an order that can never be paid and that nothing was bound for; None when it is too late."""
        return await self._unbound(order_id, reason)

    async def _unbound(self, order_id: int, text: str) -> Order | None:
        def job(tx: Tx) -> Order | None:
            order = store.lock(tx, [order_id]).get(order_id)
            if order is None or order.state not in (OrderState.ACCEPTED, OrderState.HELD):
                return None
            changes = _Changes(self._book.open(tx, [(order.payer, order.coin_id)]), self._runtime.now_ms())
            changes.sheet.post(ledger.release(order.id, order.payer, order.coin_id, order.reserve))
            changes.moves.append(
                Move(order, OrderState.FAILED, text, at_ms=changes.now_ms, fail_reason=text, hold_reason="", decided_at_ms=changes.now_ms)
            )
            self._write(tx, changes)
            return store.lock(tx, [order_id])[order_id]

        async with self._turn:
            order = await self._database.write("cancel", job)
        self.decided()
        return order


def _unclaimed(attempt: Attempt, orders: Sequence[Order]) -> list[Payment]:
    """What it pays for orders that are not linked to it: forgotten by a restored database, or decided by a person."""
    linked = {order.id for order in orders}
    return [payment for payment in attempt.newest.intent.payments if payment.order_id not in linked]


def _covers(tx: Tx, decided: Sequence[Order], events: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], str]:
    """What the last entry of each order decides besides amounts."""
    steps = store.history(tx, [order.id for order in decided])
    return {
        ("order", str(order.id), "settle" if order.state is OrderState.SUCCEEDED else "release"): covers.decided(
            {name: getattr(order, name) for name in covers.DECIDED}, steps[order.id], event["body"]
        )
        for order, event in zip(decided, events, strict=True)
    }


def describe(seen: Observation, native: Token, needed: int | None) -> str:
    """An observation in words for the timeline; `needed` confirmations, or None where the network itself says what is final."""
    match seen:
        case Absent():
            return "no node knows it; the same bytes are sent again"
        case Pending(stuck=stuck):
            return "waiting in the mempool" + (", priced below the market" if stuck else "")
        case Included(block=block, depth=depth, succeeded=succeeded):
            how_deep = f"{depth} of {needed} confirmations" if needed is not None else f"{depth} confirmations, not final yet"
            return f"in block {block}, {how_deep}" + ("" if succeeded else ", reverted")
        case Final(block=block, fee=fee, detail=detail):
            return f"{detail or f'final in block {block}'}, fee {plain(fee, native.decimals)} {native.coin.symbol}"
        case FailedOnChain(block=block, detail=detail):
            return f"failed for good in block {block}: {detail}"
        case Dead(proof=proof):
            return f"dead: {proof}"
        case Suspicious(detail=detail):
            return f"{attempts.BEFORE_A_PERSON}: {detail}"
