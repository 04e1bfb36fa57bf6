"""The mempool: which transactions a node takes, keeps and offers to the next block, with geth's rules and geth's words.

Error texts as in https://github.com/ethereum/go-ethereum (core/txpool/errors.go, core/error.go, core/txpool/validation.go):
clients match on them, ours included.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from penstock.devnet.evm.execution import floor_gas, intrinsic_gas
from penstock.devnet.evm.state import Account
from penstock.rails.evm.codec import SignedTransaction

PRICE_BUMP_PERCENT: Final = 10
"""What a replacement must offer more, on both fee fields (geth's --txpool.pricebump)."""

POOL_MAX: Final = 100_000
"""Transactions in one pool. geth holds some 6,000 and evicts the cheapest; here the next one is refused."""


class Rejected(Exception):
    """The node does not take these bytes; the text is what geth says. JSON-RPC code -32000."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A transaction that waits. `cost_max` is what its sender must have; `ready_ms` is when the network learns of it."""

    transaction: SignedTransaction
    sender: bytes
    nonce: int
    cost_max: int
    arrival: int
    ready_ms: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What a network demands of a transaction; amounts in wei."""

    gas_limit: int
    tip_min: int
    dynamic_fees: bool


class Mempool:
    """Waiting transactions by sender and nonce. Gaps are allowed: what stands behind one waits for it."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._by_sender: dict[bytes, dict[int, Entry]] = {}
        self._by_txid: dict[str, Entry] = {}
        self._cost: dict[bytes, int] = {}
        self._arrivals = 0
        self.shunned: set[bytes] = set()
        """Whose transactions wait and are taken by no block."""

    def __len__(self) -> int:
        return len(self._by_txid)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._by_txid.values())

    def get(self, txid: str) -> Entry | None:
        """The entry with this transaction id."""
        return self._by_txid.get(txid)

    def add(self, transaction: SignedTransaction, account: Account, *, l1_fee: int, ready_ms: int) -> Entry:
        """Take a transaction in, `account` being its sender's as of the newest block. Raises Rejected.

        Checked in geth's order: what the bytes say alone, then nonce, then money, then what waits already.
        """
        unsigned = transaction.unsigned
        if transaction.txid in self._by_txid:
            raise Rejected("already known")
        self._check_alone(transaction)
        if unsigned.nonce < account.nonce:
            raise Rejected(f"nonce too low: next nonce {account.nonce}, tx nonce {unsigned.nonce}")
        sender = bytes.fromhex(transaction.sender[2:])
        cost = unsigned.fee_max + unsigned.value + l1_fee
        self._check_money(sender, unsigned.nonce, cost, account.balance)
        waiting = self._by_sender.get(sender, {}).get(unsigned.nonce)
        if waiting is not None:
            _check_replacement(waiting.transaction, transaction)
            self.remove(waiting.transaction.txid)
        elif len(self._by_txid) >= POOL_MAX:
            raise Rejected("txpool is full")
        return self._keep(transaction, sender, cost, ready_ms)

    def restore(self, transaction: SignedTransaction, *, l1_fee: int) -> None:
        """Take back what an undone block held, unchecked; where another one waits on its nonce by now, that one stays."""
        sender, unsigned = bytes.fromhex(transaction.sender[2:]), transaction.unsigned
        if unsigned.nonce not in self._by_sender.get(sender, {}):
            self._keep(transaction, sender, unsigned.fee_max + unsigned.value + l1_fee, 0)

    def _keep(self, transaction: SignedTransaction, sender: bytes, cost: int, ready_ms: int) -> Entry:
        self._arrivals += 1
        entry = Entry(transaction, sender, transaction.unsigned.nonce, cost, self._arrivals, ready_ms)
        self._by_sender.setdefault(sender, {})[entry.nonce] = entry
        self._by_txid[transaction.txid] = entry
        self._cost[sender] = self._cost.get(sender, 0) + cost
        return entry

    def _check_alone(self, transaction: SignedTransaction) -> None:
        unsigned, terms = transaction.unsigned, self._terms
        if unsigned.type and not terms.dynamic_fees:
            raise Rejected("transaction type not supported: type 2 rejected, pool not yet in London")
        if unsigned.gas_limit > terms.gas_limit:
            raise Rejected("exceeds block gas limit")
        needed = intrinsic_gas(unsigned.data, creates=unsigned.to is None)
        if unsigned.gas_limit < needed:
            raise Rejected(f"intrinsic gas too low: gas {unsigned.gas_limit}, minimum needed {needed}")
        if unsigned.gas_limit < (floor := floor_gas(unsigned.data)):
            raise Rejected(f"insufficient gas for floor data gas cost: gas {unsigned.gas_limit}, minimum needed {floor}")
        if unsigned.max_priority_fee_per_gas < terms.tip_min:
            raise Rejected(f"transaction underpriced: gas tip cap {unsigned.max_priority_fee_per_gas}, minimum needed {terms.tip_min}")

    def _check_money(self, sender: bytes, nonce: int, cost: int, balance: int) -> None:
        """All that waits of one sender must be covered together, as geth wants it since 1.12."""
        text = "insufficient funds for gas * price + value"
        if balance < cost:
            raise Rejected(f"{text}: balance {balance}, tx cost {cost}, overshot {cost - balance}")
        queued = self._cost.get(sender, 0)
        if (waiting := self._by_sender.get(sender, {}).get(nonce)) is not None:
            queued -= waiting.cost_max
        if balance < queued + cost:
            raise Rejected(f"{text}: balance {balance}, queued cost {queued}, tx cost {cost}, overshot {queued + cost - balance}")

    def remove(self, txid: str) -> Entry | None:
        """Forget a transaction, as a node may at any time. None when it was not there."""
        entry = self._by_txid.pop(txid, None)
        if entry is not None:
            of_sender = self._by_sender[entry.sender]
            del of_sender[entry.nonce]
            self._cost[entry.sender] -= entry.cost_max
            if not of_sender:
                del self._by_sender[entry.sender], self._cost[entry.sender]
        return entry

    def used(self, sender: bytes, nonce: int) -> None:
        """A block used this nonce: whatever waited on it is over."""
        if (entry := self._by_sender.get(sender, {}).get(nonce)) is not None:
            self.remove(entry.transaction.txid)

    def next_nonce(self, sender: bytes, nonce: int) -> int:
        """The first nonce from `nonce` on that nothing waits on: the pending transaction count."""
        waiting = self._by_sender.get(sender)
        while waiting is not None and nonce in waiting:
            nonce += 1
        return nonce

    def offer(self, nonces: dict[bytes, int], base_fee: int, at_ms: int, *, newest_first: bool = False) -> Offer:
        """What a block made at `at_ms` may take. `nonces` gives each waiting sender's next nonce."""
        return Offer(self._by_sender, nonces, base_fee, at_ms, newest_first=newest_first)

    def senders(self) -> list[bytes]:
        """Everyone who has something waiting that a block may take."""
        return [sender for sender in self._by_sender if sender not in self.shunned]


class Offer:
    """Waiting transactions in the order of a block: best tip first, then first come; each sender's in order of nonces."""

    def __init__(
        self, by_sender: dict[bytes, dict[int, Entry]], nonces: dict[bytes, int], base_fee: int, at_ms: int, *, newest_first: bool
    ) -> None:
        self._by_sender, self._base_fee, self._at_ms = by_sender, base_fee, at_ms
        self._sign = -1 if newest_first else 1
        self._heap: list[tuple[int, int, Entry]] = []
        for sender, nonce in nonces.items():
            self._put(sender, nonce)

    def _put(self, sender: bytes, nonce: int) -> None:
        entry = self._by_sender.get(sender, {}).get(nonce)
        if entry is None or entry.ready_ms > self._at_ms or entry.transaction.unsigned.max_fee_per_gas < self._base_fee:
            return
        tip = 0 if self._sign < 0 else effective_price(entry.transaction, self._base_fee) - self._base_fee
        heapq.heappush(self._heap, (-tip, self._sign * entry.arrival, entry))

    def __iter__(self) -> Iterator[Entry]:
        """Take the best; call `included` before the next to be offered the sender's following one."""
        while self._heap:
            yield heapq.heappop(self._heap)[2]

    def included(self, entry: Entry) -> None:
        """The block took it: the sender's next one may follow."""
        self._put(entry.sender, entry.nonce + 1)


def effective_price(transaction: SignedTransaction, base_fee: int) -> int:
    """What a unit of gas costs in a block of this base fee, in wei; 0 as base fee where there is none."""
    unsigned = transaction.unsigned
    return min(unsigned.max_fee_per_gas, base_fee + unsigned.max_priority_fee_per_gas)


def _check_replacement(old: SignedTransaction, new: SignedTransaction) -> None:
    for before, after in (
        (old.unsigned.max_fee_per_gas, new.unsigned.max_fee_per_gas),
        (old.unsigned.max_priority_fee_per_gas, new.unsigned.max_priority_fee_per_gas),
    ):
        if after <= before or after < before * (100 + PRICE_BUMP_PERCENT) // 100:
            raise Rejected("replacement transaction underpriced")
