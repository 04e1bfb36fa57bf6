"""One TRON network as a plain state machine: no thread, no socket, no clock of its own.

Everything follows from the spec, the seed, the times that the given clock shows, and what is submitted when. Blocks are made when
somebody looks (`tick`), each with the time at which it was due, so nobody can tell that nothing ran in between.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import coincurve

from penstock.devnet.box import Keep
from penstock.devnet.evm.chain import CHAIN_IDS
from penstock.devnet.tron.blocks import Block, Witness, seal
from penstock.devnet.tron.pool import POOL_MAX, Pool
from penstock.devnet.tron.process import Context, Receipt, Rejected, check_content, check_expiration, check_signature, process
from penstock.devnet.tron.resources import SLOT_MS, SUN, Prices, spiked
from penstock.devnet.tron.state import Account, Draft, Snapshot, View, World
from penstock.devnet.tron.tokens import BoxToken, behave_call, place_token, transfer_call
from penstock.devnet.tron.transaction import PREFIX, Transaction, account_of, account_of_key, build, keccak256, signed, text_of

CHAIN_ID: Final = 7_300_195
"""7,300,000 and TRON's number in SLIP-44. The last four bytes of the genesis block's id, as a node's `eth_chainId` would say."""

CATCH_UP_MAX: Final = 10_000
"""Blocks made at one look after a long silence; beyond, the network counts as having stood still."""

WITNESSES: Final = 27
BLOCK_BYTES_MAX: Final = 2_000_000
REFERENCES: Final = 65_536
"""Blocks to which a transaction can refer: two bytes of the number."""
FAUCET_SUN: Final = 10**17
FAUCET_STAKED_SUN: Final = 10**16
FUND_LIFE_MS: Final = 600_000
FUND_FEE_LIMIT: Final = 1_000 * SUN


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSpec:
    """What a network is born with. Amounts in sun, addresses in base58check.

    `block_ms` 0: blocks only on demand. `solid_depth` is how far the newest solidified block is behind the newest one, exactly.
    """

    name: str = "TRX"
    chain_id: int = CHAIN_ID
    tokens: Mapping[str, BoxToken] = field(default_factory=dict)
    balances: Mapping[str, int] = field(default_factory=dict)
    block_ms: int = 1_000
    solid_depth: int = 4
    prices: Prices = field(default_factory=Prices)
    pool_max: int = POOL_MAX
    history: int = 20_000

    def __post_init__(self) -> None:
        """Raises ValueError when the chain id is not one of a box's."""
        if self.chain_id not in CHAIN_IDS:
            raise ValueError(f"a box has a chain id from {CHAIN_IDS.start} to {CHAIN_IDS.stop - 1}, never a real network's")


class TronChain:
    """The network that all its nodes agree on: blocks, state and one shared pool."""

    def __init__(self, spec: ChainSpec, *, now_ms: Callable[[], int], seed: int = 0) -> None:
        self.spec = spec
        self.block_ms = spec.block_ms
        self.prices = spec.prices
        self.stalled = False
        self._now_ms = now_ms
        self._seed = seed
        self._world = World()
        self._blocks: dict[int, Block] = {}
        self._heights: dict[bytes, int] = {}
        self._ids: dict[int, bytes] = {}
        self._found: dict[bytes, int] = {}
        self._branch = 0
        self._oldest = 0
        self._height = 0
        self._solid = 0
        self._due_ms = 0
        self._paid_ms = 0
        self._factors = {account_of(address): token.energy_factor for address, token in spec.tokens.items()}
        self._witnesses = [Witness.of(self._secret(f"witness {number}")) for number in range(WITNESSES)]
        self._faucet_key = coincurve.PrivateKey(self._secret("faucet"))
        self._faucet = account_of_key(self._faucet_key.public_key)
        self.pool = Pool(self._world, most=spec.pool_max)
        self._begin()

    # What has happened

    @property
    def faucet(self) -> str:
        """The address that owns everything at the beginning."""
        return text_of(self._faucet)

    @property
    def faucet_account(self) -> bytes:
        """The same as 20 bytes."""
        return self._faucet

    @property
    def head(self) -> Block:
        """The newest block."""
        return self._blocks[self._height]

    @property
    def genesis(self) -> Block:
        """The first block; never forgotten."""
        return self._blocks[0]

    @property
    def solid(self) -> int:
        """Height of the newest block that can never be undone."""
        return self._solid

    @property
    def genesis_ms(self) -> int:
        """When the network began."""
        return self.genesis.time_ms

    def block(self, number: int) -> Block | None:
        """The block at this height, if it is there and still remembered."""
        return self._blocks.get(number)

    def block_by_id(self, block_id: bytes) -> Block | None:
        """The block with this id, if the chain still has it."""
        height = self._heights.get(block_id)
        return None if height is None else self._blocks[height]

    def receipt(self, txid: bytes) -> tuple[Block, Receipt] | None:
        """A transaction in a block that is still remembered."""
        block = self._blocks.get(self._found.get(txid, -1))
        if block is None:
            return None
        return block, next(receipt for receipt in block.receipts if receipt.transaction.id == txid)

    def state(self, height: int) -> Snapshot | None:
        """The state after a block; None when it is older than what is remembered."""
        return Snapshot(self._world, height) if self._oldest <= height <= self._height else None

    @property
    def state_with_waiting(self) -> View:
        """The newest state with everything that waits on top of it, as full nodes show it."""
        return self.pool.state

    def factor(self, contract: bytes) -> int:
        """What a contract asks on top of its instructions, in ten-thousandths."""
        return self._factors.get(contract, 0)

    # What one may do

    def submit(self, transaction: Transaction, *, delay_ms: int = 0) -> str:
        """Offer a transaction; it reaches the pool `delay_ms` from now. Returns its id. Raises Rejected, in a node's order of checks."""
        self.tick()
        if self.pool.is_full:
            raise Rejected("SERVER_BUSY", "Server busy.")
        check_content(transaction)
        check_expiration(transaction, self.head.time_ms + self._slot_ms)
        check_signature(transaction)
        if delay_ms:
            process(self.pool.state, transaction, self._waiting())
            self.pool.delay(transaction, self._now_ms() + delay_ms)
        else:
            self.pool.add(transaction, self._waiting())
        return transaction.txid

    def tick(self) -> int:
        """Make the blocks that are due by now; their number."""
        made, now = 0, self._now_ms()
        if self.block_ms:
            if now - self._due_ms > CATCH_UP_MAX * self.block_ms:
                self._due_ms = now
            while self._due_ms <= now:
                self._make(self._due_ms)
                made += 1
        self.pool.arrive(now, self._waiting())
        return made

    def mine(self, count: int = 1) -> Block:
        """Make blocks now, whatever the schedule; the next one is due a block time later."""
        self.tick()
        for _ in range(count):
            self._make(self._now_ms())
        return self.head

    def set_block_time(self, block_ms: int) -> None:
        """Make blocks at another pace from now on. Raises ValueError when negative."""
        if block_ms < 0:
            raise ValueError("a block time is 0 or more milliseconds")
        self.tick()
        self.block_ms = block_ms
        self._due_ms = self._now_ms() + block_ms

    def miss(self, slots: int) -> None:
        """The next blocks that would be due are not made. Raises ValueError where blocks come only on demand."""
        if not self.block_ms:
            raise ValueError("blocks come only on demand here, so none can be missed: set block_time first")
        self.tick()
        self._due_ms += slots * self.block_ms

    def stall(self, *, on: bool) -> None:
        """While it is on, no block becomes solidified. Afterwards the newest solidified one is as far behind as ever."""
        self.stalled = on
        self._solidify()

    def set_factor(self, contract: str, factor: int) -> None:
        """Another energy factor from now on, in ten-thousandths. Raises ValueError for what is no contract."""
        address = account_of(contract)
        if not self._world.account(address).code:
            raise ValueError(f"there is no contract at {contract}")
        self._factors[address] = factor

    def fork(self, depth: int, transactions: Keep = "keep") -> Block:
        """Undo `depth` blocks and let a branch win that is one block longer; its blocks have the times of those undone, and the last is new.

        Their transactions come again in the new blocks (keep), in another order and one block later (reorder), or are forgotten
        (drop). Raises ValueError when that would undo a solidified block.
        """
        self.tick()
        limit = self._height - max(self._solid, self._oldest)
        if not 1 <= depth <= limit:
            raise ValueError(f"a fork is from 1 to {limit} blocks deep here: older ones are solidified")
        undone = [self._undo() for _ in range(depth)][::-1]
        self._branch += 1
        orphans = [receipt.transaction for block in undone for receipt in block.receipts]
        first = {"keep": orphans, "drop": [], "reorder": orphans[::-1]}[transactions]
        self.pool.restore(first, self._waiting())
        times = [*(block.time_ms for block in undone), max(self._now_ms(), undone[-1].time_ms + 1)]
        for number, time_ms in enumerate(times):
            self._make(time_ms, empty=transactions == "reorder" and number == 0)
        return self.head

    def forget(self, txid: str) -> bool:
        """Drop a transaction from the pool, as nodes may do. Whether it was there."""
        return self.pool.forget(txid, self._waiting())

    def spike(self, factor: int) -> None:
        """Energy and bytes cost so many times the usual from now on. Raises ValueError."""
        if factor < 1:
            raise ValueError("a spike multiplies by 1 or more")
        self.prices = spiked(self.spec.prices, factor)

    def fund(self, address: str, sun: int) -> str:
        """Send TRX from the faucet by a real transaction; its id. Raises Rejected or ValueError."""
        to = account_of(address)
        if self._world.account(to).code:
            raise ValueError("nodes let nobody transfer TRX to a contract")
        return self._from_faucet("TransferContract", to_address=PREFIX + to, amount=sun)

    def fund_token(self, contract: str, address: str, units: int) -> str:
        """Send a token from the faucet by a real transaction; its id. Raises Rejected or ValueError."""
        return self._call_from_faucet(contract, transfer_call(account_of(address), units))

    def behave(self, contract: str, behaviour: str) -> str:
        """Tell a token how to behave, by a real transaction; its id. Raises Rejected or ValueError."""
        return self._call_from_faucet(contract, behave_call(behaviour))

    def stake(self, address: str, sun: int, *, energy: bool, back: bool = False) -> str:
        """Let the faucet delegate what so much TRX gives, or take it back; by a real transaction; its id. Raises Rejected or ValueError."""
        receiver = PREFIX + account_of(address)
        kind = "UnDelegateResourceContract" if back else "DelegateResourceContract"
        return self._from_faucet(kind, resource=int(energy), balance=sun, receiver_address=receiver)

    def context(self, height: int) -> Context:
        """Where a call runs that only asks, on the state after a block."""
        block = self._blocks[height]
        return self._context(block.number, block.time_ms, block, in_block=False)

    # How it works

    @property
    def _slot_ms(self) -> int:
        return self.block_ms or 1

    def _secret(self, name: str) -> bytes:
        return keccak256(f"penstock devnet {self.spec.chain_id} {self._seed} {name}".encode())

    def _begin(self) -> None:
        spec, draft, now = self.spec, Draft(self._world), self._now_ms()
        draft.put(
            self._faucet,
            Account(exists=True, created_ms=now, balance=FAUCET_SUN, net_staked=FAUCET_STAKED_SUN, energy_staked=FAUCET_STAKED_SUN),
        )
        for address, sun in spec.balances.items():
            draft.put(account_of(address), Account(exists=True, created_ms=now, balance=sun))
        for address, token in spec.tokens.items():
            place_token(draft, account_of(address), token, owner=self._faucet, at_ms=now)
        parent = keccak256(f"{spec.name} {self._seed}".encode())
        self._append(seal(0, parent, now, self._witnesses[0], (), chain_id=spec.chain_id), draft)

    def _append(self, block: Block, draft: Draft) -> None:
        self._height = block.number
        self._world.write(block.number, draft)
        self._blocks[block.number] = block
        self._heights[block.id] = block.number
        self._ids[block.number] = block.id
        for receipt in block.receipts:
            self._found[receipt.transaction.id] = block.number
        self._due_ms = block.time_ms + self.block_ms
        self._solidify()
        self._ids.pop(block.number - REFERENCES - CATCH_UP_MAX, None)
        if (old := block.number - self.spec.history) > 0:
            self._world.forget_before(old)
            self._oldest = old
            if old > 1:
                # Ids of transactions are remembered for good: nothing may ever be in a second block.
                del self._heights[self._blocks.pop(old - 1).id]

    def _solidify(self) -> None:
        if not self.stalled:
            self._solid = max(self._solid, self._height - self.spec.solid_depth)

    def _undo(self) -> Block:
        block = self._blocks.pop(self._height)
        del self._heights[block.id], self._ids[block.number]
        for receipt in block.receipts:
            del self._found[receipt.transaction.id]
        self._world.undo(block.number)
        self._height -= 1
        return block

    def _reference(self, low: bytes) -> bytes | None:
        """Id of the newest block whose number ends in these two bytes."""
        if len(low) != 2:
            return None
        number = self._height - ((self._height - int.from_bytes(low, "big")) % REFERENCES)
        return self._ids.get(number)

    def _recent_ids(self, number: int) -> Iterator[bytes]:
        while (found := self._ids.get(number)) is not None:
            yield found
            number -= 1

    def _witness(self, number: int) -> Witness:
        return self._witnesses[(number + self._branch) % WITNESSES]

    def _waiting(self) -> Context:
        """Where what waits runs: as if the next block came now."""
        return self._context(self._height + 1, self.head.time_ms + self._slot_ms, self.head, in_block=False)

    def _context(self, number: int, time_ms: int, head: Block, *, in_block: bool) -> Context:
        return Context(
            number=number,
            time_ms=time_ms,
            head_ms=head.time_ms,
            next_slot_ms=head.time_ms + self._slot_ms,
            slot=(head.time_ms - self.genesis_ms) // SLOT_MS,
            witness=self._witness(number).account,
            chain_id=self.spec.chain_id,
            prices=self.prices,
            factors=self._factors,
            in_block=in_block,
            reference=self._reference,
            known=lambda transaction: transaction.id in self._found or (not in_block and transaction.txid in self.pool),
            recent_hashes=lambda: self._recent_ids(number - 1),
        )

    def _make(self, at_ms: int, *, empty: bool = False) -> None:
        """The next block: what waits, in the order it came; then the pool is looked at again."""
        parent = self.head
        time_ms, number = max(at_ms, parent.time_ms + 1), parent.number + 1
        self.pool.arrive(at_ms, self._waiting())
        draft = Draft(self._world)
        receipts: Sequence[Receipt] = ()
        if len(self.pool) and not empty:
            receipts = self.pool.fill(draft, self._context(number, time_ms, parent, in_block=True), BLOCK_BYTES_MAX)
        self._append(seal(number, parent.id, time_ms, self._witness(number), receipts), draft)
        self.pool.settle(self._waiting())

    def _call_from_faucet(self, contract: str, data: bytes) -> str:
        address = account_of(contract)
        if not self._world.account(address).code:
            raise ValueError(f"there is no contract at {contract}")
        return self._from_faucet("TriggerSmartContract", fee_limit=FUND_FEE_LIMIT, contract_address=PREFIX + address, data=data)

    def _from_faucet(self, kind: str, *, fee_limit: int = 0, **fields: Any) -> str:
        self.tick()
        # Two payments of the same amount differ in their timestamp, which nothing checks.
        self._paid_ms = max(self._paid_ms + 1, self._now_ms())
        message = build(
            kind,
            {"owner_address": PREFIX + self._faucet, **fields},
            reference=self._blocks[self._solid].id,
            expiration_ms=self.head.time_ms + FUND_LIFE_MS,
            timestamp_ms=self._paid_ms,
            fee_limit=fee_limit,
        )
        return self.submit(signed(message, self._faucet_key))
