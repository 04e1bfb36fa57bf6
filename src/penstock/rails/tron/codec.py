"""The bytes of TRON: addresses, token calls, transactions and signatures. Pure: no I/O, no clock, no key.

Addresses are text in base58check ("T..."), ids are 64 hexadecimal digits in lower case without 0x, amounts are base units (sun for TRX).
A transaction's id is the SHA-256 of its `raw_data`, so the signature is no part of it, and no one can give our bytes another id.

What makes the bytes of every attempt unique: their `timestamp`, which no node checks, is the attempt's own id. Two attempts can differ in
nothing else (same recipient, same amount, same reference block) and still have two ids.
https://developers.tron.network/docs/tron-protocol-transaction
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import base58
import coincurve
from Crypto.Hash import keccak as _keccak
from google.protobuf.message import DecodeError

from penstock.core.intent import Intent, Key, Signed
from penstock.rails.base import InvalidDestination, check_characters
from penstock.rails.tron import schema

INT64_MAX: Final = 2**63 - 1
UINT256_MAX: Final = 2**256 - 1
SECP256K1_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

RAW_BYTES_MAX: Final = 4096
"""Far above any transfer (some 350 bytes); nodes take 500 KB."""

RESULT_BYTES: Final = 64
"""What nodes count for a result on top of a transaction's own bytes. https://developers.tron.network/docs/resource-model"""

TRANSFER_TOPIC: Final = "ddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
"""First topic of Transfer(address,address,uint256). https://github.com/tronprotocol/tips/blob/master/tip-20.md"""

NATIVE_TERMS: Final = frozenset({"ref_block", "ref_block_hash", "expiration", "net_fee_max"})
TOKEN_TERMS: Final = NATIVE_TERMS | {"fee_limit"}

_TRANSFER: Final = bytes.fromhex("a9059cbb")
_BALANCE_OF: Final = bytes.fromhex("70a08231")
_PREFIX: Final = b"\x41"
_NOBODY: Final = _PREFIX + bytes(20)
_SIGNATURE_BYTES: Final = 65
_TRANSFER_TYPE: Final = 1
_TRIGGER_TYPE: Final = 31
_TYPE_URL: Final = "type.googleapis.com/protocol."
_BASE58: Final = frozenset("123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")
_HEX_ADDRESS: Final = re.compile(r"41[0-9a-fA-F]{40}", re.ASCII)


class InvalidTransaction(ValueError):
    """Bytes that are no transfer as this gateway makes them; the text says why."""


# Addresses: https://developers.tron.network/docs/account#account-address-format


def _text(account: bytes) -> str:
    return base58.b58encode_check(account).decode("ascii")


def account_bytes(address: str) -> bytes:
    """The 21 bytes of an address in base58check. Raises ValueError."""
    if len(address) != 34:
        raise ValueError("an address is 34 characters")
    try:
        account = base58.b58decode_check(address)
    except ValueError as error:
        raise ValueError("not base58 with a right checksum") from error
    if len(account) != 21 or account[:1] != _PREFIX:
        raise ValueError("not an address of TRON")
    return account


def account_hex(address: str) -> str:
    """The 42 hexadecimal digits of an address, as the nodes' HTTP API takes it by default. Raises ValueError."""
    return account_bytes(address).hex()


def address_of_hex(text: str) -> str:
    """An address from its 42 hexadecimal digits ("41..."). Raises ValueError."""
    if _HEX_ADDRESS.fullmatch(text) is None:
        raise ValueError("not 41 and 40 hexadecimal digits")
    return _text(bytes.fromhex(text))


def parse_address(text: str) -> str:
    """A destination as people write it, base58check or 41 with 40 hexadecimal digits, as base58check. Raises InvalidDestination."""
    check_characters(text)
    if text[:2] in ("0x", "0X"):
        raise InvalidDestination("This is an address of an Ethereum-like network; an address of TRON begins with T.")
    if len(text) == 42 and text.startswith("41"):
        return _checked(_hex_account(text))
    if not text.startswith("T"):
        raise InvalidDestination("An address of TRON begins with T (or with 41, in hexadecimal).")
    if len(text) != 34:
        raise InvalidDestination(f"The address has {len(text)} characters where 34 are needed.")
    if wrong := next((character for character in text if character not in _BASE58), ""):
        raise InvalidDestination(f"The character {wrong} cannot stand in an address of TRON.")
    try:
        return _checked(account_bytes(text))
    except InvalidDestination:
        raise
    except ValueError as error:
        raise InvalidDestination("The address is mistyped: its checksum does not match.") from error


def _hex_account(text: str) -> bytes:
    if _HEX_ADDRESS.fullmatch(text) is None:
        raise InvalidDestination("The address may hold only 0-9 and a-f after 41.")
    return bytes.fromhex(text)


def _checked(account: bytes) -> str:
    if account == _NOBODY:
        raise InvalidDestination("The zero address belongs to nobody; give the recipient's own address.")
    return _text(account)


def path(chain_id: int, lane: int) -> str:
    """BIP-44 with SLIP-44's coin 195. https://github.com/satoshilabs/slips/blob/master/slip-0044.md"""
    del chain_id
    return f"m/44'/195'/0'/0/{lane}"


def address(public_key: bytes, chain_id: int) -> str:
    """The account of a secp256k1 key (65 bytes, uncompressed); real and test networks write it alike."""
    del chain_id
    point = coincurve.PublicKey(public_key).format(compressed=False)
    return _text(_PREFIX + _keccak.new(digest_bits=256, data=point[1:]).digest()[12:])


def same_address(one: str, other: str) -> bool:
    """Whether two texts are one account, each in base58check or hexadecimal."""
    return _account_or_text(one) == _account_or_text(other)


def _account_or_text(text: str) -> bytes | str:
    try:
        return bytes.fromhex(text) if _HEX_ADDRESS.fullmatch(text) else account_bytes(text)
    except ValueError:
        return text


# Token calls and logs: https://github.com/tronprotocol/tips/blob/master/tip-20.md


def _address_word(text: str) -> bytes:
    return account_bytes(text)[1:].rjust(32, b"\0")


def transfer_call_data(recipient: str, units: int) -> bytes:
    """`transfer(recipient, units)` of TRC-20; units are the token's own base units. Raises ValueError out of range."""
    if not 0 <= units <= UINT256_MAX:
        raise ValueError("a token amount is from 0 to 2^256 - 1 base units")
    return _TRANSFER + _address_word(recipient) + units.to_bytes(32, "big")


def balance_of_call_data(owner: str) -> bytes:
    """`balanceOf(owner)` of TRC-20; answered by one word."""
    return _BALANCE_OF + _address_word(owner)


def exact_transfer_count(logs: Iterable[Mapping[str, Any]], contract: str, sender: str, recipient: str, units: int) -> int:
    """How many of a receipt's logs are this very TRC-20 Transfer. A payment is proved by exactly one (failure model, section 5).

    Strict: three topics, one word of data, all as the contract writes it but for the case of the digits. Nodes write a log's contract as
    20 bytes without the 41.
    """
    wanted = [account_hex(contract)[2:], f"{units:064x}", TRANSFER_TOPIC, _address_word(sender).hex(), _address_word(recipient).hex()]
    return sum(_in_lower_case(log) == wanted for log in logs)


def _in_lower_case(log: Mapping[str, Any]) -> list[str]:
    topics = log.get("topics")
    words = (log.get("address"), log.get("data"), *(topics if isinstance(topics, list) else ()))
    return [str(word).lower() for word in words]


# Transactions


@dataclass(frozen=True, slots=True)
class UnsignedTransaction:
    """What is signed: a TransferContract (`data` None, `amount` sun go to `to`) or a TriggerSmartContract (`to` is called with `data`).

    `ref_block_bytes` are the low two bytes of a recent block's number, `ref_block_hash` bytes 8 to 16 of its id: on another chain or
    branch the transaction is void. `expiration` in milliseconds of the chain's clock; `fee_limit` in sun bounds what energy may burn.
    """

    ref_block_bytes: bytes
    ref_block_hash: bytes
    expiration: int
    timestamp: int
    fee_limit: int
    owner: str
    to: str
    amount: int = 0
    data: bytes | None = None

    def __post_init__(self) -> None:
        """Every number within what its field can hold. Raises InvalidTransaction."""
        if len(self.ref_block_bytes) != 2 or len(self.ref_block_hash) != 8:
            raise InvalidTransaction("a reference block is two bytes of its number and eight of its id")
        if not all(0 <= number <= INT64_MAX for number in (self.expiration, self.timestamp, self.fee_limit, self.amount)):
            raise InvalidTransaction("a number is from 0 to 2^63 - 1")
        if self.data is None and self.fee_limit:
            raise InvalidTransaction("a transfer of TRX uses no energy, so it has no fee limit")


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A decoded transaction: its content, recovered sender, id, and the very bytes it came as."""

    unsigned: UnsignedTransaction
    sender: str
    txid: str
    raw: bytes


def build(intent: Intent) -> UnsignedTransaction:
    """The one transaction that this intent means.

    `terms`: ref_block (a block's whole number), ref_block_hash (bytes 8 to 16 of its id as a number), expiration (milliseconds),
    net_fee_max (sun that bandwidth and a new account may cost; counts against the cap), and for a token fee_limit (sun). The memo has
    no place: nodes charge for it. Raises ValueError for anything else, and when the whole fee could exceed `fee_cap`.
    """
    if intent.family != "tron" or len(intent.payments) != 1:
        raise ValueError("a transaction of TRON carries exactly one payment of the family tron")
    if intent.kind != "pay" or intent.version != 1:
        raise ValueError("what is signed on TRON has one version and cannot be cancelled: it expires")
    terms, payment, native = intent.terms, intent.payments[0], intent.contract is None
    if set(terms) != (NATIVE_TERMS if native else TOKEN_TERMS):
        raise ValueError(f"terms are {', '.join(sorted(NATIVE_TERMS if native else TOKEN_TERMS))}")
    if any(type(number) is not int or not 0 <= number < 2**64 for number in terms.values()):
        raise ValueError("every term is a whole number of at most 64 bits")
    if not 0 < terms["expiration"] <= INT64_MAX or terms.get("fee_limit", 1) == 0 or not 0 < intent.attempt_id <= INT64_MAX:
        raise ValueError("expiration, fee limit and the attempt's id are above 0")
    if (fee := terms["net_fee_max"] + terms.get("fee_limit", 0)) > intent.fee_cap:
        raise ValueError(f"the fee could be {fee} sun, above its cap of {intent.fee_cap}")
    if not 0 < payment.units <= (INT64_MAX if native else UINT256_MAX):
        raise ValueError("a payment is at least 1 base unit, and no more than its field holds")
    recipient = parse_address(payment.recipient)
    return UnsignedTransaction(
        ref_block_bytes=(terms["ref_block"] % 2**16).to_bytes(2, "big"),
        ref_block_hash=terms["ref_block_hash"].to_bytes(8, "big"),
        expiration=terms["expiration"],
        timestamp=intent.attempt_id,
        fee_limit=terms.get("fee_limit", 0),
        owner=parse_address(intent.sender),
        to=recipient if intent.contract is None else parse_address(intent.contract),
        amount=payment.units if native else 0,
        data=None if native else transfer_call_data(recipient, payment.units),
    )


def expires_ms(intent: Intent) -> int:
    """The expiration, which the chain compares with the time of the block before."""
    return intent.terms["expiration"]


# Encoding: https://protobuf.dev/programming-guides/encoding/


def encode_unsigned(transaction: UnsignedTransaction) -> bytes:
    """`raw_data`, whose SHA-256 is signed and is the id."""
    owner, to = account_bytes(transaction.owner), account_bytes(transaction.to)
    raw = schema.Raw(
        ref_block_bytes=transaction.ref_block_bytes,
        ref_block_hash=transaction.ref_block_hash,
        expiration=transaction.expiration,
        timestamp=transaction.timestamp,
        fee_limit=transaction.fee_limit,
    )
    contract = raw.contract.add()
    if transaction.data is None:
        name, contract.type = "TransferContract", _TRANSFER_TYPE
        content = schema.TransferContract(owner_address=owner, to_address=to, amount=transaction.amount)
    else:
        name, contract.type = "TriggerSmartContract", _TRIGGER_TYPE
        content = schema.TriggerSmartContract(
            owner_address=owner, contract_address=to, call_value=transaction.amount, data=transaction.data
        )
    contract.parameter.type_url = _TYPE_URL + name
    contract.parameter.value = content.SerializeToString(deterministic=True)
    return bytes(raw.SerializeToString(deterministic=True))


def encode_signed(transaction: UnsignedTransaction, signature: bytes) -> bytes:
    """The bytes that go to a node; a signature is r, s and the recovery bit."""
    message = schema.Transaction(signature=signature)
    message.raw_data.ParseFromString(encode_unsigned(transaction))
    return bytes(message.SerializeToString(deterministic=True))


def transaction_id(unsigned: bytes) -> str:
    """SHA-256 of `raw_data`, 64 hexadecimal digits."""
    return hashlib.sha256(unsigned).hexdigest()


def bandwidth(transaction: UnsignedTransaction) -> int:
    """Bandwidth points that the signed transaction uses: a point for each byte, and those of its result."""
    return len(encode_signed(transaction, bytes(_SIGNATURE_BYTES))) + RESULT_BYTES


def sign(intent: Intent, key: Key) -> Signed:
    """Build and sign. Raises ValueError."""
    transaction = build(intent)
    unsigned = encode_unsigned(transaction)
    bit, r, s = key.sign(hashlib.sha256(unsigned).digest())
    raw = encode_signed(transaction, r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([bit]))
    return Signed(intent.attempt_id, intent.version, transaction_id(unsigned), raw)


def decode(raw: bytes) -> SignedTransaction:
    """Signed bytes to their content and sender, taking only the one form that `encode_signed` makes.

    Raises InvalidTransaction for anything that another form could hide: several contracts, other types, a memo, a permission, a call
    value, several signatures, unknown fields, fields out of order, a signature outside the lower half.
    """
    if not 0 < len(raw) <= RAW_BYTES_MAX:
        raise InvalidTransaction(f"a transfer is from 1 to {RAW_BYTES_MAX} bytes")
    try:
        message = schema.Transaction.FromString(raw)
        transaction = _content(message.raw_data)
    except DecodeError as error:
        raise InvalidTransaction("the bytes are no transaction") from error
    signature = bytes(message.signature)
    if len(signature) != _SIGNATURE_BYTES or encode_signed(transaction, signature) != raw:
        raise InvalidTransaction("the bytes are not exactly one plain transfer with one signature")
    unsigned = encode_unsigned(transaction)
    return SignedTransaction(transaction, _recover(unsigned, signature), transaction_id(unsigned), raw)


def _content(raw: Any) -> UnsignedTransaction:
    if len(raw.contract) != 1:
        raise InvalidTransaction("a transaction has one contract")
    contract, data = raw.contract[0], None
    if contract.type == _TRANSFER_TYPE:
        it = schema.TransferContract.FromString(contract.parameter.value)
        to, amount = it.to_address, it.amount
    elif contract.type == _TRIGGER_TYPE:
        it = schema.TriggerSmartContract.FromString(contract.parameter.value)
        to, amount, data = it.contract_address, it.call_value, bytes(it.data)
    else:
        raise InvalidTransaction("a contract that is neither a transfer of TRX nor a call")
    if any(len(account) != 21 or account[:1] != _PREFIX for account in (it.owner_address, to)):
        raise InvalidTransaction("an address is 41 and 20 bytes")
    return UnsignedTransaction(
        ref_block_bytes=bytes(raw.ref_block_bytes),
        ref_block_hash=bytes(raw.ref_block_hash),
        expiration=raw.expiration,
        timestamp=raw.timestamp,
        fee_limit=raw.fee_limit,
        owner=_text(it.owner_address),
        to=_text(to),
        amount=amount,
        data=data,
    )


def _recover(unsigned: bytes, signature: bytes) -> str:
    bit = signature[64] - 27 if signature[64] >= 27 else signature[64]  # nodes take both ways of writing it
    if bit not in (0, 1) or not 0 < int.from_bytes(signature[32:64], "big") <= SECP256K1_ORDER // 2:
        raise InvalidTransaction("invalid signature: the recovery bit is 0 or 1, s in the lower half")
    digest = hashlib.sha256(unsigned).digest()
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature[:64] + bytes([bit]), digest, hasher=cast("Any", None))
    except Exception as error:  # coincurve raises a bare Exception when no key fits
        raise InvalidTransaction("the signature belongs to no key") from error
    return address(key.format(compressed=False), 0)


def broken_rules(intent: Intent, signed: Signed) -> list[str]:
    """What in the bytes is not what the intent says. Raises InvalidTransaction for bytes that are none."""
    found, payment, terms = decode(signed.raw), intent.payments[0], intent.terms
    it = found.unsigned
    if intent.contract is None:
        content: tuple[str, int, bytes | None] = (payment.recipient, payment.units, None)
    else:
        recipient = base58.b58decode_check(payment.recipient)[1:].rjust(32, b"\0")
        content = (intent.contract, 0, bytes.fromhex("a9059cbb") + recipient + payment.units.to_bytes(32, "big"))
    rules = {
        "transaction id": found.txid == signed.txid == hashlib.sha256(encode_unsigned(it)).hexdigest(),
        "sender": it.owner == found.sender == intent.sender,
        "reference block": (it.ref_block_bytes.hex(), it.ref_block_hash.hex())
        == (f"{terms['ref_block'] & 0xFFFF:04x}", f"{terms['ref_block_hash']:016x}"),
        "attempt": it.timestamp == intent.attempt_id,
        "expiry": it.expiration == terms["expiration"] > 0,
        "recipient": it.to == content[0],
        "value": it.amount == content[1],
        "call": it.data == content[2],
        "fee cap": it.fee_limit == terms.get("fee_limit", 0) and it.fee_limit + terms["net_fee_max"] <= intent.fee_cap,
    }
    return [name for name, holds in rules.items() if not holds]
