"""What merchants are quoted for a transfer."""

import asyncio

import pytest

from penstock.catalog import Catalog
from penstock.core.errors import Refused
from penstock.core.money import plain
from penstock.orders.board import Board
from penstock.rails.base import FeeEstimate
from penstock.rates import Prices, static_prices
from penstock.runtime import SystemRuntime

CATALOG = Catalog.load()


class Asked:
    """A rail whose nodes ask so much for a transfer that may cost so much."""

    def __init__(self, cost, fee_cap, runtime, network="XRP"):
        self.network = CATALOG.network(network)
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


def test_a_token_that_is_to_be_delisted_is_quoted_until_it_is_off(tmp_path):
    """Status 3 allows withdrawals alone (spec 4.8); nobody asked what one costs, so none was accepted."""
    (tmp_path / "catalog.toml").write_text("[tokens.ETH.USDT]\nstatus = 3\n[tokens.ETH.USDC]\nstatus = 2\n")
    catalog = Catalog.load(overrides=tmp_path / "catalog.toml")
    runtime = SystemRuntime()
    prices = Prices(age_max_ms=600_000)
    prices.use_static(static_prices())
    board = Board(runtime, catalog, {"ETH": Asked(10**15, 10**15, runtime, "ETH")}, prices)
    asyncio.run(board.refresh())
    assert board.quote(catalog.by_symbol("USDT", "ETH")).fee.units > 0
    with pytest.raises(Refused):
        board.quote(catalog.by_symbol("USDC", "ETH"))
    runtime.close()
