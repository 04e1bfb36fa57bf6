"""What a Bitcoin transfer costs now. Every number of a node is bounded before it counts."""

from __future__ import annotations

from typing import Final

from penstock.core.money import Network, Token
from penstock.rails.base import FeeEstimate
from penstock.rails.bitcoin.coins import fee_at, single_weight
from penstock.rails.bitcoin.talk import rate
from penstock.rails.bitcoin.transaction import vsize_of
from penstock.rails.rpc import BadAnswer, Call, Nodes, mapping
from penstock.runtime import Runtime

MARKET_S: Final = 5.0
HOLDS_MS: Final = 60_000
CAP_MULTIPLE: Final = 10
CAP_FLOOR_PART: Final = 50
"""The cap of a cheap moment is not below this part of `fee_max`."""
RATE_MIN: Final = 1_000
"""Satoshi for 1,000 virtual bytes that every node relays (-minrelaytxfee; later versions of Core take less)."""


class Fees:
    """Estimates of one network, for a transaction with one payment; what many save together is the house's."""

    def __init__(self, network: Network, nodes: Nodes, runtime: Runtime, *, fee_max: int) -> None:
        self._nodes = nodes
        self._runtime = runtime
        self._fee_max = fee_max
        self._blocks = int(network.param("fee_blocks", 3))
        self._rate_max = int(network.param("fee_rate_max", 1_000_000))
        self._fallback = int(network.param("fee_rate_fallback", 10_000))
        self._market: tuple[float, int] | None = None

    async def estimate(self, token: Token) -> FeeEstimate:
        """Raises NodeUnreachable, also when a node asks for more than is believed."""
        now_rate, weight = await self._rate(), single_weight()
        cost = fee_at(now_rate, weight)
        cap = min(self._fee_max, max(CAP_MULTIPLE * cost, self._fee_max // CAP_FLOOR_PART))
        terms = {"fee": cost, "change": 1, "fee_rate": now_rate, "fee_rate_cap": cap * 1000 // vsize_of(weight)}
        now_ms = self._runtime.now_ms()
        return FeeEstimate(token.id, cost, cap, terms, now_ms, now_ms + HOLDS_MS)

    async def _rate(self) -> int:
        now = self._runtime.monotonic()
        if self._market is None or now - self._market[0] > MARKET_S:
            calls = [Call("estimatesmartfee", (self._blocks, "economical")), Call("getmempoolinfo")]
            asked, least = await self._nodes.read_many(calls, [self._estimated, self._least])
            self._market = now, max(asked, least, RATE_MIN)
        return self._market[1]

    def _estimated(self, answer: object) -> int:
        """A node that has seen too few blocks has no estimate: then ours stands in, and a bump mends it."""
        said = mapping(answer).get("feerate")
        return min(self._fallback, self._rate_max) if said is None else self._believed(rate(said))

    def _least(self, answer: object) -> int:
        """What gets into this node's mempool at all."""
        pool = mapping(answer)
        return self._believed(max(rate(pool.get("mempoolminfee")), rate(pool.get("minrelaytxfee", 0))))

    def _believed(self, asked: int) -> int:
        if asked > self._rate_max:
            raise BadAnswer(f"it asks {asked} satoshi for 1,000 virtual bytes, and no more than {self._rate_max} is believed")
        return asked
