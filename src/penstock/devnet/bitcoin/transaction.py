"""Transactions and scripts as values: read once from their bytes, with ids, sizes and addresses. Amounts in satoshi.

Bytes are read twice, by the kernel (which decides, and computes the id) and by embit, which knows the fields.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from embit import bech32, compact
from embit.base import EmbitError
from embit.networks import NETWORKS
from embit.script import Script, address_to_scriptpubkey
from embit.transaction import Transaction

from penstock.devnet.bitcoin.kernel import BadBytes, txid_of

COIN: Final = 100_000_000
UNITS_MAX: Final = 21_000_000 * COIN
SEQUENCE_FINAL: Final = 0xFFFFFFFF
WITNESS_SCALE: Final = 4
REGTEST: Final = NETWORKS["regtest"]
NULL_TXID: Final = "00" * 32
_OP_RETURN: Final = 0x6A
_SCRIPT_BYTES_MAX: Final = 10_000

Outpoint = tuple[str, int]
"""Transaction id and number of an output."""


class Input(NamedTuple):
    """What one input says."""

    outpoint: Outpoint
    script: bytes
    sequence: int
    witness: tuple[bytes, ...]


class Output(NamedTuple):
    """What one output says."""

    units: int
    script: bytes


class Coin(NamedTuple):
    """An output that was not spent yet. `height` is that of its block; None while that block does not exist."""

    units: int
    script: bytes
    height: int | None
    coinbase: bool


@dataclass(frozen=True, slots=True)
class Tx:
    """A transaction. `weight` and `size` as in BIP-141; `base_size` is that without witnesses."""

    raw: bytes = field(repr=False)
    txid: str
    wtxid: str
    version: int
    locktime: int
    inputs: tuple[Input, ...] = field(repr=False)
    outputs: tuple[Output, ...] = field(repr=False)
    base_size: int

    @property
    def size(self) -> int:
        """Bytes in all."""
        return len(self.raw)

    @property
    def weight(self) -> int:
        """Weight units."""
        return self.base_size * (WITNESS_SCALE - 1) + self.size

    @property
    def vsize(self) -> int:
        """Virtual bytes, rounded up."""
        return -(-self.weight // WITNESS_SCALE)

    @property
    def coinbase(self) -> bool:
        """Whether it is a block's own."""
        return len(self.inputs) == 1 and self.inputs[0].outpoint[0] == NULL_TXID

    @property
    def replaceable(self) -> bool:
        """Whether it signals that it may be replaced (BIP-125)."""
        return any(one.sequence < SEQUENCE_FINAL - 1 for one in self.inputs)

    def outpoint(self, number: int) -> Outpoint:
        """The name of one of its outputs."""
        return (self.txid, number)


def sha256d(content: bytes) -> bytes:
    """Bitcoin's double hash."""
    return hashlib.sha256(hashlib.sha256(content).digest()).digest()


def hex_id(digest: bytes) -> str:
    """A hash as people write it: the bytes in reverse."""
    return digest[::-1].hex()


def read(raw: bytes) -> Tx:
    """The one transaction in these bytes. Raises BadBytes."""
    txid = txid_of(raw)
    try:
        parsed = Transaction.parse(raw)
    except (EmbitError, ValueError, IndexError) as error:
        raise BadBytes("no transaction") from error
    return Tx(
        raw=raw,
        txid=txid,
        wtxid=hex_id(sha256d(raw)),
        version=parsed.version,
        locktime=parsed.locktime,
        inputs=tuple(Input((one.txid.hex(), one.vout), one.script_sig.data, one.sequence, tuple(one.witness.items)) for one in parsed.vin),
        outputs=tuple(Output(_signed(one.value), one.script_pubkey.data) for one in parsed.vout),
        base_size=len(raw) - _witness_size(parsed),
    )


def _signed(units: int) -> int:
    return units - 2**64 if units >= 2**63 else units


def _witness_size(parsed: Transaction) -> int:
    """Bytes of marker, flag and witnesses."""
    if not parsed.is_segwit:
        return 0
    return 2 + sum(len(one.witness.serialize()) for one in parsed.vin)


def compact_size(number: int) -> bytes:
    """A count as Bitcoin writes it."""
    encoded: bytes = compact.to_bytes(number)
    return encoded


def kind_of(script: bytes) -> str:
    """What Core calls an output script: pubkeyhash, witness_v0_keyhash, nulldata, nonstandard, ..."""
    known = {
        "p2pkh": "pubkeyhash",
        "p2sh": "scripthash",
        "p2wpkh": "witness_v0_keyhash",
        "p2wsh": "witness_v0_scripthash",
        "p2tr": "witness_v1_taproot",
    }
    kind = known.get(Script(script).script_type() or "")
    if kind is not None:
        return kind
    if script == b"\x51\x02\x4e\x73":
        return "anchor"
    if script[:1] == bytes([_OP_RETURN]) and only_pushes(script[1:]):
        return "nulldata"
    if _is_witness_program(script):
        return "witness_unknown"
    if (len(script), script[-1:]) in {(35, b"\xac"), (67, b"\xac")} and script[0] == len(script) - 2:
        return "pubkey"
    return "multisig" if _is_multisig(script) else "nonstandard"


def _is_witness_program(script: bytes) -> bool:
    """https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki; version 0 of a length that is none is not standard."""
    return 4 <= len(script) <= 42 and 0x51 <= script[0] <= 0x60 and script[1] == len(script) - 2


def _is_multisig(script: bytes) -> bool:
    """m, up to 20 keys, n, OP_CHECKMULTISIG."""
    steps = list(opcodes(script))
    if len(steps) < 4 or steps[-1][0] != 0xAE:
        return False
    (first, _), *keys, (last, _), _check = steps
    return 0x51 <= first <= last <= 0x60 and len(keys) == last - 0x50 and all(len(data) in {33, 65} for _, data in keys)


def opcodes(script: bytes) -> Iterable[tuple[int, bytes]]:
    """Each opcode with the data that it pushes; ends early, with opcode 0xff, where a push runs over the end."""
    stream = io.BytesIO(script)
    while opcode := stream.read(1):
        code, length = opcode[0], 0
        if code <= 75:
            length = code
        elif code <= 78:
            length = int.from_bytes(stream.read(1 << (code - 76)), "little")
        data = stream.read(length)
        if len(data) != length:
            yield 0xFF, b""
            return
        yield code, data


def only_pushes(script: bytes) -> bool:
    """Whether it pushes data and does nothing else."""
    return all(code <= 0x60 for code, _ in opcodes(script))


def is_unspendable(script: bytes) -> bool:
    """Whether nobody can ever spend it; such outputs are no coins."""
    return script[:1] == bytes([_OP_RETURN]) or len(script) > _SCRIPT_BYTES_MAX


def address_of(script: bytes) -> str | None:
    """The address of an output script on regtest, where it has one."""
    kind = Script(script).script_type()
    if kind is not None:
        address: str = Script(script).address(REGTEST)
        return address
    if _is_witness_program(script):
        text: str = bech32.encode(REGTEST["bech32"], script[0] - 0x50, script[2:])
        return text
    return None


def script_of(address: str) -> bytes:
    """The output script that an address of this network stands for. Raises ValueError."""
    given = address.lower() if address.startswith("BCRT1") and address == address.upper() else address
    try:
        found = address_to_scriptpubkey(given)
    except (EmbitError, ValueError, IndexError, KeyError, TypeError) as error:
        raise ValueError("Invalid address") from error
    if found is None or address_of(found.data) != given:
        raise ValueError("Invalid address")
    script: bytes = found.data
    return script
