"""What this process has claimed and not yet written anything about: its own next claims pass it over."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

from penstock.runtime import Runtime

REST_S: Final = 8.0
"""How long what a failed batch had in its hands is left alone, so that it keeps nothing behind it from being taken up."""


class InHand:
    """Ids of rows, kept in memory: whoever has the worker's seat is alone, and what a dead process had in its hands is still due. A row
    is locked, and judged by what it says then, where it is written.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._until: dict[int, float] = {}

    def rows(self) -> list[dict[str, Any]]:
        """What a claim passes over now, for its {ROWS h(id {INT})}."""
        now = self._runtime.monotonic()
        self._until = {row_id: until for row_id, until in self._until.items() if until > now}
        return [{"id": row_id} for row_id in self._until]

    def take(self, ids: Iterable[int]) -> None:
        """They are ours until whoever works on them is done."""
        self._until.update((row_id, math.inf) for row_id in ids)

    @contextlib.contextmanager
    def worked_on(self, ids: Iterable[int]) -> Iterator[None]:
        """What is written of them says afterwards when they are due again; after a failure they rest."""
        try:
            yield
        except BaseException:
            until = self._runtime.monotonic() + REST_S
            self._until.update((row_id, until) for row_id in ids)
            raise
        for row_id in ids:
            self._until.pop(row_id, None)

    def clear(self) -> None:
        """As a process that has just begun."""
        self._until.clear()
