"""Blocks as the network hashes them: headers, receipts, blooms and the roots that bind them together.

Real: the hash of a header, its link to the parent, transactionsRoot, receiptsRoot, logsBloom, baseFeePerGas. Not real: stateRoot,
which is a running hash over what each block changed and not the root of a state trie.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import rlp

from penstock.devnet.evm.execution import Log
from penstock.devnet.evm.state import Draft
from penstock.rails.evm.codec import SignedTransaction, keccak256

EMPTY_UNCLES_HASH: Final = keccak256(b"\xc0")
EMPTY_TRIE_ROOT: Final = keccak256(b"\x80")
ELASTICITY: Final = 2
BASE_FEE_CHANGE_QUOTIENT: Final = 8
"""Both from https://eips.ethereum.org/EIPS/eip-1559"""


def rlp_encode(item: Any) -> bytes:
    """RLP of nested lists of bytes."""
    encoded: bytes = rlp.encode(item, infer_serializer=False)
    return encoded


def number_bytes(number: int) -> bytes:
    """A number as RLP wants it: big endian, no leading zero."""
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def next_base_fee(base_fee: int, gas_used: int, gas_limit: int) -> int:
    """The child's base fee (wei) by EIP-1559: an eighth up or down at most, as the block was above or below half full."""
    target = gas_limit // ELASTICITY
    step = base_fee * abs(gas_used - target) // target // BASE_FEE_CHANGE_QUOTIENT
    return base_fee + max(step, 1) if gas_used > target else base_fee - step


@lru_cache(maxsize=8192)
def _bloom_of(item: bytes) -> int:
    digest = keccak256(item)
    bits = 0
    for position in (0, 2, 4):
        bits |= 1 << (int.from_bytes(digest[position : position + 2], "big") & 2047)
    return bits


def bloom(logs: Iterable[Log]) -> int:
    """The 2048-bit filter over addresses and topics (Yellow Paper, section 4.3.1)."""
    bits = 0
    for log in logs:
        bits |= _bloom_of(log.address)
        for topic in log.topics:
            bits |= _bloom_of(topic)
    return bits


def ordered_trie_root(values: Sequence[bytes]) -> bytes:
    """Root of the Merkle-Patricia trie that holds the values under RLP of their positions (Yellow Paper, appendix D)."""
    if not values:
        return EMPTY_TRIE_ROOT
    pairs = sorted((_nibbles(rlp_encode(number_bytes(position))), value) for position, value in enumerate(values))
    return keccak256(rlp_encode(_node(pairs, 0)))


def _nibbles(key: bytes) -> bytes:
    return bytes(nibble for byte in key for nibble in (byte >> 4, byte & 15))


def _path(nibbles: bytes, *, leaf: bool) -> bytes:
    """Hex-prefix encoding (Yellow Paper, appendix C)."""
    flag = 2 if leaf else 0
    odd = [flag + 1, *nibbles] if len(nibbles) % 2 else [flag, 0, *nibbles]
    return bytes(odd[position] << 4 | odd[position + 1] for position in range(0, len(odd), 2))


def _node(pairs: Sequence[tuple[bytes, bytes]], depth: int) -> list[Any]:
    """The node over these sorted pairs, whose keys agree up to `depth`. No key of ours is another's prefix."""
    first, last = pairs[0][0], pairs[-1][0]
    if len(pairs) == 1:
        return [_path(first[depth:], leaf=True), pairs[0][1]]
    common = depth
    while first[common] == last[common]:
        common += 1
    if common > depth:
        return [_path(first[depth:common], leaf=False), _reference(_node(pairs, common))]
    branch: list[Any] = [b""] * 17
    start = 0
    while start < len(pairs):
        nibble, end = pairs[start][0][depth], start
        while end < len(pairs) and pairs[end][0][depth] == nibble:
            end += 1
        branch[nibble] = _reference(_node(pairs[start:end], depth + 1))
        start = end
    return branch


def _reference(node: list[Any]) -> Any:
    encoded = rlp_encode(node)
    return node if len(encoded) < 32 else keccak256(encoded)


@dataclass(frozen=True, slots=True)
class Header:
    """A block header in its London form; without `base_fee` in the older one. Times in Unix seconds, fees in wei."""

    parent_hash: bytes
    coinbase: bytes
    state_root: bytes
    transactions_root: bytes
    receipts_root: bytes
    logs_bloom: int
    number: int
    gas_limit: int
    gas_used: int
    timestamp: int
    extra: bytes
    mix_hash: bytes
    base_fee: int | None

    def encode(self) -> bytes:
        """RLP, whose keccak is the block's hash."""
        fields: list[Any] = [
            self.parent_hash,
            EMPTY_UNCLES_HASH,
            self.coinbase,
            self.state_root,
            self.transactions_root,
            self.receipts_root,
            self.logs_bloom.to_bytes(256, "big"),
            b"",  # difficulty: there is no mining
            *map(number_bytes, (self.number, self.gas_limit, self.gas_used, self.timestamp)),
            self.extra,
            self.mix_hash,
            b"\0" * 8,
        ]
        if self.base_fee is not None:
            fields.append(number_bytes(self.base_fee))
        return rlp_encode(fields)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What became of a transaction in its block. `price` is the effective gas price; `l1_fee` is None outside OP-stack networks."""

    transaction: SignedTransaction
    index: int
    success: bool
    gas_used: int
    cumulative_gas: int
    price: int
    logs: tuple[Log, ...]
    first_log: int
    created: bytes | None
    l1_fee: int | None
    logs_bloom: int

    def encode(self) -> bytes:
        """As it goes into receiptsRoot (EIP-2718; without the deposit fields of an OP-stack deposit)."""
        logs = [[log.address, list(log.topics), log.data] for log in self.logs]
        body = rlp_encode([b"\1" if self.success else b"", number_bytes(self.cumulative_gas), self.logs_bloom.to_bytes(256, "big"), logs])
        kind = self.transaction.unsigned.type
        return bytes([kind]) + body if kind else body


@dataclass(frozen=True, slots=True)
class Block:
    """A header with its hash and what happened under it.

    `floor` is its base fee, or on a legacy network the least gas price that it took (wei); `made_ms` when it was due (Unix ms).
    """

    header: Header
    hash: bytes
    receipts: tuple[Receipt, ...]
    floor: int
    made_ms: int
    size: int

    @property
    def number(self) -> int:
        """Its height; genesis is 0."""
        return self.header.number


def finish(header: Header, state_root: bytes, receipts: Sequence[Receipt]) -> Header:
    """The header with everything that follows from its transactions."""
    logs_bloom = 0
    for receipt in receipts:
        logs_bloom |= receipt.logs_bloom
    return replace(
        header,
        state_root=state_root,
        transactions_root=ordered_trie_root([receipt.transaction.raw for receipt in receipts]),
        receipts_root=ordered_trie_root([receipt.encode() for receipt in receipts]),
        logs_bloom=logs_bloom,
        gas_used=receipts[-1].cumulative_gas if receipts else 0,
    )


def seal(header: Header, receipts: Sequence[Receipt], *, floor: int, made_ms: int) -> Block:
    """The block of this header."""
    encoded = header.encode()
    size = len(encoded) + sum(len(receipt.transaction.raw) for receipt in receipts)
    return Block(header, keccak256(encoded), tuple(receipts), floor, made_ms, size)


@lru_cache(maxsize=256)
def _code_hash(code: bytes) -> bytes:
    return keccak256(code)


def state_root(parent: bytes, draft: Draft) -> bytes:
    """A running hash over what a block changed; stands where a real network has the root of its state trie."""
    if not draft.accounts and not draft.slots:
        return parent
    accounts = [
        [address, number_bytes(account.nonce), number_bytes(account.balance), _code_hash(account.code)]
        for address, account in sorted(draft.accounts.items())
    ]
    slots = [[address, number_bytes(index), number_bytes(value)] for (address, index), value in sorted(draft.slots.items())]
    return keccak256(rlp_encode([parent, accounts, slots]))
