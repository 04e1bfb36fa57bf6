"""The only source of clock, monotonic time, randomness, sleep, tasks and threads (lint forbids them elsewhere).

A simulation injects another `Runtime` with a virtual clock, a seeded generator, no thread, and crash points that act.
In production a crash point does nothing at all.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol, TypeVar

T = TypeVar("T")


class Runtime(Protocol):
    """What the rooms may ask of the machine they run on."""

    def now_ms(self) -> int:
        """Wall clock, Unix milliseconds. May step; never use it for durations."""
        ...

    def monotonic(self) -> float:
        """Seconds that only rise."""
        ...

    def random_bytes(self, count: int) -> bytes:
        """Bytes fit for keys."""
        ...

    def random_below(self, bound: int) -> int:
        """An integer in [0, bound)."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Let others run for a while."""
        ...

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start a task; the runtime keeps it alive and reports its failure."""
        ...

    async def in_thread(self, lane: str, work: Callable[[], T], *, width: int = 1) -> T:
        """Run blocking work on the named lane of `width` threads; inline in a simulation."""
        ...

    def crash_point(self, label: str) -> None:
        """A place where the machine may die; only a simulation acts here."""
        ...


GARBAGE_OBJECTS: Final = 50_000
"""New objects after which the collector looks at them; Python's own 700 are made by three requests."""


def rest_memory() -> None:
    """For a process that has started and will live long: what it has now is looked at by the collector no more, new objects seldom.

    What a request leaves behind is freed by its reference counts; the collector is for the rare circle, and its full rounds over modules,
    catalogue and caches made callers wait.
    """
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS)


class SystemRuntime:
    """The real machine."""

    def __init__(self) -> None:
        self._lanes: dict[str, concurrent.futures.ThreadPoolExecutor] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def now_ms(self) -> int:
        """Wall clock, Unix milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic(self) -> float:
        """Seconds that only rise."""
        return time.monotonic()

    def random_bytes(self, count: int) -> bytes:
        """From the operating system."""
        return secrets.token_bytes(count)

    def random_below(self, bound: int) -> int:
        """From the operating system."""
        return secrets.randbelow(bound)

    async def sleep(self, seconds: float) -> None:
        """Let others run for a while."""
        await asyncio.sleep(seconds)

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """Start a task that is kept alive; a failure is logged at once, and raised where the task is awaited."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logging.getLogger("penstock.runtime").error("task.failed name=%s error=%s", task.get_name(), type(error).__name__)

    async def in_thread(self, lane: str, work: Callable[[], T], *, width: int = 1) -> T:
        """Run blocking work on the named lane, in order of arrival where the lane is one thread wide."""
        pool = self._lanes.get(lane)
        if pool is None:
            pool = self._lanes[lane] = concurrent.futures.ThreadPoolExecutor(width, thread_name_prefix=lane)
        return await asyncio.get_running_loop().run_in_executor(pool, work)

    def crash_point(self, label: str) -> None:
        """Nothing: the real machine needs no help to crash."""

    def close(self) -> None:
        """End the threads after their last job."""
        for pool in self._lanes.values():
            pool.shutdown(wait=True)
        self._lanes.clear()
