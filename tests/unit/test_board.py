"""What merchants are quoted for a transfer."""

import asyncio

import pytest

from penstock.catalog import Catalog
from penstock.core.money import plain
from penstock.orders.board import Board
from penstock.rails.base import FeeEstimate
from penstock.rates import Prices, static_prices
from penstock.runtime import SystemRuntime

CATALOG = Catalog.load()


class Asked:
    """A rail whose nodes ask so much for a transfer that may cost so much."""

    def __init__(self, cost, fee_cap, runtime):
        self.network = CATALOG.network("XRP")
        self.cost, self.fee_cap, self.runtime = cost, fee_cap, runtime

    async def estimate(self, token):
        now_ms = self.runtime.now_ms()
        return FeeEstimate(token.id, self.cost, self.fee_cap, {}, now_ms, now_ms + 60_000)

    async def heads(self):
        return None


@pytest.mark.parametrize(("cost", "fee_cap", "fee"), [(12, 2_000, "0.000012"), (2_000, 2_000, "0.002"), (12_000_000, 2_000, "0.002")])
def test_a_quote_is_never_above_what_a_transfer_may_ever_cost(cost, fee_cap, fee):
    """One node that asked a million times the price of the others made merchants pay 12 XRP for a transfer that costs 12 drops."""
    runtime = SystemRuntime()
    prices = Prices(age_max_ms=600_000)
    prices.use_static(static_prices())
    board = Board(runtime, CATALOG, {"XRP": Asked(cost, fee_cap, runtime)}, prices)
    asyncio.run(board.refresh())
    quote = board.quote(CATALOG.native("XRP"))
    assert plain(quote.fee.units, 18) == fee
    assert quote.gas_quoted == min(cost, fee_cap)
    runtime.close()
