"""A hot standby that answers for orders whose last word is spoken, so that callers who ask for the past do not weigh on the primary.

It may be late by any time, so it is asked for nothing that could still change: what it shows of such an order is what the primary shows,
or it does not know the order in that state yet (docs/adr/0005-many-processes.md). Whatever is wrong with it, the primary answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from penstock.db import Database, DatabaseRefused, DatabaseUnavailable, Row, StandbyDatabase, Tx

T = TypeVar("T")
log = structlog.get_logger()

LOOK_S: Final = 5.0
"""From one look at the standby to the next; a fault keeps it out of use until a look finds none."""
ANSWER_S: Final = 1.0
"""After which a caller goes to the primary."""


class Replica:
    """The standby, and whether it may be asked now. `fault` says why not, `late` that it hangs behind; both are for people."""

    def __init__(self, primary: Database, standby: StandbyDatabase) -> None:
        self._primary = primary
        self._standby = standby
        self._usable = False
        self._written: int | None = None
        self.fault = ""
        self.late = ""

    async def read(self, job: Callable[[Tx], T]) -> T | None:
        """What the job finds on the standby; None where it is not to be asked, or gives no answer."""
        if not self._usable:
            return None
        try:
            return await self._within(job)
        except (DatabaseUnavailable, DatabaseRefused, TimeoutError) as error:
            self._turn(_words(error))
        except Exception as error:  # noqa: BLE001  what it refuses of this caller, or a column that it lacks yet, says nothing of the next one
            log.warning("replica.refused", error=type(error).__name__)
        return None

    async def look(self) -> None:
        """Whether it is a standby of our database, and how far it is. Raises DatabaseUnavailable where the primary does not say."""
        try:
            there = await self._within(_place)
        except Exception as error:  # noqa: BLE001  also a right that its user lacks: whatever it is keeps it out of use
            self._turn(_words(error))
            return
        here = await self._primary.read(_place)  # after the standby: a true one cannot be ahead of this
        self._turn(_stranger(here, there))
        is_late = self._written is not None and there["wal_bytes"] < self._written
        self.late = f"it lacks what was written more than {LOOK_S:g} seconds ago" if is_late and not self.fault else ""
        self._written = here["wal_bytes"]

    async def _within(self, job: Callable[[Tx], T]) -> T:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self._standby.read(job)
        except TimeoutError:
            self._standby.give_up()
            raise

    def _turn(self, fault: str) -> None:
        if fault != self.fault:
            log.warning("replica.turned", fault=fault)
        self.fault, self._usable = fault, not fault


def _place(tx: Tx) -> Row:
    # Which server this is, on which course of its history, and how far: what it wrote, or what it has replayed.
    row = tx.one(
        "SELECT pg_is_in_recovery() AS is_standby, "
        "CAST((SELECT oid FROM pg_database WHERE datname = current_database()) AS BIGINT) AS number, "  # another one once it was made anew
        "(SELECT system_identifier FROM pg_control_system()) AS system, (SELECT timeline_id FROM pg_control_checkpoint()) AS timeline, "
        "CAST((CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END) - '0/0' AS BIGINT) AS wal_bytes"
    )
    if row is None:
        raise DatabaseUnavailable("it did not say what it is")
    return row


def _stranger(here: Row, there: Row) -> str:
    """Why the standby is not ours, "" where it is."""
    if not there["is_standby"]:
        return "it is no standby: it takes writes of its own"
    if (there["system"], there["number"]) != (here["system"], here["number"]):
        return "it is a standby of another database"
    if there["timeline"] != here["timeline"] or there["wal_bytes"] > here["wal_bytes"]:
        return "it follows another past than the database's, which was restored or promoted since: make the standby anew"
    return ""


def _words(error: Exception) -> str:
    if isinstance(error, DatabaseRefused):
        return str(error)
    return f"it does not answer ({type(error).__name__})"
