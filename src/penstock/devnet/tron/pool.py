"""What waits for a block: every transaction was run on top of those before it, as nodes do, and shows what it would do.

When a block came, what is left is run again on the new state; what then fails (expired, its reference block undone, no money) is dropped
without a word, as nodes do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from penstock.devnet.tron.process import Context, Receipt, Rejected, process
from penstock.devnet.tron.state import Draft, View
from penstock.devnet.tron.transaction import Transaction

POOL_MAX: Final = 2_000
"""java-tron's node.maxTransactionPendingSize; beyond it answers SERVER_BUSY."""


class Pool:
    """Waiting transactions in the order they came, and those that the network has not seen yet (`delay`)."""

    def __init__(self, base: View, *, most: int = POOL_MAX) -> None:
        self._base = base
        self._most = most
        self._waiting: dict[str, Receipt] = {}
        self._delayed: list[tuple[int, Transaction]] = []
        self.state = Draft(base)

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[Receipt]:
        return iter(self._waiting.values())

    def __contains__(self, txid: str) -> bool:
        return txid in self._waiting

    def get(self, txid: str) -> Receipt | None:
        """A waiting transaction with what it would do."""
        return self._waiting.get(txid)

    @property
    def is_full(self) -> bool:
        """Whether the next one is refused."""
        return len(self._waiting) + len(self._delayed) >= self._most

    def add(self, transaction: Transaction, context: Context) -> None:
        """Take one in. Raises Rejected."""
        draft, receipt = process(self.state, transaction, context)
        self.state.take(draft)
        self._waiting[transaction.txid] = receipt

    def delay(self, transaction: Transaction, ready_ms: int) -> None:
        """Take one in later, when it may be refused as well, without a word."""
        self._delayed.append((ready_ms, transaction))

    def arrive(self, now_ms: int, context: Context) -> None:
        """Take in what was delayed until now."""
        ready = [transaction for at_ms, transaction in self._delayed if at_ms <= now_ms]
        if ready:
            self._delayed = [entry for entry in self._delayed if entry[0] > now_ms]
            self._try(ready, context)

    def fill(self, draft: Draft, context: Context, bytes_max: int) -> list[Receipt]:
        """Run what waits in a block, in its order; what does not fit stays. What ran, or failed now, no longer waits."""
        receipts: list[Receipt] = []
        left = bytes_max
        for txid, waiting in list(self._waiting.items()):
            size = len(waiting.transaction.raw)
            if size > left:
                continue
            del self._waiting[txid]
            try:
                changes, receipt = process(draft, waiting.transaction, context)
            except Rejected:
                continue
            draft.take(changes)
            receipts.append(receipt)
            left -= size
        return receipts

    def settle(self, context: Context) -> None:
        """A block came: run what is left on the new state."""
        self._again([receipt.transaction for receipt in self._waiting.values()], context)

    def restore(self, first: Sequence[Transaction], context: Context) -> None:
        """Blocks were undone: their transactions wait again, before the others."""
        self._again([*first, *(receipt.transaction for receipt in self._waiting.values())], context)

    def forget(self, txid: str, context: Context) -> bool:
        """Drop one, also one that was delayed. Whether it was there."""
        delayed = [entry for entry in self._delayed if entry[1].txid != txid]
        there = txid in self._waiting or len(delayed) < len(self._delayed)
        self._delayed = delayed
        if self._waiting.pop(txid, None) is not None:
            self.settle(context)
        return there

    def _again(self, transactions: Sequence[Transaction], context: Context) -> None:
        self._waiting = {}
        self.state = Draft(self._base)
        self._try(transactions, context)

    def _try(self, transactions: Sequence[Transaction], context: Context) -> None:
        for transaction in transactions:
            try:
                self.add(transaction, context)
            except Rejected:
                continue  # nobody is left to be told
