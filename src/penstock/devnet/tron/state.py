"""Accounts and storage of a TRON network, as they stood after each block, and drafts of changes on top of each other."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from penstock.devnet.evm.state import Account as EvmAccount
from penstock.devnet.evm.state import Slot, Versions


class Usage(NamedTuple):
    """What an account used of a resource that comes back within a day. `slot` is when it was last counted."""

    used: int = 0
    slot: int = 0


class Account(NamedTuple):
    """What the network knows of an account; the default is one that does not exist.

    Amounts in sun, times in Unix milliseconds. `net_staked` and `energy_staked` were delegated to it by others, and `lent_net` and
    `lent_energy` by it.
    """

    exists: bool = False
    created_ms: int = 0
    active_ms: int = 0
    balance: int = 0
    code: bytes = b""
    free: Usage = Usage()
    net: Usage = Usage()
    energy: Usage = Usage()
    net_staked: int = 0
    energy_staked: int = 0
    lent_net: int = 0
    lent_energy: int = 0


class View(Protocol):
    """The state at one moment. Accounts by their 20 bytes without the prefix."""

    def account(self, address: bytes) -> Account:
        """The account at this address."""
        ...

    def slot(self, slot: Slot) -> int:
        """The word in this slot of a contract's storage."""
        ...


class World:
    """The whole state with its history."""

    def __init__(self) -> None:
        self.accounts: Versions[bytes, Account] = Versions(Account())
        self.slots: Versions[Slot, int] = Versions(0)

    def account(self, address: bytes) -> Account:
        """The account as of the newest block."""
        return self.accounts.newest(address)

    def slot(self, slot: Slot) -> int:
        """The word as of the newest block."""
        return self.slots.newest(slot)

    def write(self, height: int, draft: Draft) -> None:
        """Keep what a block changed."""
        self.accounts.write(height, draft.accounts)
        self.slots.write(height, draft.slots)

    def undo(self, height: int) -> None:
        """Take back the last block."""
        self.accounts.undo(height)
        self.slots.undo(height)

    def forget_before(self, height: int) -> None:
        """Older states than that of block `height` can no longer be asked about."""
        self.accounts.forget_before(height)
        self.slots.forget_before(height)


class Snapshot:
    """The state after one block; never changes unless that block is undone."""

    def __init__(self, world: World, height: int) -> None:
        self._world, self._height = world, height

    def account(self, address: bytes) -> Account:
        """The account after that block."""
        return self._world.accounts.at(address, self._height)

    def slot(self, slot: Slot) -> int:
        """The word after that block."""
        return self._world.slots.at(slot, self._height)


class Draft:
    """Changes on top of a state: those of a block, of what waits, or of one transaction."""

    def __init__(self, base: View) -> None:
        self._base = base
        self.accounts: dict[bytes, Account] = {}
        self.slots: dict[Slot, int] = {}

    def account(self, address: bytes) -> Account:
        """The account as of now."""
        found = self.accounts.get(address)
        return self._base.account(address) if found is None else found

    def slot(self, slot: Slot) -> int:
        """The word as of now."""
        found = self.slots.get(slot)
        return self._base.slot(slot) if found is None else found

    def put(self, address: bytes, account: Account) -> None:
        """Make it so."""
        self.accounts[address] = account

    def take(self, changes: Draft) -> None:
        """Keep what a draft on top of this one changed."""
        self.accounts.update(changes.accounts)
        self.slots.update(changes.slots)


class EvmView:
    """A state as the interpreter of contract code sees it."""

    def __init__(self, view: View) -> None:
        self._view = view

    def account(self, address: bytes) -> EvmAccount:
        """Balance in sun; TRON's accounts count no transactions."""
        account = self._view.account(address)
        return EvmAccount(1 if account.code else 0, account.balance, account.code)

    def slot(self, slot: Slot) -> int:
        """A word of a contract's storage."""
        return self._view.slot(slot)
