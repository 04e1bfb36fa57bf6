"""Tasks of each network: what a slow network keeps waiting is its own rows, and nothing of the others."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

from penstock.runtime import Runtime


class SideBySide:
    """The batches under way, at most `width` for each network. A failure is kept and raised where its owner asks for it."""

    def __init__(self, runtime: Runtime, name: str, *, width: int = 1) -> None:
        self._runtime = runtime
        self._name = name
        self._width = width
        self._tasks: defaultdict[str, set[asyncio.Task[None]]] = defaultdict(set)
        self._turns: defaultdict[tuple[str, str], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._failure: Exception | None = None
        self.finished: Callable[[], None] = lambda: None

    @property
    def busy(self) -> list[str]:
        """Networks with as many batches as may be under way: nothing of theirs is claimed meanwhile."""
        return [chain for chain, tasks in self._tasks.items() if len(tasks) >= self._width]

    def start(self, chain: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin a batch of a network that is not busy."""
        task = self._runtime.spawn(work, name=f"{self._name}-{chain}")
        self._tasks[chain].add(task)
        task.add_done_callback(lambda done: self._ended(chain, done))

    def turn(self, chain: str, step: str) -> asyncio.Lock:
        """What a batch holds while it takes a step: the batches of a network take each step one after the other, in the order of their
        beginning.
        """
        return self._turns[chain, step]

    def _ended(self, chain: str, task: asyncio.Task[None]) -> None:
        self._tasks[chain].discard(task)
        error = None if task.cancelled() else task.exception()
        if isinstance(error, Exception):
            self._failure = self._failure or error
        self.finished()

    def raise_failure(self) -> None:
        """What a batch ended with since the last call, if anything."""
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    async def settled(self) -> None:
        """Wait for every batch that is under way, and raise what failed."""
        while tasks := [task for batch in self._tasks.values() for task in batch]:
            await asyncio.wait(tasks)
        self.raise_failure()
