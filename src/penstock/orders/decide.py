"""What a person decides of a quarantined order: again, paid, or failed. Each demands what makes it safe, and is refused without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penstock.catalog import Catalog
from penstock.core import ledger
from penstock.core.attempt import LIVE, AttemptState, advance
from penstock.core.errors import Problem, Refused
from penstock.core.event import Dead, FailedOnChain, Final
from penstock.core.intent import Death, Signer, SignLater, SignRefused
from penstock.core.order import Order, OrderState
from penstock.core.snowflake import wire_id
from penstock.db import Database, Row, Tx
from penstock.ledger.chain import record_action
from penstock.orders import adopt, attempts, store
from penstock.orders.attempts import Attempt
from penstock.orders.board import Board
from penstock.orders.settle import ByWord, Settler, Verdict
from penstock.orders.store import Move
from penstock.rails.base import NodeUnreachable
from penstock.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Case:
    """A quarantined order, its live attempt if it has one, how its other attempts ended, and the attempt that has spent its name."""

    order: Order
    live: Attempt | None
    ended: Sequence[Attempt]
    spent: Row | None


class Decider:
    """Writes down a person's word, as far as nothing speaks against it."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        database: Database,
        catalog: Catalog,
        board: Board,
        signer: Signer,
        settler: Settler,
        next_ids: Callable[[int], list[int]],
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._catalog = catalog
        self._board = board
        self._signer = signer
        self._settler = settler
        self._next_ids = next_ids

    async def again(self, order_id: int, reason: str) -> Order:
        """Under way again on the same attempt; its bytes stay what they are. Raises Refused."""

        def make(tx: Tx, order: Order, now_ms: int) -> ByWord:
            case = _case(tx, order)
            if case.live is None:
                raise _no("nothing is under way for it, and another attempt needs another order: decide `--as paid` or `--as failed`")
            if attempts.detached(tx, [case.live]):
                raise _no("the same transaction pays an order that a person has ended, so nothing more is signed or sent of it")
            after = OrderState.CONFIRMING if case.live.state is AttemptState.INCLUDED else OrderState.SENDING
            attempts.make_due(tx, [case.live.id], now_ms)
            self._record(tx, order, "again", reason, now_ms)
            return ByWord(Move(order, after, f"a person decided, again: {reason}", at_ms=now_ms))

        return await self._settler.by_word(order_id, make)

    async def paid(self, order_id: int, txid: str, reason: str) -> Order:
        """It was paid by this transaction: by the chain's word where it is one of ours, else by the person's. Raises Refused."""
        case = await self._look(order_id)
        ours = case.live if case.live is not None and any(v.txid == txid for v in case.live.versions) else None
        if ours is not None and await self._by_the_chain(ours):
            return await self._database.write("decide", lambda tx: self._settled(tx, order_id, reason))

        def make(tx: Tx, order: Order, now_ms: int) -> ByWord:
            case = _case(tx, order)
            if case.live is not None and ours is None:
                raise _no("an attempt of ours is under way for it, and this is none of its transactions: it could be paid twice")
            text = f"a person decided, paid: {reason}"
            entries = [ledger.settle(order.id, order.payer, order.token_id, order.coin_id, net=order.net, fee=order.fee)]
            if case.live is None:
                token = self._catalog.token(order.token_id)
                _check_elsewhere(tx, case, txid, token.scale if token is not None else 0)
                entries.append(ledger.paid_elsewhere(order.id, order.token_id, order.coin_id, order.net, note=f"{txid}: {reason}"))
            self._record(tx, order, f"paid by {txid}", reason, now_ms)
            return ByWord(Move(order, OrderState.SUCCEEDED, text, at_ms=now_ms, txid=txid, decided_at_ms=now_ms), entries)

        return await self._settler.by_word(order_id, make)

    async def failed(self, order_id: int, reason: str, *, proved: bool) -> Order:
        """It was not paid and never will be. `proved`: the person has proof where we have none; then everything that the chain could still
        take stays owned, and should it be paid after all the network stops. Raises Refused.
        """
        case = await self._look(order_id)
        if case.live is not None and not case.live.signed and await self._bury(case.live):
            case = await self._look(order_id)

        def make(tx: Tx, order: Order, now_ms: int) -> ByWord:
            case = _case(tx, order)
            _check_not_paid(case, proved=proved)
            if case.live is not None:
                attempts.detach(tx, case.live.id, order.id)
            self._record(tx, order, "failed, by proof" if proved else "failed", reason, now_ms)
            text = f"a person decided, failed: {reason}"
            entry = ledger.release(order.id, order.payer, order.coin_id, order.reserve)
            return ByWord(Move(order, OrderState.FAILED, text, at_ms=now_ms, fail_reason=text, decided_at_ms=now_ms), [entry])

        return await self._settler.by_word(order_id, make)

    async def _look(self, order_id: int) -> Case:
        def job(tx: Tx) -> Case:
            order = store.lock(tx, [order_id])[order_id]
            if order.state is not OrderState.QUARANTINED:
                raise _no(f"it is {order.state}: only what is quarantined needs a person")
            return _case(tx, order)

        return await self._database.write("decide.look", job)

    async def _by_the_chain(self, attempt: Attempt) -> bool:
        """Settle by what the network shows now. Whether that is final; False where only a person can judge it. Raises Refused."""
        rail = self._board.rail(attempt.chain)
        if rail is None:
            raise _no(f"{attempt.chain} is off, and its nodes can say what became of the transaction")
        try:
            seen = await rail.observe(attempt.views())
        except NodeUnreachable as error:
            raise _no(f"the nodes of {attempt.chain} do not say what became of it now: {error}") from error
        if isinstance(seen, FailedOnChain | Dead):
            raise _no("the network proves that it was not paid; it fails by itself")
        if isinstance(seen, Final):
            await self._settler.apply([Verdict(attempt, seen, advance(attempt.state, seen, report_depth=None), None)])
            return True
        return False

    def _settled(self, tx: Tx, order_id: int, reason: str) -> Order:
        order = store.lock(tx, [order_id])[order_id]
        if order.state is not OrderState.SUCCEEDED:
            raise _no(f"it is {order.state} now: look again")
        self._record(tx, order, f"paid by {order.txid}, as the network shows", reason, self._runtime.now_ms())
        return order

    async def _bury(self, attempt: Attempt) -> bool:
        """Nothing was ever signed for it here: if the signer says the same it is dead, and its slot is free. Whether it is."""
        proof = "a person decided, and nothing was ever signed for it"
        try:
            if await self._was_signed(attempt):
                return False
            await self._signer.bury([Death(attempt.id, proof)])
        except SignLater as away:
            raise _no(
                f"attempt {attempt.id} has no bytes here, and the signer, who knows whether it has any, does not answer: {away}"
            ) from away
        except SignRefused:
            return False
        seen = Dead(proof)
        await self._settler.apply([Verdict(attempt, seen, advance(attempt.state, seen, report_depth=None), None)])
        return True

    async def _was_signed(self, attempt: Attempt) -> bool:
        """Whether the journal has it. What recovery has compared is in the table; the rest is read from there on."""
        row = await self._database.read(
            lambda tx: tx.one("SELECT number, (SELECT COUNT(*) FROM version WHERE attempt_id = :id AND journaled = 1) AS n "
                              "FROM journal_checkpoint", id=attempt.id)
        )  # fmt: skip
        after = int(row["number"]) if row is not None else 0
        if row is not None and row["n"]:
            return True
        while page := await self._signer.entries(after):
            if any(entry.kind == "sign" and entry.attempt_id == attempt.id for entry in page):
                return True
            after = page[-1].number
        return False

    def _record(self, tx: Tx, order: Order, decided: str, reason: str, now_ms: int) -> None:
        subject = f"order {wire_id(order.id)}: {decided}"
        record_action(tx, self._next_ids(1)[0], action="decide", subject=subject, reason=reason, at_ms=now_ms)


def _no(text: str) -> Refused:
    return Refused(Problem.INVALID_ARGUMENT, text)


def _case(tx: Tx, order: Order) -> Case:
    if order.state is not OrderState.QUARANTINED:
        raise _no(f"it is {order.state}: only what is quarantined needs a person")
    rows = tx.all("SELECT attempt_id FROM attempt_order WHERE order_id = :id", id=order.id)
    found = attempts.load(tx, [row["attempt_id"] for row in rows])
    live = next((attempt for attempt in found if attempt.state in LIVE), None)
    return Case(order, live, [attempt for attempt in found if attempt.state not in LIVE], adopt.spent(tx, [order.key]).get(order.key))


def _check_elsewhere(tx: Tx, case: Case, txid: str, scale: int) -> None:
    """An attempt of before a restore has to be final, the very one, and of the same amount; `scale` are coin units in a base unit."""
    if case.spent is None:
        return
    found = attempts.load(tx, [case.spent["attempt_id"]])
    payments = [payment for attempt in found for payment in attempt.newest.intent.payments if payment.key == case.order.key]
    if not payments:
        return  # it could not be put back: the person's word is all there is
    attempt, payment = found[0], payments[0]
    if all(version.txid != txid for version in attempt.versions):
        raise _no(f"its name was spent by attempt {attempt.id}, and this is none of its transactions")
    if attempt.state is not AttemptState.FINAL or not _has_paid(tx, attempt.id):
        raise _no(f"attempt {attempt.id}, which has spent its name, is {attempt.state} and has not paid it: wait until it is final")
    if (payment.recipient, attempt.token_id, payment.units * scale) != (case.order.destination, case.order.token_id, case.order.net):
        raise _no(f"attempt {attempt.id} has paid {payment.units} base units to {payment.recipient}, which is not what this order asks")


def _has_paid(tx: Tx, attempt_id: int) -> bool:
    row = tx.one("SELECT id FROM entry WHERE ref_kind = 'attempt' AND ref_id = :id AND posting_kind = 'final'", id=str(attempt_id))
    return row is not None


def _check_not_paid(case: Case, *, proved: bool) -> None:
    if case.live is not None and not proved:
        raise _no(
            f"attempt {case.live.id} is {case.live.state} and can still pay it; `--proved` says that you have proof that it cannot: its "
            "slot and coins stay taken, and the network stops should it pay after all"
        )
    if case.spent is not None and not proved:
        raise _no(
            f"attempt {case.spent['attempt_id']}, transaction {case.spent['txid']}, was signed for its name; `--proved` says that you have "
            "proof that it has not paid and never will"
        )
