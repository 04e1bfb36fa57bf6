"""One task a network: what a slow network keeps waiting is its own rows, and nothing of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from penstock.runtime import Runtime


class SideBySide:
    """The batches under way, at most one for each network. A failure is kept and raised where its owner asks for it."""

    def __init__(self, runtime: Runtime, name: str) -> None:
        self._runtime = runtime
        self._name = name
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._failure: Exception | None = None
        self.finished: Callable[[], None] = lambda: None

    @property
    def busy(self) -> list[str]:
        """Networks whose batch is under way: nothing of theirs is claimed meanwhile."""
        return list(self._tasks)

    def start(self, chain: str, work: Coroutine[Any, Any, None]) -> None:
        """Begin the batch of a network that is not busy."""
        task = self._tasks[chain] = self._runtime.spawn(work, name=f"{self._name}-{chain}")
        task.add_done_callback(lambda done: self._ended(chain, done))

    def _ended(self, chain: str, task: asyncio.Task[None]) -> None:
        self._tasks.pop(chain, None)
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
        while self._tasks:
            await asyncio.wait(list(self._tasks.values()))
        self.raise_failure()
