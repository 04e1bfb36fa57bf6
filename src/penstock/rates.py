"""What a coin is worth in USD, how old that is, and conversions in integers.

    prices = Prices(age_max_ms=600_000)
    prices.use_static(static_prices())                     a file: does not age, and says so (`static_symbols`)
    await HttpSource(url=..., ids=..., pointer=...).refresh(prices, fetch, now_ms=...)      instead of the shipped file
    prices.usd("ETH", now_ms=...)                          -> Rate, or NoPrice, or StalePrice
    prices.last_known("ETH")                               -> Rate or None; never raises: internal payouts need no fresh price

A source may lie. Each price is bounded before it is believed: above zero, below `USD_MAX`, and no jump beyond `jump_max` against
the last one believed. A refused price changes nothing: the old one ages until it is stale, and `problems` says why.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

from penstock.core.money import LEDGER_DECIMALS, Coin, CoinAmount, MoneyError, NotAnAmount, parse_units, plain

USD_DECIMALS: Final = 18
"""USD amounts and prices count 10^-18 USD."""

ONE_USD: Final = 10**USD_DECIMALS

USD_MAX: Final = 10**9 * ONE_USD
"""No coin costs a thousand million dollars; a source that says so is broken."""

BODY_BYTES_MAX: Final = 65_536
TIMEOUT_S: Final = 10
CLOCK_SKEW_MS_MAX: Final = 120_000

_NUMBER: Final = re.compile(r"(-?)([0-9]{1,40})(?:\.([0-9]{1,80}))?(?:[eE]([+-]?[0-9]{1,2}))?", re.ASCII)


class PriceError(LookupError):
    """A price that a new quote needs cannot be had; the text says which and why."""


class NoPrice(PriceError):
    """No source ever gave a price for this coin."""


class StalePrice(PriceError):
    """The last price is older than the limit."""


class BadPrice(ValueError):
    """What a source gave cannot be a price, or is not believed; the text says why."""


@dataclass(frozen=True, slots=True)
class Rate:
    """USD per coin in 10^-18 USD, where it is from, and when it was true (Unix milliseconds)."""

    usd: int
    source: str
    at_ms: int
    is_static: bool = False

    def __str__(self) -> str:
        return plain(self.usd, USD_DECIMALS)


class Prices:
    """The last believed price of each coin, by symbol."""

    def __init__(self, *, age_max_ms: int, jump_max: int = 2) -> None:
        """`jump_max`: a new price above last x jump_max or below last / jump_max is refused."""
        if age_max_ms < 1 or jump_max < 2:
            raise ValueError(f"age_max_ms {age_max_ms} and jump_max {jump_max}: at least 1 and 2 would be right")
        self._age_max_ms = age_max_ms
        self._jump_max = jump_max
        self._rates: dict[str, Rate] = {}
        self._problems: dict[str, str] = {}

    def usd(self, symbol: str, *, now_ms: int) -> Rate:
        """The price to quote with. Raises NoPrice or StalePrice."""
        rate = self._rates.get(symbol)
        if rate is None:
            raise NoPrice(f"no price for {symbol}: {self._problems.get(symbol, 'no source gives one')}")
        age_ms = now_ms - rate.at_ms
        if not rate.is_static and age_ms > self._age_max_ms:
            raise StalePrice(f"the price of {symbol} is {age_ms // 1000} s old, the limit is {self._age_max_ms // 1000} s")
        if not rate.is_static and age_ms < -CLOCK_SKEW_MS_MAX:
            raise StalePrice(f"the price of {symbol} is from {-age_ms // 1000} s ahead of our clock, which was set back")
        return rate

    def last_known(self, symbol: str) -> Rate | None:
        """The last price whatever its age. Never raises; never good enough for a quote."""
        return self._rates.get(symbol)

    def use_static(self, rates: Mapping[str, Rate]) -> None:
        """Take prices from a file. They stand for the coins that no other source has priced."""
        for symbol, rate in rates.items():
            if symbol not in self._rates or self._rates[symbol].is_static:
                self._rates[symbol] = rate

    def offer(self, symbol: str, rate: Rate, *, now_ms: int) -> bool:
        """Believe a new price or refuse it; False means that nothing changed and `problems` says why."""
        last = self._rates.get(symbol)
        try:
            _check_bounds(rate)
            self._check_against(last, rate, now_ms)
        except BadPrice as error:
            self._problems[symbol] = str(error)
            return False
        self._rates[symbol] = rate
        self._problems.pop(symbol, None)
        return True

    def complain(self, symbol: str, problem: str) -> None:
        """Keep a reason for people to read; the last price stays."""
        self._problems[symbol] = problem

    def forget(self, symbol: str) -> None:
        """Drop the price, so that the next one is believed whatever it is: what a person does after looking at a jump."""
        self._rates.pop(symbol, None)

    @property
    def static_symbols(self) -> tuple[str, ...]:
        """Coins whose price comes from a file and does not age: /readyz warns of them."""
        return tuple(sorted(symbol for symbol, rate in self._rates.items() if rate.is_static))

    @property
    def problems(self) -> Mapping[str, str]:
        """Per symbol, why the last attempt at a price failed."""
        return dict(self._problems)

    def _check_against(self, last: Rate | None, rate: Rate, now_ms: int) -> None:
        if rate.at_ms > now_ms + CLOCK_SKEW_MS_MAX:
            raise BadPrice(f"{rate.source} gives a time {(rate.at_ms - now_ms) // 1000} s ahead of ours")
        if last is None or last.is_static:
            return
        if rate.at_ms < last.at_ms <= now_ms:
            raise BadPrice(f"{rate.source} gives a price older than the last one")
        if rate.usd > last.usd * self._jump_max or rate.usd * self._jump_max < last.usd:
            raise BadPrice(f"{rate.source} jumped from {last} to {rate}, more than {self._jump_max} times; a restart accepts it")


# ----------------------------------------------------------------------------------------------------------------- sources


def static_prices(path: Path | None = None, *, at_ms: int = 0) -> dict[str, Rate]:
    """Prices from a TOML file of symbol = "price"; None: the one shipped. Raises BadPrice naming the entry."""
    path = path or Path(__file__).with_name("prices.toml")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadPrice(f"{path}: {error}") from error
    rates = {}
    for symbol, price in table.items():
        try:
            if not isinstance(price, str):
                raise NotAnAmount(f"{price!r} is no text in quotes")
            rate = Rate(parse_units(price, USD_DECIMALS), f"file {path.name}", at_ms, is_static=True)
            _check_bounds(rate)
        except (MoneyError, BadPrice) as error:
            raise BadPrice(f"{path}: {symbol}: {error}") from error
        rates[symbol] = rate
    return rates


class FetchBytes(Protocol):
    """An HTTP GET that the wiring passes in. It gives the body of a 200 and raises for everything else."""

    async def __call__(self, url: str, *, bytes_max: int, timeout_s: int) -> bytes:
        """Read at most `bytes_max` bytes within `timeout_s` seconds."""
        ...


@dataclass(frozen=True, slots=True)
class HttpSource:
    """Any JSON over HTTP: one call for all coins when `url` has `{ids}`, one call a coin when it has `{id}`.

    `ids` maps our symbols to the source's names. `pointer` (RFC 6901, may hold `{id}`) leads to the price, `at_pointer` to the Unix
    seconds at which it was true; without one a price is as old as our question.
    """

    url: str
    ids: Mapping[str, str]
    pointer: str
    at_pointer: str = ""
    name: str = "http"

    def __post_init__(self) -> None:
        if ("{ids}" in self.url) == ("{id}" in self.url):
            raise ValueError("the URL of a price source holds either {ids} (one call for all) or {id} (one call a coin)")
        for pointer in (self.pointer, self.at_pointer):
            if pointer and not pointer.startswith("/"):
                raise ValueError(f"{pointer!r} is no JSON pointer such as /{{id}}/usd")
        for name in self.ids.values():
            if re.fullmatch(r"[A-Za-z0-9._:~-]{1,80}", name, re.ASCII) is None:
                raise ValueError(f"{name!r} cannot stand in the URL of a price source")

    async def refresh(self, prices: Prices, fetch: FetchBytes, *, now_ms: int) -> int:
        """Ask once and offer what comes. Never raises for the source's fault; returns how many prices were believed."""
        if "{ids}" in self.url:
            calls: list[tuple[str, Sequence[str]]] = [(self.url.replace("{ids}", ",".join(self.ids.values())), tuple(self.ids))]
        else:
            calls = [(self.url.replace("{id}", name), (symbol,)) for symbol, name in self.ids.items()]
        believed = 0
        for url, symbols in calls:
            try:
                document = parse_json(await fetch(url, bytes_max=BODY_BYTES_MAX, timeout_s=TIMEOUT_S))
            except Exception as error:  # noqa: BLE001 - whatever the client raises, the source did not answer
                # Only our own words: a client's text may hold the URL, and the URL may hold a key.
                reason = str(error) if isinstance(error, BadPrice) else type(error).__name__
                for symbol in symbols:
                    prices.complain(symbol, f"{self.name} gave no answer: {reason}")
                continue
            believed += sum(self._take(prices, symbol, document, now_ms) for symbol in symbols)
        return believed

    def _take(self, prices: Prices, symbol: str, document: object, now_ms: int) -> bool:
        try:
            usd = parse_price(_at(document, self.pointer, self.ids[symbol]))
            at_ms = now_ms
            if self.at_pointer:
                at_ms = parse_units(_text(_at(document, self.at_pointer, self.ids[symbol])), 3)
        except (BadPrice, MoneyError) as error:
            prices.complain(symbol, f"{self.name}: {error}")
            return False
        return prices.offer(symbol, Rate(usd, self.name, at_ms), now_ms=now_ms)


def parse_json(body: bytes) -> object:
    """JSON with every number as its source text, so that none ever becomes a float. Raises BadPrice."""
    if len(body) > BODY_BYTES_MAX:
        raise BadPrice(f"the answer has more than {BODY_BYTES_MAX} bytes")
    try:
        return json.loads(body.decode("utf-8"), parse_float=str, parse_int=str, parse_constant=str)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise BadPrice(f"the answer is no JSON: {type(error).__name__}") from error


def parse_price(value: object) -> int:
    """A price in 10^-18 USD from a JSON number's or string's text; what is finer is cut off. Raises BadPrice.

    Exponents are read (sources write 1.2e-05), so this is wider than an amount of money may ever be.
    """
    text = _text(value)
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise BadPrice(f"{text[:80]!r} is no number")
    sign, whole, fraction, exponent = match[1], match[2], match[3] or "", int(match[4] or "0")
    shift = USD_DECIMALS - len(fraction) + exponent
    digits = int(whole + fraction)
    usd: int = digits * 10**shift if shift >= 0 else digits // 10**-shift
    _check_bounds(Rate(-usd if sign else usd, "the source", 0))
    return usd


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadPrice(f"{str(value)[:80]} is neither number nor text")
    return value


def _at(document: object, pointer: str, name: str) -> object:
    """What a JSON pointer leads to. Raises BadPrice."""
    for part in pointer.split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~").replace("{id}", name)
        try:
            here: Any = document
            document = here[int(key)] if isinstance(here, list) else here[key]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise BadPrice(f"the answer has nothing at {pointer.replace('{id}', name)}") from error
    return document


def _check_bounds(rate: Rate) -> None:
    if rate.usd <= 0:
        raise BadPrice(f"{rate.source} gives {rate}; a price is above zero")
    if rate.usd > USD_MAX:
        raise BadPrice(f"{rate.source} gives {rate}; no coin costs that much")


# ------------------------------------------------------------------------------------------------------------- conversions


def usd_value(amount: CoinAmount, rate: Rate) -> int:
    """What an amount is worth in 10^-18 USD, rounded half up."""
    return _half_up(amount.units * rate.usd, 10**LEDGER_DECIMALS)


def convert(amount: CoinAmount, from_rate: Rate, to_rate: Rate, to_coin: Coin) -> CoinAmount:
    """The least amount of `to_coin` that is worth no less: how a fee in gas becomes a fee in the withdrawn coin. Rounds up."""
    return CoinAmount(to_coin, -(-amount.units * from_rate.usd // to_rate.usd))


def usd_text(usd: int) -> str:
    """10^-18 USD as wire text: always two decimals, rounded half away from zero (spec, 16.9)."""
    cents = _half_up(abs(usd), 10 ** (USD_DECIMALS - 2))
    return f"{'-' if usd < 0 and cents else ''}{cents // 100}.{cents % 100:02d}"


def _half_up(numerator: int, denominator: int) -> int:
    """The nearest whole number; a tie goes up."""
    return (2 * numerator + denominator) // (2 * denominator)
