"""What a node takes beyond consensus: standard forms, dust and sizes; and the consensus rules for a transaction alone. Core's words.

The reject words are those of Bitcoin Core 29, since clients match on them, ours included:
https://github.com/bitcoin/bitcoin/blob/29.x/src/policy/policy.cpp, src/consensus/tx_check.cpp, src/consensus/tx_verify.cpp, src/validation.cpp
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.devnet.bitcoin.blocks import COINBASE_MATURITY
from penstock.devnet.bitcoin.transaction import (
    COIN,
    NULL_TXID,
    SEQUENCE_FINAL,
    UNITS_MAX,
    Coin,
    Output,
    Tx,
    is_unspendable,
    kind_of,
    only_pushes,
    opcodes,
)

WEIGHT_MAX: Final = 400_000
BASE_SIZE_MIN: Final = 65
INPUT_SCRIPT_BYTES_MAX: Final = 1_650
NULLDATA_BYTES_MAX: Final = 83
SIGOPS_COST_MAX: Final = 16_000
BYTES_PER_SIGOP: Final = 20
DUST_PER_KVB: Final = 3_000
VERSIONS: Final = range(1, 4)
BLOCK_WEIGHT_MAX: Final = 4_000_000
LOCKTIME_THRESHOLD: Final = 500_000_000
_LOCK_OFF, _LOCK_TIME, _LOCK_MASK = 1 << 31, 1 << 22, 0xFFFF
_CHECKSIG: Final = frozenset({0xAC, 0xAD})
_CHECKMULTISIG: Final = frozenset({0xAE, 0xAF})


class Rejected(Exception):
    """The node does not take a transaction: Core's reject reason, and what it adds for people.

    `missing`: an input is unknown or spent, which Core answers with another code.
    """

    def __init__(self, reason: str, detail: str = "", *, missing: bool = False) -> None:
        super().__init__(f"{reason}, {detail}" if detail else reason)
        self.reason = reason
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest block, as far as a transaction's validity depends on it. `time_at` gives the median time up to a height."""

    height: int
    median_time: int
    time_at: Callable[[int], int]


def money(units: int) -> str:
    """Satoshis as Core prints money to people: no more zeros than two decimals need."""
    sign, whole, rest = "-" if units < 0 else "", abs(units) // COIN, abs(units) % COIN
    decimals = f"{rest:08d}".rstrip("0")
    return f"{sign}{whole}.{decimals:0<2}"


def fee_at(per_kvb: int, vsize: int) -> int:
    """Satoshis for so many virtual bytes at a rate in satoshi per 1,000; rounded up."""
    return -(-per_kvb * vsize // 1_000)


def check_alone(tx: Tx) -> None:
    """Consensus rules that need nothing but the transaction. Raises Rejected."""
    if not tx.inputs:
        raise Rejected("bad-txns-vin-empty")
    if not tx.outputs:
        raise Rejected("bad-txns-vout-empty")
    if tx.base_size * 4 > BLOCK_WEIGHT_MAX:
        raise Rejected("bad-txns-oversize")
    total = 0
    for output in tx.outputs:
        if output.units < 0:
            raise Rejected("bad-txns-vout-negative")
        if output.units > UNITS_MAX:
            raise Rejected("bad-txns-vout-toolarge")
        total += output.units
        if total > UNITS_MAX:
            raise Rejected("bad-txns-txouttotal-toolarge")
    if len({one.outpoint for one in tx.inputs}) < len(tx.inputs):
        raise Rejected("bad-txns-inputs-duplicate")
    if tx.coinbase:
        raise Rejected("coinbase")
    if any(one.outpoint == (NULL_TXID, 0xFFFFFFFF) for one in tx.inputs):
        raise Rejected("bad-txns-prevout-null")


def check_standard(tx: Tx) -> None:
    """Forms that nodes relay (IsStandardTx). Raises Rejected."""
    if tx.version not in VERSIONS:
        raise Rejected("version")
    if tx.weight > WEIGHT_MAX:
        raise Rejected("tx-size")
    for one in tx.inputs:
        if len(one.script) > INPUT_SCRIPT_BYTES_MAX:
            raise Rejected("scriptsig-size")
        if not only_pushes(one.script):
            raise Rejected("scriptsig-not-pushonly")
    kinds = [kind_of(output.script) for output in tx.outputs]
    for output, kind in zip(tx.outputs, kinds, strict=True):
        too_much = (kind == "nulldata" and len(output.script) > NULLDATA_BYTES_MAX) or (kind == "multisig" and output.script[-2] > 0x53)
        if kind == "nonstandard" or too_much:
            raise Rejected("scriptpubkey")
    if sum(is_dust(output) for output in tx.outputs) > 1:
        raise Rejected("dust")
    if kinds.count("nulldata") > 1:
        raise Rejected("multi-op-return")
    if tx.base_size < BASE_SIZE_MIN:
        raise Rejected("tx-size-small")


def dust_limit(script: bytes) -> int:
    """Fewest satoshis in an output of this script: what spending it costs at 3 sat/vB (GetDustThreshold)."""
    if is_unspendable(script):
        return 0
    size = 8 + 1 + len(script) if len(script) < 253 else 8 + 3 + len(script)
    size += 32 + 4 + 1 + 107 // (4 if _is_witness(script) else 1) + 4
    return DUST_PER_KVB * size // 1_000


def is_dust(output: Output) -> bool:
    """Whether an output is worth less than spending it costs."""
    return output.units < dust_limit(output.script)


def _is_witness(script: bytes) -> bool:
    return 4 <= len(script) <= 42 and (script[0] == 0 or 0x51 <= script[0] <= 0x60) and script[1] == len(script) - 2


def check_final(tx: Tx, tip: Tip) -> None:
    """That its locktime has come for the next block (BIP-113). Raises Rejected."""
    if not tx.locktime or all(one.sequence == SEQUENCE_FINAL for one in tx.inputs):
        return
    now = tip.height + 1 if tx.locktime < LOCKTIME_THRESHOLD else tip.median_time
    if tx.locktime >= now:
        raise Rejected("non-final")


def check_relative(tx: Tx, spent: Sequence[Coin], tip: Tip) -> None:
    """That its relative locktimes have come for the next block (BIP-68). Raises Rejected."""
    if tx.version < 2:
        return
    for one, coin in zip(tx.inputs, spent, strict=True):
        if one.sequence & _LOCK_OFF:
            continue
        height = tip.height + 1 if coin.height is None else coin.height
        span = one.sequence & _LOCK_MASK
        if one.sequence & _LOCK_TIME:
            if tip.median_time < tip.time_at(max(height - 1, 0)) + (span << 9):
                raise Rejected("non-BIP68-final")
        elif tip.height + 1 < height + span:
            raise Rejected("non-BIP68-final")


def check_amounts(tx: Tx, spent: Sequence[Coin], tip: Tip) -> int:
    """The fee in satoshi, with what it spends being ripe and enough (CheckTxInputs). Raises Rejected."""
    for coin in spent:
        if coin.coinbase and coin.height is not None and (depth := tip.height + 1 - coin.height) < COINBASE_MATURITY:
            raise Rejected("bad-txns-premature-spend-of-coinbase", f"tried to spend coinbase at depth {depth}")
    given, taken = sum(coin.units for coin in spent), sum(output.units for output in tx.outputs)
    if given < taken:
        raise Rejected("bad-txns-in-belowout", f"value in ({money(given)}) < value out ({money(taken)})")
    return given - taken


def check_inputs_standard(tx: Tx, spent: Sequence[Coin]) -> None:
    """That it spends only what nodes relay the spending of (ValidateInputsStandardness, IsWitnessStandard). Raises Rejected."""
    for one, coin in zip(tx.inputs, spent, strict=True):
        kind = kind_of(coin.script)
        if kind in {"nonstandard", "witness_unknown"}:
            raise Rejected("bad-txns-nonstandard-inputs")
        if one.witness and not (_is_witness(coin.script) or kind == "scripthash"):
            raise Rejected("bad-witness-nonstandard")
        if kind == "witness_v0_scripthash" and (
            not one.witness or len(one.witness[-1]) > 3_600 or len(one.witness) > 101 or any(len(item) > 80 for item in one.witness[:-1])
        ):
            raise Rejected("bad-witness-nonstandard")


def sigops_cost(tx: Tx, spent: Sequence[Coin]) -> int:
    """Cost of its signature checks, 80,000 to a block (GetTransactionSigOpCost)."""
    cost = sum(4 * _sigops(script, exact=False) for script in [*(one.script for one in tx.inputs), *(one.script for one in tx.outputs)])
    for one, coin in zip(tx.inputs, spent, strict=True):
        program = coin.script
        if kind_of(program) == "scripthash":
            pushed = [data for _, data in opcodes(one.script)]
            program = pushed[-1] if pushed else b""
            cost += 4 * _sigops(program, exact=True)
        match len(program), program[:2]:
            case 22, b"\x00\x14":
                cost += 1
            case 34, b"\x00\x20" if one.witness:
                cost += _sigops(one.witness[-1], exact=True)
            case _:
                pass
    return cost


def _sigops(script: bytes, *, exact: bool) -> int:
    """Signature checks of a script; a multisignature counts its keys where they stand before it, else 20."""
    count, last = 0, 0xFF
    for code, _ in opcodes(script):
        if code in _CHECKSIG:
            count += 1
        elif code in _CHECKMULTISIG:
            count += last - 0x50 if exact and 0x51 <= last <= 0x60 else 20
        last = code
    return count


def check_sigops(tx: Tx, spent: Sequence[Coin]) -> int:
    """Virtual bytes by which its relay is paid, signature checks included. Raises Rejected."""
    cost = sigops_cost(tx, spent)
    if cost > SIGOPS_COST_MAX:
        raise Rejected("bad-txns-too-many-sigops", str(cost))
    return max(tx.vsize, -(-cost * BYTES_PER_SIGOP // 4))


def check_dust_fee(tx: Tx, fee: int) -> None:
    """Since version 29 a single dust output may stand in a transaction without fee, and nowhere else. Raises Rejected."""
    if fee and any(is_dust(output) for output in tx.outputs):
        raise Rejected("dust", "tx with dust output must be 0-fee")
