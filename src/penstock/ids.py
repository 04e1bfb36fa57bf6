"""Ids that never repeat: snowflakes drawn under a worker number that is leased together with its last millisecond.

The row of a worker number stores `last_ms`, the horizon: no id of this number is ever drawn in a later millisecond than that. Whoever takes
the number over begins after it. So uniqueness rests on the database alone, never on a clock: a process that was stopped for an
hour, or whose clock stepped, may draw what is left below its own horizon and nothing else.

A crash leaves the horizon in the future; the next process takes another number, so that ids do not run ahead of the clock.
"""

from __future__ import annotations

import threading
from typing import Any, Final, NamedTuple, Self

import structlog

from penstock.core.snowflake import EPOCH_MS, SEQUENCES, WORKERS, compose
from penstock.db import CommitUnknown, Conflict, Database, DatabaseUnavailable, Tx
from penstock.runtime import Runtime

log = structlog.get_logger()

LEASE_MS: Final = 30_000
"""How far ahead the horizon is set, and how long others leave the number alone."""
RENEW_S: Final = 10.0
_TICK_S: Final = 1.0
_TRIES_MAX: Final = 40


class LeaseLost(Exception):
    """No worker number is held now, or the horizon has passed: no id may be drawn until `keep` has renewed the lease."""


class NoWorkerFree(Exception):
    """All 1,024 worker numbers are leased, or every try to take one met somebody else."""


class _Held(NamedTuple):
    """A leased number; `holder` is unique to this lease."""

    worker: int
    holder: str
    horizon_ms: int


class IdSource:
    """Draws ids for one process. `next` may be called from any thread; everything else belongs to the event loop."""

    def __init__(self, runtime: Runtime, database: Database, holder: str) -> None:
        self._runtime = runtime
        self._database = database
        self._name = holder
        self._lock = threading.Lock()
        self._held: _Held | None = None
        self._last_ms = EPOCH_MS
        self._sequence = SEQUENCES - 1
        self._renewed_at = 0.0
        self._starved = False
        self._released = False

    @classmethod
    async def lease(cls, runtime: Runtime, database: Database, holder: str) -> Self:
        """Take a worker number; `holder` says to people who has it. Raises NoWorkerFree or DatabaseUnavailable."""
        source = cls(runtime, database, holder)
        await source._take()
        return source

    @property
    def worker(self) -> int:
        """The number that is held now. Raises LeaseLost."""
        if self._held is None:
            raise LeaseLost("this process holds no worker number now")
        return self._held.worker

    def next(self, n: int = 1) -> list[int]:
        """`n` ids, each greater than every earlier one of this source. Raises LeaseLost, and then none was drawn."""
        with self._lock:
            held = self._held
            if held is None:
                self._starved = True
                raise LeaseLost("this process holds no worker number now")
            # Clock behind: go on counting in the last millisecond. More than 4,096 in one: borrow the next.
            now_ms = self._runtime.now_ms()
            at_ms, sequence = (now_ms, 0) if now_ms > self._last_ms else (self._last_ms, self._sequence + 1)
            end_ms, end_sequence = divmod(sequence + n - 1, SEQUENCES)
            if at_ms + end_ms > held.horizon_ms:
                self._starved = True
                raise LeaseLost("the lease of the worker number has run out")
            if n:
                self._last_ms, self._sequence = at_ms + end_ms, end_sequence
            if not end_ms:
                first = compose(at_ms, held.worker, sequence)
                return list(range(first, first + n))  # the sequence is the last digits of an id
            return [compose(at_ms + i // SEQUENCES, held.worker, i % SEQUENCES) for i in range(sequence, sequence + n)]

    async def keep(self) -> None:
        """Renew for ever; take another number when this one was lost. Ends after `release`."""
        while not self._released:
            await self._runtime.sleep(_TICK_S)
            try:
                if self._starved or self._runtime.monotonic() - self._renewed_at >= RENEW_S:
                    await self.renew()
            except (DatabaseUnavailable, CommitUnknown) as error:
                log.warning("ids.renew.later", error=type(error).__name__)
            except Exception as error:  # noqa: BLE001  without ids nothing is accepted: this loop must go on
                log.error("ids.renew.failed", error=type(error).__name__)  # noqa: TRY400

    async def renew(self) -> None:
        """Move the horizon ahead, or take another number. Raises DatabaseUnavailable, CommitUnknown or NoWorkerFree."""
        held, now_ms = self._held, self._runtime.now_ms()
        if held is not None:
            # Never back: until the commit is known, ids are drawn up to the old horizon.
            horizon_ms = max(held.horizon_ms, now_ms + LEASE_MS, self._last_ms + LEASE_MS)
            if await self._database.write("ids.renew", lambda tx: _renew(tx, held, now_ms + LEASE_MS, horizon_ms)):
                self._hold(held._replace(horizon_ms=horizon_ms))
                return
            log.warning("ids.lease.lost", worker=held.worker)
            with self._lock:
                self._held = None
        if not self._released:
            await self._take()

    async def release(self) -> None:
        """Give the number back with the true last millisecond. No id may be drawn after that."""
        self._released = True
        with self._lock:
            held, self._held = self._held, None
        if held is not None:
            await self._database.write("ids.release", lambda tx: _renew(tx, held, 0, self._last_ms))

    async def _take(self) -> None:
        for _ in range(_TRIES_MAX):
            holder = f"{self._name}#{self._runtime.random_bytes(8).hex()}"
            try:
                taken = await self._database.write("ids.lease", lambda tx, holder=holder: self._take_one(tx, holder))  # type: ignore[misc]
            except Conflict:
                continue
            except CommitUnknown:
                log.warning("ids.lease.unknown")  # if it was committed, nobody holds that number until it runs out
                continue
            if taken is not None:
                self._begin(*taken)
                return
        raise NoWorkerFree("no worker number could be leased: too many processes, or they came and went too fast")

    def _take_one(self, tx: Tx, holder: str) -> tuple[_Held, int] | None:
        """A lease and the last millisecond of the number; None when somebody else was faster."""
        now_ms = self._runtime.now_ms()
        # At most 1,024 rows: who has which number, and how far its ids may have come.
        rows = {row["worker"]: row for row in tx.all("SELECT worker, holder, leased_until_ms, last_ms FROM worker_lease")}
        worker = self._choose(rows, now_ms)
        before_ms = max(EPOCH_MS, rows[worker]["last_ms"] if worker in rows else 0, self._last_ms)
        horizon_ms = max(now_ms, before_ms) + LEASE_MS
        values = {"worker": worker, "holder": holder, "until_ms": now_ms + LEASE_MS, "horizon_ms": horizon_ms}
        if worker not in rows:
            # A number that was never used. Two that choose the same one: the second meets a Conflict and chooses again.
            done = tx.run(
                "INSERT INTO worker_lease (worker, holder, leased_until_ms, last_ms) VALUES (:worker, :holder, :until_ms, :horizon_ms)",
                **values,
            )
        else:
            # Take over a number whose lease has run out, if nobody did since it was read.
            done = tx.run(
                "UPDATE worker_lease SET holder = :holder, leased_until_ms = :until_ms, last_ms = :horizon_ms "
                "WHERE worker = :worker AND holder = :holder_before AND leased_until_ms = :until_ms_before AND last_ms = :last_ms_before",
                holder_before=rows[worker]["holder"],
                until_ms_before=rows[worker]["leased_until_ms"],
                last_ms_before=rows[worker]["last_ms"],
                **values,
            )
        return (_Held(worker, holder, horizon_ms), before_ms) if done else None

    def _choose(self, rows: dict[int, Any], now_ms: int) -> int:
        """A random one of the numbers that are free and in the past; else the free one that is least ahead of the clock."""
        free = [worker for worker in range(WORKERS) if worker not in rows or rows[worker]["leased_until_ms"] <= now_ms]
        past = [worker for worker in free if worker not in rows or rows[worker]["last_ms"] < now_ms]
        if past:
            return past[self._runtime.random_below(len(past))]
        if free:
            return min(free, key=lambda worker: (rows[worker]["last_ms"], worker))
        raise NoWorkerFree("all 1,024 worker numbers are leased; one is free again when a process stops or 30 s after it crashed")

    def _begin(self, held: _Held, before_ms: int) -> None:
        with self._lock:
            self._last_ms, self._sequence = max(self._last_ms, before_ms), SEQUENCES - 1
        self._hold(held)
        log.info("ids.lease.taken", worker=held.worker)

    def _hold(self, held: _Held) -> None:
        with self._lock:
            self._held = None if self._released else held
            self._starved = False
        self._renewed_at = self._runtime.monotonic()


def _renew(tx: Tx, held: _Held, until_ms: int, last_ms: int) -> int:
    # Only the holder of this very lease may move its horizon.
    return tx.run(
        "UPDATE worker_lease SET leased_until_ms = :until_ms, last_ms = :last_ms WHERE worker = :worker AND holder = :holder",
        until_ms=until_ms,
        last_ms=last_ms,
        worker=held.worker,
        holder=held.holder,
    )
