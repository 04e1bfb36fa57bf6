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

    def __init__(self, runtime: Runtime, database: Database, *, event_ms: int, lease_ms: int) -> None:
        """`event_ms`: nothing puts an event off for longer; `lease_ms`: how long it is left to whoever sends it."""
        self._runtime = runtime
        self._database = database
        self._event_ms = event_ms
        self._lease_ms = lease_ms
        self._ahead_ms = self._look()

    def _look(self) -> int:
        return self._runtime.now_ms() - int(self._runtime.monotonic() * 1000)

    async def begin(self) -> None:
        """Once, before the pumps: the clock may have been set back while nobody ran."""
        now_ms = self._runtime.now_ms()
        found = await self._database.write("clock", lambda tx: self._far(tx, now_ms))
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

    def _far(self, tx: Tx, now_ms: int) -> int:
        # Due again now, whoever put it off.
        found = sum(
            tx.run(f"UPDATE {table} SET due_at_ms = :now_ms WHERE due_at_ms > :far_ms", now_ms=now_ms, far_ms=now_ms + FAR_MS)
            for table in ("orders", "attempt")
        )
        # A day is not far for an event. Of those that somebody sends, the lease tells it: nothing else ends that of one who delivers beside
        # a worker, and until it is over no resend takes the event.
        return found + tx.run(
            "UPDATE outbox SET due_at_ms = :now_ms, lease = '', lease_until_ms = 0 "
            "WHERE due_at_ms IS NOT NULL AND (due_at_ms > :far_ms OR lease_until_ms > :held_ms)",
            now_ms=now_ms,
            far_ms=now_ms + self._event_ms,
            held_ms=now_ms + self._lease_ms + STEP_MS,
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
