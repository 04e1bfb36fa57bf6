"""What waits outside of the open ledger: the queue of those that pay too little for it, and those whose sequence is not due yet.

Fee levels are fees in units of 1/256 of what the transaction must cost at least.
https://xrpl.org/docs/concepts/transactions/transaction-queue
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from penstock.devnet.xrp.state import View
from penstock.devnet.xrp.transactions import Transaction

BASE_FEE: Final = 10
"""Drops of a plain transaction while nobody else is there."""
BASE_LEVEL: Final = 256
MEDIAN_LEVEL: Final = 128_000
"""The least that a ledger's median counts as: what one more than expected pays."""
PER_ACCOUNT_MAX: Final = 10
LEDGERS_AHEAD: Final = 20
"""The queue holds so many ledgers of the expected size."""
LAST_LEDGER_AHEAD: Final = 2
REPLACE_PERCENT: Final = 125


def level_of(fee: int) -> int:
    """The fee level of drops."""
    return fee * BASE_LEVEL // BASE_FEE


def fee_at(level: int) -> int:
    """The least drops that reach a fee level."""
    return -(-level * BASE_FEE // BASE_LEVEL)


def open_level(count: int, expected: int) -> int:
    """What the next transaction must pay for an open ledger with so many in it: it rises with their square above what is expected."""
    return max(BASE_LEVEL, MEDIAN_LEVEL * count * count // (expected * expected)) if count > expected else BASE_LEVEL


@dataclass(frozen=True, slots=True)
class Room:
    """The open ledger that the queue stands before: its index, its state, and how many transactions are expected in one."""

    index: int
    view: View
    expected: int


class Queue:
    """At most ten of an account, one after another; a ticket stands for itself."""

    def __init__(self) -> None:
        self._by_account: dict[str, dict[tuple[bool, int], Transaction]] = {}
        self._held: dict[str, Transaction] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def of(self, account: str) -> list[Transaction]:
        """What an account has queued, in order."""
        return [one for _, one in sorted(self._by_account.get(account, {}).items())]

    def every(self) -> list[Transaction]:
        """All that wait, queued or held."""
        return [one for mine in self._by_account.values() for one in mine.values()] + list(self._held.values())

    def next_sequence(self, account: str, sequence: int) -> int:
        """The first sequence after what is queued without a gap."""
        mine = self._by_account.get(account, {})
        while (False, sequence) in mine:
            sequence += 1
        return sequence

    def waits_for(self, transaction: Transaction) -> Transaction | None:
        """The one that is queued under the same sequence or ticket."""
        return self._by_account.get(transaction.account, {}).get(_place(transaction))

    def offer(self, transaction: Transaction, room: Room) -> str:
        """Queue it, or say why not."""
        mine, rival = self._by_account.setdefault(transaction.account, {}), self.waits_for(transaction)
        if rival is not None and level_of(transaction.fee) * 100 < level_of(rival.fee) * REPLACE_PERCENT:
            return "telCAN_NOT_QUEUE_FEE"
        if transaction.last_ledger is not None and transaction.last_ledger < room.index + LAST_LEDGER_AHEAD:
            return "telCAN_NOT_QUEUE"
        if rival is None and (len(mine) >= PER_ACCOUNT_MAX or self._size >= LEDGERS_AHEAD * room.expected):
            return "telCAN_NOT_QUEUE_FULL"
        account = room.view.account(transaction.account)
        before = [one for one in mine.values() if one is not rival]
        spent = sum(one.fee + one.spends for one in before)
        if account is None or spent + transaction.fee > account.balance:
            return "telCAN_NOT_QUEUE_BALANCE"
        self._size += rival is None
        mine[_place(transaction)] = transaction
        return "terQUEUED"

    def hold(self, transaction: Transaction) -> None:
        """Keep what comes too early."""
        self._held[transaction.txid] = transaction

    def due(self, view: View) -> list[Transaction]:
        """Take out what is held and whose sequence or ticket is there now, or was."""
        found = [one for one in self._held.values() if _is_due(one, view)]
        for one in found:
            del self._held[one.txid]
        return sorted(found, key=lambda one: (one.account, one.sequence, one.txid))

    def best_first(self) -> list[Transaction]:
        """The queue as it enters a ledger: highest fee level first, each account's own in order."""
        heads = [self.of(account) for account in sorted(self._by_account)]
        heads = [mine for mine in heads if mine]
        found: list[Transaction] = []
        while heads:
            best = max(heads, key=lambda mine: (mine[0].fee, mine[0].txid))
            found.append(best.pop(0))
            heads = [mine for mine in heads if mine]
        return found

    def remove(self, txid: str) -> Transaction | None:
        """Take one out, queued or held."""
        if txid in self._held:
            return self._held.pop(txid)
        for mine in self._by_account.values():
            for place, one in mine.items():
                if one.txid == txid:
                    self._size -= 1
                    return mine.pop(place)
        return None

    def drop(self, txids: Iterable[str]) -> None:
        """Take these out."""
        gone = set(txids)
        for account, mine in list(self._by_account.items()):
            kept = {place: one for place, one in mine.items() if one.txid not in gone}
            self._size -= len(mine) - len(kept)
            if kept:
                self._by_account[account] = kept
            else:
                del self._by_account[account]
        self._held = {txid: one for txid, one in self._held.items() if txid not in gone}


def _place(transaction: Transaction) -> tuple[bool, int]:
    return (transaction.ticket is not None, transaction.ticket or transaction.sequence)


def _is_due(transaction: Transaction, view: View) -> bool:
    account = view.account(transaction.account)
    if account is None:
        return False
    return account.sequence >= transaction.sequence if transaction.ticket is None else account.sequence > transaction.ticket
