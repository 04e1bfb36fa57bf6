"""One transaction on a state: what a node checks in which order, what it takes for it, and the receipt. Pure.

Order, codes and words as in java-tron (framework/.../db/Manager.java, processTransaction; actuator/), which clients match on.
https://github.com/tronprotocol/java-tron
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from penstock.devnet.evm.execution import BlockContext, Call, Log, Outcome, run_code
from penstock.devnet.tron import schema
from penstock.devnet.tron.resources import SUN, Prices, energy_left, free_left, net_left, used_more
from penstock.devnet.tron.state import Account, Draft, EvmView, View
from penstock.devnet.tron.transaction import PREFIX, RESULT_BYTES_MAX, BadSignature, Transaction, text_of

TRANSACTION_BYTES_MAX: Final = 500 * 1024
EXPIRATION_AHEAD_MAX_MS: Final = 24 * 3_600 * 1_000
SIGNATURES_MAX: Final = 5
SIGNATURE_BYTES: Final = 65
FACTOR_ONE: Final = 10_000
RUN_GAS_MAX: Final = 4_000_000
"""More than this in one run stands for more time than the real network gives a call (80 ms): OUT_OF_TIME."""

_PERMISSIONS: Final = frozenset({0, 2})
"""Ids of an account's permissions by birth: owner, and active; both need its own key alone."""

_FAILURES: Final[Mapping[str, str]] = {
    "out of gas": "OUT_OF_ENERGY",
    "invalid opcode": "ILLEGAL_OPERATION",
    "InvalidJumpDestination": "BAD_JUMP_DESTINATION",
    "InsufficientStack": "STACK_TOO_SMALL",
    "FullStack": "STACK_TOO_LARGE",
    "InsufficientFunds": "TRANSFER_FAILED",
    "max call depth exceeded": "JVM_STACK_OVER_FLOW",
}
"""The interpreter's words -> contractResult; what is not named is UNKNOWN."""


class Rejected(Exception):
    """The node does not take the transaction: a response_code of the protocol, and what it says."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message = code, message


def invalid(text: str) -> Rejected:
    """CONTRACT_VALIDATE_ERROR with its usual beginning."""
    return Rejected("CONTRACT_VALIDATE_ERROR", f"Contract validate error : {text}")


_POOR: Final = ("BANDWITH_ERROR", "Account resource insufficient error.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Where a transaction runs: in a block to be made, or in what waits for one. Times in Unix milliseconds.

    `head_ms` is the newest block's time, `next_slot_ms` the earliest that the next one can have; `slot` counts for resources.
    `reference` gives the id of the newest block whose number ends in these two bytes, `known` whether a transaction is there already.
    """

    number: int
    time_ms: int
    head_ms: int
    next_slot_ms: int
    slot: int
    witness: bytes
    chain_id: int
    prices: Prices
    factors: Mapping[bytes, int]
    in_block: bool
    reference: Callable[[bytes], bytes | None]
    known: Callable[[Transaction], bool]
    recent_hashes: Callable[[], Iterable[bytes]]

    @property
    def block(self) -> BlockContext:
        """The same for the interpreter."""
        return BlockContext(
            number=self.number,
            timestamp=self.time_ms // 1000,
            coinbase=self.witness,
            gas_limit=0,
            base_fee=self.prices.energy,
            chain_id=self.chain_id,
            mix_hash=bytes(32),
            recent_hashes=self.recent_hashes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of a transaction; amounts in sun. `fee` is all of it: energy, bandwidth, a new account, a memo.

    `result` is a contractResult of the protocol; `energy_total` is what was used, staked and burnt for, `penalty` included.
    """

    transaction: Transaction
    result: str = "SUCCESS"
    fee: int = 0
    net_usage: int = 0
    net_fee: int = 0
    energy_usage: int = 0
    energy_fee: int = 0
    energy_total: int = 0
    penalty: int = 0
    contract: bytes = b""
    output: bytes = b""
    error: str = ""
    logs: tuple[Log, ...] = ()


def check_expiration(transaction: Transaction, next_slot_ms: int) -> None:
    """A node takes nothing that could not be in the very next block. Raises Rejected."""
    if transaction.data.expiration < next_slot_ms:
        raise Rejected("TRANSACTION_EXPIRATION_ERROR", "Transaction expired")


def check_content(transaction: Transaction) -> None:
    """Exactly one contract, of a type that a box runs. Raises Rejected."""
    count = len(transaction.data.contract)
    if not count:
        raise invalid("No contract!")
    if count > 1:
        raise invalid(f"tx {transaction.txid} contract size should be exactly 1, this is extend feature ,actual :{count}")
    if transaction.content is None:
        raise invalid("a network in a box runs transfers, contract calls and delegation of resources, and nothing else")


def check_signature(transaction: Transaction) -> None:
    """One signature, by the owner's key: no account of a box has other permissions than those it was born with. Raises Rejected."""
    try:
        fault = _signature_fault(transaction)
    except BadSignature as error:
        fault = str(error)
    if fault:
        raise Rejected("SIGERROR", f"Validate signature error: {fault}")


def _signature_fault(transaction: Transaction) -> str:
    """What is wrong with the signatures, or "". Raises BadSignature."""
    signatures = transaction.message.signature
    if not signatures:
        return "miss sig or contract"
    if len(signatures) > SIGNATURES_MAX:
        return "too many signatures"
    if transaction.data.contract[0].Permission_id not in _PERMISSIONS:
        return "permission isn't exit"
    if len(signatures) > 1:
        return f"Signature count is {len(signatures)} more than key counts of permission : 1"
    if PREFIX + transaction.signers[0] != transaction.owner:
        return f"{signatures[0].hex()} is signed by {text_of(transaction.signers[0])} but it is not contained of permission."
    return ""


def process(base: View, transaction: Transaction, context: Context) -> tuple[Draft, Receipt]:
    """What the transaction changes, and its receipt; a call that fails is a receipt too. Raises Rejected."""
    check_content(transaction)
    _check_place(transaction, context)
    check_signature(transaction)
    draft = Draft(base)
    receipt = _pay_bandwidth(draft, transaction, context)
    receipt = _pay_memo(draft, receipt, context)
    receipt = _ACTUATORS[schema.CONTRACT_NAMES[transaction.type]](draft, receipt, context)
    return draft, receipt


def _check_place(transaction: Transaction, context: Context) -> None:
    """Reference block, size, expiration, and that it is new."""
    data = transaction.data
    found = context.reference(bytes(data.ref_block_bytes))
    if found is None or found[8:16] != data.ref_block_hash:
        raise Rejected("TAPOS_ERROR", "Tapos check error.")
    size = len(transaction.raw) + 2 * RESULT_BYTES_MAX
    if size > TRANSACTION_BYTES_MAX:
        text = f"Too big transaction with result, TxId {transaction.txid}, the size is {size} bytes, maxTxSize {TRANSACTION_BYTES_MAX}"
        raise Rejected("TOO_BIG_TRANSACTION_ERROR", text)
    if context.in_block:
        check_expiration(transaction, context.next_slot_ms)
    if not context.head_ms < data.expiration <= context.head_ms + EXPIRATION_AHEAD_MAX_MS:
        raise Rejected("TRANSACTION_EXPIRATION_ERROR", "Transaction expired")
    if context.known(transaction):
        raise Rejected("DUP_TRANSACTION_ERROR", "Dup transaction.")


# What every transaction pays


def _pay_bandwidth(draft: Draft, transaction: Transaction, context: Context) -> Receipt:
    """Staked bandwidth, else the day's free one, else sun; for a transfer to a new account staked bandwidth, else a fixed fee."""
    receipt = Receipt(transaction=transaction)
    points, owner, slot, prices = len(transaction.raw) + RESULT_BYTES_MAX, _account(transaction.owner), context.slot, context.prices
    account = draft.account(owner)
    if not account.exists:
        raise invalid(f"account [{text_of(owner)}] does not exist")
    account = account._replace(active_ms=context.head_ms)
    new = _is_to_new_account(draft, transaction)
    if new:
        size = len(transaction.raw) - SIGNATURE_BYTES * len(transaction.message.signature)
        if size > prices.new_account_bytes_max:
            text = f"Too big new account transaction, TxId {transaction.txid}, the size is {size} bytes, maxTxSize "
            raise Rejected("TOO_BIG_TRANSACTION_ERROR", text + str(prices.new_account_bytes_max))
    if points <= net_left(account, slot):
        draft.put(owner, account._replace(net=used_more(account.net, points, slot)))
        return replace(receipt, net_usage=points)
    if not new and points <= free_left(account, slot, prices.free_bandwidth):
        draft.put(owner, account._replace(free=used_more(account.free, points, slot)))
        return replace(receipt, net_usage=points)
    fee = prices.new_account_bandwidth if new else prices.byte * points
    if account.balance < fee:
        raise Rejected(*_POOR)
    draft.put(owner, account._replace(balance=account.balance - fee))
    return replace(receipt, net_fee=fee, fee=fee)


def _is_to_new_account(view: View, transaction: Transaction) -> bool:
    if transaction.type != schema.CONTRACT_TYPES["TransferContract"]:
        return False
    return not view.account(bytes(transaction.content.to_address)[1:]).exists


def _pay_memo(draft: Draft, receipt: Receipt, context: Context) -> Receipt:
    owner, fee = _account(receipt.transaction.owner), context.prices.memo
    if not receipt.transaction.data.data or not fee:
        return receipt
    account = draft.account(owner)
    if account.balance < fee:
        raise Rejected(*_POOR)
    draft.put(owner, account._replace(balance=account.balance - fee))
    return replace(receipt, fee=receipt.fee + fee)


def _account(address: bytes, wrong: str = "Invalid ownerAddress!") -> bytes:
    if len(address) != 21 or address[:1] != PREFIX:
        raise invalid(wrong)
    return address[1:]


# Transfers of TRX


def _transfer(draft: Draft, receipt: Receipt, context: Context) -> Receipt:
    it = receipt.transaction.content
    owner, to = _account(it.owner_address), _account(it.to_address, "Invalid toAddress!")
    if owner == to:
        raise invalid("Cannot transfer TRX to yourself.")
    if it.amount <= 0:
        raise invalid("Amount must be greater than 0.")
    sender, recipient = draft.account(owner), draft.account(to)
    if recipient.code:
        raise invalid("Cannot transfer TRX to a smartContract.")
    fee = 0 if recipient.exists else context.prices.new_account
    if sender.balance < it.amount + fee:
        raise invalid("Validate TransferContract error, balance is not sufficient.")
    if not recipient.exists:
        recipient = Account(exists=True, created_ms=context.head_ms)
    draft.put(owner, sender._replace(balance=sender.balance - it.amount - fee))
    draft.put(to, recipient._replace(balance=recipient.balance + it.amount))
    return replace(receipt, fee=receipt.fee + fee)


# Calls of contracts


@dataclass(frozen=True, slots=True)
class Run:
    """What a call did. `energy` is all it used, `penalty` the part that a much used contract asks on top."""

    result: str
    energy: int
    penalty: int
    error: str
    outcome: Outcome


def run(view: View, context: Context, call: Call) -> Run:
    """Run a call whose `gas` is the energy it may use. What it used in vain is all of it, but for a revert."""
    factor = context.factors.get(call.to or b"", 0)
    gas_max = call.gas * FACTOR_ONE // (FACTOR_ONE + factor)
    gas = min(gas_max, RUN_GAS_MAX)
    outcome = run_code(EvmView(view), context.block, replace(call, gas=gas))
    if outcome.success or outcome.reverted:
        penalty = outcome.gas_used * factor // FACTOR_ONE
        result, error = ("SUCCESS", "") if outcome.success else ("REVERT", "REVERT opcode executed")
        return Run(result, outcome.gas_used + penalty, penalty, error, outcome)
    result = _FAILURES.get(outcome.error, "UNKNOWN")
    if result == "OUT_OF_ENERGY" and gas < gas_max:
        result = "OUT_OF_TIME"
    return Run(result, call.gas, call.gas - gas_max, _WORDS.get(result, outcome.error), outcome)


_WORDS: Final[Mapping[str, str]] = {
    "OUT_OF_ENERGY": "Not enough energy for the next operation executing",
    "OUT_OF_TIME": "CPU timeout for the next operation executing",
    "ILLEGAL_OPERATION": "Invalid operation code",
    "TRANSFER_FAILED": "transfer trx failed",
}


def _trigger(draft: Draft, receipt: Receipt, context: Context) -> Receipt:
    it, data = receipt.transaction.content, receipt.transaction.data
    owner, contract = _account(it.owner_address), bytes(it.contract_address)[1:]
    code = draft.account(contract).code
    if not code:
        raise invalid("No contract or not a smart contract")
    if it.call_value < 0:
        raise invalid("callValue must be >= 0")
    if it.call_token_value or it.token_id:
        raise invalid("a network in a box has no TRC-10 tokens")
    if not 0 <= data.fee_limit <= context.prices.fee_limit_max:
        raise invalid(f"feeLimit must be >= 0 and <= {context.prices.fee_limit_max}")
    caller, price = draft.account(owner), context.prices.energy
    staked = energy_left(caller, context.slot)
    limit = min(staked + max(0, caller.balance - it.call_value) // price, data.fee_limit // price)
    if caller.balance < it.call_value:
        raise invalid("Validate InternalTransfer error, balance is not sufficient.")
    done = run(draft, context, Call(owner, contract, it.call_value, bytes(it.data), limit, price, 0))
    _keep(draft, done.outcome, context)
    receipt = replace(
        receipt,
        result=done.result,
        contract=contract,
        output=done.outcome.output,
        error=done.error,
        logs=done.outcome.logs if done.result == "SUCCESS" else (),
    )
    return _pay_energy(draft, receipt, owner, done, staked, context)


def _keep(draft: Draft, outcome: Outcome, context: Context) -> None:
    """Write what code changed into the draft; an account that it paid exists from now on."""
    for address, changed in outcome.accounts.items():
        account = draft.account(address)
        if not account.exists:
            account = Account(exists=True, created_ms=context.head_ms)
        draft.put(address, account._replace(balance=changed.balance, code=changed.code))
    draft.slots.update(outcome.slots)


def _pay_energy(draft: Draft, receipt: Receipt, owner: bytes, done: Run, staked: int, context: Context) -> Receipt:
    """Staked energy first, sun for the rest."""
    usage = min(staked, done.energy)
    fee = (done.energy - usage) * context.prices.energy
    account = draft.account(owner)
    if account.balance < fee:
        raise Rejected("CONTRACT_EXE_ERROR", f"Contract execute error : {text_of(owner)} insufficient balance")
    energy = used_more(account.energy, usage, context.slot) if usage else account.energy
    draft.put(owner, account._replace(balance=account.balance - fee, energy=energy))
    return replace(receipt, fee=receipt.fee + fee, energy_usage=usage, energy_fee=fee, energy_total=done.energy, penalty=done.penalty)


# Delegation of what was staked


def _delegate(draft: Draft, receipt: Receipt, context: Context) -> Receipt:
    """Only the faucet has anything staked, as the genesis wrote it; what it lends is no longer in its own balance of stakes."""
    del context
    it = receipt.transaction.content
    sign = 1 if schema.CONTRACT_NAMES[receipt.transaction.type] == "DelegateResourceContract" else -1
    owner, to = _account(it.owner_address, "Invalid address"), _account(it.receiver_address, "Invalid receiverAddress")
    if it.balance < SUN:
        raise invalid("delegateBalance must be greater than or equal to 1 TRX")
    if owner == to:
        raise invalid("receiverAddress must not be the same as ownerAddress")
    if not draft.account(to).exists:
        raise invalid(f"Account[{text_of(to)}] not exists")
    fields: dict[int, tuple[str, str, str]] = {
        schema.RESOURCES["BANDWIDTH"]: ("net_staked", "lent_net", "FreezeBandwidthV2"),
        schema.RESOURCES["ENERGY"]: ("energy_staked", "lent_energy", "FreezeEnergyV2"),
    }
    if it.resource not in fields:
        raise invalid("ResourceCode error, valid ResourceCode[BANDWIDTH、ENERGY]")
    staked, lent, words = fields[it.resource]
    for address, moved in ((owner, -sign * it.balance), (to, sign * it.balance)):
        account = draft.account(address)
        changes: dict[str, Any] = {staked: getattr(account, staked) + moved}
        if address == owner:
            changes[lent] = getattr(account, lent) - moved
        if min(changes.values()) < 0:
            raise invalid(f"delegateBalance must be less than or equal to available {words} balance")
        draft.put(address, account._replace(**changes))
    return receipt


_ACTUATORS: Final[Mapping[str, Callable[[Draft, Receipt, Context], Receipt]]] = {
    "TransferContract": _transfer,
    "TriggerSmartContract": _trigger,
    "DelegateResourceContract": _delegate,
    "UnDelegateResourceContract": _delegate,
}
