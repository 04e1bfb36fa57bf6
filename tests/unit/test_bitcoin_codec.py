"""Addresses, transactions and signatures of Bitcoin, against published vectors and an independent decoder."""

import contextlib
import hashlib
import json
import random
import struct
from pathlib import Path

import bip_utils
import coincurve
import pytest
from bip_utils import Bip32Slip10Secp256k1, Bip39SeedGenerator
from bip_utils.bech32 import SegwitBech32Decoder
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from penstock.core.intent import Resource, Signed
from penstock.rails.base import InvalidDestination
from penstock.rails.bitcoin import codec
from penstock.rails.bitcoin.script import WEIGHT, kind_of
from penstock.rails.bitcoin.transaction import digests
from tests.fixtures.bitcoin_bench import KEY, MAIN, RECIPIENTS, REGTEST, SENDER, STRANGER, Key, coin, intent_of, payment

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "bitcoin.json").read_text())
CHAIN_IDS = {params.node_name: chain_id for chain_id, params in codec.CHAINS.items()}
FIELD = 2**256 - 2**32 - 977
MUTATED = 10_000


# Networks


@pytest.mark.parametrize("chain", VECTORS["genesis"]["chains"], ids=lambda chain: chain["name"])
def test_a_chain_id_is_the_magic_and_its_genesis_the_hash_of_the_first_header(chain):
    params = codec.params_of(int.from_bytes(bytes.fromhex(chain["magic"]), "little"))
    root = bytes.fromhex(chain["merkle_root"])[::-1]
    header = struct.pack("<i32x32sIII", 1, root, chain["time"], int(chain["bits"], 16), chain["nonce"])
    assert params.node_name == chain["name"]
    assert params.genesis == hashlib.sha256(hashlib.sha256(header).digest()).digest()[::-1].hex()


def test_a_chain_id_of_another_family_is_refused():
    with pytest.raises(ValueError, match="chain id 1 is no Bitcoin network"):
        codec.params_of(1)


# Addresses


def on_the_curve(x_only):
    """By Euler's criterion, without any library."""
    x = int.from_bytes(x_only, "big")
    return x < FIELD and pow(x**3 + 7, (FIELD - 1) // 2, FIELD) == 1


def payable(script):
    """The five standard kinds; a taproot output needs a key to be spent."""
    if script[:2] == b"\x51\x20" and len(script) == 34:
        return on_the_curve(script[2:])
    return len(script) in (22, 34) if script[0] == 0 else script[0] in (0x76, 0xA9)


def oracle(text, chain_id):
    """The script of an address by another library, None where it is none that can be paid."""
    params = codec.CHAINS[chain_id]
    try:
        version, program = SegwitBech32Decoder.Decode(params.hrp, text)
        script = bytes([0x50 + version if version else 0, len(program)]) + program
        return script if payable(script) else None
    except (ValueError, bip_utils.bech32.Bech32ChecksumError):
        pass
    try:
        data = bip_utils.Base58Decoder.CheckDecode(text)
    except (ValueError, bip_utils.Base58ChecksumError):
        return None
    if len(data) != 21 or data[0] not in (params.p2pkh, params.p2sh):
        return None
    hash_ = data[1:]
    return b"\x76\xa9\x14" + hash_ + b"\x88\xac" if data[0] == params.p2pkh else b"\xa9\x14" + hash_ + b"\x87"


def script_of(text, chain_id):
    try:
        return codec.parse_address(text, chain_id).script
    except InvalidDestination:
        return None


@pytest.mark.parametrize(("text", "script"), VECTORS["bip350"]["valid"])
def test_published_segwit_addresses_give_their_script_or_are_no_standard_kind(text, script):
    chain_id = MAIN if text.lower().startswith("bc1") else CHAIN_IDS["test"]
    wanted = bytes.fromhex(script)
    assert script_of(text, chain_id) == (wanted if payable(wanted) else None)


@pytest.mark.parametrize("text", VECTORS["bip350"]["invalid"])
@pytest.mark.parametrize("chain_id", codec.CHAINS)
def test_published_invalid_addresses_are_refused_on_every_network(text, chain_id):
    assert script_of(text, chain_id) is None


@pytest.mark.parametrize(("text", "script", "chain"), VECTORS["key_io"]["valid"])
def test_published_addresses_of_every_kind_are_taken_on_their_own_network_alone(text, script, chain):
    wanted = bytes.fromhex(script)
    expected = wanted if payable(wanted) else None
    assert script_of(text, CHAIN_IDS[chain]) == expected
    others = {"main": ["test", "regtest"], "regtest": ["main"]}.get(chain, ["main"])
    assert all(script_of(text, CHAIN_IDS[other]) is None for other in others)


def test_the_form_of_an_address_says_what_its_output_weighs():
    kinds = set()
    for text, script, chain in VECTORS["key_io"]["valid"]:
        if payable(bytes.fromhex(script)):
            target = codec.parse_address(text, CHAIN_IDS[chain])
            assert kind_of(target.address, CHAIN_IDS[chain]) == target.kind
            assert WEIGHT[target.kind] == target.weight == 4 * (8 + 1 + len(bytes.fromhex(script)))
            kinds.add(target.kind)
    assert kinds == WEIGHT.keys()
    for text in (RECIPIENTS["p2wpkh"][:-1], RECIPIENTS["p2wpkh"] + "q", RECIPIENTS["p2tr"].replace("bcrt1", "bc1"), "q" * 39, ""):
        with pytest.raises(InvalidDestination):
            kind_of(text, REGTEST)


def test_bech32_is_taken_in_capitals_and_kept_in_small_letters():
    upper = RECIPIENTS["p2tr"].upper()
    assert codec.parse_address(upper, REGTEST).address == RECIPIENTS["p2tr"]
    assert codec.same_address(upper, RECIPIENTS["p2tr"])
    assert not codec.same_address(RECIPIENTS["p2pkh"], RECIPIENTS["p2pkh"].upper())
    assert not codec.same_address(RECIPIENTS["p2tr"], RECIPIENTS["p2wsh"])
    mixed = upper[:-1] + upper[-1].lower()
    assert not codec.same_address(mixed, upper)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (" " + RECIPIENTS["p2wpkh"], "space or line break"),
        (RECIPIENTS["p2wpkh"].replace("q", "\u051b"), "not a plain ASCII letter"),
        ("bitcoin:" + RECIPIENTS["p2wpkh"], "payment link"),
        ("lnbcrt500u1pdummy", "Lightning"),
        ("bc1qvyq0cc6rahyvsazfdje0twl7ez82ndmuac2lhv", "another Bitcoin network"),
        ("1FsSia9rv4NeEwvJ2GvXrX7LyxYspbN2mo", "another Bitcoin network"),
        ("LM2WMpR1Rp6j3Sa59cMXMs1SPzj9eXpGc1", "another coin"),
        ("5JuW2AMDYu4xVwRG9DZW18VbzQrGcd5RCgb99sS6ehJsNQXu5b9", "not 20 bytes"),
        ("bcrt1qdavt4j2sd7dlhqsavtnfxvzppw6k7qy97tmnu8", "mistyped"),
        ("bcrt1sx6p8njlx7h9mc2agz4yg82dzne23050ncq72cneeecez2pst8mahn8xecsf8g6hzx94420", "protects nothing yet"),
        ("n4fajahJrAuKbN7uNsKjLjQkz9Qn5ewJXR", "checksum does not match"),
        ("bcrt1", "characters"),
    ],
)
def test_a_refusal_says_what_is_wrong(text, words):
    with pytest.raises(InvalidDestination, match=words):
        codec.parse_address(text, REGTEST)


def test_mutated_addresses_are_judged_as_an_independent_decoder_judges_them():
    """C9: one character, case, look-alikes, another prefix, cut and grown; nothing wrong is taken, nothing right refused."""
    dice, taken = random.Random(9), 0
    seeds = [(text, CHAIN_IDS[chain]) for text, _, chain in VECTORS["key_io"]["valid"]]
    alphabet = "023456789acdefghjklmnpqrstuvwxyz1bioABCDEFGHJKLMNPQRSTUVWXYZ"
    for _ in range(MUTATED):
        text, chain_id = dice.choice(seeds)
        place = dice.randrange(len(text))
        change = dice.randrange(8)
        if change == 0:
            text = text.swapcase()
        elif change == 1:
            text = text[:place] + text[place + 1 :]
        elif change == 2:
            text = text[:place] + dice.choice(alphabet) + text[place:]
        elif change == 3:
            text = dice.choice(["bc1", "tb1", "bcrt1"]) + text.partition("1")[2]
        elif change == 4:
            chain_id = dice.choice(list(codec.CHAINS))
        elif change == 5:
            text = text.upper()
        else:
            text = text[:place] + dice.choice(alphabet) + text[place + 1 :]
        wanted = oracle(text, chain_id)
        assert script_of(text, chain_id) == wanted, (text, chain_id)
        taken += wanted is not None
    assert 100 < taken < MUTATED // 2


@given(st.sampled_from(sorted(codec.CHAINS)), st.binary(min_size=20, max_size=20))
def test_a_script_becomes_an_address_and_comes_back(chain_id, program):
    params = codec.CHAINS[chain_id]
    text = bip_utils.bech32.SegwitBech32Encoder.Encode(params.hrp, 0, program)
    assert codec.parse_address(text, chain_id).script == b"\x00\x14" + program
    legacy = bip_utils.Base58Encoder.CheckEncode(bytes([params.p2pkh]) + program)
    assert codec.parse_address(legacy, chain_id).script == b"\x76\xa9\x14" + program + b"\x88\xac"


@given(st.text(max_size=100))
def test_no_text_breaks_the_parser(text):
    assert script_of(text, MAIN) == oracle(text, MAIN)


# Keys


def test_keys_and_addresses_are_those_of_bip_84():
    root = Bip32Slip10Secp256k1.FromSeed(Bip39SeedGenerator(VECTORS["bip84"]["mnemonic"]).Generate())
    for lane, (path, public_key, address) in enumerate(VECTORS["bip84"]["keys"]):
        assert codec.path(MAIN, lane) == path
        found = root.DerivePath(path).PublicKey()
        assert found.RawCompressed().ToHex() == public_key
        assert codec.address(found.RawUncompressed().ToBytes(), MAIN) == address
    assert codec.path(REGTEST, 3) == "m/84'/1'/0'/0/3"


# Transactions


def test_the_digest_and_signature_are_those_of_bip_143():
    vector = VECTORS["bip143"]
    unsigned = codec.decode(bytes.fromhex(vector["unsigned"])).transaction
    (digest,) = digests(unsigned, [0, vector["units"]], bytes.fromhex(vector["script"]))[1:]
    assert digest.hex() == vector["digest"]
    key = Key(bytes.fromhex(vector["private_key"]))
    _, r, s = key.sign(digest)
    assert f"{r:064x}" in vector["signature"]
    assert f"{s:064x}" in vector["signature"]
    whole = vector["signed"]
    stripped = bytes.fromhex(whole[:8] + whole[12 : whole.rindex("00" + "02" + "47" + vector["signature"])] + whole[-8:])
    assert codec.decode(bytes.fromhex(whole)).txid == hashlib.sha256(hashlib.sha256(stripped).digest()).digest()[::-1].hex()


def test_signed_bytes_say_what_the_intent_says_to_every_kind_of_recipient():
    payments = [payment(10_000 + place, kind, place) for place, kind in enumerate(RECIPIENTS)]
    intent = intent_of(payments, (coin(1, 100_000), coin(5, 60_000)), change=2)
    signed = codec.sign(intent, KEY)
    assert codec.broken_rules(intent, signed) == []
    decoded = codec.decode_signed(signed.raw)
    assert decoded.outpoints() == [coin(1, 0).name, coin(5, 0).name]
    change = 160_000 - 2_000 - sum(p.units for p in payments)
    own = codec.parse_address(SENDER, REGTEST).script
    paid = [(codec.parse_address(p.recipient, REGTEST).script, p.units) for p in payments]
    assert decoded.outputs() == [*paid, (own, change // 2), (own, change - change // 2)]
    assert codec.sign(intent, KEY) == signed
    assert codec.expires_ms(intent) is None


def test_the_weight_bounds_that_of_the_bytes_closely():
    intent = intent_of([payment(10_000, kind, 1) for kind in RECIPIENTS], (coin(1, 100_000), coin(2, 60_000)), change=2)
    raw = codec.sign(intent, KEY).raw
    stripped = codec.build(intent).serialize()
    weight = 3 * len(stripped) + len(raw)
    targets = [codec.parse_address(p.recipient, REGTEST).weight for p in intent.payments]
    most = codec.weight_of(2, [*targets, 124, 124])
    assert most - 2 * 2 <= weight <= most


def test_a_cancel_brings_everything_home_from_the_same_coins():
    intent = intent_of()
    cancel = structs.replace(intent, kind="cancel", version=2, terms={"fee": 5_000, "change": 1})
    decoded = codec.decode_signed(codec.sign(cancel, KEY).raw)
    assert decoded.outpoints() == codec.decode(codec.sign(intent, KEY).raw).outpoints()
    assert decoded.outputs() == [(codec.parse_address(SENDER, REGTEST).script, 125_000)]
    assert codec.broken_rules(cancel, codec.sign(cancel, KEY)) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"family": "evm"}, "family bitcoin"),
        ({"contract": "x"}, "family bitcoin"),
        ({"chain_id": MAIN}, "another Bitcoin network"),
        ({"chain_id": 1}, "no Bitcoin network"),
        ({"payments": ()}, "1 to 500 payments"),
        ({"payments": (payment(293),)}, "from 294 satoshi"),
        ({"payments": (payment(545, "p2pkh"),)}, "from 546 satoshi"),
        ({"resources": ()}, "each once"),
        ({"resources": (coin(1, 100_000), coin(1, 100_000))}, "each once"),
        ({"resources": (Resource("x:1", 100_000),)}, "no outpoint"),
        ({"resources": (coin(1, 69_000 + 1_293),)}, "a bump could not be paid"),
        ({"resources": (coin(1, 0), coin(2, 500_000))}, "from 1 satoshi"),
        ({"terms": {"fee": 20_001, "change": 1}}, "its cap 20000"),
        ({"terms": {"fee": 0, "change": 1}}, "its cap"),
        ({"terms": {"fee": 2_000, "change": 0}}, "1 to 8 outputs"),
        ({"terms": {"fee": 2_000}}, "terms are fee"),
        ({"terms": {"fee": 2_000.0, "change": 1}}, "terms are fee"),
        ({"sender": RECIPIENTS["p2tr"]}, "a hot address is a P2WPKH one"),
        ({"kind": "burn"}, "pays or cancels"),
    ],
)
def test_an_intent_that_cannot_be_is_not_signed(changes, words):
    with pytest.raises(ValueError, match=words):
        codec.sign(intent_of(**{"payments": (payment(),)} | changes), KEY)


def test_a_key_that_is_not_the_senders_signs_nothing():
    with pytest.raises(ValueError, match="not the sender's"):
        codec.sign(intent_of(), STRANGER)


def broken(intent, raw, **changes):
    signed = Signed(intent.attempt_id, intent.version, codec.decode(raw).txid, raw)
    return codec.broken_rules(intent, structs.replace(signed, **changes))


def test_every_difference_between_bytes_and_intent_is_named():
    intent = intent_of()
    good = codec.sign(intent, KEY).raw

    def other(**changes):
        return codec.sign(structs.replace(intent, **changes), KEY).raw

    assert broken(intent, good) == []
    assert "the id is not that of the bytes" in broken(intent, good, txid="00" * 32)
    assert "attempt or version is another" in broken(intent, good, version=2)
    assert broken(intent, other(resources=intent.resources[::-1])) == ["inputs are not the intent's coins"]
    assert "recipients or amounts" in broken(intent, other(payments=(payment(50_001),)))
    assert "recipients or amounts" in broken(intent, other(payments=(payment(50_000, "p2tr"),)))
    assert "change goes elsewhere" in broken(intent, other(terms={"fee": 2_000, "change": 2}))
    assert "the fee is 2500 satoshi, not the terms'" in broken(intent, other(terms={"fee": 2_500, "change": 1}))
    capped = structs.replace(intent, fee_cap=1_500)
    assert "the fee of 2000 satoshi is above its cap" in broken(capped, good)
    told = structs.replace(intent, resources=(coin(1, 100_001), coin(2, 30_000)), terms={"fee": 2_001, "change": 1})
    assert broken(told, good) == ["a signature that does not sign exactly this"]  # a coin of another size than it was told


def test_bytes_changed_after_signing_are_noticed():
    intent = intent_of()
    transaction = codec.decode(codec.sign(intent, KEY).raw).transaction
    transaction.vin[0].sequence = 0xFFFFFFFF
    assert "a sequence that is not the one for replacement" in broken(intent, transaction.serialize())
    transaction = codec.decode(codec.sign(intent, KEY).raw).transaction
    transaction.locktime = 7
    assert "version or locktime" in broken(intent, transaction.serialize())
    transaction = codec.decode(codec.sign(intent, KEY).raw).transaction
    signature, key = transaction.vin[1].witness.items
    transaction.vin[1].witness.items = [signature[:-1] + b"\x81", key]
    assert broken(intent, transaction.serialize()) == ["a signature that does not sign exactly this"]
    transaction.vin[1].witness.items = [signature, coincurve.PublicKey(STRANGER.public_key).format()]
    assert broken(intent, transaction.serialize()) == ["an input of another sender"]
    transaction.vin[1].witness.items = [signature]
    assert broken(intent, transaction.serialize()) == ["an input that is no plain P2WPKH spend"]


def test_the_twin_with_a_high_s_is_no_signature_of_ours():
    """C6: a legacy twin has another id; of a witness the id is the same, and the twin is refused all the same."""
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

    intent = intent_of(coins=(coin(1, 100_000),))
    signed = codec.sign(intent, KEY)
    transaction = codec.decode(signed.raw).transaction
    signature, key = transaction.vin[0].witness.items
    r, s = decode_dss_signature(signature[:-1])
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    transaction.vin[0].witness.items = [encode_dss_signature(r, order - s) + b"\x01", key]
    twin = transaction.serialize()
    assert codec.decode(twin).txid == signed.txid
    assert broken(intent, twin) == ["a signature that does not sign exactly this"]


@pytest.mark.parametrize("cut", [0, 9, 40, 100])
def test_bytes_that_are_cut_are_no_transaction(cut):
    raw = codec.sign(intent_of(), KEY).raw
    with pytest.raises(codec.InvalidTransaction):
        codec.decode(raw[:cut])
    with pytest.raises(codec.InvalidTransaction):
        codec.decode(raw + b"\0")


@given(st.binary(max_size=400))
def test_no_bytes_break_the_decoder(raw):
    with contextlib.suppress(codec.InvalidTransaction):
        assert codec.decode(raw).transaction.serialize() == raw


@given(st.data())
def test_a_byte_changed_anywhere_is_noticed(data):
    intent = intent_of()
    signed = codec.sign(intent, KEY)
    place = data.draw(st.integers(0, len(signed.raw) - 1))
    flipped = signed.raw[place] ^ data.draw(st.integers(1, 255))
    raw = signed.raw[:place] + bytes([flipped]) + signed.raw[place + 1 :]
    with contextlib.suppress(ValueError):
        assert codec.broken_rules(intent, structs.replace(signed, raw=raw))
    assert codec.broken_rules(intent, signed) == []
