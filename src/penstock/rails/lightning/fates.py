"""What this process remembers of payments, to judge what the node says of them. Lost at a restart, and then judged more slowly.

A node that calls a payment failed takes its hash again. So a failure counts only once nothing of ours can still be on the way to the node:
no call is under way, and quiet time has passed since the last one and since the failure was first seen.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

REMEMBERED_MAX: Final = 20_000
QUIET_S: Final = 20.0
"""More than twice as long as a call to a node may take."""
QUIET_UNSURE_S: Final = 600.0
"""Where a call of ours went unanswered, or another process may have made it: it may lie with the node longer than we waited."""


@dataclass(slots=True)
class Memory:
    """One payment hash. Moments are of the monotonic clock."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    known: bool = False
    sent: int = 0
    unanswered: int = 0
    last_call: float | None = None
    failed_since: float | None = None

    def certainly_failed(self, now: float) -> bool:
        """Whether FAILED, which the node says now, is for good."""
        if self.failed_since is None:
            self.failed_since = now
        sure = self.sent == 1 and not self.unanswered
        since = self.failed_since if self.last_call is None else max(self.failed_since, self.last_call)
        return not self.lock.locked() and now - since >= (QUIET_S if sure else QUIET_UNSURE_S)


class Memories:
    """By payment hash; the oldest are forgotten first, but for those in use."""

    def __init__(self) -> None:
        self._by_hash: dict[str, Memory] = {}

    def of(self, payment_hash: str) -> Memory:
        """What is remembered of a hash."""
        memory = self._by_hash.setdefault(payment_hash, Memory())
        if len(self._by_hash) > REMEMBERED_MAX:
            oldest = next(key for key, kept in self._by_hash.items() if not kept.lock.locked() and kept is not memory)
            del self._by_hash[oldest]
        return memory
