"""What a ledger holds: accounts, trust lines and tickets, remembered for every ledger that a node still knows.

Amounts of XRP are drops; amounts of issued tokens are whole numbers of 10^-15, which holds every value that this box deals in exactly.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

IOU_SCALE: Final = 15
REQUIRE_DEST: Final = 0x00020000
DISALLOW_XRP: Final = 0x00080000
GLOBAL_FREEZE: Final = 0x00400000
DEFAULT_RIPPLE: Final = 0x00800000
DEPOSIT_AUTH: Final = 0x01000000
"""lsf flags. https://xrpl.org/docs/references/protocol/ledger-data/ledger-entry-types/accountroot#accountroot-flags"""

Line = tuple[str, str, str]
"""Holder, issuer, currency."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account root."""

    balance: int
    sequence: int
    flags: int = 0
    owner_count: int = 0
    tickets: frozenset[int] = frozenset()
    preauthorized: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class TrustLine:
    """What a holder has of an issuer's token, and at most wants."""

    balance: int
    limit: int
    frozen: bool = False


class History(Generic[K, V]):
    """A table whose rows remember in which ledger they got their value."""

    def __init__(self) -> None:
        self._rows: dict[K, list[tuple[int, V]]] = {}

    def at(self, key: K, index: int) -> V | None:
        """The value at the end of a ledger."""
        row = self._rows.get(key)
        place = bisect_right(row, index, key=lambda entry: entry[0]) if row else 0
        return row[place - 1][1] if row and place else None

    def write(self, key: K, index: int, value: V) -> None:
        """The value from this ledger on."""
        row = self._rows.setdefault(key, [])
        if row and row[-1][0] == index:
            row.pop()
        row.append((index, value))

    def undo(self, index: int) -> None:
        """Forget everything from this ledger on."""
        for key in [key for key, row in self._rows.items() if row[-1][0] >= index]:
            row = self._rows[key]
            while row and row[-1][0] >= index:
                row.pop()
            if not row:
                del self._rows[key]

    def keys(self) -> list[K]:
        """Every row there is."""
        return list(self._rows)


class State:
    """Accounts and lines, by ledger index."""

    def __init__(self) -> None:
        self.accounts: History[str, Account] = History()
        self.lines: History[Line, TrustLine] = History()

    def undo(self, index: int) -> None:
        """Forget a ledger and all after it."""
        self.accounts.undo(index)
        self.lines.undo(index)


class Draft:
    """The state while a ledger is made: changes upon the state before it."""

    def __init__(self, state: State, index: int) -> None:
        self._state = state
        self.index = index
        self.accounts: dict[str, Account] = {}
        self.lines: dict[Line, TrustLine] = {}

    def account(self, address: str) -> Account | None:
        """As it is now."""
        return self.accounts.get(address) or self._state.accounts.at(address, self.index)

    def line(self, line: Line) -> TrustLine | None:
        """As it is now."""
        return self.lines.get(line) or self._state.lines.at(line, self.index)

    def keep(self) -> None:
        """Write it down."""
        for address, account in self.accounts.items():
            self._state.accounts.write(address, self.index, account)
        for key, line in self.lines.items():
            self._state.lines.write(key, self.index, line)
