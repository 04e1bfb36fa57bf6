"""Events wait here from the transaction that decided the order until the merchant says `success`, or until they are parked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from penstock.core.errors import Problem, Refused
from penstock.db import Database, Tx
from penstock.runtime import Runtime

HOUR_MS: Final = 3_600_000
MINUTE_MS: Final = 60_000
DAY_MS: Final = 86_400_000
CALLS_A_DAY: Final = 25
TYPES: Final = frozenset({"All Type", "Direct Deposit", "API Deposit", "Invoice", "API Withdrawal", "Refund"})
NO_URL: Final = "the merchant has no webhook URL"


class Outbox:
    """Writes rows of `outbox`; delivery reads them."""

    def __init__(self, database: Database, runtime: Runtime, next_ids: Callable[[int], list[int]]) -> None:
        self._database = database
        self._runtime = runtime
        self._next_ids = next_ids
        self.queued: Callable[[], None] = lambda: None

    def enqueue(self, tx: Tx, rows: Sequence[dict[str, Any]]) -> None:
        """Events of orders that this transaction decides. Rows of id, order_id, merchant_id, body, created_at_ms."""
        # Due at once; a merchant without a URL gets it parked, with the reason, so that it can be sent when there is one.
        tx.run(
            "INSERT INTO outbox (id, order_id, merchant_id, body, state, sends, result, created_at_ms, ended_at_ms, due_at_ms, lease, lease_until_ms) "
            "SELECT o.id, o.order_id, o.merchant_id, o.body, CASE WHEN known.url IS NULL THEN 'parked' ELSE 'due' END, 0, "
            "CASE WHEN known.url IS NULL THEN :reason ELSE '' END, o.created_at_ms, CASE WHEN known.url IS NULL THEN o.created_at_ms END, "
            "CASE WHEN known.url IS NULL THEN NULL ELSE o.created_at_ms END, '', 0 "
            "FROM {ROWS o(id {INT}, order_id {INT}, merchant_id {INT}, body TEXT, created_at_ms {INT})} "
            "LEFT JOIN (SELECT id AS merchant, webhook_url AS url FROM merchant WHERE webhook_url <> '') AS known ON known.merchant = o.merchant_id",
            o=list(rows),
            reason=NO_URL,
        )

    def take_over(self, tx: Tx, now_ms: int) -> None:
        """What a dead process was sending is due now. Only for the one process that can be sure to be alone."""
        tx.run("UPDATE outbox SET due_at_ms = :now_ms, lease = '' WHERE lease <> '' AND due_at_ms IS NOT NULL", now_ms=now_ms)

    async def resend_order(self, order_id: int) -> bool:
        """Make one order's event due again; False when it has none."""
        now_ms = self._runtime.now_ms()
        sent = await self._database.write("outbox.resend", lambda tx: _again(tx, [order_id], now_ms))
        self.queued()
        return sent == 1

    async def resend(self, merchant_id: int, start_ms: int, end_ms: int, failed_only: bool, transaction_type: str) -> int:  # noqa: FBT001
        """`/webhook/resend` (spec 4.12): how many events of [start_ms, end_ms) are due again. Raises Refused."""
        if transaction_type not in TYPES:
            raise Refused(Problem.INVALID_ARGUMENT, f"transaction_type is one of {', '.join(sorted(TYPES))}.")
        if end_ms - start_ms > HOUR_MS:
            raise Refused(Problem.QUERY_DURATION_TOO_MAX, "The span from start_timestamp to end_timestamp is longer than one hour.")
        now_ms = self._runtime.now_ms()
        call_id = self._next_ids(1)[0]

        def job(tx: Tx) -> int:
            self._count_call(tx, merchant_id, call_id, now_ms)
            if transaction_type not in ("All Type", "API Withdrawal"):
                return 0
            # Decided in the span; those under way are not touched.
            rows = tx.all(
                "SELECT order_id FROM outbox WHERE merchant_id = :merchant_id AND created_at_ms >= :start_ms AND created_at_ms < :end_ms "
                "AND (state = 'parked' OR (state = 'due' AND sends > 0) OR (state = 'delivered' AND :everything = 1))",
                merchant_id=merchant_id,
                start_ms=start_ms,
                end_ms=end_ms,
                everything=int(not failed_only),
            )
            return _again(tx, [row["order_id"] for row in rows], now_ms)

        count = await self._database.write("outbox.resend", job)
        self.queued()
        return count

    def _count_call(self, tx: Tx, merchant_id: int, call_id: int, now_ms: int) -> None:
        # One merchant's calls are counted one after the other.
        tx.one("SELECT id FROM merchant WHERE id = :id {FOR_UPDATE}", id=merchant_id)
        calls = tx.all(
            "SELECT at_ms FROM resend_call WHERE merchant_id = :merchant_id AND at_ms > :since",
            merchant_id=merchant_id,
            since=now_ms - DAY_MS,
        )
        if any(call["at_ms"] > now_ms - MINUTE_MS for call in calls):
            raise Refused(Problem.REQUEST_DAILY_LIMIT, "webhook/resend takes one call a minute; try again in a minute.")
        if len(calls) >= CALLS_A_DAY:
            raise Refused(Problem.REQUEST_DAILY_LIMIT, f"webhook/resend takes {CALLS_A_DAY} calls a day; try again tomorrow.")
        tx.run(
            "INSERT INTO resend_call (id, merchant_id, at_ms) VALUES (:id, :merchant_id, :at_ms)",
            id=call_id,
            merchant_id=merchant_id,
            at_ms=now_ms,
        )


def _again(tx: Tx, order_ids: Sequence[int], now_ms: int) -> int:
    # A fresh schedule; the log of sends stays.
    return tx.run(
        "UPDATE outbox SET state = 'due', sends = 0, result = '', ended_at_ms = NULL, due_at_ms = :now_ms, lease = '', lease_until_ms = 0 "
        "WHERE order_id IN (SELECT k.order_id FROM {ROWS k(order_id {INT})})",
        now_ms=now_ms,
        k=[{"order_id": order_id} for order_id in order_ids],
    )
