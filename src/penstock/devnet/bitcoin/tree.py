"""The blocks that a network knows: which of them are the best chain, where its transactions stand, and what is unspent at its end."""

from __future__ import annotations

from penstock.devnet.bitcoin.blocks import MEDIAN_SPAN, Block
from penstock.devnet.bitcoin.coins import Coins
from penstock.devnet.bitcoin.policy import Tip
from penstock.devnet.bitcoin.transaction import Tx


class BlockTree:
    """Blocks by hash, the best chain by height. Of the newest `history` blocks, and of the first, the contents are kept."""

    def __init__(self, first: Block, *, history: int) -> None:
        self.first = first
        self.coins = Coins()  # nobody can ever spend the first block's subsidy, so it is none
        self._history = history
        self._known = {first.hash: first}
        self._active = [first.hash]
        self._median_times = [first.median_time]
        self._where: dict[str, tuple[str, int]] = {}
        self._invalid: set[str] = set()

    @property
    def head(self) -> Block:
        """The newest block of the best chain."""
        return self._known[self._active[-1]]

    @property
    def tip(self) -> Tip:
        """The newest block as the validity of transactions sees it."""
        return Tip(self.head.height, self._median_times[-1], self._median_times.__getitem__)

    @property
    def oldest(self) -> int:
        """Height of the oldest block, beside the first, whose contents are still known."""
        return max(1, self.head.height - self._history + 1)

    def hash_at(self, height: int) -> str:
        """The hash of the best chain's block at a height from 0 to the head's."""
        return self._active[height]

    def at(self, height: int) -> Block | None:
        """The best chain's block at this height, if it is there and still remembered."""
        return self._known.get(self._active[height]) if 0 <= height < len(self._active) else None

    def get(self, block_hash: str) -> Block | None:
        """The block of this hash, of the best chain or not."""
        return self._known.get(block_hash)

    def find(self, txid: str) -> tuple[Block, int] | None:
        """A transaction of the best chain: its block, and its place there."""
        place = self._where.get(txid)
        return None if place is None else (self._known[place[0]], place[1])

    def is_active(self, block: Block) -> bool:
        """Whether a block belongs to the best chain."""
        return block.height < len(self._active) and self._active[block.height] == block.hash

    def was_pruned(self, block_hash: str) -> bool:
        """Whether a block of the best chain is known by its hash only."""
        return block_hash not in self._known and block_hash in self._active

    def stale_tips(self) -> list[Block]:
        """Newest blocks of branches that are not the best chain."""
        parents = {block.parent for block in self._known.values()}
        return [block for block in self._known.values() if block.hash not in parents and not self.is_active(block)]

    def branch(self, block: Block) -> list[Block]:
        """A block and those under it that are not of the best chain, oldest first; none where it is of the best chain itself."""
        found: list[Block] = []
        while not self.is_active(block):
            found.append(block)
            block = self._known[block.parent]
        return found[::-1]

    def median_time(self, time: int) -> int:
        """The median of a new block's time and of the ten before it, in Unix seconds."""
        times = [time]
        block: Block | None = self.head
        while block is not None and len(times) < MEDIAN_SPAN:
            times.append(block.time)
            block = self._known.get(block.parent)
        return sorted(times)[len(times) // 2]

    # How it grows and shrinks

    def append(self, block: Block) -> None:
        """Make a block that stands on the head the new head."""
        self._known[block.hash] = block
        self._active.append(block.hash)
        self._median_times.append(block.median_time)
        for position, tx in enumerate(block.transactions):
            self._where[tx.txid] = (block.hash, position)
        self.coins.connect(block)
        if (old := block.height - self._history) > 0:
            self._drop(old)

    def undo_to(self, height: int) -> list[Tx]:
        """Take all blocks above a height off the best chain; their transactions in order, without those that pay miners."""
        undone = [self._undo() for _ in range(self.head.height - height)]
        return [tx for block in reversed(undone) for tx in block.transactions[1:]]

    def prune(self) -> None:
        """Forget also those blocks off the best chain that are older than what is kept of it."""
        oldest = self.oldest
        self._known = {block_hash: block for block_hash, block in self._known.items() if block.height >= oldest or not block.height}

    def _drop(self, height: int) -> None:
        """Forget what a block held, unless that was done before a fork."""
        block = self._known.pop(self._active[height], None)
        for tx in () if block is None else block.transactions:
            del self._where[tx.txid]

    def _undo(self) -> Block:
        block = self._known[self._active.pop()]
        self._median_times.pop()
        for tx in block.transactions:
            del self._where[tx.txid]
        self.coins.disconnect(block)
        return block

    # What the owner of a node holds for invalid

    def invalidate(self, block: Block) -> None:
        """Hold a block for invalid, with all that follows it. The best chain stays what it is until somebody changes it."""
        self._invalid.add(block.hash)

    def reconsider(self, block: Block) -> None:
        """No longer hold a block, what it builds on and what follows it for invalid."""
        self._invalid = {one for one in self._invalid if not (self._descends(one, block.hash) or self._descends(block.hash, one))}

    def is_invalid(self, block: Block) -> bool:
        """Whether a block, or one that it stands on, is held for invalid."""
        return any(self._descends(block.hash, one) for one in self._invalid)

    def best(self) -> Block:
        """The tip with the most work, the present one before others, that stands on no invalid block."""
        good: dict[str, Block] = {}
        for block in sorted(self._known.values(), key=lambda one: one.height):
            stands = block.parent in good or block.height == 0 or block.parent not in self._known
            if stands and block.hash not in self._invalid:
                good[block.hash] = block
        return max(good.values(), key=lambda one: (one.height, self.is_active(one)))

    def _descends(self, block_hash: str, ancestor: str) -> bool:
        block = self._known.get(block_hash)
        while block is not None and block.hash != ancestor:
            block = self._known.get(block.parent)
        return block is not None
