"""I15, I16: what the database itself has to refuse is still there: triggers that keep rows from being edited, and the seat of the one worker.

Both are alerts. Without a trigger an edit is possible but not hidden: the hash chains tell of it, and a reading that finds one says so by
itself. Without the seat no worker commits anything, so nothing goes wrong, and nothing goes on either.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from penstock.db import Tx
from penstock.ledger.report import Report
from penstock.sql import refusals

TRIGGERS: Final = "append-only"
"""The mark of the finding about them."""
_PRESENT: Final[Mapping[str, str]] = {
    "sqlite": "SELECT name, sql, '' AS source FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname AS name, pg_get_triggerdef(pg_trigger.oid, true) AS sql, prosrc AS source FROM pg_trigger "
    "JOIN pg_proc ON pg_proc.oid = tgfoid WHERE tgenabled IN ('O', 'A')",
}
"""Those that act, as they were made: one that is disabled or whose function says something else is as good as gone."""


def check(tx: Tx, report: Report) -> None:
    """Name what is gone or was exchanged."""
    present = {row["name"]: (row["sql"], row["source"]) for row in tx.all(_PRESENT[tx.dialect])}
    gone = sorted(name for name, made in refusals(tx.dialect).items() if present.get(name) != made)
    if gone:
        report.add(
            "I15",
            f"nothing keeps rows from being edited where these triggers of migrations 0007 and 0010 were: {', '.join(gone)}; find out who took them "
            "away, read everything with --verify-chain, and make them again",
            mark=TRIGGERS,
        )
    if tx.one("SELECT number FROM seat") is None:
        report.add(
            "I16", "the row of the table seat is gone, and without it no worker works: INSERT INTO seat VALUES (0, 1, '', 0)", mark="seat"
        )
