"""One Bitcoin network as a plain state machine: no thread, no socket, no clock of its own.

Everything follows from the spec, the seed, the times that the given clock shows, and what is submitted when. Blocks are made when somebody
looks (`tick`), each with the time at which it was due, and each has to please Bitcoin Core's consensus code before it counts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.core.errors import InvariantBroken
from penstock.devnet.bitcoin import blocks as blocklib
from penstock.devnet.bitcoin.blocks import Block
from penstock.devnet.bitcoin.coins import Coins, made_by
from penstock.devnet.bitcoin.faucet import Faucet
from penstock.devnet.bitcoin.kernel import Kernel, Refused
from penstock.devnet.bitcoin.mempool import Entry, Mempool, Terms
from penstock.devnet.bitcoin.policy import BLOCK_WEIGHT_MAX, Tip
from penstock.devnet.bitcoin.transaction import Coin, Outpoint, Tx, hex_id, read, script_of, sha256d
from penstock.devnet.bitcoin.twin import twin_of
from penstock.devnet.box import Keep

CHAIN_ID: Final = 3669344250
"""Regtest's P2P magic (fa bf b5 da) as a little-endian number. Its addresses begin with bcrt1, m, n or 2, and are none on the main network."""

CATCH_UP_MAX: Final = 1_000
"""Blocks made at one look after a long silence; beyond, the network counts as having stood still."""

SEEN_MAX: Final = 100_000
"""Transactions remembered, whatever became of them."""

WEIGHT_MIN: Final = 40_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSpec:
    """What a network is born with. Feerates in satoshi per 1,000 virtual bytes.

    `block_ms` 0: blocks only on demand. `premined` blocks exist at birth, so that the faucet has ripe coins. `relay_fee` is what nodes and
    blocks take at least, `market_fee` what a fee estimate says for the next block. `history`: blocks of which the contents are kept.
    """

    name: str
    chain_id: int = CHAIN_ID
    block_ms: int = 1_000
    premined: int = 200
    relay_fee: int = 1_000
    market_fee: int = 2_000
    history: int = 20_000

    def __post_init__(self) -> None:
        """Raises ValueError when the chain id is not a box's."""
        if self.chain_id != CHAIN_ID:
            raise ValueError(f"a box has the chain id {CHAIN_ID} (regtest), never a real network's")


class BitcoinChain:
    """The network that all its nodes agree on: blocks, coins and one shared mempool."""

    def __init__(self, spec: ChainSpec, *, now_ms: Callable[[], int], seed: int = 0) -> None:
        self.spec = spec
        self.block_ms = spec.block_ms
        self.block_weight = BLOCK_WEIGHT_MAX
        self.factor = 1
        self.coins = Coins()
        self.mempool = Mempool(Terms(relay=spec.relay_fee, incremental=spec.relay_fee), self.coins)
        self.seen: dict[str, Tx] = {}
        self._spenders: dict[Outpoint, dict[str, None]] = {}
        self.born_ms = now_ms()
        self._now_ms = now_ms
        self._tag = hashlib.sha256(f"penstock devnet {spec.name} {seed}".encode()).digest()[:8]
        self._faucet = Faucet(f"penstock devnet faucet {spec.name} {seed}")
        self._kernel = Kernel()
        self._branch = 0
        self._known: dict[str, Block] = {}
        self._active: list[str] = []
        self._median_times: list[int] = []
        self._where: dict[str, tuple[str, int]] = {}
        self._invalid: set[str] = set()
        self._due_ms = 0
        self._first_txid = ""
        self._begin()

    # What has happened

    @property
    def head(self) -> Block:
        """The newest block."""
        return self._known[self._active[-1]]

    @property
    def faucet(self) -> str:
        """The faucet's address."""
        return self._faucet.address

    @property
    def first_txid(self) -> str:
        """The one transaction of the first block."""
        return self._first_txid

    def now_ms(self) -> int:
        """The time by the clock that drives the network, in Unix milliseconds."""
        return self._now_ms()

    @property
    def oldest(self) -> int:
        """Height of the oldest block, beside the first, whose contents are still known."""
        return max(1, self.head.height - self.spec.history + 1)

    def hash_at(self, height: int) -> str:
        """The hash of the block at a height from 0 to the head's."""
        return self._active[height]

    def block_at(self, height: int) -> Block | None:
        """The block at this height, if it is there and still remembered."""
        return self._known.get(self._active[height]) if 0 <= height < len(self._active) else None

    def block(self, block_hash: str) -> Block | None:
        """The block of this hash, of the best chain or not."""
        return self._known.get(block_hash)

    def is_active(self, block: Block) -> bool:
        """Whether a block belongs to the best chain."""
        return block.height < len(self._active) and self._active[block.height] == block.hash

    def stale_tips(self) -> list[Block]:
        """Newest blocks of branches that are not the best chain."""
        parents = {block.parent for block in self._known.values()}
        return [block for block in self._known.values() if block.hash not in parents and not self.is_active(block)]

    def fork_height(self, block: Block) -> int:
        """The height up to which a block's branch is the best chain."""
        while not self.is_active(block):
            block = self._known[block.parent]
        return block.height

    def is_invalid(self, block: Block) -> bool:
        """Whether a block, or one that it stands on, is held for invalid."""
        return any(self._descends(block.hash, one) for one in self._invalid)

    def was_pruned(self, block_hash: str) -> bool:
        """Whether a block of the best chain is known by its hash only."""
        return block_hash not in self._known and block_hash in self._active

    def find(self, txid: str) -> tuple[Block, int] | None:
        """A transaction of the best chain: its block, and its place there."""
        place = self._where.get(txid)
        return None if place is None else (self._known[place[0]], place[1])

    def conflicts(self, tx: Tx) -> list[str]:
        """Other transactions ever seen that spend a coin that it spends."""
        found = {txid: None for one in tx.inputs for txid in self._spenders.get(one.outpoint, ()) if txid != tx.txid}
        return list(found)

    @property
    def tip(self) -> Tip:
        """The newest block as the validity of transactions sees it."""
        return Tip(self.head.height, self._median_times[-1], self._median_times.__getitem__)

    @property
    def block_fee_min(self) -> int:
        """What the makers of blocks take at least."""
        return self.spec.relay_fee * self.factor

    def market_fee(self, target: int) -> int:
        """The feerate that gets into one of the next `target` blocks, with less to spare the longer one waits."""
        spare = self.spec.market_fee - self.spec.relay_fee
        part = 4 if target <= 2 else 2 if target <= 6 else 1
        return max((self.spec.relay_fee + spare * part // 4) * self.factor, self.mempool.terms.minimum)

    # What one may do

    def submit(self, raw: bytes, *, delay_ms: int = 0) -> Entry:
        """Offer signed bytes; they enter a block made `delay_ms` from now at the earliest. Raises BadBytes or Rejected."""
        return self.submit_tx(read(raw), delay_ms=delay_ms)

    def submit_tx(self, tx: Tx, *, delay_ms: int = 0, package: bool = False) -> Entry:
        """The same with a transaction that was read already. Raises Rejected."""
        self.tick()
        now = self._now_ms()
        entry = self.mempool.add(tx, self.tip, at_ms=now, ready_ms=now + delay_ms if delay_ms else 0, package=package)
        self._remember(tx)
        return entry

    def judge(self, tx: Tx, *, package: bool = False) -> Entry:
        """What would be its entry in the mempool. Raises Rejected."""
        self.tick()
        return self.mempool.judge(tx, self.tip, at_ms=self._now_ms(), package=package)[0]

    def tick(self) -> int:
        """Make the blocks that are due by now; their number."""
        if not self.block_ms:
            return 0
        now, made = self._now_ms(), 0
        if now - self._due_ms > CATCH_UP_MAX * self.block_ms:
            self._due_ms = now
        while self._due_ms <= now:
            self._make(self._due_ms)
            made += 1
        return made

    def mine(self, count: int = 1, *, script: bytes | None = None) -> list[Block]:
        """Make blocks now, whatever the schedule, for the faucet or another script; the next one is due a block time later."""
        self.tick()
        return [self._make(self._now_ms(), script=script) for _ in range(count)]

    def set_block_time(self, block_ms: int) -> None:
        """Make blocks at another pace from now on; 0 for only on demand. Raises ValueError when negative."""
        if block_ms < 0:
            raise ValueError("a block time is 0 or more milliseconds")
        self.tick()
        self.block_ms = block_ms
        self._due_ms = self._now_ms() + block_ms

    def fork(self, depth: int, transactions: Keep = "keep") -> Block:
        """Make a branch that is one block longer than the newest `depth` blocks, so that it wins.

        Their transactions come again in the new blocks (keep), in another order and one block later (reorder), or are forgotten (drop); also
        forgotten is what spends the subsidy of an undone block. Raises ValueError when there are not so many blocks.
        """
        self.tick()
        height = self.head.height
        limit = height if self.oldest == 1 else height - self.oldest - blocklib.MEDIAN_SPAN
        if not 1 <= depth <= limit:
            raise ValueError(f"a fork is from 1 to {limit} blocks deep here")
        orphans = self._undo_to(height - depth)
        self._branch += 1
        now = self._now_ms()
        self.mempool.rebuild(() if transactions == "drop" else orphans, self.tip, at_ms=now)
        reorder = transactions == "reorder"
        for number in range(depth + 1):
            self._make(now, newest_first=reorder, empty=reorder and number == 0, wins=number == depth)
        oldest = self.oldest
        self._known = {block_hash: block for block_hash, block in self._known.items() if block.height >= oldest or not block.height}
        return self.head

    def forget(self, txid: str) -> bool:
        """Drop a transaction and what spends from it from the mempool, as nodes may do. Whether it was there."""
        return bool(self.mempool.remove(txid))

    def spike(self, factor: int) -> None:
        """Multiply what blocks take at least, and what fee estimates say, until another spike. Raises ValueError."""
        if factor < 1:
            raise ValueError("a spike multiplies by 1 or more")
        self.factor = factor

    def malleate(self, txid: str) -> str:
        """Let blocks find the twin of a waiting transaction in its place; the twin's id. What spends from it goes where the id is new.

        Raises ValueError where it does not wait or has no such signature.
        """
        entry = self.mempool.get(txid)
        if entry is None:
            raise ValueError("no such transaction waits")
        twin = twin_of(entry.tx)
        self.mempool.swap(entry, twin)
        self._remember(twin)
        return twin.txid

    def set_block_weight(self, weight: int) -> None:
        """How heavy blocks may be from now on. Raises ValueError."""
        if not WEIGHT_MIN <= weight <= BLOCK_WEIGHT_MAX:
            raise ValueError(f"a block weighs from {WEIGHT_MIN} to {BLOCK_WEIGHT_MAX}")
        self.block_weight = weight

    def fund(self, address: str, units: int) -> str:
        """Send satoshis from the faucet by a real transaction; its id. Raises ValueError or Rejected."""
        self.tick()
        script = script_of(address)
        raw = self._faucet.pay(script, units, self._faucet_coins(), per_kvb=max(self.market_fee(1), self.mempool.terms.relay))
        return self.submit(raw).tx.txid

    # What the node's owner may do to it

    def invalidate(self, block: Block) -> None:
        """Hold a block for invalid, with all that follows it, as `invalidateblock` does."""
        self._invalid.add(block.hash)
        if self.is_active(block):
            self._change_to(self._best_but(self._invalid))

    def reconsider(self, block: Block) -> None:
        """No longer hold a block, what it builds on and what follows it for invalid."""
        self._invalid = {one for one in self._invalid if not (self._descends(one, block.hash) or self._descends(block.hash, one))}
        self._change_to(self._best_but(self._invalid))

    # How it works

    def _begin(self) -> None:
        header = self._kernel.genesis
        genesis_hash = hex_id(sha256d(header))
        transactions = _genesis_transactions(self._kernel.read(0))
        time = int.from_bytes(header[68:72], "little")
        block = Block(0, genesis_hash, header, "00" * 32, time, time, transactions, ((),), self.born_ms)
        self._known[block.hash] = block
        self._first_txid = transactions[0].txid
        self._active.append(block.hash)
        self._median_times.append(time)  # its subsidy is no coin: nobody can ever spend it
        for number in range(self.spec.premined):
            self._make(self.born_ms - (self.spec.premined - 1 - number) * 1_000)
        self._due_ms = self.born_ms + self.block_ms

    def _make(
        self, at_ms: int, *, script: bytes | None = None, newest_first: bool = False, empty: bool = False, wins: bool = True
    ) -> Block:
        """The next block, judged by the kernel. `wins` False: it stands on a branch that is not the best yet."""
        picked = (
            []
            if empty or not len(self.mempool)
            else self.mempool.pick(at_ms=at_ms, floor=self.block_fee_min, weight_max=self.block_weight, newest_first=newest_first)
        )
        block = self._assembled(picked, self._faucet.script if script is None else script, at_ms)
        try:
            self._kernel.offer(block.raw, block.time)
        except Refused as error:
            raise InvariantBroken(f"Bitcoin Core refuses a block of the box: {error}") from error
        if wins and self._kernel.tip != block.hash:
            raise InvariantBroken(f"Bitcoin Core does not take a block of the box: {self._kernel.verdict}")
        self._append(block)
        return block

    def _assembled(self, picked: Sequence[Entry], script: bytes, at_ms: int) -> Block:
        parent, txs = self.head, [entry.tx for entry in picked]
        height = parent.height + 1
        time = max(self._median_times[-1] + 1, at_ms // 1_000)  # the rule: after the median of the last eleven
        tag = self._tag + self._branch.to_bytes(4, "big")
        own = blocklib.coinbase(height, script, sum(entry.fee for entry in picked), txs, tag)
        transactions = (own, *txs)
        block_hash, header = blocklib.mine_header(parent.hash, transactions, time)
        made = {outpoint: coin for tx in txs for outpoint, coin in made_by(tx, height)}
        spent = ((), *(tuple(made.get(one.outpoint) or self._coin(one.outpoint) for one in tx.inputs) for tx in txs))
        return Block(height, block_hash, header, parent.hash, time, self._median(time), transactions, spent, at_ms)

    def _coin(self, outpoint: Outpoint) -> Coin:
        coin = self.coins.get(outpoint)
        if coin is None:
            raise InvariantBroken(f"the mempool offers to spend {outpoint[0]}:{outpoint[1]}, which is no coin")
        return coin

    def _median(self, time: int) -> int:
        """The median of a new block's time and of the ten before it."""
        times = [time]
        block: Block | None = self.head
        while block is not None and len(times) < blocklib.MEDIAN_SPAN:
            times.append(block.time)
            block = self._known.get(block.parent)
        return sorted(times)[len(times) // 2]

    def _append(self, block: Block) -> None:
        self._known[block.hash] = block
        self._active.append(block.hash)
        self._median_times.append(block.median_time)
        for position, tx in enumerate(block.transactions):
            self._where[tx.txid] = (block.hash, position)
            if position:
                self._remember(tx)
        self.coins.connect(block)
        self.mempool.confirmed(block.transactions[1:])
        self._due_ms = block.made_ms + self.block_ms
        if (old := block.height - self.spec.history) > 0:
            self._drop(old)

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

    def _undo_to(self, height: int) -> list[Tx]:
        """Undo all blocks above a height; their transactions in order."""
        undone = [self._undo() for _ in range(self.head.height - height)]
        return [tx for block in reversed(undone) for tx in block.transactions[1:]]

    def _remember(self, tx: Tx) -> None:
        if tx.txid in self.seen:
            return
        self.seen[tx.txid] = tx
        for one in tx.inputs:
            self._spenders.setdefault(one.outpoint, {})[tx.txid] = None
        if len(self.seen) > SEEN_MAX:
            for one in (old := self.seen.pop(next(iter(self.seen)))).inputs:
                del self._spenders[one.outpoint][old.txid]
                if not self._spenders[one.outpoint]:
                    del self._spenders[one.outpoint]

    def _faucet_coins(self) -> Iterable[tuple[Outpoint, Coin]]:
        """What the faucet can spend now: ripe coins of blocks, largest first, then change that waits."""
        ripe = [
            (outpoint, coin)
            for outpoint, coin in self.coins.of(self._faucet.script).items()
            if self.mempool.spender(outpoint) is None
            and not (coin.coinbase and coin.height is not None and self.head.height + 1 - coin.height < blocklib.COINBASE_MATURITY)
        ]
        yield from sorted(ripe, key=lambda one: -one[1].units)
        for entry in list(self.mempool):
            for number, output in enumerate(entry.tx.outputs):
                outpoint = entry.tx.outpoint(number)
                if output.script == self._faucet.script and self.mempool.spender(outpoint) is None:
                    yield outpoint, Coin(output.units, output.script, None, coinbase=False)

    # Invalid blocks: the kernel has no word for them, so another one is fed with what is left

    def _descends(self, block_hash: str, ancestor: str) -> bool:
        block = self._known.get(block_hash)
        while block is not None and block.hash != ancestor:
            block = self._known.get(block.parent)
        return block is not None

    def _best_but(self, invalid: set[str]) -> Block:
        """The tip with the most work, the present one before others, that stands on no invalid block."""
        good: dict[str, Block] = {}
        for block in sorted(self._known.values(), key=lambda one: one.height):
            stands = block.parent in good or block.height == 0 or block.parent not in self._known
            if stands and block.hash not in invalid:
                good[block.hash] = block
        return max(good.values(), key=lambda one: (one.height, self.is_active(one)))

    def _change_to(self, target: Block) -> None:
        """Let the chain up to a known block be the best."""
        if self.is_active(target) and target.hash == self.head.hash:
            return
        if self.oldest > 1:
            raise ValueError("the first blocks are no longer kept: a chain this long cannot be told anew")
        path: list[Block] = []
        while not self.is_active(target):
            path.append(target)
            target = self._known[target.parent]
        orphans = self._undo_to(target.height)
        for block in reversed(path):
            self._append(block)
        self._branch += 1
        self.mempool.rebuild([tx for tx in orphans if tx.txid not in self._where], self.tip, at_ms=self._now_ms())
        self._kernel.close()
        self._kernel = Kernel()
        for height in range(1, len(self._active)):
            block = self._known[self._active[height]]
            self._kernel.offer(block.raw, block.time)
        if self._kernel.tip != self.head.hash:
            raise InvariantBroken(f"Bitcoin Core does not take the chain of the box: {self._kernel.verdict}")
        self._due_ms = self._now_ms() + self.block_ms


def _genesis_transactions(block: bytes) -> tuple[Tx, ...]:
    """The one transaction of the first block."""
    return (read(block[blocklib.HEADER_BYTES + 1 :]),)
