"""What the road costs now: fee estimates and heights, refreshed in the background, read from memory by requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from penstock.catalog import Catalog
from penstock.core.errors import Problem, Refused
from penstock.core.money import Coin, CoinAmount, Token, TokenAmount, round_up_to_token
from penstock.core.wire import Height
from penstock.rails.base import FeeEstimate, Heads, NodeUnreachable, Rail
from penstock.rates import PriceError, Prices, Rate, convert, usd_text, usd_value
from penstock.runtime import Runtime

log = structlog.get_logger()

REFRESH_S: Final = 3.0
POLL_MS_MIN: Final = 200
POLL_MS_MAX: Final = 15_000


@dataclass(frozen=True, slots=True)
class Quote:
    """A fee in the withdrawn coin with the rates it was made from; frozen into the order."""

    fee: CoinAmount
    fee_usd: str
    token_rate: str
    native_rate: str
    gas_quoted: int


_Basis = tuple[FeeEstimate, Rate, Rate]


def _quoted(token: Token, native: Token, estimate: FeeEstimate, fee_rate: Rate, coin_rate: Rate) -> Quote:
    gas = min(estimate.cost, estimate.fee_cap)
    cost = TokenAmount(native, gas).to_coin()
    fee = cost if native.coin.id == token.coin.id else convert(cost, fee_rate, coin_rate, token.coin)
    fee = round_up_to_token(fee, token)
    return Quote(
        fee=fee,
        fee_usd=usd_text(usd_value(fee, coin_rate)) if fee else "0",
        token_rate=str(coin_rate),
        native_rate=str(fee_rate),
        gas_quoted=gas,
    )


class Board:
    """Estimates per token and heads per network, each with its age."""

    def __init__(self, runtime: Runtime, catalog: Catalog, rails: Mapping[str, Rail], prices: Prices) -> None:
        self._runtime = runtime
        self._catalog = catalog
        self.rails = rails
        self._prices = prices
        self._estimates: dict[str, FeeEstimate] = {}
        self._heads: dict[str, Heads] = {}
        self._quotes: dict[str, tuple[_Basis, Quote]] = {}
        self.faults: dict[str, str] = {}

    def rail(self, chain: str) -> Rail | None:
        """The rail of a network that is on."""
        return self.rails.get(chain)

    def poll_ms(self, chain: str) -> int:
        """How long to wait before an attempt is looked at again: about a block."""
        rail = self.rails.get(chain)
        return max(POLL_MS_MIN, min(POLL_MS_MAX, rail.network.block_ms)) if rail is not None else POLL_MS_MAX

    def heads(self, chain: str) -> Heads | None:
        """Newest and final height as last seen."""
        return self._heads.get(chain)

    def estimate(self, token: Token) -> FeeEstimate | None:
        """The estimate, unless none was had or it is too old."""
        found = self._estimates.get(token.id)
        return found if found is not None and found.holds_until_ms > self._runtime.now_ms() else None

    def rate_text(self, coin: Coin) -> str:
        """USD price as last known, "0" when there is none (spec, 16.18)."""
        known = self._prices.last_known(coin.symbol)
        return str(known) if known else "0"

    def usd(self, coin: Coin) -> int:
        """A price fit for a new quote, in 10^-18 USD. Raises Refused."""
        return self._rate(coin).usd

    def _rate(self, coin: Coin) -> Rate:
        try:
            return self._prices.usd(coin.symbol, now_ms=self._runtime.now_ms())
        except PriceError as error:
            raise Refused(Problem.SERVICE_ERROR, f"There is no price to quote with: {error}; please try again later.") from error

    def heights(self) -> list[Height]:
        """Every network that is on and has answered, for the wire."""
        return [
            Height(chain, heads.head, rail.network.confirmations, max(1, rail.network.block_ms // 1000))
            for chain, rail in self.rails.items()
            if (heads := self._heads.get(chain)) is not None
        ]

    def status(self, chain: str) -> int:
        """1 usable, 2 off (spec 4.8)."""
        return 1 if chain in self.rails else 2

    def quote(self, token: Token) -> Quote:
        """What a transfer of this token costs the one who bears it: never more than it may ever cost, whatever a node asks now. Raises Refused."""
        estimate = self.estimate(token)
        if estimate is None:
            raise Refused(
                Problem.SERVICE_ERROR, f"There is no fresh fee estimate for {token.chain} yet; please try again in a few seconds."
            )
        native = self._catalog.native(token.chain)
        fee_rate, coin_rate = self._rate(native.coin), self._rate(token.coin)
        basis = (estimate, fee_rate, coin_rate)
        # The same for every request between two looks at the network and the prices.
        known = self._quotes.get(token.id)
        if known is None or known[0] != basis:
            known = self._quotes[token.id] = basis, _quoted(token, native, *basis)
        return known[1]

    async def refresh(self) -> None:
        """One look at every network that is on. A network that does not answer keeps its last values until they are too old."""
        tasks = [self._runtime.spawn(self.refresh_network(chain), name=f"board-{chain}") for chain in self.rails]
        for task in tasks:
            await task

    async def refresh_network(self, chain: str) -> None:
        """Heads and the estimate of every token of one network."""
        rail, fault = self.rails[chain], ""
        try:
            self._heads[chain] = await rail.heads()
        except NodeUnreachable as error:
            fault = str(error)
        for token in self._catalog.tokens_on(chain) if not fault else ():
            try:
                if token.status != 2:
                    self._estimates[token.id] = await rail.estimate(token)
            except NodeUnreachable as error:
                fault = str(error)  # its last estimate ages; the other tokens are asked all the same
        if fault and self.faults.get(chain) != fault:
            log.warning("network.unreachable", chain=chain, detail=fault)
        self.faults = {name: text for name, text in self.faults.items() if name != chain} | ({chain: fault} if fault else {})
