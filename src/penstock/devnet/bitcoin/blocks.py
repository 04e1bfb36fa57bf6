"""Blocks as bytes: coinbase, merkle roots, header and the little work that regtest asks for.

https://developer.bitcoin.org/reference/block_chain.html, BIP-34 (height in the coinbase), BIP-141 (commitment to the witnesses).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from embit.script import Script, Witness
from embit.transaction import Transaction, TransactionInput, TransactionOutput

from penstock.devnet.bitcoin.transaction import COIN, NULL_TXID, SEQUENCE_FINAL, Coin, Tx, compact_size, hex_id, read, sha256d

HALVING_BLOCKS: Final = 150
"""Regtest halves the subsidy after so many blocks (main network: 210,000)."""

BITS: Final = 0x207FFFFF
TARGET: Final = 0x7FFFFF << 232
"""The easiest target there is: two tries a block on average."""

VERSION: Final = 0x20000000
COINBASE_MATURITY: Final = 100
MEDIAN_SPAN: Final = 11
HEADER_BYTES: Final = 80
_COMMITMENT: Final = bytes.fromhex("6a24aa21a9ed")


@dataclass(frozen=True, slots=True)
class Block:
    """A block. `spent` gives, for every transaction, the coins that it spends; `median_time` is that of it and the ten before it.

    Times in Unix seconds, `made_ms` when it was due in Unix milliseconds, `work` that of the whole chain up to it.
    """

    height: int
    hash: str
    header: bytes = field(repr=False)
    parent: str
    time: int
    median_time: int
    transactions: tuple[Tx, ...] = field(repr=False)
    spent: tuple[tuple[Coin, ...], ...] = field(repr=False)
    made_ms: int

    @property
    def raw(self) -> bytes:
        """The block as it travels."""
        return self.header + compact_size(len(self.transactions)) + b"".join(one.raw for one in self.transactions)

    @property
    def work(self) -> int:
        """Expected hashes of the chain up to this block: two a block."""
        return 2 * (self.height + 1)

    @property
    def size(self) -> int:
        """Bytes."""
        return HEADER_BYTES + len(compact_size(len(self.transactions))) + sum(one.size for one in self.transactions)

    @property
    def weight(self) -> int:
        """Weight units."""
        fixed = HEADER_BYTES + len(compact_size(len(self.transactions)))
        return 4 * fixed + sum(one.weight for one in self.transactions)

    def fee(self, position: int) -> int:
        """Satoshis that a transaction of it pays; 0 for its coinbase."""
        if position == 0:
            return 0
        return sum(coin.units for coin in self.spent[position]) - sum(output.units for output in self.transactions[position].outputs)


def subsidy(height: int) -> int:
    """New satoshis of a block."""
    halvings = height // HALVING_BLOCKS
    return 0 if halvings >= 64 else 50 * COIN >> halvings


def merkle_root(leaves: Sequence[bytes]) -> bytes:
    """Root over hashes; the last one counts twice where there is an odd number."""
    level = list(leaves)
    while len(level) > 1:
        if len(level) % 2:
            level.append(level[-1])
        level = [sha256d(level[place] + level[place + 1]) for place in range(0, len(level), 2)]
    return level[0]


def coinbase(height: int, script: bytes, fees: int, transactions: Sequence[Tx], tag: bytes) -> Tx:
    """The block's own transaction: subsidy and fees to `script`, and the commitment to all witnesses. `tag` makes it unlike others."""
    reserved = bytes(32)
    witness_root = merkle_root([bytes(32), *(bytes.fromhex(one.wtxid)[::-1] for one in transactions)])
    own = Transaction(
        version=2,
        vin=[
            TransactionInput(
                bytes.fromhex(NULL_TXID),
                0xFFFFFFFF,
                Script(_height_push(height) + bytes([len(tag)]) + tag),
                SEQUENCE_FINAL,
                Witness([reserved]),
            )
        ],
        vout=[
            TransactionOutput(subsidy(height) + fees, Script(script)),
            TransactionOutput(0, Script(_COMMITMENT + sha256d(witness_root + reserved))),
        ],
        locktime=0,
    )
    return read(own.serialize())


def _height_push(height: int) -> bytes:
    """BIP-34: the height as a script number, pushed in its shortest form."""
    if 1 <= height <= 16:
        return bytes([0x50 + height])
    number = height.to_bytes(height.bit_length() // 8 + 1, "little")
    return bytes([len(number)]) + number


def mine_header(parent: str, transactions: Sequence[Tx], time: int) -> tuple[str, bytes]:
    """The hash and the 80 bytes of a header whose hash meets the target."""
    root = merkle_root([bytes.fromhex(one.txid)[::-1] for one in transactions])
    start = VERSION.to_bytes(4, "little") + bytes.fromhex(parent)[::-1] + root + time.to_bytes(4, "little") + BITS.to_bytes(4, "little")
    nonce = 0
    while int.from_bytes(digest := sha256d(start + nonce.to_bytes(4, "little")), "little") > TARGET:
        nonce += 1
    return hex_id(digest), start + nonce.to_bytes(4, "little")
