"""Blocks as TRON hashes them: header bytes, ids that begin with the height, the tree over transactions, the witness's signature. Pure.

https://tronprotocol.github.io/documentation-en/mechanism-algorithm/dpos/ and block.proto of the protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import coincurve

from penstock.devnet.tron import schema
from penstock.devnet.tron.process import Receipt
from penstock.devnet.tron.transaction import PREFIX, account_of_key

VERSION: Final = 34
EMPTY_ROOT: Final = bytes(32)


@dataclass(frozen=True)
class Witness:
    """Who makes blocks: a key and its account (20 bytes)."""

    key: coincurve.PrivateKey
    account: bytes

    @classmethod
    def of(cls, secret: bytes) -> Witness:
        """From 32 bytes."""
        key = coincurve.PrivateKey(secret)
        return cls(key, account_of_key(key.public_key))


@dataclass(frozen=True)
class Block:
    """A block with what happened in it. `header` is raw_data of the header as bytes; `time_ms` by the chain's clock."""

    number: int
    id: bytes
    parent: bytes
    time_ms: int
    root: bytes
    witness: Witness
    header: bytes
    receipts: tuple[Receipt, ...]

    @cached_property
    def signature(self) -> bytes:
        """The witness's, over the hash of the header; made when somebody looks."""
        return self.witness.key.sign_recoverable(hashlib.sha256(self.header).digest(), hasher=None)


def with_result(receipt: Receipt) -> Any:
    """The transaction as it stands in a block: with how it ended."""
    message = schema.Transaction()
    message.CopyFrom(receipt.transaction.message)
    message.ret.add(contractRet=schema.CONTRACT_RESULTS[receipt.result])
    return message


def merkle_root(receipts: Sequence[Receipt]) -> bytes:
    """The root over the hashes of transactions with their results; an odd one goes up alone."""
    if not receipts:
        return EMPTY_ROOT
    level = [hashlib.sha256(with_result(receipt).SerializeToString()).digest() for receipt in receipts]
    while len(level) > 1:
        level = [hashlib.sha256(b"".join(pair)).digest() if len(pair) > 1 else pair[0] for pair in _pairs(level)]
    return level[0]


def _pairs(level: Sequence[bytes]) -> list[Sequence[bytes]]:
    return [level[start : start + 2] for start in range(0, len(level), 2)]


def seal(number: int, parent: bytes, time_ms: int, witness: Witness, receipts: Sequence[Receipt], *, chain_id: int | None = None) -> Block:
    """The block. The id is the header's hash with the height in place of its first eight bytes.

    With `chain_id`, for the genesis alone, that stands in place of the last four: a network is known by them, and finding a header that
    hashes to them would take four billion tries.
    """
    root = merkle_root(receipts)
    header = schema.HeaderRaw(
        timestamp=time_ms,
        txTrieRoot=root,
        parentHash=parent,
        number=number,
        witness_address=PREFIX + witness.account,
        version=VERSION,
    ).SerializeToString()
    digest = hashlib.sha256(header).digest()
    tail = digest[8:] if chain_id is None else digest[8:28] + chain_id.to_bytes(4, "big")
    return Block(number, number.to_bytes(8, "big") + tail, parent, time_ms, root, witness, header, tuple(receipts))
