"""One worker a database: whoever takes the seat draws a number, and a worker whose number is not there any more commits nothing.

A home's lock keeps two processes off one home; this keeps two homes, or two machines, off one database. A worker that was put to sleep
past its lease wakes beside its successor: each of its transactions makes sure of the seat first and fails, and the process ends. Bytes that
it had loaded before may still go to a node; they are those that are stored. Times are only for patience: safety rests on the number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from penstock.db import CommitUnknown, Database, DatabaseUnavailable, Row, Tx
from penstock.runtime import Runtime

log = structlog.get_logger()

BEAT_S: Final = 2.0
LEASE_S: Final = 6.0
"""A worker whose beat has not moved for so long, by the watcher's own clock, is taken for dead."""
LOOK_S: Final = 0.5


class SeatLost(Exception):
    """Another process works on this database now."""


class Seat:
    """The seat as one process sees it. `name` tells homes apart: a start on the same home need not wait for the beat to stop."""

    def __init__(self, runtime: Runtime, database: Database, name: str, next_ids: Callable[[int], list[int]]) -> None:
        self._runtime = runtime
        self._database = database
        self._name = name
        self._next_ids = next_ids
        self._number = 0
        self.waits_for = ""
        """Who works while this process waits for its turn; empty when it does not wait."""

    async def take_if_free(self) -> bool:
        """Be the worker if nobody is, or only a process of this home that is gone; whether we are. Fenced from here on, as after `take`."""
        seen = await self._database.read(_read)
        if self._is_free(seen) and await self._take_from(seen):
            return True
        self._wait_for(seen["holder"])
        return False

    async def take(self) -> None:
        """Wait until nobody else works, then be the worker. From here on every transaction of this process is fenced."""
        seen, since = await self._database.read(_read), self._runtime.monotonic()
        while True:
            is_free = self._is_free(seen) or self._runtime.monotonic() - since >= LEASE_S
            if is_free and await self._take_from(seen):
                return
            self._wait_for(seen["holder"])
            await self._runtime.sleep(LOOK_S)
            now = await self._database.read(_read)
            if now != seen:
                seen, since = now, self._runtime.monotonic()

    def _is_free(self, seen: Row) -> bool:
        return seen["holder"] in {"", self._name}

    def _wait_for(self, holder: str) -> None:
        if self.waits_for != holder:
            log.warning("seat.waiting", holder=holder)
        self.waits_for = holder

    async def _take_from(self, seen: Row) -> bool:
        (number,) = self._next_ids(1)

        def job(tx: Tx) -> int:
            # A new key waits for every transaction of the one before that has made sure of the old one.
            return tx.run(
                "UPDATE seat SET number = :number, holder = :holder, beat = beat + 1 WHERE number = :before AND beat = :beat",
                number=number,
                holder=self._name,
                before=seen["number"],
                beat=seen["beat"],
            )

        if not await self._database.write("seat.take", job):
            return False
        self._number, self.waits_for = number, ""
        self._database.fence = self._make_sure
        log.info("seat.taken", before=seen["holder"])
        return True

    def _make_sure(self, tx: Tx) -> None:
        # Shared with each other and with the beat; whoever takes the seat waits for them.
        if tx.one("SELECT number FROM seat WHERE number = :number {FOR_KEY_SHARE}", number=self._number) is None:
            raise SeatLost(
                "another process works on this database now; this one has stopped, and waits for its turn when it is started again"
            )

    async def keep(self) -> None:
        """Say for ever that we live. Raises SeatLost."""
        while True:
            await self._runtime.sleep(BEAT_S)
            try:
                await self._database.write("seat.beat", lambda tx: tx.run("UPDATE seat SET beat = beat + 1"))
            except (DatabaseUnavailable, CommitUnknown) as error:
                log.warning("seat.beat.later", error=type(error).__name__)

    async def release(self) -> None:
        """After the last transaction of the rooms: the next one need not wait. Raises SeatLost, or what the database raises."""
        if self._number:
            await self._database.write("seat.release", lambda tx: tx.run("UPDATE seat SET holder = ''"))


def _read(tx: Tx) -> Row:
    row = tx.one("SELECT number, holder, beat FROM seat")
    if row is None:
        raise SeatLost("the database has no seat for a worker: was the row deleted?")
    return row
