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
    balance_of_call_data,
    decode_uint256,
    exact_transfer_count,
    get_l1_fee_call_data,
    transfer_call_data,
)
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
    "GAS_PLAIN",
    "GAS_PRICE_ORACLE",
    "NONCE_MAX",
    "RAW_BYTES_MAX",
    "SECP256K1_ORDER",
    "TRANSFER_TOPIC",
    "UINT256_MAX",
    "ZERO_ADDRESS",
    "InvalidTransaction",
    "SignedTransaction",
    "UnsignedTransaction",
    "address",
    "address_of_public_key",
    "balance_of_call_data",
    "broken_rules",
    "build",
    "checksum",
    "decode",
    "decode_uint256",
    "encode_signed",
    "encode_unsigned",
    "exact_transfer_count",
    "expires_ms",
    "get_l1_fee_call_data",
    "keccak256",
    "parse_address",
    "path",
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
"""transfer(address,uint256), written down for `broken_rules` and not computed by what it checks. https://eips.ethereum.org/EIPS/eip-20"""
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
    found, payment = decode(signed.raw, intent.chain_id), intent.payments[0]
    it = found.unsigned
    if intent.kind == "cancel":
        content = (intent.sender, 0, b"")
    elif intent.contract is None:
        content = (payment.recipient, payment.units, b"")
    else:
        recipient = bytes.fromhex(payment.recipient.removeprefix("0x")).rjust(32, b"\0")
        content = (intent.contract, 0, _TRANSFER_SELECTOR + recipient + payment.units.to_bytes(32, "big"))
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


def build(intent: Intent) -> UnsignedTransaction:
    """The one transaction that this intent means.

    Pay: the native coin goes to the recipient as value, a token by a call of its contract. Cancel: nothing to the sender itself,
    which uses the nonce up. `terms`: gas_limit, and gas_price or max_fee_per_gas with max_priority_fee_per_gas;
    optionally l1_fee (wei, OP-stack), which counts against the cap. The memo has no place in an EVM transaction.
    Raises ValueError for anything else, and when the whole fee could exceed `fee_cap`.
    """
    if intent.family != "evm" or len(intent.payments) != 1:
        raise ValueError("an EVM transaction carries exactly one payment of the family evm")
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
    if intent.kind != "pay":
        raise ValueError(f"an intent pays or cancels, it does not {intent.kind}")
    payment = intent.payments[0]
    recipient = parse_address(payment.recipient)
    if not 0 < payment.units <= UINT256_MAX:
        raise ValueError("a payment is from 1 to 2^256 - 1 base units")
    if intent.contract is None:
        return recipient, payment.units, b""
    return parse_address(intent.contract), 0, transfer_call_data(recipient, payment.units)
