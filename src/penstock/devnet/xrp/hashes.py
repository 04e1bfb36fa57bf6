"""How ledgers are hashed: the header, and the tree of transactions with their metadata.

https://xrpl.org/docs/concepts/networks-and-servers/ledger-history https://xrpl.org/docs/references/protocol/ledger-data/ledger-header
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from xrpl.core import binarycodec

from penstock.devnet.xrp.transactions import half_sha512

ZERO: Final = bytes(32)
_LEAF, _INNER, _HEADER = b"SND\0", b"MIN\0", b"LWR\0"


def header_hash(
    *,
    index: int,
    total_drops: int,
    parent: bytes,
    transactions: bytes,
    state: bytes,
    parent_close_time: int,
    close_time: int,
    resolution: int,
    flags: int,
) -> bytes:
    """Times in seconds since 2000; hashes of 32 bytes."""
    return half_sha512(
        _HEADER
        + index.to_bytes(4, "big")
        + total_drops.to_bytes(8, "big")
        + parent
        + transactions
        + state
        + parent_close_time.to_bytes(4, "big")
        + close_time.to_bytes(4, "big")
        + bytes([resolution, flags])
    )


def _prefixed(data: bytes) -> bytes:
    """With its length. https://xrpl.org/docs/references/protocol/binary-format#length-prefixing"""
    size = len(data)
    if size <= 192:
        return bytes([size]) + data
    if size <= 12_480:
        high, low = divmod(size - 193, 256)
        return bytes([193 + high, low]) + data
    rest = size - 12_481
    return bytes([241 + (rest >> 16), rest >> 8 & 255, rest & 255]) + data


def leaf(txid: str, raw: bytes, metadata: Mapping[str, Any]) -> bytes:
    """What a transaction is in the tree."""
    encoded = bytes.fromhex(binarycodec.encode(dict(metadata)))
    return half_sha512(_LEAF + _prefixed(raw) + _prefixed(encoded) + bytes.fromhex(txid))


def tree_root(leaves: Mapping[str, bytes]) -> bytes:
    """The root over leaves by transaction id."""
    return _inner(sorted((bytes.fromhex(txid).hex(), hash_) for txid, hash_ in leaves.items()), 0) if leaves else ZERO


def _inner(leaves: Sequence[tuple[str, bytes]], depth: int) -> bytes:
    """The node over leaves whose ids agree in their first `depth` nibbles."""
    children, start = [ZERO] * 16, 0
    while start < len(leaves):
        nibble, end = leaves[start][0][depth], start
        while end < len(leaves) and leaves[end][0][depth] == nibble:
            end += 1
        children[int(nibble, 16)] = leaves[start][1] if end - start == 1 else _inner(leaves[start:end], depth + 1)
        start = end
    return half_sha512(_INNER + b"".join(children))
