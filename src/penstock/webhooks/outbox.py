"""Events wait here from the transaction that decided the order until the merchant says `success`, or until they are parked.

An event is due, delivered or parked. While it is being sent it is due at the end of a lease, so what a crash left behind comes back by
itself. The functions on a `Tx` are the statements of delivery; `Outbox` is what the rooms and commands see.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from penstock.core.errors import Problem, Refused
from penstock.db import Database, Row, Tx
from penstock.runtime import Runtime

HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
CALLS_A_DAY: Final = 25
TYPES: Final = ("All Type", "Direct Deposit", "API Deposit", "Invoice", "API Withdrawal", "Refund")
NO_URL: Final = "the merchant has no webhook URL"
LEASE_MS: Final = 30_000
"""Longer than any send takes, so that one event is hardly ever under way twice."""
SEATED: Final = "s"
HELPING: Final = "h"
"""How a lease begins: that of the process that has the worker's seat, which its successor may end, and that of one that delivers beside it."""
RESEND_BATCH: Final = 5_000
RESEND_BATCHES_MAX: Final = 20
MERCHANTS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """A claimed row. `sends` counts for ever, `tries` since it was last queued; every write of its holder checks `lease`."""

    id: int
    merchant_id: int
    body: str
    sends: int
    tries: int
    lease: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a claimed event. `sent` is False when nothing left the house: then it is not logged and counts for nothing."""

    event: Event
    state: str
    result: str
    due_at_ms: int | None
    sent: bool = False
    at_ms: int = 0
    took_ms: int = 0
    status: int = 0


def due_merchants(tx: Tx, *, now_ms: int) -> list[int]:
    """Merchants with events that are due, the one that waits longest first."""
    # One step through the index for each merchant that has anything due or scheduled, however many events wait behind a dead endpoint.
    rows = tx.all(
        "WITH RECURSIVE waiting(merchant_id) AS ("
        "SELECT MIN(merchant_id) FROM outbox WHERE due_at_ms IS NOT NULL UNION ALL "
        "SELECT (SELECT MIN(later.merchant_id) FROM outbox AS later WHERE later.due_at_ms IS NOT NULL "
        "AND later.merchant_id > waiting.merchant_id) FROM waiting WHERE waiting.merchant_id IS NOT NULL), "
        "found AS MATERIALIZED (SELECT merchant_id, (SELECT MIN(first.due_at_ms) FROM outbox AS first "
        "WHERE first.merchant_id = waiting.merchant_id AND first.due_at_ms IS NOT NULL) AS due FROM waiting WHERE merchant_id IS NOT NULL) "
        "SELECT merchant_id FROM found WHERE due <= :now_ms ORDER BY due, merchant_id LIMIT :limit",
        now_ms=now_ms,
        limit=MERCHANTS_MAX,
    )
    return [row["merchant_id"] for row in rows]


_OLDEST: Final = (
    "SELECT first.id FROM outbox AS first WHERE first.merchant_id = k.merchant_id AND first.due_at_ms IS NOT NULL AND first.due_at_ms <= :now_ms "
    "ORDER BY first.due_at_ms, first.id LIMIT {} {{SKIP_LOCKED}}"
)
_TAKE: Final = "UPDATE outbox SET lease = :lease, lease_until_ms = :until_ms, due_at_ms = :until_ms"
_TAKEN: Final = "RETURNING outbox.id, merchant_id, body, sends, tries"
_TAKE_SAME: Final = (
    f"{_TAKE} WHERE id IN (SELECT due.id FROM {{ROWS k(merchant_id {{INT}})}} "
    f"JOIN outbox AS due ON due.id IN ({_OLDEST.format(':count')}) LIMIT :most) {_TAKEN}"
)
_TAKE_ALL: Final = (
    "WITH oldest AS (SELECT due.id FROM {ROWS k(merchant_id {INT}, count {INT})} "
    f"CROSS JOIN LATERAL ({_OLDEST.format('k.count')}) AS due LIMIT :most) {_TAKE} FROM oldest WHERE outbox.id = oldest.id {_TAKEN}"
)


def claim(tx: Tx, shares: Sequence[tuple[int, int]], *, most: int, lease: str, now_ms: int) -> list[Event]:
    """For each merchant at most so many of its due events, oldest due first, and `most` of all together, leased to the caller."""
    times = {"lease": lease, "until_ms": now_ms + LEASE_MS, "now_ms": now_ms}
    # Others skip what we hold. SQLite's LIMIT knows no columns: those who may have as many go together.
    if tx.dialect == "sqlite":
        of_count: defaultdict[int, list[dict[str, int]]] = defaultdict(list)
        for merchant_id, count in shares:
            of_count[count].append({"merchant_id": merchant_id})
        rows: list[Row] = []
        for count, group in of_count.items():
            rows += tx.all(_TAKE_SAME, **times, count=count, k=group, most=most - len(rows))
    else:
        rows = tx.all(_TAKE_ALL, **times, k=list(shares), most=most)
    place = {merchant_id: number for number, (merchant_id, _) in enumerate(shares)}
    return [Event(**row, lease=lease) for row in sorted(rows, key=lambda row: (place[row["merchant_id"]], row["id"]))]


def record(tx: Tx, outcomes: Sequence[Outcome], *, now_ms: int) -> int:
    """Store what became of claimed events, of those whose lease is still held. Returns how many that were."""
    rows: list[dict[str, Any]] = [
        {
            "event_id": o.event.id,
            "held": o.event.lease,
            "state": o.state,
            "result": o.result,
            "due_at_ms": o.due_at_ms,
            "ended_at_ms": None if o.due_at_ms is not None else now_ms,
            "sent": int(o.sent),
            "number": o.event.sends + 1,
            "at_ms": o.at_ms,
            "took_ms": o.took_ms,
            "status": o.status,
        }
        for o in outcomes
    ]
    # Fenced: after a takeover the other holder's result counts.
    held = tx.all(
        "UPDATE outbox SET state = r.state, sends = outbox.sends + r.sent, tries = outbox.tries + r.sent, result = r.result, "
        "due_at_ms = r.due_at_ms, ended_at_ms = r.ended_at_ms, lease = '', lease_until_ms = 0 "
        "FROM {ROWS r(event_id {INT}, held TEXT, state TEXT, result TEXT, due_at_ms {INT}, ended_at_ms {INT}, sent {INT})} "
        "WHERE outbox.id = r.event_id AND outbox.lease = r.held RETURNING id",
        r=rows,
    )
    ours = {row["id"] for row in held}
    # Every send, for the merchant's questions.
    tx.insert(
        "webhook_send(outbox_id {INT}, number {INT}, at_ms {INT}, took_ms {INT}, status {INT}, result TEXT)",
        [{**row, "outbox_id": row["event_id"]} for row in rows if row["sent"] and row["event_id"] in ours],
    )
    return len(ours)


class Outbox:
    """Writes events, and queues them again."""

    def __init__(self, database: Database, runtime: Runtime, next_ids: Callable[[int], list[int]]) -> None:
        self._database = database
        self._runtime = runtime
        self._next_ids = next_ids
        self.queued: Callable[[], None] = lambda: None

    def enqueue(self, tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
        """Events of orders that this transaction decides. Rows of id, order_id, merchant_id, body, created_at_ms."""
        # Due at once; a merchant without a URL gets it parked, with the reason, so that it can be sent when there is one.
        tx.run(
            "INSERT INTO outbox "
            "(id, order_id, merchant_id, body, state, sends, tries, result, created_at_ms, ended_at_ms, due_at_ms, lease, lease_until_ms) "
            "SELECT o.id, o.order_id, o.merchant_id, o.body, CASE WHEN known.url IS NULL THEN 'parked' ELSE 'due' END, 0, 0, "
            "CASE WHEN known.url IS NULL THEN :reason ELSE '' END, o.created_at_ms, CASE WHEN known.url IS NULL THEN o.created_at_ms END, "
            "CASE WHEN known.url IS NULL THEN NULL ELSE o.created_at_ms END, '', 0 "
            "FROM {ROWS o(id {INT}, order_id {INT}, merchant_id {INT}, body TEXT, created_at_ms {INT})} "
            "LEFT JOIN (SELECT id AS merchant, webhook_url AS url FROM merchant WHERE webhook_url <> '') AS known ON known.merchant = o.merchant_id",
            o=list(rows),
            reason=NO_URL,
        )

    def take_over(self, tx: Tx, now_ms: int) -> None:
        """What dead workers were sending is due now. Only for whoever has just taken the seat: nobody else has it any more. Leases of those
        that deliver beside a worker are left to run out.
        """
        # Nobody sends them any more, so nobody has to wait for the end of their leases.
        tx.run(
            "UPDATE outbox SET due_at_ms = :now_ms, lease = '', lease_until_ms = 0 WHERE SUBSTR(lease, 1, 1) = :seated AND due_at_ms IS NOT NULL",
            now_ms=now_ms,
            seated=SEATED,
        )

    async def sends(self, order_id: int) -> list[Row]:
        """The log of sends of one order's event: number, at_ms, took_ms, status (0: no answer), result."""
        # Oldest first; at most a schedule for each time it was queued.
        return await self._database.read(
            lambda tx: tx.all(
                "SELECT number, at_ms, took_ms, status, webhook_send.result FROM webhook_send "
                "JOIN outbox ON outbox.id = webhook_send.outbox_id WHERE outbox.order_id = :order_id ORDER BY number LIMIT 1000",
                order_id=order_id,
            )
        )

    async def resend_order(self, order_id: int) -> bool:
        """Make one order's event due again; False when it has none. One that is being sent right now is left to that."""
        now_ms = self._runtime.now_ms()

        def job(tx: Tx) -> bool:
            # A fresh schedule; the log of sends stays.
            tx.run(
                "UPDATE outbox SET state = 'due', tries = 0, ended_at_ms = NULL, due_at_ms = :now_ms, lease = '', lease_until_ms = 0 "
                "WHERE order_id = :order_id AND lease_until_ms <= :now_ms",
                now_ms=now_ms,
                order_id=order_id,
            )
            return tx.one("SELECT id FROM outbox WHERE order_id = :order_id", order_id=order_id) is not None

        found = await self._database.write("outbox.resend", job)
        self.queued()
        return found

    async def resend(self, merchant_id: int, start_ms: int, end_ms: int, failed_only: bool, transaction_type: str) -> int:  # noqa: FBT001
        """`/webhook/resend` (spec 4.12): how many events of orders decided in [start_ms, end_ms) are due again. Raises Refused.

        Failed are those that are parked or whose last send failed. Those that are being sent right now are left to that.
        """
        if transaction_type not in TYPES:
            raise Refused(Problem.INVALID_ARGUMENT, f"transaction_type is one of {', '.join(TYPES)}.")
        if end_ms - start_ms > HOUR_MS:
            raise Refused(Problem.QUERY_DURATION_TOO_MAX, "The span from start_timestamp to end_timestamp is longer than one hour.")
        await self._refuse_archived(start_ms)
        call_id, now_ms = self._next_ids(1)[0], self._runtime.now_ms()
        await self._database.write("outbox.call", lambda tx: _count_call(tx, merchant_id, call_id, now_ms))
        if transaction_type not in ("All Type", "API Withdrawal"):
            return 0
        total, after = 0, -1
        for _ in range(RESEND_BATCHES_MAX):
            again = partial(
                _again,
                merchant_id=merchant_id,
                start_ms=start_ms,
                end_ms=end_ms,
                delivered_too=not failed_only,
                after=after,
                now_ms=now_ms,
            )
            ids = await self._database.write("outbox.resend", again)
            total += len(ids)
            self.queued()
            if len(ids) < RESEND_BATCH:
                break
            after = max(ids)
        return total

    async def _refuse_archived(self, start_ms: int) -> None:
        """A span that begins before the last archive's end may have lost events to it: no count is better than one that says nothing of them."""
        row = await self._database.read(lambda tx: tx.one("SELECT MAX(before_ms) AS before_ms FROM archive"))
        if row is not None and start_ms < (row["before_ms"] or 0):
            raise Refused(
                Problem.NOT_FOUND,
                f"Events from before timestamp {row['before_ms'] // 1000} are archived and cannot be sent again; bill/info answers as ever.",
            )


def _again(tx: Tx, *, merchant_id: int, start_ms: int, end_ms: int, delivered_too: bool, after: int, now_ms: int) -> list[int]:
    # In batches, so that nobody waits long for the write lock.
    rows = tx.all(
        "UPDATE outbox SET state = 'due', tries = 0, ended_at_ms = NULL, due_at_ms = :now_ms, lease = '', lease_until_ms = 0 "
        "WHERE id IN (SELECT id FROM outbox WHERE merchant_id = :merchant_id AND created_at_ms >= :start_ms AND created_at_ms < :end_ms "
        "AND id > :after AND lease_until_ms <= :now_ms "
        "AND (state = 'parked' OR (state = 'due' AND tries > 0) OR (state = 'delivered' AND :delivered_too = 1)) "
        "ORDER BY id LIMIT :limit {FOR_UPDATE}) RETURNING id",
        merchant_id=merchant_id,
        start_ms=start_ms,
        end_ms=end_ms,
        after=after,
        delivered_too=int(delivered_too),
        now_ms=now_ms,
        limit=RESEND_BATCH,
    )
    return [row["id"] for row in rows]


def _count_call(tx: Tx, merchant_id: int, call_id: int, now_ms: int) -> None:
    # One merchant's calls are counted one after the other.
    tx.one("SELECT id FROM merchant WHERE id = :id {FOR_UPDATE}", id=merchant_id)
    # Those of the last day; older ones are of no use any more. (A call "in the future" was made before the clock stepped back.)
    tx.run("DELETE FROM resend_call WHERE merchant_id = :id AND (at_ms <= :since OR at_ms > :now_ms + 60000)", id=merchant_id,
           since=now_ms - DAY_MS, now_ms=now_ms)  # fmt: skip
    calls = tx.all("SELECT at_ms FROM resend_call WHERE merchant_id = :id ORDER BY at_ms LIMIT 100", id=merchant_id)
    if calls and calls[-1]["at_ms"] > now_ms - MINUTE_MS:
        wait_s = -((now_ms - MINUTE_MS - calls[-1]["at_ms"]) // 1000)
        raise Refused(
            Problem.REQUEST_DAILY_LIMIT, f"webhook/resend takes one call a minute; try again in {wait_s} seconds.", retry_after_s=wait_s
        )
    if len(calls) >= CALLS_A_DAY:
        wait_s = -((now_ms - DAY_MS - calls[0]["at_ms"]) // 1000)
        raise Refused(
            Problem.REQUEST_DAILY_LIMIT, f"webhook/resend takes {CALLS_A_DAY} calls a day; the next is possible in {wait_s} seconds.",
            retry_after_s=wait_s,
        )  # fmt: skip
    tx.run(
        "INSERT INTO resend_call (id, merchant_id, at_ms) VALUES (:call_id, :id, :now_ms)", call_id=call_id, id=merchant_id, now_ms=now_ms
    )
