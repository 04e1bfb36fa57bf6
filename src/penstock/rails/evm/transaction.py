"""Transactions of an EVM chain as bytes: encoded, hashed, and decoded as a stranger would, from the one canonical form only. Pure.

Amounts are wei, ids 0x text in lower case. https://ethereum.org/developers/docs/data-structures-and-encoding/rlp/
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, Literal, cast

import coincurve
import rlp
from rlp.codec import encode_raw, length_prefix

from penstock.rails.evm.address import address_of, checksum, keccak256
from penstock.rails.evm.calls import UINT256_MAX

SECP256K1_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of the curve's group; a signature's s lies in its lower half (EIP-2). https://www.secg.org/sec2-v2.pdf"""

NONCE_MAX: Final = 2**64 - 2
"""Greatest usable nonce. https://eips.ethereum.org/EIPS/eip-2681"""

RAW_BYTES_MAX: Final = 128 * 1024
"""Nodes take no larger transaction (geth, txMaxSize)."""

_DYNAMIC: Final = b"\x02"
_LIST: Final = 0xC0
"""Where the prefixes of lists begin, in RLP."""


class InvalidTransaction(ValueError):
    """Bytes that are no transaction which a node of this network could take; the text says why."""


@dataclass(frozen=True, slots=True)
class UnsignedTransaction:
    """What is signed: a type 2 (EIP-1559) or a legacy replay-protected (type 0, EIP-155) transaction.

    All amounts in wei. A legacy gas price stands in both fee fields, as geth keeps it, so that rules on fees need no
    second form. `to` is None only for the creation of a contract, which Penstock itself never builds.
    https://eips.ethereum.org/EIPS/eip-1559 https://eips.ethereum.org/EIPS/eip-155
    """

    type: Literal[0, 2]
    chain_id: int
    nonce: int
    max_priority_fee_per_gas: int
    max_fee_per_gas: int
    gas_limit: int
    to: str | None
    value: int
    data: bytes

    def __post_init__(self) -> None:
        """Every number within what its field can hold. Raises InvalidTransaction."""
        if self.type == 0 and self.max_priority_fee_per_gas != self.max_fee_per_gas:
            raise InvalidTransaction("a legacy transaction has one gas price")
        if not 0 < self.chain_id <= UINT256_MAX // 2 - 36:
            raise InvalidTransaction("a chain id is a positive number")
        if not 0 <= self.nonce <= NONCE_MAX:
            raise InvalidTransaction("a nonce is from 0 to 2^64 - 2")
        if not 0 <= self.gas_limit < 2**64:
            raise InvalidTransaction("a gas limit is from 0 to 2^64 - 1")
        if not 0 <= self.max_priority_fee_per_gas <= self.max_fee_per_gas <= UINT256_MAX:
            raise InvalidTransaction("max priority fee per gas higher than max fee per gas")
        if not 0 <= self.value <= UINT256_MAX:
            raise InvalidTransaction("a value is from 0 to 2^256 - 1 wei")

    @property
    def fee_max(self) -> int:
        """The most that execution can cost, in wei; an L1 fee comes on top."""
        return self.gas_limit * self.max_fee_per_gas


@dataclass(frozen=True, slots=True)
class SignedTransaction:
    """A decoded transaction: its content, signature, recovered sender, id, and the very bytes it came as."""

    unsigned: UnsignedTransaction
    y_parity: int
    r: int
    s: int
    sender: str
    txid: str
    raw: bytes


def _number(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


@lru_cache(maxsize=16)
def _content(transaction: UnsignedTransaction) -> bytes:
    """Its fields, encoded: the same for what is signed and for the signed bytes, and for both again where they are read back."""
    t = transaction
    to = b"" if t.to is None else bytes.fromhex(t.to[2:])
    tail: list[Any] = [_number(t.gas_limit), to, _number(t.value), t.data]
    if t.type == 0:
        items = [_number(t.nonce), _number(t.max_fee_per_gas), *tail]
    else:
        items = [*map(_number, (t.chain_id, t.nonce, t.max_priority_fee_per_gas, t.max_fee_per_gas)), *tail, []]
    return b"".join(map(encode_raw, items))


def _encode(transaction: UnsignedTransaction, *more: bytes) -> bytes:
    """The list of its fields and what signing adds, behind the type where it has one."""
    payload = _content(transaction) + b"".join(map(encode_raw, more))
    prefix: bytes = length_prefix(len(payload), _LIST)
    return (_DYNAMIC if transaction.type else b"") + prefix + payload


def encode_unsigned(transaction: UnsignedTransaction) -> bytes:
    """The bytes whose keccak is signed; also what GasPriceOracle wants to see.

    https://eips.ethereum.org/EIPS/eip-1559#specification https://eips.ethereum.org/EIPS/eip-155#specification
    """
    return _encode(transaction, *(() if transaction.type else (_number(transaction.chain_id), b"", b"")))


def signing_hash(transaction: UnsignedTransaction) -> bytes:
    """The 32 bytes that the key signs."""
    return keccak256(encode_unsigned(transaction))


def encode_signed(transaction: UnsignedTransaction, y_parity: int, r: int, s: int) -> bytes:
    """The bytes that go to a node. Raises InvalidTransaction for a signature that no node takes (EIP-2)."""
    _check_signature(y_parity, r, s)
    v = y_parity if transaction.type else transaction.chain_id * 2 + 35 + y_parity
    return _encode(transaction, *map(_number, (v, r, s)))


def transaction_id(raw: bytes) -> str:
    """The id of signed bytes: 0x and their keccak. Computed here, never taken from a node."""
    return "0x" + keccak256(raw).hex()


def _check_signature(y_parity: int, r: int, s: int) -> None:
    """https://eips.ethereum.org/EIPS/eip-2"""
    if y_parity not in (0, 1) or not 0 < r < SECP256K1_ORDER or not 0 < s <= SECP256K1_ORDER // 2:
        raise InvalidTransaction("invalid transaction v, r, s values: parity is 0 or 1, s in the lower half (EIP-2)")


def decode(raw: bytes, chain_id: int | None = None) -> SignedTransaction:
    """Signed bytes to their content and sender, taking only the one canonical encoding. Raises InvalidTransaction as `read` does, and for
    a signature that belongs to no key.
    """
    transaction, (y_parity, r, s) = read(raw, chain_id)
    if encode_signed(transaction, y_parity, r, s) != raw:
        raise InvalidTransaction("the bytes are not the canonical encoding of what they say")
    sender = _recover(signing_hash(transaction), y_parity, r, s)
    return SignedTransaction(transaction, y_parity, r, s, sender, transaction_id(raw), raw)


def read(raw: bytes, chain_id: int | None = None) -> tuple[UnsignedTransaction, tuple[int, int, int]]:
    """What signed bytes say, and their signature (parity, r, s), without asking whose it is: that costs as much as signing.

    Raises InvalidTransaction for malformed or non-canonical RLP, numbers with leading zeros, another type than 0 and 2, an
    access list that is not empty, a signature outside EIP-2, no replay protection (EIP-155), or another chain id than given.
    """
    if not 0 < len(raw) <= RAW_BYTES_MAX:
        raise InvalidTransaction(f"a transaction is from 1 to {RAW_BYTES_MAX} bytes")
    if raw[:1] == _DYNAMIC:
        transaction, (y_parity, r, s) = _decode_dynamic(raw[1:])
    elif raw[0] >= 0xC0:
        transaction, (y_parity, r, s) = _decode_legacy(raw)
    else:
        raise InvalidTransaction("transaction type not supported")
    if chain_id is not None and transaction.chain_id != chain_id:
        raise InvalidTransaction(f"invalid chain id for signer: have {transaction.chain_id} want {chain_id}")
    _check_signature(y_parity, r, s)
    return transaction, (y_parity, r, s)


def _items(data: bytes, count: int) -> list[Any]:
    try:
        items = rlp.decode(data)
    except (rlp.exceptions.DecodingError, RecursionError) as error:
        raise InvalidTransaction("the bytes are not canonical RLP") from error
    if not isinstance(items, list) or len(items) != count:
        raise InvalidTransaction(f"a transaction of this type has {count} fields")
    return items


def _read_number(item: object, bytes_max: int = 32) -> int:
    if not isinstance(item, bytes) or len(item) > bytes_max or item[:1] == b"\0":
        raise InvalidTransaction("a number is too long, or begins with a zero byte")
    return int.from_bytes(item, "big")


def _read_tail(items: list[Any]) -> tuple[int, str | None, int, bytes]:
    gas_limit, to, value, data = items
    if not isinstance(to, bytes) or len(to) not in (0, 20) or not isinstance(data, bytes):
        raise InvalidTransaction("a recipient is 20 bytes or none, and data are bytes")
    return _read_number(gas_limit, 8), checksum("0x" + to.hex()) if to else None, _read_number(value), data


def _decode_dynamic(body: bytes) -> tuple[UnsignedTransaction, tuple[int, int, int]]:
    items = _items(body, 12)
    chain_id, nonce, priority, fee = (_read_number(item) for item in items[:4])
    gas_limit, to, value, data = _read_tail(items[4:8])
    if items[8] != []:
        raise InvalidTransaction("access lists are not supported")
    y_parity, r, s = (_read_number(item) for item in items[9:])
    return UnsignedTransaction(2, chain_id, nonce, priority, fee, gas_limit, to, value, data), (y_parity, r, s)


def _decode_legacy(raw: bytes) -> tuple[UnsignedTransaction, tuple[int, int, int]]:
    items = _items(raw, 9)
    nonce, price = (_read_number(item) for item in items[:2])
    gas_limit, to, value, data = _read_tail(items[2:6])
    v, r, s = (_read_number(item) for item in items[6:])
    if v < 37:
        raise InvalidTransaction("only replay-protected (EIP-155) transactions allowed over RPC")
    chain_id, y_parity = divmod(v - 35, 2)
    return UnsignedTransaction(0, chain_id, nonce, price, price, gas_limit, to, value, data), (y_parity, r, s)


def _recover(digest: bytes, y_parity: int, r: int, s: int) -> str:
    signature = r.to_bytes(32, "big") + s.to_bytes(32, "big") + bytes([y_parity])
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=cast("Any", None))
    except Exception as error:  # coincurve raises a bare Exception when no key fits
        raise InvalidTransaction("the signature belongs to no key") from error
    return address_of(key)
