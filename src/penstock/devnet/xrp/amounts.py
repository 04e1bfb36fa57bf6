"""Amounts as the ledger counts them: drops of XRP, and issued tokens in the sixteen digits that a trust line holds.

https://xrpl.org/docs/references/protocol/data-types/currency-formats
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

ISSUED_SCALE: Final = 30
"""Issued tokens are whole numbers of 10^-30 here. The ledger itself goes down to 10^-81; what is finer than ours is refused."""
DIGITS_MAX: Final = 16
EXPONENT_MAX: Final = 80
DROPS_MAX: Final = 10**17
PAR: Final = 10**9
"""A transfer rate of one for one."""

_VALUE: Final = re.compile(r"(-?)([0-9]{1,97})(?:\.([0-9]{1,97}))?(?:[eE]([+-]?[0-9]{1,3}))?", re.ASCII)


class NotAnAmount(ValueError):
    """No amount that a ledger could hold."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Drops, or 10^-30 of an issued token."""

    units: int
    currency: str = ""
    issuer: str = ""

    def json(self) -> Any:
        """As nodes write it."""
        if not self.currency:
            return str(self.units)
        return {"currency": self.currency, "issuer": self.issuer, "value": value_text(self.units)}


def amount_of(given: Any) -> Amount:
    """An amount in JSON. Raises NotAnAmount."""
    if isinstance(given, str):
        if not (given.isascii() and given.isdigit() and int(given) <= DROPS_MAX):
            raise NotAnAmount("not an amount of drops")
        return Amount(int(given))
    if not isinstance(given, Mapping) or set(given) != {"currency", "issuer", "value"}:
        raise NotAnAmount("neither drops nor an issued token")
    return Amount(units_of(str(given["value"])), str(given["currency"]), str(given["issuer"]))


def units_of(value: str) -> int:
    """A decimal text in units of 10^-30. Raises NotAnAmount for what is finer, or has more digits than the ledger keeps."""
    match = _VALUE.fullmatch(value)
    if match is None:
        raise NotAnAmount("not a number")
    power = ISSUED_SCALE - len(match[3] or "") + int(match[4] or 0)
    digits = int(match[2] + (match[3] or ""))
    if power > 2 * EXPONENT_MAX:
        raise NotAnAmount("larger than any amount")
    part, scaled = _ten_to(-power), digits * _ten_to(power)
    units = scaled // part
    if units * part != scaled or rounded(units) != units:
        raise NotAnAmount("finer than this box counts")
    return -units if match[1] else units


def rounded(units: int) -> int:
    """To sixteen digits and half to even, as each balance is."""
    size = abs(units)
    step = _ten_to(len(str(size)) - DIGITS_MAX)
    whole, rest = divmod(size, step)
    if 2 * rest > step or (2 * rest == step and whole % 2):
        whole += 1
    return (whole if units >= 0 else -whole) * step


def with_transfer_fee(units: int, rate: int) -> int:
    """What leaves the sender so that `units` arrive, rounded up to sixteen digits."""
    exact = -(-units * rate // PAR)
    step = _ten_to(len(str(exact)) - DIGITS_MAX)
    return -(-exact // step) * step


def without_transfer_fee(units: int, rate: int) -> int:
    """What arrives of `units` that leave the sender, rounded down to sixteen digits."""
    exact = units * PAR // rate
    step = _ten_to(len(str(exact)) - DIGITS_MAX)
    return exact // step * step


def _ten_to(power: int) -> int:
    """One where the power is negative."""
    return int(10 ** max(0, power))


def value_text(units: int) -> str:
    """As rippled writes it: plain decimals, and 1000000000000000e-4 for what is very large or very small."""
    if not units:
        return "0"
    sign, digits = ("-" if units < 0 else ""), str(abs(units))
    exponent = len(digits) - DIGITS_MAX - ISSUED_SCALE
    if not -25 <= exponent <= -5:
        return f"{sign}{digits[:DIGITS_MAX].ljust(DIGITS_MAX, '0')}e{exponent}"
    digits = digits.rjust(ISSUED_SCALE + 1, "0")
    return sign + (digits[:-ISSUED_SCALE] + "." + digits[-ISSUED_SCALE:]).rstrip("0").rstrip(".")
