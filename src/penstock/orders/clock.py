"""The wall clock, watched: a step is told, and what was put off until a moment that a clock gone wrong had named comes when it should.

Moments in the database are wall time, because they outlive the process. A clock that was an hour ahead for a while leaves rows that are due in
an hour; without this nobody would look at them, or at what they move on the chain, for that long.
"""

from __future__ import annotations

from typing import Final

import structlog

from penstock.db import Database, Tx
from penstock.runtime import Runtime

log = structlog.get_logger()

LOOK_S: Final = 1.0
STEP_MS: Final = 2_000
"""A smaller step is the business of leases and polls."""
FAR_MS: Final = 3_600_000
"""Nothing puts an order or an attempt off for so long, so at a start it was a clock."""


class Clock:
    """One process's view of the wall clock against the one that only rises."""

    def __init__(self, runtime: Runtime, database: Database) -> None:
        self._runtime = runtime
        self._database = database
        self._ahead_ms = self._look()

    def _look(self) -> int:
        return self._runtime.now_ms() - int(self._runtime.monotonic() * 1000)

    async def begin(self) -> None:
        """Once, before the pumps: the clock may have been set back while nobody ran."""
        now_ms = self._runtime.now_ms()
        found = await self._database.write("clock", lambda tx: _far(tx, now_ms))
        if found:
            log.error("clock.far", rows=found)

    async def look(self) -> None:
        """Tell of a step; after one back, bring forward by as much what waits. What comes too early only looks once more."""
        ahead_ms = self._look()
        by_ms = ahead_ms - self._ahead_ms
        if abs(by_ms) < STEP_MS:
            return
        log.error("clock.stepped", by_ms=by_ms)
        if by_ms < 0:
            now_ms = self._runtime.now_ms()
            await self._database.write("clock", lambda tx: _earlier(tx, -by_ms, now_ms))
        self._ahead_ms = ahead_ms


def _far(tx: Tx, now_ms: int) -> int:
    # Due again now, whoever put it off.
    return sum(
        tx.run(f"UPDATE {table} SET due_at_ms = :now_ms WHERE due_at_ms > :far_ms", now_ms=now_ms, far_ms=now_ms + FAR_MS)
        for table in ("orders", "attempt")
    )


def _earlier(tx: Tx, by_ms: int, now_ms: int) -> None:
    for table in ("orders", "attempt", "outbox"):
        # By as much as the clock went back, and never before now: their order stays.
        tx.run(
            f"UPDATE {table} SET due_at_ms = CASE WHEN due_at_ms - :by_ms > :now_ms THEN due_at_ms - :by_ms ELSE :now_ms END "
            "WHERE due_at_ms > :now_ms",
            by_ms=by_ms,
            now_ms=now_ms,
        )
