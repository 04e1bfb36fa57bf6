"""Runs EVM code. The one file that knows the engine: py-evm's interpreter (Cancun's instructions, Prague's price of data) over a state of plain dictionaries.

py-evm's own databases and tries are left aside, and so is its transaction handling: fees, nonces and signatures are `evm.py`'s.
A plain transfer to an account without code needs no interpreter and gets none.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final

import rlp
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.exceptions import Revert, VMError
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.cancun.computation import CancunComputation
from eth.vm.forks.cancun.state import CancunState
from eth.vm.forks.cancun.transaction_context import CancunTransactionContext
from eth.vm.message import Message

from penstock.devnet.evm.state import Account, Slot, StateView
from penstock.rails.evm.codec import GAS_PLAIN, keccak256

RECURSION_LIMIT: Final = 1_000
sys.setrecursionlimit(RECURSION_LIMIT)
"""The interpreter's own limit, taken back: importing py-evm raises it to 100,000 (py_ecc), and with that a deeply nested JSON text
crashes the process instead of being refused. Calls nested deeper than this allows fail like calls nested too deep for the EVM."""

GAS_CREATE: Final = 32_000
REFUND_QUOTIENT: Final = 5
"""https://eips.ethereum.org/EIPS/eip-3529"""

_PRECOMPILES: Final = frozenset(CancunComputation.get_precompiles())


@dataclass(frozen=True, slots=True)
class Log:
    """One event: the contract, its topics and its data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class BlockContext:
    """What code may ask of the block it runs in. `recent_hashes` gives the ancestors' hashes, newest first."""

    number: int
    timestamp: int
    coinbase: bytes
    gas_limit: int
    base_fee: int
    chain_id: int
    mix_hash: bytes
    recent_hashes: Callable[[], Iterable[bytes]]


@dataclass(frozen=True, slots=True)
class Call:
    """One message from outside. `to` None creates a contract; `gas` is the whole limit, `nonce` the sender's before it."""

    sender: bytes
    to: bytes | None
    value: int
    data: bytes
    gas: int
    gas_price: int
    nonce: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a call did. The changes hold the value moved, but neither fee nor nonce of the sender.

    `gas_peak` is what was used before the refund: with less, the call would have failed.
    """

    success: bool
    reverted: bool
    gas_used: int
    gas_peak: int
    output: bytes
    error: str = ""
    logs: tuple[Log, ...] = ()
    created: bytes | None = None
    accounts: dict[bytes, Account] = field(default_factory=dict)
    slots: dict[Slot, int] = field(default_factory=dict)


def intrinsic_gas(data: bytes, *, creates: bool) -> int:
    """Gas before the first instruction (EIP-2028, EIP-3860)."""
    zeros = data.count(0)
    gas = GAS_PLAIN + 4 * zeros + 16 * (len(data) - zeros)
    return gas + GAS_CREATE + _initcode_gas(data) if creates else gas


def floor_gas(data: bytes) -> int:
    """The least that a transaction with these data ever pays (EIP-7623)."""
    zeros = data.count(0)
    return GAS_PLAIN + 10 * (zeros + 4 * (len(data) - zeros))


def _initcode_gas(data: bytes) -> int:
    return 2 * -(-len(data) // 32)


def created_address(sender: bytes, nonce: int) -> bytes:
    """Where a contract lands that `sender` creates (Yellow Paper, section 7)."""
    number = nonce.to_bytes((nonce.bit_length() + 7) // 8, "big")
    return keccak256(rlp.encode([sender, number], infer_serializer=False))[12:]


def execute(view: StateView, block: BlockContext, call: Call) -> Outcome:
    """Run a call on a state, which stays as it is.

    The sender must have `value`, and `gas` must cover intrinsic gas and floor.
    """
    intrinsic, floor = intrinsic_gas(call.data, creates=call.to is None), floor_gas(call.data)
    if call.to is not None and call.to not in _PRECOMPILES and not view.account(call.to).code:
        return _transfer(view, call, max(intrinsic, floor))
    outcome = _interpret(view, block, call, intrinsic)
    return replace(outcome, gas_used=max(outcome.gas_used, floor), gas_peak=max(outcome.gas_peak, floor))


def run_code(view: StateView, block: BlockContext, call: Call) -> Outcome:
    """Run a call for a network that charges for instructions alone: no intrinsic gas, no floor, no refund. The state stays as it is."""
    outcome = _interpret(view, block, call, 0)
    return replace(outcome, gas_used=outcome.gas_peak)


def _transfer(view: StateView, call: Call, gas_used: int) -> Outcome:
    changed: dict[bytes, Account] = {}
    if call.value and call.to is not None and call.to != call.sender:
        sender, recipient = view.account(call.sender), view.account(call.to)
        changed[call.sender] = sender._replace(balance=sender.balance - call.value)
        changed[call.to] = recipient._replace(balance=recipient.balance + call.value)
    return Outcome(success=True, reverted=False, gas_used=gas_used, gas_peak=gas_used, output=b"", accounts=changed)


def _interpret(view: StateView, block: BlockContext, call: Call, intrinsic: int) -> Outcome:
    accounts = _Accounts(view)
    state = _State(accounts, block)
    created = created_address(call.sender, call.nonce) if call.to is None else None
    target = call.to if created is None else created
    for address in (call.sender, target, block.coinbase):
        accounts.mark_address_warm(address)
    # py-evm has a type of its own for each kind of bytes; `Any` spares a cast for each.
    message: dict[str, Any] = {
        # The interpreter charges for init code itself.
        "gas": call.gas - intrinsic + (0 if created is None else _initcode_gas(call.data)),
        "to": CREATE_CONTRACT_ADDRESS if call.to is None else call.to,
        "sender": call.sender,
        "value": call.value,
        "data": b"" if call.to is None else call.data,
        "code": call.data if call.to is None else view.account(call.to).code,
        "create_address": created,
    }
    context: dict[str, Any] = {"gas_price": call.gas_price, "origin": call.sender}
    engine = state.computation_class
    if created is not None and accounts.account_has_code_or_nonce(created):
        return Outcome(success=False, reverted=False, gas_used=call.gas, gas_peak=call.gas, output=b"", error="contract address collision")
    run = engine.apply_message if created is None else engine.apply_create_message
    try:
        computation: Any = run(state, Message(**message), CancunTransactionContext(**context))
    except RecursionError:
        return Outcome(success=False, reverted=False, gas_used=call.gas, gas_peak=call.gas, output=b"", error="max call depth exceeded")
    gas_used = call.gas - computation.get_gas_remaining()
    if computation.is_error:
        reverted = isinstance(computation.error, Revert)
        error = "execution reverted" if reverted else _words(computation.error)
        output = computation.output if reverted else b""
        return Outcome(success=False, reverted=reverted, gas_used=gas_used, gas_peak=gas_used, output=output, error=error)
    gas_peak = gas_used
    gas_used -= min(computation.get_gas_refund(), gas_used // REFUND_QUOTIENT)
    for address in computation.get_accounts_for_deletion():
        accounts.delete_account(address)
    logs = tuple(
        Log(address, tuple(topic.to_bytes(32, "big") for topic in topics), bytes(data))
        for address, topics, data in computation.get_log_entries()
    )
    return Outcome(
        success=True,
        reverted=False,
        gas_used=gas_used,
        gas_peak=gas_peak,
        output=bytes(computation.output),
        logs=logs,
        created=created,
        accounts={address: value for address, value in accounts.accounts.items() if value != view.account(address)},
        slots={slot: value for slot, value in accounts.slots.items() if value != view.slot(slot)},
    )


def _words(error: VMError) -> str:
    """The engine's exception in geth's words, as far as geth has some."""
    name = type(error).__name__
    return {"OutOfGas": "out of gas", "InvalidInstruction": "invalid opcode", "StackDepthLimit": "max call depth exceeded"}.get(name, name)


@lru_cache(maxsize=256)
def _jump_targets(code: bytes) -> tuple[set[int], set[int]]:
    """Positions of a code found to be valid and invalid jump targets so far; true for ever, so shared by all its runs."""
    del code
    return set(), set()


class _Computation(CancunComputation):
    """py-evm's interpreter; looking at each jump target once instead of once a run spares a tenth of the time."""

    def __init__(self, state: Any, message: Any, transaction_context: Any) -> None:
        super().__init__(state, message, transaction_context)
        stream: Any = self.code
        stream.valid_positions, stream.invalid_positions = _jump_targets(message.code)


class _State(CancunState):
    """py-evm's state with our accounts under it."""

    computation_class = _Computation

    def __init__(self, accounts: _Accounts, block: BlockContext) -> None:
        self._ours = accounts
        self._account_db: Any = accounts
        context: dict[str, Any] = {
            "coinbase": block.coinbase,
            "timestamp": block.timestamp,
            "block_number": block.number,
            "difficulty": 0,
            "mix_hash": block.mix_hash,
            "gas_limit": block.gas_limit,
            "prev_hashes": block.recent_hashes(),
            "chain_id": block.chain_id,
            "base_fee_per_gas": block.base_fee,
            "excess_blob_gas": 0,
        }
        self.execution_context = ExecutionContext(**context)

    def snapshot(self) -> Any:
        return len(self._ours.undo)

    def commit(self, snapshot: Any) -> None:
        """Nothing: changes stay until somebody reverts them."""

    def revert(self, snapshot: Any) -> None:
        self._ours.revert(snapshot)

    def get_transient_storage(self, address: bytes, slot: int) -> bytes:
        return self._ours.transient.get((address, slot), b"")

    def set_transient_storage(self, address: bytes, slot: int, value: bytes) -> None:
        self._ours.set(self._ours.transient, (address, slot), value)


class _Accounts:
    """What py-evm's state asks of its account database, over a view, with an undo log. EIP-2929's warm set included."""

    def __init__(self, view: StateView) -> None:
        self._view = view
        self.accounts: dict[bytes, Account] = {}
        self.slots: dict[Slot, int] = {}
        self.transient: dict[Slot, bytes] = {}
        self._warm: dict[Any, bool] = {}
        self.undo: list[tuple[dict[Any, Any], Any, Any]] = []

    def set(self, table: dict[Any, Any], key: Any, value: Any) -> None:
        self.undo.append((table, key, table.get(key)))
        table[key] = value

    def revert(self, length: int) -> None:
        while len(self.undo) > length:
            table, key, value = self.undo.pop()
            if value is None:
                del table[key]
            else:
                table[key] = value

    def _account(self, address: bytes) -> Account:
        found = self.accounts.get(address)
        return self._view.account(address) if found is None else found

    def _change(self, address: bytes, account: Account) -> None:
        self.set(self.accounts, address, account)

    def get_storage(self, address: bytes, slot: int, from_journal: bool = True) -> int:  # noqa: FBT001, FBT002  py-evm's signature
        found = self.slots.get((address, slot)) if from_journal else None
        return self._view.slot((address, slot)) if found is None else found

    def set_storage(self, address: bytes, slot: int, value: int) -> None:
        self.set(self.slots, (address, slot), value)

    def delete_storage(self, address: bytes) -> None:
        """Called for an address where a contract is about to be created: there is none, since such an address was never used."""

    def is_storage_warm(self, address: bytes, slot: int) -> bool:
        return (address, slot) in self._warm

    def mark_storage_warm(self, address: bytes, slot: int) -> None:
        if (address, slot) not in self._warm:
            self.set(self._warm, (address, slot), True)

    def is_address_warm(self, address: bytes) -> bool:
        return address in self._warm

    def mark_address_warm(self, address: bytes | None) -> None:
        if address not in self._warm:
            self.set(self._warm, address, True)

    def get_balance(self, address: bytes) -> int:
        return self._account(address).balance

    def set_balance(self, address: bytes, balance: int) -> None:
        self._change(address, self._account(address)._replace(balance=balance))

    def get_nonce(self, address: bytes) -> int:
        return self._account(address).nonce

    def set_nonce(self, address: bytes, nonce: int) -> None:
        self._change(address, self._account(address)._replace(nonce=nonce))

    def increment_nonce(self, address: bytes) -> None:
        self.set_nonce(address, self.get_nonce(address) + 1)

    def get_code(self, address: bytes) -> bytes:
        return self._account(address).code

    def set_code(self, address: bytes, code: bytes) -> None:
        self._change(address, self._account(address)._replace(code=bytes(code)))

    def delete_code(self, address: bytes) -> None:
        self.set_code(address, b"")

    def get_code_hash(self, address: bytes) -> bytes:
        return keccak256(self.get_code(address))

    def account_has_code_or_nonce(self, address: bytes) -> bool:
        account = self._account(address)
        return bool(account.code) or account.nonce != 0

    def account_is_empty(self, address: bytes) -> bool:
        return self._account(address) == Account()

    def account_exists(self, address: bytes) -> bool:
        return not self.account_is_empty(address)

    def touch_account(self, address: bytes) -> None:
        """Nothing: empty accounts are not stored (EIP-161)."""

    def delete_account(self, address: bytes) -> None:
        self._change(address, Account())
        for slot in [key for key in self.slots if key[0] == address]:
            self.set(self.slots, slot, 0)
