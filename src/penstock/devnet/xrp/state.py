"""What a ledger holds: accounts, trust lines, tickets and deposit authorisations, remembered for every ledger that a node still knows.

Amounts of XRP are drops; issued tokens as in `amounts`. An account is its classic address.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Generic, Protocol, TypeVar

from xrpl.core import addresscodec

K = TypeVar("K")
V = TypeVar("V")

REQUIRE_DEST: Final = 0x00020000
REQUIRE_AUTH: Final = 0x00040000
DISALLOW_XRP: Final = 0x00080000
NO_FREEZE: Final = 0x00200000
GLOBAL_FREEZE: Final = 0x00400000
DEFAULT_RIPPLE: Final = 0x00800000
DEPOSIT_AUTH: Final = 0x01000000
NO_TRUST_LINES: Final = 0x20000000
"""lsf flags. https://xrpl.org/docs/references/protocol/ledger-data/ledger-entry-types/accountroot#accountroot-flags"""

Line = tuple[str, str, str]
"""The two accounts of a trust line, the lower one first, and the currency."""


@lru_cache(maxsize=65_536)
def account_id(address: str) -> bytes:
    """The 20 bytes of a classic address."""
    return addresscodec.decode_classic_address(address)


def line_between(one: str, other: str, currency: str) -> Line:
    """The key of the line between two accounts."""
    return (one, other, currency) if account_id(one) < account_id(other) else (other, one, currency)


@dataclass(frozen=True, slots=True)
class Account:
    """An account root, with the transaction that changed it last."""

    balance: int
    sequence: int
    flags: int = 0
    owner_count: int = 0
    transfer_rate: int = 0
    tickets: frozenset[int] = frozenset()
    preauthorized: frozenset[str] = frozenset()
    previous: tuple[str, int] = ("", 0)


@dataclass(frozen=True, slots=True)
class Side:
    """What one account of a trust line says: at most to hold, and its flags. `reserve`: it pays the owner reserve of the line."""

    limit: int = 0
    no_ripple: bool = False
    authorized: bool = False
    freeze: bool = False
    reserve: bool = False


@dataclass(frozen=True, slots=True)
class TrustLine:
    """A trust line. `balance` as the lower account sees it: positive where it holds what the higher one issued."""

    balance: int = 0
    low: Side = Side()
    high: Side = Side()
    previous: tuple[str, int] = ("", 0)

    def held(self, *, low: bool) -> int:
        """The balance as one of the two sees it."""
        return self.balance if low else -self.balance

    def side(self, *, low: bool) -> Side:
        """What one of the two says."""
        return self.low if low else self.high

    def with_side(self, side: Side, *, low: bool) -> TrustLine:
        """The same with another word of one of the two."""
        return replace(self, low=side) if low else replace(self, high=side)


class History(Generic[K, V]):
    """A table whose rows remember in which ledger they got their value; None: gone."""

    def __init__(self) -> None:
        self._rows: dict[K, list[tuple[int, V | None]]] = {}

    def at(self, key: K, index: int) -> V | None:
        """The value at the end of a ledger."""
        row = self._rows.get(key)
        place = bisect_right(row, index, key=lambda entry: entry[0]) if row else 0
        return row[place - 1][1] if row and place else None

    def write(self, key: K, index: int, value: V | None) -> None:
        """The value from this ledger on, which is newer than every one before."""
        self._rows.setdefault(key, []).append((index, value))

    def undo(self, index: int) -> None:
        """Forget everything from this ledger on."""
        for key in [key for key, row in self._rows.items() if row[-1][0] >= index]:
            row = self._rows[key]
            while row and row[-1][0] >= index:
                row.pop()
            if not row:
                del self._rows[key]

    def forget_before(self, index: int) -> None:
        """Keep no older value than that at this ledger."""
        for row in self._rows.values():
            del row[: max(0, bisect_right(row, index, key=lambda entry: entry[0]) - 1)]


class View(Protocol):
    """Something that has accounts and lines: a ledger, or changes upon one."""

    def account(self, address: str) -> Account | None:
        """As it is now."""
        ...

    def line(self, line: Line) -> TrustLine | None:
        """As it is now."""
        ...


class State:
    """Accounts and lines, by ledger index."""

    def __init__(self) -> None:
        self.accounts: History[str, Account] = History()
        self.lines: History[Line, TrustLine] = History()
        self._lines_of: dict[str, set[Line]] = {}

    def lines_of(self, address: str) -> set[Line]:
        """Every line that an account has, or had."""
        return self._lines_of.get(address, set())

    def at(self, index: int) -> Ledger:
        """The state at the end of a ledger."""
        return Ledger(self, index)

    def write(self, index: int, draft: Draft) -> None:
        """What a new ledger changed."""
        for address, account in draft.accounts.items():
            self.accounts.write(address, index, account)
        for key, line in draft.lines.items():
            self.lines.write(key, index, line)
            for address in key[:2]:
                self._lines_of.setdefault(address, set()).add(key)

    def undo(self, index: int) -> None:
        """Forget a ledger and all after it."""
        self.accounts.undo(index)
        self.lines.undo(index)

    def forget_before(self, index: int) -> None:
        """Keep no older state than that of this ledger."""
        self.accounts.forget_before(index)
        self.lines.forget_before(index)


@dataclass(frozen=True, slots=True)
class Ledger:
    """The state at the end of one ledger."""

    state: State
    index: int

    def account(self, address: str) -> Account | None:
        """As it was then."""
        return self.state.accounts.at(address, self.index)

    def line(self, line: Line) -> TrustLine | None:
        """As it was then."""
        return self.state.lines.at(line, self.index)


class Draft:
    """Changes upon a view, that may be kept or dropped."""

    def __init__(self, below: View) -> None:
        self.below = below
        self.accounts: dict[str, Account] = {}
        self.lines: dict[Line, TrustLine | None] = {}

    def account(self, address: str) -> Account | None:
        """As it is now."""
        return self.accounts[address] if address in self.accounts else self.below.account(address)

    def line(self, line: Line) -> TrustLine | None:
        """As it is now."""
        return self.lines[line] if line in self.lines else self.below.line(line)

    def take(self, changes: Draft) -> None:
        """Make the changes of a draft upon this one its own."""
        self.accounts.update(changes.accounts)
        self.lines.update(changes.lines)
