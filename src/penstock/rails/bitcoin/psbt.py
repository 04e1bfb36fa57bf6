"""Signing offline: an intent as a PSBT, and what comes back checked against it (BIP-174). Pure.

text = export_psbt(intent, public_key=key, fingerprint="d34db33f", path="m/84'/0'/0'/0/0")
signed = import_psbt(intent, text_from_the_other_machine)
"""

from __future__ import annotations

import binascii
import re
from typing import Final

import coincurve
from embit import ec
from embit.base import EmbitError
from embit.bip32 import parse_path
from embit.psbt import PSBT, DerivationPath, InputScope
from embit.script import Script, Witness
from embit.transaction import TransactionOutput

from penstock.core.intent import Intent, Signed
from penstock.rails.bitcoin.script import address_of_public_key, script_of_sender
from penstock.rails.bitcoin.transaction import SIGHASH_ALL, broken_rules, build

PSBT_CHARACTERS_MAX: Final = 4_000_000
_FINGERPRINT: Final = re.compile(r"[0-9a-f]{8}", re.ASCII)
_PATH: Final = re.compile(r"m(/[0-9]{1,10}'?)+", re.ASCII)


def export_psbt(intent: Intent, *, public_key: bytes, fingerprint: str, path: str) -> str:
    """The intent as base64, with what each input spends and how its key derives from the master key of this fingerprint (8 hex digits).

    The amounts are those of the intent; a signer that is told wrong ones signs something that no node takes (BIP-143). Change outputs
    carry the derivation too, so that the device shows them as its own. Raises ValueError.
    https://github.com/bitcoin/bips/blob/master/bip-0174.mediawiki
    """
    if address_of_public_key(public_key, intent.chain_id) != intent.sender:
        raise ValueError("the public key is not the sender's")
    if _FINGERPRINT.fullmatch(fingerprint) is None or _PATH.fullmatch(path) is None:
        raise ValueError("a fingerprint is 8 hex digits in lower case, and a path like m/84'/0'/0'/0/0")
    psbt, sender = PSBT(build(intent)), script_of_sender(intent.sender, intent.chain_id)
    key = ec.PublicKey.parse(coincurve.PublicKey(public_key).format(compressed=True))
    origin = DerivationPath(bytes.fromhex(fingerprint), parse_path(path))
    for scope, resource in zip(psbt.inputs, intent.resources, strict=True):
        scope.witness_utxo = TransactionOutput(resource.units, Script(sender))
        scope.sighash_type = SIGHASH_ALL
        scope.bip32_derivations[key] = origin
    for scope in psbt.outputs[len(psbt.outputs) - intent.terms["change"] :]:
        scope.bip32_derivations[key] = origin
    text: str = psbt.to_base64()
    return text


def import_psbt(intent: Intent, text: str) -> Signed:
    """The signed transaction of a PSBT, exactly what the intent says. Raises ValueError, saying what is wrong or missing."""
    psbt = _parsed(text)
    wanted = build(intent)
    if psbt.tx.serialize() != wanted.serialize():
        raise ValueError("the PSBT is another transaction than this intent")
    for place, (spent, scope) in enumerate(zip(wanted.vin, psbt.inputs, strict=True), start=1):
        spent.witness = _witness(scope, place)
    signed = Signed(intent.attempt_id, intent.version, wanted.txid().hex(), wanted.serialize())
    if broken := broken_rules(intent, signed):
        raise ValueError(f"the PSBT is not signed as it should be: {'; '.join(broken)}")
    return signed


def _parsed(text: str) -> PSBT:
    if len(text) > PSBT_CHARACTERS_MAX:
        raise ValueError("the PSBT is longer than any of ours")
    try:
        return PSBT.parse(binascii.a2b_base64(text.strip(), strict_mode=True))
    except (EmbitError, ValueError, RuntimeError, IndexError, TypeError, OverflowError, AttributeError) as error:
        raise ValueError("this is no PSBT in base64") from error


def _witness(scope: InputScope, place: int) -> Witness:
    if scope.final_scriptwitness is not None:
        return scope.final_scriptwitness
    if len(scope.partial_sigs) != 1:
        raise ValueError(f"input {place} has {len(scope.partial_sigs)} signatures where one is due")
    ((key, signature),) = scope.partial_sigs.items()
    return Witness([signature, key.sec()])
