"""Signed transactions of TRON as a node reads them: protobuf bytes, id, content, signer; and addresses. Pure.

https://developers.tron.network/docs/tron-protocol-transaction https://developers.tron.network/docs/account
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import base58
import coincurve
from Crypto.Hash import keccak as _keccak
from google.protobuf.message import DecodeError

from penstock.devnet.tron import schema

PREFIX: Final = b"\x41"
RESULT_BYTES_MAX: Final = 64
"""What a node adds to the size of a transaction for its result to come, where bandwidth is counted."""

_TYPE_URL: Final = "type.googleapis.com/protocol."
_SIGNATURE_BYTES: Final = 65


class Unreadable(ValueError):
    """Bytes that are no transaction at all."""


class BadSignature(ValueError):
    """A signature that belongs to no key; the text as a node writes it."""


def keccak256(data: bytes) -> bytes:
    """The hash of addresses and of Solidity."""
    return _keccak.new(digest_bits=256, data=data).digest()


def text_of(account: bytes) -> str:
    """20 bytes of an account as base58check with TRON's prefix."""
    return base58.b58encode_check(PREFIX + account).decode("ascii")


def account_of(text: str) -> bytes:
    """The 20 bytes of an address in base58check or in hexadecimal with 41. Raises ValueError."""
    raw = bytes.fromhex(text) if len(text) == 42 else base58.b58decode_check(text)
    if len(raw) != 21 or raw[:1] != PREFIX:
        raise ValueError(f"an address of TRON is 41 and 20 bytes, and {text[:64]!r} is none")
    return raw[1:]


def account_of_key(public_key: coincurve.PublicKey) -> bytes:
    """The 20 bytes of a key's account."""
    return keccak256(public_key.format(compressed=False)[1:])[12:]


@dataclass(frozen=True)
class Transaction:
    """A transaction that is at least protobuf. `message` is never changed."""

    message: Any

    @classmethod
    def parse(cls, raw: bytes) -> Transaction:
        """Raises Unreadable."""
        try:
            message = schema.Transaction.FromString(raw)
        except DecodeError as error:
            raise Unreadable("Protocol message end-group tag or length did not match what was expected.") from error
        message.ClearField("ret")  # what a sender says of the result counts for nothing
        return cls(message)

    @cached_property
    def id(self) -> bytes:
        """SHA-256 of raw_data alone: no signature can change it."""
        return hashlib.sha256(self.message.raw_data.SerializeToString()).digest()

    @property
    def txid(self) -> str:
        """The id as text."""
        return self.id.hex()

    @cached_property
    def raw(self) -> bytes:
        """As it stands in a block, without its result."""
        signed: bytes = self.message.SerializeToString()
        return signed

    @property
    def data(self) -> Any:
        """raw_data."""
        return self.message.raw_data

    @property
    def type(self) -> int:
        """Number of its (first) contract's type."""
        return int(self.data.contract[0].type)

    @cached_property
    def content(self) -> Any:
        """Its contract unpacked, or None when that is not what the type says, or of a type that a box does not run."""
        parameter, known = self.data.contract[0].parameter, schema.CONTRACTS.get(self.type)
        if known is None or parameter.type_url.rpartition("/")[2] != f"protocol.{schema.CONTRACT_NAMES[self.type]}":
            return None
        try:
            return known.FromString(parameter.value)
        except DecodeError:
            return None

    @cached_property
    def owner(self) -> bytes:
        """The 21 bytes of who sends it, as written; empty when that cannot be read."""
        return b"" if self.content is None else bytes(self.content.owner_address)

    @cached_property
    def signers(self) -> list[bytes]:
        """The accounts (20 bytes) whose keys signed. Raises BadSignature."""
        return [_signer(bytes(signature), self.id) for signature in self.message.signature]


def _signer(signature: bytes, digest: bytes) -> bytes:
    if len(signature) < _SIGNATURE_BYTES:
        raise BadSignature(f"Signature size is {len(signature)}")
    bit = signature[64] - 27 if signature[64] >= 27 else signature[64]
    if bit not in range(4):
        raise BadSignature("Header byte out of range")
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature[:64] + bytes([bit]), digest, hasher=None)
    except Exception as error:  # coincurve raises a bare Exception when no key fits
        raise BadSignature("Could not recover public key from signature") from error
    return account_of_key(key)


def build(kind: str, fields: Mapping[str, Any], *, reference: bytes, expiration_ms: int, timestamp_ms: int, fee_limit: int = 0) -> Any:
    """An unsigned transaction with one contract of this type. `reference` is the id of the block it refers to."""
    message = schema.Transaction()
    message.raw_data.ref_block_bytes, message.raw_data.ref_block_hash = reference[6:8], reference[8:16]
    message.raw_data.expiration, message.raw_data.timestamp, message.raw_data.fee_limit = expiration_ms, timestamp_ms, fee_limit
    number = schema.CONTRACT_TYPES[kind]
    contract = message.raw_data.contract.add(type=number)
    contract.parameter.type_url = _TYPE_URL + kind
    contract.parameter.value = schema.CONTRACTS[number](**fields).SerializeToString(deterministic=True)
    return message


def signed(message: Any, key: coincurve.PrivateKey) -> Transaction:
    """The transaction with one signature of this key."""
    digest = hashlib.sha256(message.raw_data.SerializeToString()).digest()
    message.signature.append(key.sign_recoverable(digest, hasher=None))
    return Transaction(message)
