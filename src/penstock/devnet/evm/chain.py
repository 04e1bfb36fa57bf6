"""One EVM network as a plain state machine: no thread, no socket, no clock of its own.

Everything follows from the spec, the seed, the times that the given clock shows, and what is submitted when. Blocks are made when
somebody looks (`tick`), each with the time at which it was due, so nobody can tell that nothing ran in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import coincurve

from penstock.devnet.box import Keep
from penstock.devnet.evm import blocks as chainlib
from penstock.devnet.evm.blocks import Block, Header, Receipt
from penstock.devnet.evm.contracts import BoxToken, l1_fee, place_oracle, place_pay_many, place_token
from penstock.devnet.evm.execution import BlockContext, Call, Outcome, execute
from penstock.devnet.evm.mempool import Entry, Mempool, Rejected, Terms, effective_price
from penstock.devnet.evm.state import Account, Draft, Snapshot, World
from penstock.rails.evm import codec

CHAIN_ID_BASE: Final = 7_300_000
CHAIN_IDS: Final = range(CHAIN_ID_BASE, CHAIN_ID_BASE + 100_000)
"""Chain ids of boxes, chosen where no public network is known (docs/devnet.md): what is signed for a box is valid nowhere else."""

CATCH_UP_MAX: Final = 10_000
"""Blocks made at one look after a long silence; beyond, the network counts as having stood still."""

FAUCET_WEI: Final = 10**27
DEAREST: Final = 10_000
"""Times where the base fee starts: spikes in a row multiply, and past some hundred of them no hexadecimal number of 256 bits would hold it."""
COINBASE: Final = b"penstock-devnet-mine"
L1_FEE_VAULT: Final = bytes.fromhex("420000000000000000000000000000000000001A")


def box_chain_id(chain_id: int) -> int:
    """The chain id of a box that stands for a real network. Raises ValueError for ids that leave the private range."""
    if not 0 < chain_id < len(CHAIN_IDS):
        raise ValueError(f"no private chain id is set aside for {chain_id}; choose one from {CHAIN_IDS.start} to {CHAIN_IDS.stop - 1}")
    return CHAIN_ID_BASE + chain_id


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSpec:
    """What a network is born with. Fees in wei, addresses as 0x text.

    `block_ms` 0: blocks only on demand. `base_fee` is where the base fee starts and below which it never falls; on a `legacy` network
    it is the least gas price that gets into a block. `contracts` is further code at genesis, by address.
    """

    name: str
    chain_id: int
    tokens: Mapping[str, BoxToken] = field(default_factory=dict)
    contracts: Mapping[str, bytes] = field(default_factory=dict)
    balances: Mapping[str, int] = field(default_factory=dict)
    block_ms: int = 1_000
    gas_limit: int = 30_000_000
    base_fee: int = 10**9
    tip: int = 10**9
    tip_min: int = 1
    legacy: bool = False
    op_stack: bool = False
    l1_fee_fixed: int = 10**11
    l1_fee_per_byte: int = 10**10
    finality_tag: bool = True
    finality_depth: int = 4
    safe_depth: int = 2
    history: int = 20_000

    def __post_init__(self) -> None:
        """Raises ValueError when the chain id is not one of a box's."""
        if self.chain_id not in CHAIN_IDS:
            raise ValueError(f"a box has a chain id from {CHAIN_IDS.start} to {CHAIN_IDS.stop - 1}, never a real network's")


class EvmChain:
    """The network that all its nodes agree on: blocks, state and one shared mempool."""

    def __init__(self, spec: ChainSpec, *, now_ms: Callable[[], int], seed: int = 0) -> None:
        self.spec = spec
        self.block_ms = spec.block_ms
        self._now_ms = now_ms
        self._seed = seed
        self._world = World()
        self._blocks: dict[int, Block] = {}
        self._heights: dict[bytes, int] = {}
        self._found: dict[str, tuple[int, int]] = {}
        self._spike = 1
        self._branch = 0
        self._oldest = 0
        self._height = 0
        self._due_ms = 0
        self.mempool = Mempool(Terms(gas_limit=spec.gas_limit, tip_min=spec.tip_min, dynamic_fees=not spec.legacy))
        key = codec.keccak256(f"penstock devnet faucet {spec.chain_id} {seed}".encode())
        self._faucet_key = coincurve.PrivateKey(key)
        self.faucet = codec.address_of_public_key(self._faucet_key.public_key.format())
        self._begin()

    # What has happened

    @property
    def head(self) -> Block:
        """The newest block."""
        return self._blocks[self._height]

    @property
    def final(self) -> int:
        """Height that can never be undone."""
        return max(0, self._height - self.spec.finality_depth)

    @property
    def safe(self) -> int:
        """Height that is unlikely to be undone."""
        return max(0, self._height - self.spec.safe_depth)

    def block(self, number: int) -> Block | None:
        """The block at this height, if it is there and still remembered."""
        return self._blocks.get(number)

    def block_by_hash(self, block_hash: bytes) -> Block | None:
        """The block with this hash, if the chain still has it."""
        height = self._heights.get(block_hash)
        return None if height is None else self._blocks[height]

    def receipt(self, txid: str) -> tuple[Block, Receipt] | None:
        """A mined transaction with its block."""
        place = self._found.get(txid)
        if place is None:
            return None
        block = self._blocks[place[0]]
        return block, block.receipts[place[1]]

    def state(self, height: int) -> Snapshot | None:
        """The state after a block; None when it is older than what is remembered."""
        return Snapshot(self._world, height) if self._oldest <= height <= self._height else None

    def next_base_fee(self) -> int:
        """The base fee of the block to come (on a legacy network the least price that it takes), in wei."""
        head = self.head
        fee = chainlib.next_base_fee(head.floor, head.header.gas_used, head.header.gas_limit)
        return min(max(fee, self.spec.base_fee) * self._spike, self.spec.base_fee * DEAREST)

    def pending_nonce(self, address: bytes) -> int:
        """The nonce after everything that waits without a gap."""
        return self.mempool.next_nonce(address, self._world.accounts.newest(address).nonce)

    # What one may do

    def submit(self, raw: bytes, *, delay_ms: int = 0) -> str:
        """Offer signed bytes; they enter a block made `delay_ms` from now at the earliest. Returns the id. Raises Rejected."""
        return self._take(self.read(raw), delay_ms)

    def read(self, raw: bytes) -> codec.SignedTransaction:
        """The transaction in these bytes. Raises Rejected in a node's words when they are none for this network."""
        try:
            return codec.decode(raw, self.spec.chain_id)
        except codec.InvalidTransaction as error:
            prefix = "invalid sender: " if str(error).startswith("invalid ") else ""
            raise Rejected(f"{prefix}{error}") from error

    def _take(self, transaction: codec.SignedTransaction, delay_ms: int) -> str:
        self.tick()
        if transaction.txid in self._found:
            raise Rejected("already known")
        account = self._world.accounts.newest(bytes.fromhex(transaction.sender[2:]))
        l1 = self._l1_fee(transaction) or 0
        return self.mempool.add(transaction, account, l1_fee=l1, ready_ms=self._now_ms() + delay_ms).transaction.txid

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

    def mine(self, count: int = 1) -> Block:
        """Make blocks now, whatever the schedule; the next one is due a block time later."""
        self.tick()
        for _ in range(count):
            self._make(self._now_ms())
        return self.head

    def set_block_time(self, block_ms: int) -> None:
        """Make blocks at another pace from now on; 0 for only on demand. Raises ValueError when negative."""
        if block_ms < 0:
            raise ValueError("a block time is 0 or more milliseconds")
        self.tick()
        self.block_ms = block_ms
        self._due_ms = self._now_ms() + block_ms

    def fork(self, depth: int, transactions: Keep = "keep") -> Block:
        """Undo `depth` blocks and let a branch win that is one block longer.

        Their transactions come again in the new blocks (keep), in another order and one block later (reorder), or are forgotten
        (drop). Raises ValueError when that would undo a final block.
        """
        self.tick()
        limit = self._height - max(self.final if self.spec.finality_tag else 0, self._oldest)
        if not 1 <= depth <= limit:
            raise ValueError(f"a fork is from 1 to {limit} blocks deep here: older ones are final")
        orphans = [receipt.transaction for _ in range(depth) for receipt in reversed(self._undo().receipts)]
        self._branch += 1
        if transactions != "drop":
            for transaction in reversed(orphans):
                self.mempool.restore(transaction, l1_fee=self._l1_fee(transaction) or 0)
        now = self._now_ms()
        for number in range(depth + 1):
            self._make(now, newest_first=transactions == "reorder", empty=transactions == "reorder" and number == 0)
        return self.head

    def forget(self, txid: str) -> bool:
        """Drop a transaction from the mempool, as nodes may do. Whether it was there."""
        return self.mempool.remove(txid) is not None

    def spike(self, factor: int) -> None:
        """Multiply the next block's base fee; it then falls by an eighth a block as EIP-1559 has it."""
        if factor < 1:
            raise ValueError("a spike multiplies by 1 or more")
        self._spike = factor

    def fund(self, address: str, wei: int) -> str:
        """Send native coin from the faucet by a real transaction; its id. Raises Rejected."""
        return self._from_faucet(codec.checksum(address), wei, b"", codec.GAS_PLAIN * 4)

    def fund_token(self, contract: str, address: str, units: int) -> str:
        """Send a token from the faucet by a real transaction; its id. Raises Rejected."""
        return self._from_faucet(codec.checksum(contract), 0, codec.transfer_call_data(address, units), 100_000)

    def call(self, call: Call, height: int) -> Outcome | None:
        """Run a message on the state after a block and keep nothing; None when that state is no longer remembered."""
        view, block = self.state(height), self.block(height)
        return None if view is None or block is None else execute(view, self._context(block.header, block.floor), call)

    def l1_fee_of(self, unsigned: bytes) -> int | None:
        """Wei that L1 charges for a transaction of these unsigned bytes; None outside OP-stack networks."""
        spec = self.spec
        return l1_fee(unsigned, fixed=spec.l1_fee_fixed, per_byte=spec.l1_fee_per_byte) if spec.op_stack else None

    # How it works

    def _begin(self) -> None:
        spec, draft, faucet = self.spec, Draft(self._world), bytes.fromhex(self.faucet[2:])
        draft.accounts[faucet] = Account(balance=FAUCET_WEI)
        for address, wei in spec.balances.items():
            draft.change(bytes.fromhex(address[2:]), balance=wei)
        for address, token in spec.tokens.items():
            place_token(draft, bytes.fromhex(address[2:]), token, owner=faucet)
        for address, code in spec.contracts.items():
            target = bytes.fromhex(address[2:])
            draft.accounts[target] = draft.account(target)._replace(nonce=1, code=code)
        place_pay_many(draft)
        if spec.op_stack:
            place_oracle(draft, fixed=spec.l1_fee_fixed, per_byte=spec.l1_fee_per_byte)
        now = self._now_ms()
        header = Header(
            parent_hash=bytes(32),
            coinbase=COINBASE,
            state_root=chainlib.state_root(bytes(32), draft),
            transactions_root=chainlib.EMPTY_TRIE_ROOT,
            receipts_root=chainlib.EMPTY_TRIE_ROOT,
            logs_bloom=0,
            number=0,
            gas_limit=spec.gas_limit,
            gas_used=0,
            timestamp=now // 1000,
            extra=b"penstock-devnet, no real money",
            mix_hash=codec.keccak256(f"{spec.name} {self._seed}".encode()),
            base_fee=None if spec.legacy else spec.base_fee,
        )
        self._append(chainlib.seal(header, (), floor=spec.base_fee, made_ms=now), draft)

    def _append(self, block: Block, draft: Draft) -> None:
        self._height = block.number
        self._world.write(block.number, draft)
        self._blocks[block.number] = block
        self._heights[block.hash] = block.number
        for receipt in block.receipts:
            self._found[receipt.transaction.txid] = (block.number, receipt.index)
            self.mempool.used(bytes.fromhex(receipt.transaction.sender[2:]), receipt.transaction.unsigned.nonce)
        self._due_ms = block.made_ms + self.block_ms
        if (old := block.number - self.spec.history) > 0:
            self._world.forget_before(old)
            self._oldest = old
            if old > 1:
                self._drop_block(old - 1)

    def _drop_block(self, number: int) -> Block:
        block = self._blocks.pop(number)
        del self._heights[block.hash]
        for receipt in block.receipts:
            del self._found[receipt.transaction.txid]
        return block

    def _undo(self) -> Block:
        block = self._drop_block(self._height)
        self._world.undo(block.number)
        self._height -= 1
        return block

    def _recent_hashes(self, header: Header) -> Iterator[bytes]:
        yield header.parent_hash
        number = header.number - 2
        while (block := self._blocks.get(number)) is not None:
            yield block.hash
            number -= 1

    def _context(self, header: Header, floor: int) -> BlockContext:
        return BlockContext(
            number=header.number,
            timestamp=header.timestamp,
            coinbase=header.coinbase,
            gas_limit=header.gas_limit,
            base_fee=0 if self.spec.legacy else floor,
            chain_id=self.spec.chain_id,
            mix_hash=header.mix_hash,
            recent_hashes=lambda: self._recent_hashes(header),
        )

    def _make(self, at_ms: int, *, newest_first: bool = False, empty: bool = False) -> None:
        """The next block: header, transactions by tip, roots, state."""
        parent, floor, draft = self.head, self.next_base_fee(), Draft(self._world)
        self._spike = 1
        number = parent.number + 1
        draft_header = Header(
            parent_hash=parent.hash,
            coinbase=COINBASE,
            state_root=b"",
            transactions_root=b"",
            receipts_root=b"",
            logs_bloom=0,
            number=number,
            gas_limit=self.spec.gas_limit,
            gas_used=0,
            timestamp=max(parent.header.timestamp, at_ms // 1000),
            extra=b"penstock-devnet" + chainlib.number_bytes(self._branch),
            mix_hash=codec.keccak256(parent.header.mix_hash + chainlib.number_bytes(self._branch)),
            base_fee=None if self.spec.legacy else floor,
        )
        receipts: list[Receipt] = []
        if len(self.mempool) and not empty:
            receipts = self._fill(draft, self._context(draft_header, floor), floor, at_ms, newest_first=newest_first)
        header = chainlib.finish(draft_header, chainlib.state_root(parent.header.state_root, draft), receipts)
        self._append(chainlib.seal(header, receipts, floor=floor, made_ms=at_ms), draft)

    def _fill(self, draft: Draft, context: BlockContext, floor: int, at_ms: int, *, newest_first: bool) -> list[Receipt]:
        receipts: list[Receipt] = []
        nonces = {sender: draft.account(sender).nonce for sender in self.mempool.senders()}
        offer = self.mempool.offer(nonces, floor, at_ms, newest_first=newest_first)
        gas_left = context.gas_limit
        for entry in offer:
            if gas_left < codec.GAS_PLAIN:
                break
            if entry.transaction.unsigned.gas_limit > gas_left or draft.account(entry.sender).balance < entry.cost_max:
                continue
            receipts.append(self._apply(draft, context, entry, floor, receipts[-1] if receipts else None))
            gas_left -= receipts[-1].gas_used
            offer.included(entry)
        return receipts

    def _apply(self, draft: Draft, context: BlockContext, entry: Entry, floor: int, before: Receipt | None) -> Receipt:
        """One transaction: buy gas, run, give back what is left, pay the block's maker; the base fee is burnt."""
        unsigned, sender = entry.transaction.unsigned, entry.sender
        price, l1 = effective_price(entry.transaction, floor), self._l1_fee(entry.transaction)
        draft.change(sender, balance=-unsigned.gas_limit * price - (l1 or 0), nonce=1)
        to = None if unsigned.to is None else bytes.fromhex(unsigned.to[2:])
        outcome = execute(draft, context, Call(sender, to, unsigned.value, unsigned.data, unsigned.gas_limit, price, unsigned.nonce))
        draft.accounts.update(outcome.accounts)
        draft.slots.update(outcome.slots)
        draft.change(sender, balance=(unsigned.gas_limit - outcome.gas_used) * price)
        draft.change(context.coinbase, balance=outcome.gas_used * (price - context.base_fee))
        if l1:
            draft.change(L1_FEE_VAULT, balance=l1)
        return Receipt(
            transaction=entry.transaction,
            index=before.index + 1 if before else 0,
            success=outcome.success,
            gas_used=outcome.gas_used,
            cumulative_gas=outcome.gas_used + (before.cumulative_gas if before else 0),
            price=price,
            logs=outcome.logs,
            first_log=before.first_log + len(before.logs) if before else 0,
            created=outcome.created,
            l1_fee=l1,
            logs_bloom=chainlib.bloom(outcome.logs),
        )

    def _l1_fee(self, transaction: codec.SignedTransaction) -> int | None:
        return self.l1_fee_of(codec.encode_unsigned(transaction.unsigned)) if self.spec.op_stack else None

    def _from_faucet(self, to: str, value: int, data: bytes, gas: int) -> str:
        self.tick()
        legacy = self.spec.legacy
        price = 2 * self.next_base_fee() + self.spec.tip
        unsigned = codec.UnsignedTransaction(
            type=0 if legacy else 2,
            chain_id=self.spec.chain_id,
            nonce=self.pending_nonce(bytes.fromhex(self.faucet[2:])),
            max_priority_fee_per_gas=price if legacy else self.spec.tip,
            max_fee_per_gas=price,
            gas_limit=gas,
            to=to,
            value=value,
            data=data,
        )
        signature = self._faucet_key.sign_recoverable(codec.signing_hash(unsigned), hasher=None)
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
        return self.submit(codec.encode_signed(unsigned, signature[64], r, s))
