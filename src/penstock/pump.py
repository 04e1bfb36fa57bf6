"""The generic worker loop: claim what is due, handle it, claim again; rest when nothing is due, back off when something fails.

Where several processes may claim (webhooks), a claim writes a lease token and `lease_until_ms` into the rows it takes and makes them due again
at that moment, and every later write checks `lease = :lease`. Where one alone has the seat (orders, attempts), it remembers what it has in hand
and writes nothing. Either way what a crash left behind comes back by itself, and who slept over it changes nothing any more (fencing). The loop
itself never ends before `stop`.
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
T = TypeVar("T")

IDLE_S: Final = 0.25
"""How often rows that nobody announced are looked for: those of other processes and commands."""
BACK_OFF_S: Final = 0.1
BACK_OFF_S_MAX: Final = 5.0
START_WAITS_S: Final = (0.5, 1.0, 2.0, 4.0, 8.0)


class Job(Protocol[Item]):
    """One kind of rows that become due."""

    async def claim(self, limit: int) -> Sequence[Item]:
        """At most `limit` due rows, for the caller alone; empty when nothing is due."""
        ...

    async def handle(self, items: Sequence[Item], /) -> None:
        """Do the work. May run twice for a row; what is not done comes back after a while."""
        ...


async def every(seconds: float, turn: Callable[[], Awaitable[object]], runtime: Runtime) -> None:
    """Do `turn` again and again. A failure is logged and the next turn comes in its time: nothing else would tell that a loop is gone."""
    while True:
        try:
            await turn()
        except Exception as error:  # noqa: BLE001  see above
            log.error("loop.failed", turn=getattr(turn, "__qualname__", "turn"), error=type(error).__name__, detail=str(error)[:200])  # noqa: TRY400
        await runtime.sleep(seconds)


async def begun(step: str, work: Callable[[], Awaitable[T]], runtime: Runtime) -> T:
    """A step of a start, which nobody else would repeat: done again while the database is away, or keeps to itself what became of a COMMIT.
    It has to bear being done twice. Raises DatabaseUnavailable when that lasts.
    """
    for seconds in START_WAITS_S:
        try:
            return await work()
        except (DatabaseUnavailable, CommitUnknown) as error:
            log.warning("start.again", step=step, error=type(error).__name__, detail=str(error)[:200], seconds=seconds)
            await runtime.sleep(seconds)
    try:
        return await work()
    except CommitUnknown as error:
        text = f"the database broke off {len(START_WAITS_S) + 1} times while the program started ({step}); nothing is lost: start it again"
        raise DatabaseUnavailable(text) from error


class Pump:
    """One loop over one job. `run` it as a task, `wake` it when there is work, `stop` it."""

    def __init__(self, name: str, job: Job[Any], runtime: Runtime, *, limit: int, idle_s: float = IDLE_S) -> None:
        self._name = name
        self._job = job
        self._runtime = runtime
        self._limit = limit
        self._idle_s = idle_s
        self._bell = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._fresh = False
        self._resting = False
        self._stopping = False
        self.failed: Callable[[BaseException], None] = lambda error: None  # noqa: ARG005  told of each failure, for metrics
        self.failures = 0
        """Failed steps in a row; 0 while all is well."""
        self.fault = ""
        """What the last of them was, for /readyz."""

    def wake(self) -> None:
        """There is new work: do not wait for the next poll. From the event loop only."""
        self._fresh = True
        if self._resting:
            self._bell.set()

    async def stop(self) -> None:
        """Claim no more; returns when the running batch is done, at once where `run` never began."""
        self._stopping = True
        self._bell.set()
        await self._ended.wait()

    async def run(self) -> None:
        """The loop, until `stop`. Nothing that a batch raises ends it."""
        self._ended.clear()
        try:
            while not self._stopping:
                self._fresh = False
                await self._turn()
        finally:
            self._ended.set()

    async def _turn(self) -> None:
        try:
            busy = await self._step()
        except (DatabaseUnavailable, CommitUnknown) as error:
            await self._back_off(error)
        except Exception as error:  # noqa: BLE001  a worker that ends silently is worse than one that fails loudly for ever
            # No text and no traceback: they may hold what must not be in a log.
            log.error("pump.step.failed", pump=self._name, error=type(error).__name__, at=_place(error))  # noqa: TRY400
            await self._back_off(error)
        else:
            if self.failures:
                log.info("pump.recovered", pump=self._name, failures=self.failures)
            self.failures, self.fault = 0, ""
            if not busy:
                await self._rest(self._idle_s, wakes=True)

    async def _step(self) -> bool:
        items = await self._job.claim(self._limit)
        if items:
            await self._job.handle(items)
        return len(items) > 0

    async def _back_off(self, error: Exception) -> None:
        self.failures += 1
        self.fault = type(error).__name__
        self.failed(error)
        longest = min(BACK_OFF_S_MAX, BACK_OFF_S * 2 ** min(self.failures - 1, 20))
        seconds = longest * (0.5 + self._runtime.random_below(1000) / 2000)
        log.warning("pump.back_off", pump=self._name, error=self.fault, failures=self.failures, seconds=round(seconds, 2))
        await self._rest(seconds, wakes=False)

    async def _rest(self, seconds: float, *, wakes: bool) -> None:
        """Until the time is over or `stop` is called; where `wakes`, also until somebody wakes us."""
        if self._stopping or (wakes and self._fresh):
            return
        self._bell.clear()
        self._resting = wakes
        timer: asyncio.Task[Any] = self._runtime.spawn(self._ring_after(seconds), name=f"pump-{self._name}-rest")
        try:
            await self._bell.wait()
        finally:
            self._resting = False
            timer.cancel()

    async def _ring_after(self, seconds: float) -> None:
        await self._runtime.sleep(seconds)
        self._bell.set()


def _place(error: BaseException) -> str:
    """Where it was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
