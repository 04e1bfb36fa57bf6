"""The generic worker loop: claim what is due, handle it, back off when nothing is or when the database is away.

A job's rows are their own queue: a claim leases them, a lease that runs out makes them visible again, and every later write
checks the lease. So a pump may die anywhere and another one goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

import structlog

from penstock.db import CommitUnknown, DatabaseUnavailable
from penstock.runtime import Runtime

log = structlog.get_logger()

Item = TypeVar("Item")

IDLE_S: Final = 0.25
"""How often rows that nobody announced are looked for: those of other processes and commands."""
BACK_OFF_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Job(Protocol[Item]):
    """What a pump turns."""

    async def claim(self, limit: int) -> Sequence[Item]:
        """Rows that are due, leased to the caller."""
        ...

    async def handle(self, items: Sequence[Item], /) -> None:
        """Do what is due. May run twice for one row."""
        ...


async def every(seconds: float, turn: Callable[[], Awaitable[object]], runtime: Runtime) -> None:
    """Do `turn` again and again. A failure is logged and the next turn comes in its time: nothing else would tell that a loop is gone."""
    while True:
        try:
            await turn()
        except Exception as error:  # noqa: BLE001  see above
            log.error("loop.failed", turn=getattr(turn, "__qualname__", "turn"), error=type(error).__name__, detail=str(error)[:200])  # noqa: TRY400
        await runtime.sleep(seconds)


class Pump:
    """One loop over one job."""

    def __init__(self, name: str, job: Job[Any], runtime: Runtime, *, limit: int, idle_s: float = IDLE_S) -> None:
        self._name = name
        self._job = job
        self._runtime = runtime
        self._limit = limit
        self._idle_s = idle_s
        self._woken = asyncio.Event()
        self._stopping = False
        self._stopped = asyncio.Event()
        self.failed: Callable[[BaseException], None] = lambda error: None  # noqa: ARG005  told of each failure, for metrics

    def wake(self) -> None:
        """There is work: do not wait for the next look."""
        self._woken.set()

    async def stop(self) -> None:
        """Claim nothing more; returns when the running batch is done."""
        self._stopping = True
        self._woken.set()
        await self._stopped.wait()

    async def run(self) -> None:
        """Turn until stopped. Nothing that a batch raises ends the loop: the rows come back when their lease is over."""
        failures = 0
        try:
            while not self._stopping:
                self._woken.clear()
                try:
                    busy = await self._turn()
                    failures = 0
                except Exception as error:  # noqa: BLE001  a pump outlives every failure, and says so
                    failures += 1
                    self.failed(error)
                    away = isinstance(error, DatabaseUnavailable | CommitUnknown)
                    log.error("pump.failed", pump=self._name, error=type(error).__name__, detail=str(error)[:200], database_away=away)  # noqa: TRY400
                    await self._wait(BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1], deaf=True)
                    continue
                if not busy:
                    await self._wait(self._idle_s)
        finally:
            self._stopped.set()

    async def _turn(self) -> bool:
        items = await self._job.claim(self._limit)
        if items:
            await self._job.handle(items)
        return len(items) > 0

    async def _wait(self, seconds: float, *, deaf: bool = False) -> None:
        """Until woken or the time is over; deaf to calls when backing off, but not to `stop`."""
        if self._stopping or (self._woken.is_set() and not deaf):
            return
        try:
            async with asyncio.timeout(seconds):
                await self._woken.wait()
                if deaf and not self._stopping:
                    await self._runtime.sleep(seconds)
        except TimeoutError:
            return
