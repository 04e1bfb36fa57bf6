"""I16: nothing waits for long without a reason that somebody sees."""

from __future__ import annotations

from typing import Final

from penstock.db import Tx
from penstock.ledger.report import Report

OVERDUE_MS: Final = 10 * 60_000
"""How long after its time a due row may still be there: workers take them up within seconds."""
UNSEEN_MS: Final = 60 * 60_000
"""How long an attempt that was sent may go without any answer of a node."""
UNHELD_MS: Final = 24 * 60 * 60_000
"""How long an order may be under way before somebody should ask why."""
_OPEN: Final = "orders.state NOT IN ('succeeded', 'failed')"
"""In the words of the partial index: SQLite does not see that a state is neither of them."""
HALTED: Final = "halted"
"""The mark of a finding that only says what an earlier one has done."""


def check(tx: Tx, report: Report, now_ms: int) -> None:
    """Rows that are long past their time."""
    for table, what in (("orders", "order"), ("attempt", "attempt"), ("outbox", "event")):
        # The partial indexes on due_at_ms have only what is due at all.
        row = tx.one(
            f"SELECT COUNT(*) AS n, MIN(due_at_ms) AS first FROM {table} WHERE due_at_ms IS NOT NULL AND due_at_ms < :before",
            before=now_ms - OVERDUE_MS,
        )
        if row is not None and row["n"]:
            minutes = (now_ms - row["first"]) // 60_000
            text = f"{row['n']} {what}{'s are' if row['n'] > 1 else ' is'} overdue, the oldest for {minutes} minutes: does a worker run?"
            report.add("I16", text, mark=f"overdue {table}")
    # Sent, still alive, and no node has said anything about them.
    row = tx.one(
        "SELECT COUNT(*) AS n FROM attempt WHERE state IN ('bound', 'signed', 'sent', 'included') AND created_at_ms < :before "
        "AND (seen_at_ms IS NULL OR seen_at_ms < :before)",
        before=now_ms - UNSEEN_MS,
    )
    if row is not None and row["n"]:
        report.add("I16", f"nothing was seen of {row['n']} attempts under way for an hour", mark="attempts unseen")
    # Neither held with a reason nor before a person, and yet not over: their last step is long ago.
    rows = tx.all(
        f"SELECT orders.id, orders.state FROM orders WHERE {_OPEN} AND orders.state IN ('sending', 'confirming') AND NOT EXISTS "
        "(SELECT 1 FROM order_history WHERE order_history.order_id = orders.id AND order_history.at_ms >= :before) ORDER BY orders.id LIMIT 100",
        before=now_ms - UNHELD_MS,
    )
    for found in rows:
        report.add("I16", f"order {found['id']} is {found['state']} for more than a day", mark=f"order {found['id']}")
    # Nobody has to act on them and they are not over: they would wait for ever.
    for found in tx.all(
        f"SELECT orders.id, orders.state FROM orders WHERE {_OPEN} AND orders.state IN ('accepted', 'held') AND orders.due_at_ms IS NULL "
        "ORDER BY orders.id LIMIT 100"
    ):
        report.add("I16", f"order {found['id']} is {found['state']} and nobody will look at it", mark=f"order {found['id']}")
    # Its network may go on, and then nothing else would call for the person that it waits for.
    for found in tx.all(f"SELECT id FROM orders WHERE {_OPEN} AND state = 'quarantined' ORDER BY id LIMIT 100"):
        report.add("I16", f"order {found['id']} waits for a person: `penstock order decide`", mark=f"order {found['id']}")


def check_halted(tx: Tx, report: Report) -> None:
    """Lanes that stand until a person resumes them."""
    for row in tx.all("SELECT DISTINCT chain, halted FROM lane WHERE halted <> '' ORDER BY chain"):
        report.add("I16", f"nothing is sent on {row['chain']}: {row['halted']}", chain=row["chain"], mark=HALTED)
