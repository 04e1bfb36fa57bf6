"""The network as one node knows it: without the newest blocks where it lags, and without transactions where it is blind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from penstock.devnet.bitcoin.blocks import Block
from penstock.devnet.bitcoin.chain import BitcoinChain
from penstock.devnet.bitcoin.coins import Coins, EarlierCoins, made_by
from penstock.devnet.bitcoin.mempool import Entry
from penstock.devnet.bitcoin.transaction import Coin, Outpoint, Tx


@dataclass(frozen=True, slots=True)
class Found:
    """A transaction and where it is: in a block, or waiting (`block` None)."""

    tx: Tx
    block: Block | None
    position: int = 0


class View:
    """One look. What is in blocks that the node does not have yet still waits in its mempool."""

    def __init__(self, chain: BitcoinChain, *, lag: int = 0, blind: bool = False) -> None:
        self.chain = chain
        self.blind = blind
        blocks = chain.blocks
        self.height = max(0, blocks.head.height - lag)
        self._unseen = [block for height in range(self.height + 1, blocks.head.height + 1) if (block := blocks.at(height)) is not None]
        self.coins: Coins | EarlierCoins = EarlierCoins(blocks.coins, self._unseen) if self._unseen else blocks.coins
        self._late = {tx.txid: Found(tx, block, place) for block in self._unseen for place, tx in enumerate(block.transactions) if place}

    @property
    def tip(self) -> Block:
        """Its newest block."""
        block = self.chain.blocks.at(self.height)
        return self.chain.blocks.head if block is None else block

    def block(self, block_hash: str) -> Block | None:
        """The block of this hash, of the best chain or not, unless it has not arrived."""
        block = self.chain.blocks.get(block_hash)
        return None if block is None or (self.chain.blocks.is_active(block) and block.height > self.height) else block

    def depth(self, block: Block) -> int:
        """Confirmations of a block's transactions: 1 for the newest block, -1 off the best chain."""
        return self.height - block.height + 1 if self.chain.blocks.is_active(block) else -1

    def find(self, txid: str) -> Found | None:
        """A transaction of the best chain, or one that waits."""
        if self.blind:
            return None
        if txid in self._late:
            return Found(self._late[txid].tx, None)
        place = self.chain.blocks.find(txid)
        if place is not None:
            return Found(place[0].transactions[place[1]], *place) if place[0].height <= self.height else None
        entry = self.chain.mempool.get(txid)
        return None if entry is None else Found(entry.tx, None)

    def entry(self, txid: str) -> Entry | None:
        """A waiting transaction with what the mempool knows of it."""
        if self.blind:
            return None
        late = self._late.get(txid)
        return self.chain.mempool.get(txid) if late is None or late.block is None else _entry(late.block, late.position)

    def waiting(self) -> Iterator[Entry]:
        """All that waits, first come first."""
        if not self.blind:
            yield from (_entry(found.block, found.position) for found in self._late.values() if found.block is not None)
            yield from self.chain.mempool

    def spender(self, outpoint: Outpoint) -> str | None:
        """Which waiting transaction spends an output."""
        if self.blind:
            return None
        late = (txid for txid, found in self._late.items() if any(one.outpoint == outpoint for one in found.tx.inputs))
        return next(late, None) or self.chain.mempool.spender(outpoint)

    def waiting_coin(self, outpoint: Outpoint) -> Coin | None:
        """An output of a waiting transaction, whether spent by another one or not."""
        entry = self.entry(outpoint[0])
        return None if entry is None else dict(made_by(entry.tx, None)).get(outpoint)


def _entry(block: Block, position: int) -> Entry:
    """A transaction of a block that has not arrived, as it waits in the mempool."""
    tx = block.transactions[position]
    return Entry(tx, block.fee(position), tx.vsize, 0, block.spent[position], 0, block.height - 1, block.made_ms, 0)
