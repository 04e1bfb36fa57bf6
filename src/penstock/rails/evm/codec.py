"""What an EVM network binds, signs and checks: `core.intent.Codec` of the family. Pure: no I/O, no clock, no key.

Addresses are text in their checksummed form (EIP-55), hashes and ids are 0x text in lower case, amounts are base units
(wei for the native coin), raw things are `bytes`. The signer, the rail and the devnet share this one door, so that what
is built, signed, checked and mined is the same thing by construction.
"""

from __future__ import annotations

from typing import Final

from penstock.core.intent import Intent, Key, Signed
from penstock.rails.evm.address import ZERO_ADDRESS, address_of_public_key, checksum, keccak256, parse_address
from penstock.rails.evm.calls import (
    GAS_PRICE_ORACLE,
    TRANSFER_TOPIC,
    UINT256_MAX,
    allowance_call_data,
    approve_call_data,
    balance_of_call_data,
    decode_uint256,
    exact_transfers,
    get_l1_fee_call_data,
    transfer_call_data,
)
from penstock.rails.evm.pay_many import ALLOWED_ENOUGH, CODE, DEPLOYER, DEPLOYMENT, GAS_MAX, PAY_MANY, UNITS_MAX, pay_call_data
from penstock.rails.evm.transaction import (
    NONCE_MAX,
    RAW_BYTES_MAX,
    SECP256K1_ORDER,
    InvalidTransaction,
    SignedTransaction,
    UnsignedTransaction,
    decode,
    encode_signed,
    encode_unsigned,
    read,
    signing_hash,
    transaction_id,
)

__all__ = [
    "ALLOWED_ENOUGH",
    "CODE",
    "DEPLOYER",
    "DEPLOYMENT",
    "GAS_MAX",
    "GAS_PLAIN",
    "GAS_PRICE_ORACLE",
    "NONCE_MAX",
    "PAY_MANY",
    "RAW_BYTES_MAX",
    "SECP256K1_ORDER",
    "TRANSFER_TOPIC",
    "UINT256_MAX",
    "UNITS_MAX",
    "ZERO_ADDRESS",
    "InvalidTransaction",
    "SignedTransaction",
    "UnsignedTransaction",
    "address",
    "address_of_public_key",
    "allowance_call_data",
    "approve_call_data",
    "balance_of_call_data",
    "broken_rules",
    "build",
    "checksum",
    "decode",
    "decode_uint256",
    "encode_signed",
    "encode_unsigned",
    "exact_transfers",
    "expires_ms",
    "get_l1_fee_call_data",
    "keccak256",
    "parse_address",
    "path",
    "pay_call_data",
    "read",
    "same_address",
    "sign",
    "signing_hash",
    "transaction_id",
    "transfer_call_data",
]

GAS_PLAIN: Final = 21_000
"""Gas of a plain transfer of the native coin to an account without code (Yellow Paper, G_transaction)."""

_TRANSFER_SELECTOR: Final = bytes.fromhex("a9059cbb")
_APPROVE_SELECTOR: Final = bytes.fromhex("095ea7b3")
_PAY_SELECTOR: Final = bytes.fromhex("17508fb6")
_PAY_MANY: Final = "0x0AC3Ab227471797426542C09a829Cf2590cbAf6F"
"""transfer(address,uint256), approve(address,uint256), pay(address,bytes32[]) and where the last one is: written down for `broken_rules` and
not computed by what it checks. https://eips.ethereum.org/EIPS/eip-20, contracts/PayMany.sol
"""
_FEE_TERMS: Final = ({"gas_limit", "max_fee_per_gas", "max_priority_fee_per_gas"}, {"gas_limit", "gas_price"})


def path(chain_id: int, lane: int) -> str:
    """BIP-44 with SLIP-44's coin 60, the same on every EVM network. https://github.com/bitcoin/bips/blob/master/bip-0044.mediawiki"""
    del chain_id
    return f"m/44'/60'/0'/0/{lane}"


def address(public_key: bytes, chain_id: int) -> str:
    """The account of a key (65 bytes, uncompressed), the same on every EVM network."""
    del chain_id
    return address_of_public_key(public_key)


def same_address(one: str, other: str) -> bool:
    """Letter case is only a checksum."""
    return one.lower() == other.lower()


def expires_ms(intent: Intent) -> None:
    """Nothing: signed bytes stay valid until their nonce is used."""
    del intent


def sign(intent: Intent, key: Key) -> Signed:
    """Build and sign. Raises ValueError."""
    unsigned = build(intent)
    raw = encode_signed(unsigned, *key.sign(signing_hash(unsigned)))
    return Signed(intent.attempt_id, intent.version, transaction_id(raw), raw)


def broken_rules(intent: Intent, signed: Signed) -> list[str]:
    """What in the bytes is not what the intent says. Raises InvalidTransaction for bytes that are none."""
    found = decode(signed.raw, intent.chain_id)
    it, content = found.unsigned, _content_wanted(intent)
    rules = {
        "transaction id": found.txid == signed.txid,
        "sender": found.sender == intent.sender,
        "chain id": it.chain_id == intent.chain_id,
        "nonce": it.nonce == intent.slot,
        "recipient": it.to is not None and it.to.lower() == content[0].lower(),
        "value": it.value == content[1],
        "call": it.data == content[2],
        "fee cap": it.gas_limit * it.max_fee_per_gas + intent.terms.get("l1_fee", 0) <= intent.fee_cap,
    }
    return [name for name, holds in rules.items() if not holds]


def _content_wanted(intent: Intent) -> tuple[str, int, bytes]:
    """Recipient, value and data, put together by hand."""
    if intent.kind == "cancel":
        return intent.sender, 0, b""
    if intent.kind == "open" and intent.contract is not None:
        return intent.contract, 0, _APPROVE_SELECTOR + _bytes(_PAY_MANY).rjust(32, b"\0") + b"\xff" * 32
    payment = intent.payments[0]
    if intent.contract is None:
        return payment.recipient, payment.units, b""
    if len(intent.payments) == 1:
        return intent.contract, 0, _TRANSFER_SELECTOR + _bytes(payment.recipient).rjust(32, b"\0") + payment.units.to_bytes(32, "big")
    head = _bytes(intent.contract).rjust(32, b"\0") + (64).to_bytes(32, "big") + len(intent.payments).to_bytes(32, "big")
    return _PAY_MANY, 0, _PAY_SELECTOR + head + b"".join(_bytes(p.recipient) + p.units.to_bytes(12, "big") for p in intent.payments)


def _bytes(address: str) -> bytes:
    return bytes.fromhex(address.removeprefix("0x"))


def build(intent: Intent) -> UnsignedTransaction:
    """The one transaction that this intent means.

    Pay: the native coin goes to the recipient as value, a token by a call of its contract, and to many by PayMany. Cancel: nothing to the
    sender itself, which uses the nonce up. Open: PayMany may move the sender's units of a token. `terms`: gas_limit, and gas_price or
    max_fee_per_gas with max_priority_fee_per_gas; optionally l1_fee (wei, OP-stack), which counts against the cap. The memo has no
    place in an EVM transaction.
    Raises ValueError for anything else, and when the whole fee could exceed `fee_cap`.
    """
    if intent.family != "evm":
        raise ValueError("an EVM transaction carries payments of the family evm")
    terms = dict(intent.terms)
    l1_fee = terms.pop("l1_fee", 0)
    if set(terms) not in _FEE_TERMS or any(type(number) is not int or number < 0 for number in (*terms.values(), l1_fee)):
        raise ValueError("terms are gas_limit with gas_price, or with max_fee_per_gas and max_priority_fee_per_gas, and l1_fee")
    to, value, data = _content(intent)
    legacy = "gas_price" in terms
    transaction = UnsignedTransaction(
        type=0 if legacy else 2,
        chain_id=intent.chain_id,
        nonce=intent.slot,
        max_priority_fee_per_gas=terms["gas_price" if legacy else "max_priority_fee_per_gas"],
        max_fee_per_gas=terms["gas_price" if legacy else "max_fee_per_gas"],
        gas_limit=terms["gas_limit"],
        to=to,
        value=value,
        data=data,
    )
    if transaction.gas_limit < GAS_PLAIN:
        raise ValueError(f"no transaction runs on less than {GAS_PLAIN} gas")
    if transaction.fee_max + l1_fee > intent.fee_cap:
        raise ValueError(f"the fee could be {transaction.fee_max + l1_fee} wei, above its cap of {intent.fee_cap}")
    return transaction


def _content(intent: Intent) -> tuple[str, int, bytes]:
    """Recipient, value and data of an intent."""
    sender = parse_address(intent.sender)
    if intent.kind == "cancel":
        return sender, 0, b""
    if intent.kind == "open":
        if intent.contract is None or intent.payments:
            raise ValueError("what is opened is a token, and that pays nobody")
        return parse_address(intent.contract), 0, approve_call_data(PAY_MANY, UINT256_MAX)
    if intent.kind != "pay":
        raise ValueError(f"an intent pays, cancels or opens, it does not {intent.kind}")
    if not intent.payments or any(not 0 < payment.units <= UINT256_MAX for payment in intent.payments):
        raise ValueError("a payment is from 1 to 2^256 - 1 base units, and there is one at least")
    paid = [(parse_address(payment.recipient), payment.units) for payment in intent.payments]
    if any(recipient == PAY_MANY for recipient, _ in paid):
        raise ValueError("what is paid to PayMany itself is lost")
    if len(paid) > 1:
        if intent.contract is None:
            raise ValueError("a transaction that pays many pays a token")
        return PAY_MANY, 0, pay_call_data(parse_address(intent.contract), paid)
    ((recipient, units),) = paid
    if intent.contract is None:
        return recipient, units, b""
    return parse_address(intent.contract), 0, transfer_call_data(recipient, units)
