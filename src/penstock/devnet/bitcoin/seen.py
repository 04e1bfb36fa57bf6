"""Transactions ever seen, whatever became of them, and which of them spend the same coins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from penstock.devnet.bitcoin.transaction import Outpoint, Tx

SEEN_MAX: Final = 100_000
"""Transactions remembered; beyond, the one that came first is forgotten."""


class Seen:
    """What waited or was in a block at some time, first come first."""

    def __init__(self) -> None:
        self._txs: dict[str, Tx] = {}
        self._spenders: dict[Outpoint, dict[str, None]] = {}

    def __len__(self) -> int:
        return len(self._txs)

    def __iter__(self) -> Iterator[Tx]:
        return iter(self._txs.values())

    def get(self, txid: str) -> Tx | None:
        """The transaction of this id."""
        return self._txs.get(txid)

    def conflicts(self, tx: Tx) -> list[str]:
        """Other transactions that spend a coin that it spends."""
        found = {txid: None for one in tx.inputs for txid in self._spenders.get(one.outpoint, ()) if txid != tx.txid}
        return list(found)

    def add(self, tx: Tx) -> None:
        """Remember a transaction."""
        if tx.txid in self._txs:
            return
        self._txs[tx.txid] = tx
        for one in tx.inputs:
            self._spenders.setdefault(one.outpoint, {})[tx.txid] = None
        if len(self._txs) > SEEN_MAX:
            self._forget(next(iter(self._txs)))

    def _forget(self, txid: str) -> None:
        for one in self._txs.pop(txid).inputs:
            del self._spenders[one.outpoint][txid]
            if not self._spenders[one.outpoint]:
                del self._spenders[one.outpoint]
