"""From an intent to a Bitcoin transaction, and from its bytes back. Pure.

Inputs are the intent's resources in their order (the first is the anchor), outputs its payments in their order and then the change, all of it
back to the sender. A cancel has the change alone. Every version spends the same inputs, so any two versions conflict. Version 2, no locktime,
and a sequence that allows replacement (BIP-125).
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import coincurve
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from embit import compact
from embit.base import EmbitError
from embit.hashes import hash160
from embit.script import Script, Witness
from embit.transaction import Transaction, TransactionInput, TransactionOutput

from penstock.core.intent import Intent, Key, Signed
from penstock.rails.bitcoin.script import DUST, UNITS_MAX, WEIGHT, parse_address, script_of_sender

FAMILY: Final = "bitcoin"
VERSION: Final = 2
LOCKTIME: Final = 0
SEQUENCE: Final = 0xFFFFFFFD
"""Greatest number that opts in to replacement and sets no locktime. https://github.com/bitcoin/bips/blob/master/bip-0125.mediawiki"""

SIGHASH_ALL: Final = 1
INPUTS_MAX: Final = 200
PAYMENTS_MAX: Final = 500
CHANGE_MAX: Final = 8
WEIGHT_MAX: Final = 400_000
"""Nodes relay no heavier transaction (MAX_STANDARD_TX_WEIGHT)."""
RAW_BYTES_MAX: Final = 4_000_000
"""No block holds a larger transaction; what pays us need not be standard."""
INPUT_WEIGHT: Final = 4 * 41 + 108
"""A P2WPKH input with the longest signature: 41 bytes, and a witness of 1 + 1 + 72 + 1 + 33."""
CHANGE_WEIGHT: Final = WEIGHT["p2wpkh"]
ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
"""Order of the curve's group; s lies in its lower half (BIP-146)."""

_OUTPOINT: Final = re.compile(r"([0-9a-f]{64}):(0|[1-9][0-9]{0,9})", re.ASCII)


class InvalidTransaction(ValueError):
    """Bytes that are no transaction which a node could take; the text says why."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A transaction as a stranger reads it."""

    txid: str
    transaction: Transaction
    raw: bytes

    def outputs(self) -> list[tuple[bytes, int]]:
        """Script and satoshis of each output."""
        return [(out.script_pubkey.data, out.value) for out in self.transaction.vout]

    def outpoints(self) -> list[str]:
        """What it spends, as "txid:vout"."""
        return [f"{spent.txid.hex()}:{spent.vout}" for spent in self.transaction.vin]


# Sizes: https://github.com/bitcoin/bips/blob/master/bip-0141.mediawiki#transaction-size-calculations


def weight_of(inputs: int, outputs: Sequence[int]) -> int:
    """Weight units of a transaction with so many inputs and outputs of these weights; no signature can make it heavier."""
    counts = len(compact.to_bytes(inputs)) + len(compact.to_bytes(len(outputs)))
    return 4 * (4 + counts + 4) + 2 + inputs * INPUT_WEIGHT + sum(outputs)


def vsize_of(weight: int) -> int:
    """Virtual bytes, rounded up."""
    return -(-weight // 4)


def outpoint(name: str) -> tuple[bytes, int]:
    """Id and index of "txid:vout". Raises ValueError."""
    match = _OUTPOINT.fullmatch(name)
    if match is None or int(match[2]) > 0xFFFFFFFF:
        raise ValueError(f"{name[:80]!r} is no outpoint; txid:vout in lower case would be right")
    return bytes.fromhex(match[1]), int(match[2])


def change_parts(units: int, count: int) -> list[int]:
    """Change in so many coins of one size; the last one takes what does not divide."""
    part = units // count
    return [part] * (count - 1) + [units - part * (count - 1)]


# Building


def build(intent: Intent) -> Transaction:
    """The one transaction that this intent means, unsigned. Raises ValueError for anything else."""
    sender = script_of_sender(intent.sender, intent.chain_id)
    fee, change = _terms(intent)
    inputs = [_input(resource.name, resource.units) for resource in intent.resources]
    if not 1 <= len(inputs) <= INPUTS_MAX or len({resource.name for resource in intent.resources}) != len(inputs):
        raise ValueError(f"a transaction spends 1 to {INPUTS_MAX} coins, each once")
    paid = _paid(intent)
    held = sum(resource.units for resource in intent.resources)
    if held - sum(units for _, units in paid) - intent.fee_cap < change * DUST["p2wpkh"]:
        raise ValueError("the coins do not cover the payments, the fee cap and change above dust, so a bump could not be paid")
    outputs = paid if intent.kind == "pay" else []
    rest = held - fee - sum(units for _, units in outputs)
    outputs = [*outputs, *((sender, part) for part in change_parts(rest, change))]
    transaction = Transaction(
        version=VERSION,
        vin=inputs,
        vout=[TransactionOutput(units, Script(script)) for script, units in outputs],
        locktime=LOCKTIME,
    )
    if weight_of(len(inputs), [4 * (9 + len(script)) for script, _ in outputs]) > WEIGHT_MAX:
        raise ValueError("the transaction would be heavier than nodes relay")
    return transaction


def _terms(intent: Intent) -> tuple[int, int]:
    """Fee in satoshi and number of change outputs."""
    if intent.family != FAMILY or intent.contract is not None or intent.kind not in ("pay", "cancel"):
        raise ValueError("a Bitcoin transaction pays or cancels in the coin of the family bitcoin")
    terms = dict(intent.terms)
    if set(terms) != {"fee", "change"} or any(type(number) is not int for number in terms.values()):
        raise ValueError("terms are fee (satoshi) and change (number of outputs)")
    if not 0 < terms["fee"] <= intent.fee_cap:
        raise ValueError(f"the fee is {terms['fee']} satoshi, and its cap {intent.fee_cap}")
    if not 1 <= terms["change"] <= CHANGE_MAX:
        raise ValueError(f"change goes to 1 to {CHANGE_MAX} outputs")
    return terms["fee"], terms["change"]


def _input(name: str, units: int) -> TransactionInput:
    txid, index = outpoint(name)
    if not 0 < units <= UNITS_MAX:
        raise ValueError("a coin holds from 1 satoshi to 21 million bitcoin")
    return TransactionInput(txid, index, sequence=SEQUENCE)


def _paid(intent: Intent) -> list[tuple[bytes, int]]:
    if not 1 <= len(intent.payments) <= PAYMENTS_MAX:
        raise ValueError(f"a Bitcoin transaction makes 1 to {PAYMENTS_MAX} payments")
    paid = []
    for payment in intent.payments:
        target = parse_address(payment.recipient, intent.chain_id)
        if type(payment.units) is not int or not target.dust <= payment.units <= UNITS_MAX:
            raise ValueError(f"a payment to this kind of address is from {target.dust} satoshi to 21 million bitcoin")
        paid.append((target.script, payment.units))
    return paid


# Signing: https://github.com/bitcoin/bips/blob/master/bip-0143.mediawiki


def digests(transaction: Transaction, units: Iterable[int], sender: bytes) -> list[bytes]:
    """What the key signs for each input; `sender` is the P2WPKH script that each spends, `units` what each holds."""
    code = Script(b"\x76\xa9\x14" + sender[2:] + b"\x88\xac")
    return [transaction.sighash_segwit(place, code, held, SIGHASH_ALL) for place, held in enumerate(units)]


def sign(intent: Intent, key: Key) -> Signed:
    """Build and sign; the same intent gives the same bytes. Raises ValueError when the intent cannot be this family's, or the key not
    the sender's.
    """
    transaction, sender = build(intent), script_of_sender(intent.sender, intent.chain_id)
    public_key = coincurve.PublicKey(key.public_key).format(compressed=True)
    if hash160(public_key) != sender[2:]:
        raise ValueError("the key is not the sender's")
    for spent, digest in zip(transaction.vin, digests(transaction, (r.units for r in intent.resources), sender), strict=True):
        _, r, s = key.sign(digest)
        spent.witness = Witness([encode_dss_signature(r, s) + bytes([SIGHASH_ALL]), public_key])
    return Signed(intent.attempt_id, intent.version, transaction.txid().hex(), transaction.serialize())


# Reading


def decode(raw: bytes) -> Decoded:
    """Bytes to a transaction, in the one canonical encoding alone. Raises InvalidTransaction."""
    if not 10 <= len(raw) <= RAW_BYTES_MAX:
        raise InvalidTransaction(f"a transaction is from 10 to {RAW_BYTES_MAX} bytes")
    stream = io.BytesIO(raw)
    try:
        transaction = Transaction.read_from(stream)
        again = transaction.serialize()
    except (EmbitError, ValueError, RuntimeError, IndexError, OverflowError, MemoryError) as error:
        raise InvalidTransaction("the bytes are no Bitcoin transaction") from error
    if again != raw:
        raise InvalidTransaction("the bytes are not the canonical encoding of what they say")
    if not transaction.vin or not transaction.vout or any(not 0 <= out.value <= UNITS_MAX for out in transaction.vout):
        raise InvalidTransaction("a transaction has inputs, and outputs of no more than 21 million bitcoin")
    return Decoded(transaction.txid().hex(), transaction, raw)


def decode_signed(raw: bytes) -> Decoded:
    """As `decode`, and every input is a witness's alone, as ours are. Raises InvalidTransaction."""
    decoded = decode(raw)
    if any(spent.script_sig.data or not spent.witness.items for spent in decoded.transaction.vin):
        raise InvalidTransaction("an input without witness, or with a script that others could change")
    return decoded


def broken_rules(intent: Intent, signed: Signed) -> list[str]:
    """What in the bytes is not exactly what the intent says; empty when all is right. Raises ValueError for bytes that cannot be read."""
    sender = script_of_sender(intent.sender, intent.chain_id)
    decoded = decode(signed.raw)
    transaction = decoded.transaction
    broken = []
    if (signed.attempt_id, signed.version) != (intent.attempt_id, intent.version):
        broken.append("attempt or version is another")
    if signed.txid != decoded.txid:
        broken.append("the id is not that of the bytes")
    if (transaction.version, transaction.locktime) != (VERSION, LOCKTIME):
        broken.append("version or locktime")
    if any(spent.sequence != SEQUENCE for spent in transaction.vin):
        broken.append("a sequence that is not the one for replacement")
    if decoded.outpoints() != [resource.name for resource in intent.resources]:
        return [*broken, "inputs are not the intent's coins"]
    return [*broken, *_broken_outputs(intent, decoded, sender), *_broken_witnesses(intent, transaction, sender)]


def _broken_outputs(intent: Intent, decoded: Decoded, sender: bytes) -> list[str]:
    """Payments first and in order, then nothing but change, and a fee that is the terms' and below the cap."""
    payments = _paid(intent) if intent.kind == "pay" else []
    outputs = decoded.outputs()
    change = outputs[len(payments) :]
    broken = []
    if outputs[: len(payments)] != payments:
        broken.append("recipients or amounts")
    if len(change) != intent.terms.get("change") or any(script != sender for script, _ in change):
        broken.append("change goes elsewhere")
    if any(units < DUST["p2wpkh"] for _, units in change):
        broken.append("change below dust")
    fee = sum(resource.units for resource in intent.resources) - sum(units for _, units in outputs)
    if fee != intent.terms.get("fee"):
        broken.append(f"the fee is {fee} satoshi, not the terms'")
    if not 0 < fee <= intent.fee_cap:
        broken.append(f"the fee of {fee} satoshi is above its cap")
    return broken


def _broken_witnesses(intent: Intent, transaction: Transaction, sender: bytes) -> list[str]:
    wanted = digests(transaction, (resource.units for resource in intent.resources), sender)
    for spent, digest in zip(transaction.vin, wanted, strict=True):
        if spent.script_sig.data or len(spent.witness.items) != 2:
            return ["an input that is no plain P2WPKH spend"]
        signature, public_key = spent.witness.items
        if len(public_key) != 33 or hash160(public_key) != sender[2:]:
            return ["an input of another sender"]
        if signature[-1:] != bytes([SIGHASH_ALL]) or not _good_signature(signature[:-1], digest, public_key):
            return ["a signature that does not sign exactly this"]
    return []


def _good_signature(der: bytes, digest: bytes, public_key: bytes) -> bool:
    """Strict DER, low s (BIP-66, BIP-146), and true."""
    try:
        r, s = decode_dss_signature(der)
        if encode_dss_signature(r, s) != der or not 0 < r < ORDER or not 0 < s <= ORDER // 2:
            return False
        return coincurve.PublicKey(public_key).verify(der, digest, hasher=cast("Any", None))
    except ValueError:
        return False
