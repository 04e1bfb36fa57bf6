"""A machine whose time, randomness and crashes come from one seed.

The real asyncio runs on a loop whose selector never waits: when nothing is ready it moves the clock to the next timer. Blocking work
runs inline. So one seed is one history, and a crash can be placed at every label of `crash_point`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import selectors
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

T = TypeVar("T")

START_MS: Final = 1_790_000_000_000


class Stuck(Exception):
    """Every task waits and no timer is set: the program would hang."""


class Crash(SystemExit):
    """The machine dies here. Passes through tasks and out of the loop as only an exit does."""


class _Clock(selectors.SelectSelector):
    """A selector that moves time instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual seconds."""

    def __init__(self) -> None:
        self.clock = _Clock()
        super().__init__(self.clock)

    def time(self) -> float:
        """Virtual seconds since the start."""
        return self.clock.now

    def run_until_complete(self, future: Generator[Any, None, T] | Awaitable[T]) -> T:
        """As asyncio does. A crash can leave behind the call that was to end an earlier run: it does not end this one."""
        task: asyncio.Future[T] = asyncio.ensure_future(future, loop=self)  # type: ignore[arg-type]  # a generator is one as well
        while True:
            try:
                return super().run_until_complete(task)
            except RuntimeError:
                if task.done() or self.is_closed():
                    raise


class Journal:
    """What happened, in order; its hash tells whether two runs were the same."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._hash = hashlib.sha256()

    def note(self, at_ms: int, event: str) -> None:
        """Append one event."""
        line = f"{at_ms - START_MS:>9} {event}"
        self.lines.append(line)
        self._hash.update(line.encode())

    @property
    def hash(self) -> str:
        """Over every event so far."""
        return self._hash.hexdigest()


class VirtualRuntime:
    """A `Runtime` for one life of the program; the clock, the generator and the journal outlive it."""

    def __init__(self, loop: VirtualLoop, source: random.Random, journal: Journal) -> None:
        self._loop = loop
        self._source = source
        self._journal = journal
        self._tasks: set[asyncio.Task[Any]] = set()
        self._dead = False
        self.visits: Counter[str] = Counter()
        self.crash_at: Callable[[str, int], bool] = lambda label, visit: False  # noqa: ARG005
        self.delay_s = 0.002
        self.shift_ms: Callable[[], int] = lambda: 0
        self.frozen_until_s: Callable[[], float] = lambda: 0.0
        self.pace = 1.0

    def now_ms(self) -> int:
        """Virtual wall clock, as wrong as this machine's is at the moment."""
        return START_MS + int(self._loop.time() * 1000) + self.shift_ms()

    def monotonic(self) -> float:
        """Virtual seconds."""
        return self._loop.time()

    def random_bytes(self, count: int) -> bytes:
        """From the seed."""
        return self._source.randbytes(count)

    def random_below(self, bound: int) -> int:
        """From the seed."""
        return self._source.randrange(bound)

    async def sleep(self, seconds: float) -> None:
        """Virtual seconds; on a machine that is slow to wake, more of them."""
        await asyncio.sleep(seconds * self.pace)
        await self._thaw()

    async def _thaw(self) -> None:
        """A process that was stopped goes on later, wherever it was."""
        while (frozen_s := self.frozen_until_s() - self._loop.time()) > 0:  # noqa: ASYNC110  what it waits for is time
            await asyncio.sleep(frozen_s)

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """A task of this life."""
        task = self._loop.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # a crash kills many tasks and nobody asks them why

    async def in_thread(self, lane: str, work: Callable[[], T], *, width: int = 1) -> T:  # noqa: ARG002
        """Inline, after a moment that the seed chooses, so that other tasks get between."""
        await asyncio.sleep(self._source.random() * self.delay_s)
        await self._thaw()
        if self._dead:
            raise asyncio.CancelledError
        return work()

    def crash_point(self, label: str) -> None:
        """Note the visit, and die when the plan says so."""
        if self._dead:
            return
        self.visits[label] += 1
        self._journal.note(self.now_ms(), label)
        if self.crash_at(label, self.visits[label]):
            self._journal.note(self.now_ms(), f"CRASH at {label}")
            self._dead = True
            raise Crash(label)

    def kill(self) -> None:
        """From here on nothing of this life reaches the database, and no crash comes of it."""
        self._dead = True

    def bury(self) -> None:
        """End every task of this life."""
        self.kill()
        while tasks := [task for task in self._tasks if not task.done()]:
            for task in tasks:
                task.cancel()
            with contextlib.suppress(Crash):  # that of another task, which this one waited for
                self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._tasks.clear()
