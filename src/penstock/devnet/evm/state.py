"""Accounts and storage of an EVM network, as they stood after each block that is still remembered.

Values are kept as versions by block height, so a question about an old block is a look-up, and undoing blocks is dropping
versions. The state trie of a real node is not built; see docs/devnet.md.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from typing import Generic, NamedTuple, Protocol, TypeVar

K = TypeVar("K")
V = TypeVar("V")

Slot = tuple[bytes, int]
"""A contract's address and the index of one word in its storage."""


class Account(NamedTuple):
    """What the network knows of an address; the default is an address that nobody ever used."""

    nonce: int = 0
    balance: int = 0
    code: bytes = b""


class StateView(Protocol):
    """The state that an execution starts from."""

    def account(self, address: bytes) -> Account:
        """The account at this address."""
        ...

    def slot(self, slot: Slot) -> int:
        """The word in this slot."""
        ...


class Versions(Generic[K, V]):
    """One value per key and height; what was never written is `default`."""

    def __init__(self, default: V) -> None:
        self._default = default
        self._heights: dict[K, list[int]] = {}
        self._values: dict[K, list[V]] = {}
        self._written: dict[int, list[K]] = {}

    def newest(self, key: K) -> V:
        """The value after the last block."""
        values = self._values.get(key)
        return values[-1] if values else self._default

    def at(self, key: K, height: int) -> V:
        """The value after block `height`."""
        heights = self._heights.get(key)
        if not heights:
            return self._default
        position = bisect_right(heights, height)
        return self._values[key][position - 1] if position else self._default

    def write(self, height: int, changes: Mapping[K, V]) -> None:
        """What block `height` changed; called once a block, in order."""
        self._written[height] = list(changes)
        for key, value in changes.items():
            self._heights.setdefault(key, []).append(height)
            self._values.setdefault(key, []).append(value)

    def undo(self, height: int) -> None:
        """Take back block `height`, which must be the last one written."""
        for key in self._written.pop(height):
            self._heights[key].pop()
            self._values[key].pop()

    def forget_before(self, height: int) -> None:
        """Block `height` becomes the oldest that can be asked about; called for each height in order."""
        for key in self._written.get(height, ()):
            useless = bisect_right(self._heights[key], height) - 1
            del self._heights[key][:useless]
            del self._values[key][:useless]
        self._written.pop(height - 1, None)


class World:
    """The whole state with its history."""

    def __init__(self) -> None:
        self.accounts: Versions[bytes, Account] = Versions(Account())
        self.slots: Versions[Slot, int] = Versions(0)

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
    """The state while a block is being made: the newest one, with this block's changes on top."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.accounts: dict[bytes, Account] = {}
        self.slots: dict[Slot, int] = {}

    def account(self, address: bytes) -> Account:
        """The account as of now."""
        found = self.accounts.get(address)
        return self._world.accounts.newest(address) if found is None else found

    def slot(self, slot: Slot) -> int:
        """The word as of now."""
        found = self.slots.get(slot)
        return self._world.slots.newest(slot) if found is None else found

    def change(self, address: bytes, *, balance: int = 0, nonce: int = 0) -> None:
        """Add to an account's balance (wei) and nonce."""
        account = self.account(address)
        self.accounts[address] = account._replace(balance=account.balance + balance, nonce=account.nonce + nonce)
