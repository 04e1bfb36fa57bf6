"""What the handlers need from the rooms below, and nothing more. Wiring passes the real ones in; tests pass small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from penstock.core.money import Coin, CoinAmount, Network, Token
from penstock.core.order import Order
from penstock.core.party import Account, Merchant
from penstock.core.wire import Height
from penstock.core.withdrawal import WithdrawRequest


class Merchants(Protocol):
    """API clients by their credentials."""

    async def by_app_id(self, app_id: str) -> Merchant | None:
        """With every secret that is valid now, newest first. None for an unknown app id: asked again each time, never kept as a miss."""
        ...


class Accounts(Protocol):
    """People inside the house."""

    async def find(self, text: str) -> Account | None:
        """By numeric id or e-mail address."""
        ...


class Withdrawals(Protocol):
    """Accepting withdrawals."""

    async def withdraw(self, merchant: Merchant, request: WithdrawRequest) -> Order:
        """The accepted order, or the stored one of a repeat. Raises Refused; then there is no order."""
        ...

    async def fee(self, token: Token, address: str) -> CoinAmount:
        """What a payout costs now; zero to an internal address, and `address` may be "". Raises Refused."""
        ...


class Orders(Protocol):
    """Orders as they stand."""

    async def find(self, merchant_id: int, merchant_order_ids: Sequence[str]) -> Mapping[str, Order]:
        """A merchant's orders by their merchant order ids; unknown ids are left out."""
        ...


class Balances(Protocol):
    """What the house owes."""

    async def of(self, holder: str) -> Mapping[str, CoinAmount]:
        """Available amounts by coin id, one for every coin that the holder ever had."""
        ...


class Prices(Protocol):
    """USD per coin."""

    def rate_text(self, coin: Coin) -> str:
        """The last known price as plain text, "0" when there is none."""
        ...

    def usd(self, coin: Coin) -> int:
        """A price fit for a new quote, in 10^-18 USD. Raises Refused(SERVICE_ERROR) when there is none or it is too old."""
        ...


class Networks(Protocol):
    """What the followers know of the chains, from memory."""

    def heights(self) -> Sequence[Height]:
        """One for each network that is on."""
        ...

    def status(self, chain: str) -> int:
        """1 usable, 2 off or in maintenance."""
        ...


class Resends(Protocol):
    """Webhooks sent once more."""

    async def resend(self, merchant_id: int, start_ms: int, end_ms: int, failed_only: bool, transaction_type: str) -> int:  # noqa: FBT001
        """How many were queued, of final orders decided in [start_ms, end_ms). Raises Refused beyond one call a minute or 25 a day."""
        ...


class Catalogue(Protocol):
    """What exists, from memory."""

    def token(self, token_id: str, /) -> Token | None:
        """The token with this id."""
        ...

    def coin(self, coin_id: str, /) -> Coin | None:
        """The coin with this id; a coin and one of its tokens may share an id."""
        ...

    def coins(self) -> Sequence[Coin]:
        """Every coin."""
        ...

    def tokens_of(self, coin: Coin, /) -> Sequence[Token]:
        """Every token of a coin."""
        ...

    def network(self, chain: str, /) -> Network | None:
        """The network with this wire name."""
        ...


class Readiness(Protocol):
    """Whether the house can do its work."""

    async def reasons(self) -> tuple[Sequence[str], Sequence[str]]:
        """Why it is not ready (empty: it is), and warnings. Sentences for people."""
        ...

    async def waiting(self) -> Sequence[tuple[str, str, int]]:
        """How many rows of each kind and state somebody has to act on, for metrics."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """All of them together."""

    merchants: Merchants
    accounts: Accounts
    withdrawals: Withdrawals
    orders: Orders
    balances: Balances
    prices: Prices
    networks: Networks
    resends: Resends
    catalogue: Catalogue
    readiness: Readiness


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the API. `requests_per_second` counts per process, once per source address and once per merchant; 0 for none.

    `trusted_proxies`: networks (CIDR) whose X-Forwarded-For names the real source. `callers_max` bounds the memory of the limiters.
    `minimum`: the operator's least amounts by coin symbol, as coin/all prints them.
    """

    requests_per_second: int = 100
    trusted_proxies: tuple[str, ...] = ()
    body_bytes_max: int = 65_536
    body_seconds_max: float = 10
    callers_max: int = 20_000
    minimum: Mapping[str, str] = field(default_factory=dict)
