"""Many callers, one piece of work: whoever comes while a batch is under way goes with the next one, so the cost of a question is shared."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from penstock.runtime import Runtime

A = TypeVar("A")
B = TypeVar("B")


class Together(Generic[A, B]):
    """Callers that come while a batch is under way go together in the next one, in order of arrival."""

    def __init__(
        self,
        runtime: Runtime,
        work: Callable[[list[A]], Awaitable[Sequence[B | Exception]]],
        *,
        name: str,
        most: int,
        broken: Callable[[str], Exception],
    ) -> None:
        """`work` gives for each item its result, or what to raise to its caller. Where it breaks off itself every caller gets `broken`."""
        self._runtime = runtime
        self._work = work
        self._name = name
        self._most = most
        self._broken = broken
        self._waiting: list[tuple[A, asyncio.Future[B]]] = []
        self._busy = False

    async def __call__(self, item: A) -> B:
        """The result of this item alone. Raises what the work gives for it."""
        future: asyncio.Future[B] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if not self._busy:
            self._busy = True
            self._runtime.spawn(self._drain(), name=self._name)
        return await future

    async def _drain(self) -> None:
        batch: list[tuple[A, asyncio.Future[B]]] = []
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                results = await self._work([item for item, _ in batch])
                for (_, future), result in zip(batch, results, strict=True):
                    if future.done():
                        continue
                    if isinstance(result, Exception):
                        future.set_exception(result)
                    else:
                        future.set_result(result)
        finally:
            self._busy = False
            for _, future in [*batch, *self._waiting]:
                if not future.done():  # the work broke off: its own failure is reported by the runtime
                    future.set_exception(self._broken(f"{self._name} broke off"))
            self._waiting.clear()
