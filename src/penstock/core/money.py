"""Coins, tokens, networks and exact amounts.

A *coin* (USDT) is what a balance is kept in; a *token* (USDT on Tron) is what moves on one network.
Every amount is an integer. A coin counts 10^-18 for ever, a token counts its own base units on chain, and the
only roads between the two are `CoinAmount.to_token` (exact or `Inexact`) and `TokenAmount.to_coin` (always exact).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec

LEDGER_DECIMALS: Final = 18
"""Decimals of every coin in the books (architecture, section 4)."""

WHOLE_DIGITS_MAX: Final = 59
"""Digits before the point: 59 + 18 fit NUMERIC(78,0) with a digit to spare for sums."""

_DECIMAL: Final = re.compile(r"([0-9]+)(?:\.([0-9]+))?", re.ASCII)


class MoneyError(ValueError):
    """An amount that is not one; its text says why."""


class NotAnAmount(MoneyError):
    """The text is not a plain decimal number: digits, at most one point, no sign, no exponent."""


class Inexact(MoneyError):
    """The amount has more decimals than its unit can hold. Nothing is ever rounded silently."""

    def __init__(self, text: str, decimals: int) -> None:
        super().__init__(f"{text[:80]} has more than {decimals} decimals")
        self.decimals = decimals


class UnlikeAmounts(TypeError):
    """Amounts of two different coins or tokens were put together."""


def parse_units(text: str, decimals: int) -> int:
    """Decimal text to base units, exactly.

    Raises NotAnAmount for anything but `[0-9]+(.[0-9]+)?` in ASCII, Inexact when decimals are in excess
    (trailing zeros do not count).
    """
    match = _DECIMAL.fullmatch(text)
    if match is None:
        raise NotAnAmount(f"{text[:80]!r} is not a plain decimal number such as 12.5")
    whole, fraction = match[1].lstrip("0"), (match[2] or "").rstrip("0")
    if len(whole) > WHOLE_DIGITS_MAX:
        raise NotAnAmount(f"{text[:80]!r} is larger than any amount that can exist")
    if len(fraction) > decimals:
        raise Inexact(text, decimals)
    return int((whole + fraction.ljust(decimals, "0")) or "0")


def plain(units: int, decimals: int) -> str:
    """Base units to plain decimal text: no exponent, no trailing zeros, "0" for zero (spec, section 10)."""
    sign, digits = ("-", str(-units)) if units < 0 else ("", str(units))
    if decimals == 0:
        return sign + digits
    digits = digits.rjust(decimals + 1, "0")
    whole, fraction = digits[:-decimals], digits[-decimals:].rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else sign + whole


@dataclass(frozen=True, slots=True)
class Coin:
    """What balances are kept in. `display_decimals` is `precision` on the wire and nothing else."""

    id: str
    symbol: str
    name: str
    display_decimals: int
    logo: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """One coin on one network. `contract` is None for the network's own coin; `wire_contract` is what the API prints."""

    id: str
    coin: Coin
    chain: str
    standard: str
    contract: str | None
    wire_contract: str
    decimals: int
    takes_memo: bool = False
    status: int = 1
    step: int = 1
    """Payouts are whole multiples of so many base units (Lightning: 1,000 millisatoshi; fees may be finer)."""

    def __post_init__(self) -> None:
        if not 0 <= self.decimals <= LEDGER_DECIMALS:
            raise MoneyError(f"token {self.id} has {self.decimals} decimals; the books hold {LEDGER_DECIMALS}")

    @property
    def is_native(self) -> bool:
        """Whether this is the network's own coin, the one that pays gas."""
        return self.contract is None

    @property
    def payout_decimals(self) -> int:
        """Decimals that a payout's amount may have."""
        return self.decimals - (len(str(self.step)) - 1)

    @property
    def scale(self) -> int:
        """Coin units in one token base unit."""
        return int(10 ** (LEDGER_DECIMALS - self.decimals))


@dataclass(frozen=True, slots=True)
class Network:
    """One chain as the catalogue describes it; `params` holds what only its family understands."""

    chain: str
    family: str
    name: str
    native_token_id: str
    chain_id: int
    genesis: str | None
    block_ms: int
    confirmations: int
    is_test: bool
    params: tuple[tuple[str, str | int | bool], ...] = ()

    def param(self, name: str, default: str | int | bool = "") -> str | int | bool:
        """A value that only the family's rail knows how to read."""
        return dict(self.params).get(name, default)


class CoinAmount(msgspec.Struct, frozen=True, gc=False):
    """An amount of one coin in units of 10^-18; may be negative in a posting, never in a balance."""

    coin: Coin
    units: int

    @classmethod
    def parse(cls, coin: Coin, text: str) -> CoinAmount:
        """From decimal text. Raises NotAnAmount or Inexact."""
        return cls(coin, parse_units(text, LEDGER_DECIMALS))

    @classmethod
    def zero(cls, coin: Coin) -> CoinAmount:
        """Nothing of this coin."""
        return cls(coin, 0)

    def _same(self, other: CoinAmount) -> None:
        if other.coin.id != self.coin.id:
            raise UnlikeAmounts(f"{self.coin.symbol} and {other.coin.symbol} do not add")

    def __add__(self, other: CoinAmount) -> CoinAmount:
        self._same(other)
        return CoinAmount(self.coin, self.units + other.units)

    def __sub__(self, other: CoinAmount) -> CoinAmount:
        self._same(other)
        return CoinAmount(self.coin, self.units - other.units)

    def __neg__(self) -> CoinAmount:
        return CoinAmount(self.coin, -self.units)

    def __lt__(self, other: CoinAmount) -> bool:
        self._same(other)
        return self.units < other.units

    def __le__(self, other: CoinAmount) -> bool:
        self._same(other)
        return self.units <= other.units

    def __bool__(self) -> bool:
        return self.units != 0

    def __str__(self) -> str:
        return plain(self.units, LEDGER_DECIMALS)

    def to_token(self, token: Token) -> TokenAmount:
        """The same amount in the token's base units. Raises Inexact rather than round."""
        if token.coin.id != self.coin.id:
            raise UnlikeAmounts(f"{token.id} is not a token of {self.coin.symbol}")
        units, dust = divmod(self.units, token.scale)
        if dust:
            raise Inexact(str(self), token.decimals)
        return TokenAmount(token, units)


class TokenAmount(msgspec.Struct, frozen=True, gc=False):
    """An amount of one token in its own base units (wei, satoshi, 10^-6 USDT)."""

    token: Token
    units: int

    def to_coin(self) -> CoinAmount:
        """The same amount in the books' unit; exact for every token the catalogue admits."""
        return CoinAmount(self.token.coin, self.units * self.token.scale)

    def __str__(self) -> str:
        return plain(self.units, self.token.decimals)


def round_up_to_token(amount: CoinAmount, token: Token) -> CoinAmount:
    """The least amount not below `amount` that the token can carry: how a fee quote is rounded (spec, 16.6)."""
    if token.coin.id != amount.coin.id:
        raise UnlikeAmounts(f"{token.id} is not a token of {amount.coin.symbol}")
    return CoinAmount(amount.coin, -(-amount.units // token.scale) * token.scale)
