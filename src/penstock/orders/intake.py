"""Group commit: every draft that waits is applied in one transaction (architecture, section 2.3).

While one batch is written the next one gathers, so there is no artificial delay and the cost of a commit is shared. Where the database
takes several writers, the next one is written while COMMIT waits for the disk: each has a committer's chain of its own. The order
of steps is fixed: keys, a look at the balances, replay in arrival order, one write per table, and only then the lock on the
balances, which other processes wait for. Where they do not cover everything, the transaction begins again and locks them before
the replay, so that a refusal is always by a balance under lock. A stored order always wins over a refusal.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, Protocol

import structlog

from penstock.core import covers, ledger, wire
from penstock.core.errors import InvariantBroken, Problem, Refused
from penstock.core.money import LEDGER_DECIMALS, plain
from penstock.core.order import Order
from penstock.db import CommitUnknown, Database, DatabaseUnavailable, Row, Tx
from penstock.ledger.book import Book, Overdraft, Unsure
from penstock.orders import store
from penstock.runtime import Runtime

log = structlog.get_logger()

QUEUE_MAX: Final = 2_000
"""About a second's work. Who comes then is told so at once, instead of waiting for an answer that its client has given up on."""
BATCH_MAX: Final = 1_000
COMMIT_TRIES: Final = 5


class Outbox(Protocol):
    """Where decided orders leave an event, inside the same transaction."""

    def enqueue(self, tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
        """Rows of id, order_id, merchant_id, body, created_at_ms."""
        ...


@dataclass(slots=True)
class Draft:
    """A request that waits for the next commit: the order it would be, or the refusal it would get."""

    merchant_id: int
    merchant_order_id: str
    fingerprint: str
    wish: Order | Refused
    once: str = ""
    """What this order would use up for ever (an invoice's payment hash), "" for nothing."""
    former: str = ""
    """The fingerprint as it was made while a memo counted that the token does not take, "" where it is the same."""
    answer: asyncio.Future[Order] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def key(self) -> tuple[int, str]:
        """What makes it the same order as another one."""
        return self.merchant_id, self.merchant_order_id


Answer = Order | Refused
_AGAIN: Final = object()


@dataclass(slots=True)
class _Batch:
    """Drafts of one transaction, and whose chain it is on. `locks_first`: judge them by balances under lock; `grows`: more may join."""

    drafts: list[Draft]
    book: Book
    locks_first: bool
    written: Callable[[], object]
    """To be told, from any thread, when nothing but COMMIT is left."""
    grows: bool = True


class Intake:
    """One per process; its task `run` commits, with one batch under way for each of the books."""

    def __init__(
        self, runtime: Runtime, database: Database, books: Sequence[Book], outbox: Outbox, next_ids: Callable[[int], list[int]]
    ) -> None:
        self._runtime = runtime
        self._database = database
        self._books = books
        self._outbox = outbox
        self._next_ids = next_ids
        self._waiting: deque[Draft] = deque()
        self._arrived = asyncio.Event()
        self._turn = asyncio.Lock()
        self._stopping = False
        self._locks_first = False
        self.committed: Callable[[bool], None] = lambda external: None  # noqa: ARG005  told after each batch, whether workers have work

    async def submit(self, draft: Draft) -> Order:
        """The stored order of this id, new or old. Raises Refused."""
        if self._stopping or len(self._waiting) >= QUEUE_MAX:
            raise Refused(
                Problem.RATE_LIMIT, "The server has more requests waiting than it will hold; come back in a second.", retry_after_s=1
            )
        self._waiting.append(draft)
        self._arrived.set()
        return await draft.answer

    async def run(self) -> None:
        """Commit what waits until `stop`; the last batches are finished."""
        await asyncio.gather(*map(self._take_turns, self._books))

    async def _take_turns(self, book: Book) -> None:
        """Batches on one chain. Each holds the turn until it is written: then all that it will ever lock is locked, and the next one
        begins while this one waits for the disk.
        """
        while True:
            async with self._turn:
                if not (drafts := await self._gathered()):
                    return
                work = await self._written(drafts, book)
            await work

    async def _written(self, drafts: list[Draft], book: Book) -> asyncio.Task[None]:
        """A batch that has nothing but COMMIT before it, or is over."""
        written = asyncio.Event()
        tell = partial(asyncio.get_running_loop().call_soon_threadsafe, written.set)
        work = self._runtime.spawn(self._commit(_Batch(drafts, book, self._locks_first, tell)), name="intake.batch")
        work.add_done_callback(lambda _: written.set())
        await written.wait()
        return work

    async def _gathered(self) -> list[Draft]:
        """What waits, as soon as something does; nothing when no more will come."""
        while not self._waiting and not self._stopping:
            self._arrived.clear()
            await self._arrived.wait()
        return [self._waiting.popleft() for _ in range(min(BATCH_MAX, len(self._waiting)))]

    def stop(self) -> None:
        """Take no more drafts; `run` returns when the waiting ones are answered."""
        self._stopping = True
        self._arrived.set()

    async def _commit(self, batch: _Batch) -> None:
        drafts = batch.drafts
        answers: Sequence[object]
        try:
            answers = await self._apply_surely(batch)
        except DatabaseUnavailable as error:
            log.error("intake.database.away", size=len(drafts), error=type(error).__name__)  # noqa: TRY400
            answers = [_unstored() for _ in drafts]  # alone they would fare no better, and everybody waits
        except Exception as error:  # noqa: BLE001  whatever the database refuses, every caller gets an answer
            if len(drafts) > 1:
                log.warning("intake.batch.refused", size=len(drafts), error=type(error).__name__)
                for draft in drafts:
                    await self._commit(replace(batch, drafts=[draft], grows=False))
                return
            log.error("intake.draft.failed", error=type(error).__name__)  # noqa: TRY400  no bodies in logs
            answers = [_unstored()]
        # Whoever was refused for want of money mostly comes again.
        self._locks_first = any(isinstance(answer, Refused) and answer.problem is Problem.BALANCE_INSUFFICIENT for answer in answers)
        self._waiting.extendleft(draft for draft, answer in reversed([*zip(drafts, answers, strict=True)]) if answer is _AGAIN)
        self._arrived.set()  # the other chain may have the turn and wait
        for draft, answer in zip(drafts, answers, strict=True):
            if answer is not _AGAIN and not draft.answer.done():
                if isinstance(answer, Refused):
                    draft.answer.set_exception(answer)
                else:
                    draft.answer.set_result(answer)  # type: ignore[arg-type]
        self.committed(any(isinstance(a, Order) and not a.is_internal for a in answers))

    async def _apply_surely(self, batch: _Batch) -> list[object]:
        """Apply once. After a COMMIT of unknown outcome the same batch again finds its own keys, if it did commit."""
        for attempt in range(1, COMMIT_TRIES + 1):
            try:
                return await self._database.write("intake", lambda tx: self._apply(tx, batch))
            except Unsure:
                batch.locks_first = True  # its own: what another batch met meanwhile says nothing of this one's balances
            except CommitUnknown:
                log.warning("intake.commit.unknown", attempt=attempt)
                await self._runtime.sleep(0.05 * attempt)
            except DatabaseUnavailable:
                if attempt == COMMIT_TRIES:
                    raise
                await self._runtime.sleep(0.05 * attempt)
        raise DatabaseUnavailable("the outcome of a commit stayed unknown")

    def _apply(self, tx: Tx, batch: _Batch) -> list[object]:
        now_ms = self._runtime.now_ms()
        self._top_up(batch)
        firsts = _first_wishes(batch.drafts)
        ours = self._take_keys(tx, firsts, now_ms)
        stored = _stored(tx, {draft.key for draft in batch.drafts} - ours)
        spent = self._take_once(tx, [firsts[key] for key in sorted(ours)])
        read = batch.book.open if batch.locks_first else batch.book.look
        sheet = read(tx, _balances_touched([firsts[key] for key in ours]))
        verdicts: dict[tuple[int, str], tuple[str, Answer]] = {}
        answers: list[object] = []
        for draft in batch.drafts:
            key = draft.key
            if key in stored:
                answers.append(_repeat(draft, *stored[key]))
            elif key not in ours:
                answers.append(_unkept(draft))
            elif key not in verdicts:
                if draft is not firsts[key]:
                    answers.append(draft.wish)  # a refusal that came before the first wish of its id
                    continue
                answer = _spent() if key in spent else _post(sheet, draft)
                verdicts[key] = (draft.fingerprint, answer)
                answers.append(answer)
            else:
                answers.append(_second(draft, *verdicts[key]))
        accepted = [answer for _, answer in verdicts.values() if isinstance(answer, Order)]
        refused = [key for key, (_, answer) in verdicts.items() if isinstance(answer, Refused)]
        self._drop_keys(tx, refused)
        self._give_once_back(tx, [firsts[key] for key in refused if key not in spent])
        if accepted:
            events = self._announce(tx, [order for order in accepted if order.is_internal], now_ms)
            rows = store.insert(tx, accepted, due_at_ms=now_ms)
            self._runtime.crash_point("intake:unreserved")
            marks = {order.id: mark for mark, order in verdicts.values() if isinstance(order, Order)}
            sheet.cover(dict(_cover(row, marks[row["id"]], events.get(row["id"], "")) for row in rows))
            batch.book.close(tx, sheet, now_ms)
        batch.written()
        return answers

    def _top_up(self, batch: _Batch) -> None:
        """Who came while this batch waited for its turn to write goes along: a commit costs the same for more. Once, in the writer's
        thread: until the batch is written nobody else takes from what waits.
        """
        while batch.grows and self._waiting and len(batch.drafts) < BATCH_MAX:
            batch.drafts.append(self._waiting.popleft())
        batch.grows = False

    def _take_keys(self, tx: Tx, firsts: dict[tuple[int, str], Draft], now_ms: int) -> set[tuple[int, str]]:
        rows = [(*key, firsts[key].fingerprint, _wish(firsts[key]).id, now_ms) for key in sorted(firsts)]
        if not rows:
            return set()
        # Whoever inserts the key owns the order id, for ever. Sorted, so that two processes never wait for each other.
        taken = tx.all(
            "INSERT INTO order_key (merchant_id, merchant_order_id, fingerprint, order_id, created_at_ms) "
            "SELECT k.merchant_id, k.merchant_order_id, k.fingerprint, k.order_id, k.created_at_ms FROM {ROWS k(merchant_id {INT}, "
            "merchant_order_id TEXT, fingerprint TEXT, order_id {INT}, created_at_ms {INT})} WHERE true "
            "ON CONFLICT DO NOTHING RETURNING merchant_id, merchant_order_id",
            k=rows,
        )
        return {(row["merchant_id"], row["merchant_order_id"]) for row in taken}

    def _take_once(self, tx: Tx, drafts: Sequence[Draft]) -> set[tuple[int, str]]:
        """Keys of drafts whose invoice was used before, by anyone (spec 5.4). Within a batch the first in order of keys has it."""
        wanted = [draft for draft in drafts if draft.once]
        if not wanted:
            return set()
        # Whoever inserts the name may pay it, for ever.
        taken = tx.all(
            "INSERT INTO single_use (name, order_id) SELECT k.name, k.order_id FROM {ROWS k(name TEXT, order_id {INT})} WHERE true "
            "ON CONFLICT DO NOTHING RETURNING order_id",
            k=[(draft.once, _wish(draft).id) for draft in sorted(wanted, key=lambda draft: draft.once)],
        )
        ours = {row["order_id"] for row in taken}
        return {draft.key for draft in wanted if _wish(draft).id not in ours}

    def _give_once_back(self, tx: Tx, drafts: Sequence[Draft]) -> None:
        names = [(draft.once, _wish(draft).id) for draft in drafts if draft.once]
        if names:
            # A request that was refused uses nothing up.
            tx.run(
                "DELETE FROM single_use WHERE {ROW} IN (SELECT single_use.{ROW} FROM {ROWS k(name TEXT, order_id {INT})} "
                "JOIN single_use ON single_use.name = k.name AND single_use.order_id = k.order_id)",
                k=names,
            )

    def _drop_keys(self, tx: Tx, keys: Sequence[tuple[int, str]]) -> None:
        if keys:
            # A request that was refused leaves no order behind and is judged afresh (spec 5.6).
            tx.run(
                "DELETE FROM order_key WHERE {ROW} IN (SELECT order_key.{ROW} FROM {ROWS k(merchant_id {INT}, merchant_order_id TEXT)} "
                "JOIN order_key ON order_key.merchant_id = k.merchant_id AND order_key.merchant_order_id = k.merchant_order_id)",
                k=keys,
            )

    def _announce(self, tx: Tx, decided: Sequence[Order], now_ms: int) -> dict[int, str]:
        """The events' bodies by order."""
        if not decided:
            return {}
        ids = self._next_ids(len(decided))
        rows = [event_row(order, event_id, now_ms) for order, event_id in zip(decided, ids, strict=True)]
        self._outbox.enqueue(tx, rows)
        return {row["order_id"]: row["body"] for row in rows}


def event_row(order: Order, event_id: int, now_ms: int) -> dict[str, Any]:
    """The outbox row of a decided order."""
    body = wire.compact(wire.webhook_body(order)).decode()
    return {"id": event_id, "order_id": order.id, "merchant_id": order.merchant_id, "body": body, "created_at_ms": now_ms}


def _cover(order: Row, mark: str, body: str) -> tuple[tuple[str, str, str], str]:
    """What the entry of an accepted order decides besides amounts; `body` is the event of one that stays in the house."""
    if body:
        return ("order", str(order["id"]), "internal"), covers.internal(order, mark, body)
    return ("order", str(order["id"]), "reserve"), covers.accepted(order, mark)


def _spent() -> Refused:
    return Refused(Problem.REPEATED_SUBMIT, "The invoice in address was given before, here or by another merchant; ask for a new one.")


def _unstored() -> Refused:
    return Refused(Problem.SERVICE_ERROR, "The order could not be stored; ask bill/info or repeat the same id.")


def _wish(draft: Draft) -> Order:
    assert isinstance(draft.wish, Order)  # noqa: S101  only wishes are among the firsts
    return draft.wish


def _unkept(draft: Draft) -> Refused:
    """A refusal whose id is free stands. A wish that was neither stored nor there before would be a payout that never happens."""
    if isinstance(draft.wish, Order):
        raise InvariantBroken(f"order key {draft.merchant_order_id[:64]!r} of merchant {draft.merchant_id} has no order")
    return draft.wish


def _first_wishes(batch: Sequence[Draft]) -> dict[tuple[int, str], Draft]:
    firsts: dict[tuple[int, str], Draft] = {}
    for draft in batch:
        if isinstance(draft.wish, Order):
            firsts.setdefault(draft.key, draft)
    return firsts


def _stored(tx: Tx, keys: set[tuple[int, str]]) -> dict[tuple[int, str], tuple[str, Order]]:
    if not keys:
        return {}
    # Orders that were there before this batch, with the fingerprint of their request.
    rows = tx.all(f"SELECT order_key.fingerprint, {store.QUALIFIED} FROM {store.NAMED}", k=sorted(keys))
    return {(row["merchant_id"], row["merchant_order_id"]): (row["fingerprint"], store.order_of(row)) for row in rows}


def _balances_touched(drafts: Sequence[Draft]) -> set[tuple[str, str]]:
    touched = set()
    for draft in drafts:
        order = _wish(draft)
        touched.add((order.payer, order.coin_id))
        if order.is_internal:
            touched.add((order.recipient, order.coin_id))
    return touched


def _post(sheet: Any, draft: Draft) -> Answer:
    order = _wish(draft)
    try:
        if order.is_internal:
            sheet.post(ledger.internal(order.id, order.payer, order.recipient, order.coin_id, order.value))
        else:
            sheet.post(ledger.reserve(order.id, order.payer, order.coin_id, order.reserve))
    except Overdraft as short:
        available, needed = plain(short.available, LEDGER_DECIMALS), plain(short.available + short.missing, LEDGER_DECIMALS)
        return Refused(
            Problem.BALANCE_INSUFFICIENT, f"The balance of {order.crypto} has {available} available and this withdrawal needs {needed}."
        )
    return order


def _repeat(draft: Draft, fingerprint: str, order: Order) -> Answer:
    if fingerprint in (draft.fingerprint, draft.former):
        return order
    return Refused(
        Problem.ORDER_DUPLICATE,
        "merchant_order_id was used before for a withdrawal with other content; a new withdrawal needs a new id.",
    )


def _second(draft: Draft, fingerprint: str, answer: Answer) -> object:
    """A later draft with an id that this batch already judged: equal ones share, others are judged in the next batch."""
    if isinstance(answer, Order):
        return _repeat(draft, fingerprint, answer)
    return answer if draft.fingerprint == fingerprint else _AGAIN
