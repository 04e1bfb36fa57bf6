"""What a transfer on the XRP Ledger costs now, how long its bytes may live, and what the next version says instead.

The fee of a transaction is what it names, to the drop: the estimate is the price. A version lives until its last ledger; each next
version of an attempt twice as long, so that the few versions an attempt may have outlast a long outage.
https://xrpl.org/docs/concepts/transactions/transaction-cost
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from msgspec.structs import replace

from penstock.core.intent import Intent
from penstock.core.money import Token
from penstock.rails.base import FeeEstimate
from penstock.rails.rpc import BadAnswer, Nodes
from penstock.rails.xrp.answers import (
    FEE_CALL,
    STATE_CALL,
    account_call,
    account_of,
    open_fee_of,
    reserves_of,
)
from penstock.rails.xrp.codec import INDEX_MAX
from penstock.runtime import Runtime

MARKET_S: Final = 1.0
HOLDS_MS: Final = 30_000
CAP_MULTIPLE: Final = 10
CAP_FLOOR_PART: Final = 50
"""The cap of a cheap moment is not below this part of `fee_max`: what is next to nothing may rise a thousandfold."""
CUSHION_PERCENT: Final = 120
"""The price of the open ledger may rise until the bytes are there."""
BELIEVED_DROPS_MAX: Final = 10**9

WINDOW: Final = 30
"""Ledgers that the first version lives: two minutes."""
WINDOW_MAX: Final = 960
"""An hour; `tx` searches at most 1,000 ledgers for the proof that it expired."""
REPLACE_PERCENT: Final = 125
"""What still waits in a queue is replaced only at a fee that is higher by a quarter (rippled, retry_sequence_percent)."""


@dataclass(frozen=True, slots=True)
class Market:
    """Drops to pay now, drops that the hot address must keep, and the newest validated ledger."""

    fee: int
    reserve: int
    validated: int
    base_reserve: int


class Fees:
    """Estimates of one network."""

    def __init__(self, nodes: Nodes, runtime: Runtime, *, sender: str, fee_max: int, validated: Callable[[], Awaitable[int]]) -> None:
        self._nodes = nodes
        self._runtime = runtime
        self._sender = sender
        self._fee_max = fee_max
        self._validated = validated
        self._markets: dict[str, tuple[float, Market]] = {}

    async def estimate(self, token: Token) -> FeeEstimate:
        """Raises NodeUnreachable, also when a node asks for more than is believed. A cost above the cap says that nothing can be sent now.

        `terms` also hold `reserve`, which `bind` looks at and leaves out.
        """
        market = await self.market()
        cap = min(self._fee_max, max(CAP_MULTIPLE * market.fee, self._fee_max // CAP_FLOOR_PART))
        now_ms = self._runtime.now_ms()
        return FeeEstimate(token.id, market.fee, cap, self.terms(market), now_ms, now_ms + HOLDS_MS)

    def terms(self, market: Market) -> dict[str, int]:
        """Of a first version that is bound now."""
        return {"fee": market.fee, "last_ledger": market.validated + WINDOW, "reserve": market.reserve}

    async def market(self, sender: str = "") -> Market:
        """As of a second ago at most, for one hot address, the first unless another is named. Raises NodeUnreachable."""
        now, sender = self._runtime.monotonic(), sender or self._sender
        known = self._markets.get(sender)
        if known is None or now - known[0] > MARKET_S:
            calls = [FEE_CALL, STATE_CALL, account_call(sender)]
            asked, reserves, account = await self._nodes.read_many(calls, [_believed, reserves_of, partial(account_of, sender)])
            reserve = reserves.of(account.owned if account is not None else 0)
            known = now, Market(-(-asked * CUSHION_PERCENT // 100), reserve, await self._validated(), reserves.base)
            self._markets[sender] = known
        return known[1]


def _believed(answer: object) -> int:
    asked = open_fee_of(answer)
    if not 0 < asked <= BELIEVED_DROPS_MAX:
        raise BadAnswer(f"it asks {asked} drops, and no more than {BELIEVED_DROPS_MAX} is believed")
    return asked


def window(version: int) -> int:
    """Ledgers that a version lives."""
    return min(WINDOW << min(version - 1, 16), WINDOW_MAX)


def born(intent: Intent) -> int:
    """The validated ledger that a version was made on: it is in none before."""
    return max(0, intent.terms["last_ledger"] - window(intent.version))


def bumped(intent: Intent, fees: FeeEstimate | None, *, version: int, cancel: bool) -> Intent | None:
    """The same sequence with a later last ledger and, unless the older version expired, at a fee for which queues give it up; None when
    the cap forbids that, or nobody knows which ledgers will come.
    """
    if fees is None:
        return None
    validated, before = fees.terms["last_ledger"] - WINDOW, intent.terms["fee"]
    expired = validated > intent.terms["last_ledger"]
    fee = max(fees.terms["fee"], before if expired else before * REPLACE_PERCENT // 100 + 1)
    last_ledger = max(validated + window(version), intent.terms["last_ledger"] + 1)
    if fee > intent.fee_cap or last_ledger > INDEX_MAX:
        return None
    kind = "cancel" if cancel else intent.kind
    return replace(intent, version=version, kind=kind, terms={"fee": fee, "last_ledger": last_ledger})
