"""One Bitcoin network as a plain state machine: no thread, no socket, no clock of its own.

Everything follows from the spec, the seed, the times that the given clock shows, and what is submitted when. Blocks are made when somebody
looks (`tick`), each with the time at which it was due, and each has to please Bitcoin Core's consensus code before it counts. What the
blocks amount to is in `blocks` (tree.py).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.core.errors import InvariantBroken
from penstock.devnet.bitcoin import blocks as blocklib
from penstock.devnet.bitcoin.blocks import Block
from penstock.devnet.bitcoin.coins import made_by
from penstock.devnet.bitcoin.faucet import Faucet
from penstock.devnet.bitcoin.kernel import Kernel, Refused
from penstock.devnet.bitcoin.mempool import Entry, Mempool, Terms
from penstock.devnet.bitcoin.policy import BLOCK_WEIGHT_MAX
from penstock.devnet.bitcoin.seen import Seen
from penstock.devnet.bitcoin.transaction import Coin, Outpoint, Tx, hex_id, read, script_of, sha256d
from penstock.devnet.bitcoin.tree import BlockTree
from penstock.devnet.bitcoin.twin import twin_of
from penstock.devnet.box import Keep

CHAIN_ID: Final = 3669344250
"""Regtest's P2P magic (fa bf b5 da) as a little-endian number. Its addresses begin with bcrt1, m, n or 2, and are none on the main network."""

CATCH_UP_MAX: Final = 1_000
"""Blocks made at one look after a long silence; beyond, the network counts as having stood still."""

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
        self.born_ms = now_ms()
        self._now_ms = now_ms
        self._tag = hashlib.sha256(f"penstock devnet {spec.name} {seed}".encode()).digest()[:8]
        self._faucet = Faucet(f"penstock devnet faucet {spec.name} {seed}")
        self._kernel = Kernel()
        self.blocks = BlockTree(self._genesis(), history=spec.history)
        self.mempool = Mempool(Terms(relay=spec.relay_fee, incremental=spec.relay_fee), self.blocks.coins)
        self.seen = Seen()
        self._branch = 0
        for number in range(spec.premined):
            self._make(self.born_ms - (spec.premined - 1 - number) * 1_000)
        self._due_ms = self.born_ms + self.block_ms

    # What it is like now

    @property
    def faucet(self) -> str:
        """The faucet's address."""
        return self._faucet.address

    def now_ms(self) -> int:
        """The time by the clock that drives the network, in Unix milliseconds."""
        return self._now_ms()

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
        entry = self.mempool.add(tx, self.blocks.tip, at_ms=now, ready_ms=now + delay_ms if delay_ms else 0, package=package)
        self.seen.add(tx)
        return entry

    def judge(self, tx: Tx, *, package: bool = False) -> Entry:
        """What would be its entry in the mempool. Raises Rejected."""
        self.tick()
        return self.mempool.judge(tx, self.blocks.tip, at_ms=self._now_ms(), package=package)[0]

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
        height, oldest = self.blocks.head.height, self.blocks.oldest
        limit = height if oldest == 1 else height - oldest - blocklib.MEDIAN_SPAN
        if not 1 <= depth <= limit:
            raise ValueError(f"a fork is from 1 to {limit} blocks deep here")
        orphans = self.blocks.undo_to(height - depth)
        self._branch += 1
        now = self._now_ms()
        self.mempool.rebuild(() if transactions == "drop" else orphans, self.blocks.tip, at_ms=now)
        reorder = transactions == "reorder"
        for number in range(depth + 1):
            self._make(now, newest_first=reorder, empty=reorder and number == 0, wins=number == depth)
        self.blocks.prune()
        return self.blocks.head

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
        self.seen.add(twin)
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
        """Hold a block for invalid, with all that follows it, as `invalidateblock` does. Raises ValueError when the chain is too long."""
        self.blocks.invalidate(block)
        self._follow_best()

    def reconsider(self, block: Block) -> None:
        """No longer hold a block, what it builds on and what follows it for invalid. Raises ValueError when the chain is too long."""
        self.blocks.reconsider(block)
        self._follow_best()

    # How it works

    def _genesis(self) -> Block:
        """The first block, which is every regtest's."""
        header = self._kernel.genesis
        time = int.from_bytes(header[68:72], "little")
        transactions = (read(self._kernel.read(0)[blocklib.HEADER_BYTES + 1 :]),)
        return Block(0, hex_id(sha256d(header)), header, "00" * 32, time, time, transactions, ((),), self.born_ms)

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
        parent, txs = self.blocks.head, [entry.tx for entry in picked]
        height = parent.height + 1
        time = max(self.blocks.tip.median_time + 1, at_ms // 1_000)  # the rule: after the median of the last eleven
        tag = self._tag + self._branch.to_bytes(4, "big")
        own = blocklib.coinbase(height, script, sum(entry.fee for entry in picked), txs, tag)
        transactions = (own, *txs)
        block_hash, header = blocklib.mine_header(parent.hash, transactions, time)
        made = {outpoint: coin for tx in txs for outpoint, coin in made_by(tx, height)}
        spent = ((), *(tuple(made.get(one.outpoint) or self._coin(one.outpoint) for one in tx.inputs) for tx in txs))
        return Block(height, block_hash, header, parent.hash, time, self.blocks.median_time(time), transactions, spent, at_ms)

    def _coin(self, outpoint: Outpoint) -> Coin:
        coin = self.blocks.coins.get(outpoint)
        if coin is None:
            raise InvariantBroken(f"the mempool offers to spend {outpoint[0]}:{outpoint[1]}, which is no coin")
        return coin

    def _append(self, block: Block) -> None:
        self.blocks.append(block)
        for tx in block.transactions[1:]:
            self.seen.add(tx)
        self.mempool.confirmed(block.transactions[1:])
        self._due_ms = block.made_ms + self.block_ms

    def _faucet_coins(self) -> Iterable[tuple[Outpoint, Coin]]:
        """What the faucet can spend now: ripe coins of blocks, largest first, then change that waits."""
        ripe = [
            (outpoint, coin)
            for outpoint, coin in self.blocks.coins.of(self._faucet.script).items()
            if self.mempool.spender(outpoint) is None
            and not (coin.coinbase and coin.height is not None and self.blocks.head.height + 1 - coin.height < blocklib.COINBASE_MATURITY)
        ]
        yield from sorted(ripe, key=lambda one: -one[1].units)
        for entry in list(self.mempool):
            for number, output in enumerate(entry.tx.outputs):
                outpoint = entry.tx.outpoint(number)
                if output.script == self._faucet.script and self.mempool.spender(outpoint) is None:
                    yield outpoint, Coin(output.units, output.script, None, coinbase=False)

    def _follow_best(self) -> None:
        """Let what is now the best branch be the chain."""
        target = self.blocks.best()
        if target.hash == self.blocks.head.hash:
            return
        if self.blocks.oldest > 1:
            raise ValueError("the first blocks are no longer kept: a chain this long cannot be told anew")
        branch = self.blocks.branch(target)
        orphans = self.blocks.undo_to(target.height - len(branch))
        for block in branch:
            self._append(block)
        self._branch += 1
        self.mempool.rebuild([tx for tx in orphans if self.blocks.find(tx.txid) is None], self.blocks.tip, at_ms=self._now_ms())
        self._tell_anew()
        self._due_ms = self._now_ms() + self.block_ms

    def _tell_anew(self) -> None:
        """The kernel has no word for a block that is held for invalid: another one is fed with the chain that is left."""
        self._kernel.close()
        self._kernel = Kernel()
        for height in range(1, self.blocks.head.height + 1):
            if (block := self.blocks.at(height)) is not None:
                self._kernel.offer(block.raw, block.time)
        if self._kernel.tip != self.blocks.head.hash:
            raise InvariantBroken(f"Bitcoin Core does not take the chain of the box: {self._kernel.verdict}")
