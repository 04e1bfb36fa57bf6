"""Signing on a machine without network: out as a PSBT, and back."""

import base64

import pytest
from bip_utils import Bip32Slip10Secp256k1, Bip39SeedGenerator
from embit import bip32, finalizer
from embit.psbt import PSBT

from penstock.rails.bitcoin import codec
from tests.fixtures.bitcoin_bench import REGTEST, Key, coin, intent_of, payment

WORDS = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
SEED = Bip39SeedGenerator(WORDS).Generate()
ROOT = Bip32Slip10Secp256k1.FromSeed(SEED)
PATH = codec.path(REGTEST, 0)
FINGERPRINT = ROOT.FingerPrint().ToHex()
OWN = Key(ROOT.DerivePath(PATH).PrivateKey().Raw().ToBytes())
INTENT = intent_of((payment(40_000, "p2tr"), payment(9_000, "p2pkh", 2)), change=2, sender=codec.address(OWN.public_key, REGTEST))


def exported(intent=INTENT):
    return codec.export_psbt(intent, public_key=OWN.public_key, fingerprint=FINGERPRINT, path=PATH)


def signed_elsewhere(text):
    """By the library's own signer, with the root key and the derivations in the PSBT alone."""
    psbt = PSBT.from_base64(text)
    assert psbt.sign_with(bip32.HDKey.from_seed(SEED)) == 2
    return psbt


def test_what_is_signed_elsewhere_comes_back_as_our_own_transaction():
    ours = codec.sign(INTENT, OWN)
    back = codec.import_psbt(INTENT, signed_elsewhere(exported()).to_base64())
    assert back.txid == ours.txid
    assert codec.broken_rules(INTENT, back) == []


def test_a_psbt_that_the_other_machine_has_finished_is_taken_too():
    psbt = signed_elsewhere(exported())
    final = finalizer.finalize_psbt(psbt)
    for scope, spent in zip(psbt.inputs, final.vin, strict=True):
        scope.final_scriptwitness = spent.witness
        scope.partial_sigs.clear()
    assert codec.import_psbt(INTENT, f"\n{psbt.to_base64()}\n").raw == final.serialize()


def test_the_psbt_says_what_is_spent_and_which_outputs_are_our_own():
    psbt = PSBT.from_base64(exported())
    assert [scope.witness_utxo.value for scope in psbt.inputs] == [100_000, 30_000]
    assert psbt.fee() == 2_000
    assert [bool(scope.bip32_derivations) for scope in psbt.outputs] == [False, False, True, True]
    (origin,) = psbt.inputs[0].bip32_derivations.values()
    assert origin.fingerprint.hex() == FINGERPRINT
    assert bip32.path_to_str(origin.derivation).replace("h", "'") == PATH
    assert exported() == exported()


def test_only_a_whole_signature_of_this_very_intent_comes_in():
    text = signed_elsewhere(exported()).to_base64()
    with pytest.raises(ValueError, match="0 signatures where one is due"):
        codec.import_psbt(INTENT, exported())
    other = intent_of((payment(40_001, "p2tr"), payment(9_000, "p2pkh", 2)), change=2, sender=INTENT.sender)
    with pytest.raises(ValueError, match="another transaction"):
        codec.import_psbt(other, text)
    wrong = signed_elsewhere(exported(intent_of(INTENT.payments, (coin(1, 100_000), coin(2, 30_001)), change=2, sender=INTENT.sender)))
    with pytest.raises(ValueError, match="another transaction"):
        codec.import_psbt(INTENT, wrong.to_base64())
    swapped = PSBT.from_base64(text)
    swapped.inputs[0].partial_sigs, swapped.inputs[1].partial_sigs = swapped.inputs[1].partial_sigs, swapped.inputs[0].partial_sigs
    with pytest.raises(ValueError, match="does not sign exactly this"):
        codec.import_psbt(INTENT, swapped.to_base64())


@pytest.mark.parametrize("text", ["", "cHNidP8=", "no base64 !", base64.b64encode(b"psbt\xff\x01").decode(), "A" * 4_000_001])
def test_what_is_no_psbt_is_refused(text):
    with pytest.raises(ValueError, match="PSBT"):
        codec.import_psbt(INTENT, text)


def test_another_key_or_an_odd_path_is_not_exported():
    with pytest.raises(ValueError, match="not the sender's"):
        codec.export_psbt(INTENT, public_key=Key(b"\5" * 32).public_key, fingerprint=FINGERPRINT, path=PATH)
    with pytest.raises(ValueError, match="a fingerprint is"):
        codec.export_psbt(INTENT, public_key=OWN.public_key, fingerprint="xyz", path=PATH)
    with pytest.raises(ValueError, match="a fingerprint is"):
        codec.export_psbt(INTENT, public_key=OWN.public_key, fingerprint=FINGERPRINT, path="84/0")
