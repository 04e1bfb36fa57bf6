"""Invoices and payment orders of Lightning, against the published examples of BOLT 11."""

import json
import random
from pathlib import Path

import bolt11
import pytest
from bech32 import CHARSET, bech32_decode, bech32_encode
from bitstring import Bits
from bolt11 import FeatureState, Tag, TagChar
from bolt11.bit_utils import bitarray_to_u5, u5_to_bitarray
from bolt11.models.features import Feature, FeatureExtra
from bolt11.models.signature import Signature
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from penstock.core.intent import Resource, Signed
from penstock.rails.base import InvalidDestination
from penstock.rails.lightning import codec
from tests.fixtures.lightning_bench import MAIN, NODE, OTHER_NODE, OURS, PLAIN, REGTEST, TERMS, NoKey, hash_of, intent_of, invoice, payment

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "bolt11.json").read_text())
MUTATED = 3_000


def says(row):
    return row["says"][:40]


# Invoices


@pytest.mark.parametrize("row", VECTORS["valid"], ids=says)
def test_published_invoices_are_read_as_published_or_refused_with_a_reason(row):
    if "refused_here" in row:
        with pytest.raises(InvalidDestination) as refused:
            codec.parse(row["invoice"], row["chain_id"])
        assert str(refused.value) == row["refused_here"]
    else:
        read = codec.parse(row["invoice"], row["chain_id"])
        assert read.amount_msat == row["amount_msat"]
        assert read.text == row["invoice"].lower()
        if "high-S" not in row["says"]:  # there another key is recovered
            assert read.payee == VECTORS["payee"]


def test_two_published_invoices_are_refused_that_others_may_pay():
    """One with a fraction of a satoshi (spec 5.4), one whose payment hash readers understand differently."""
    assert sum("refused_here" in row for row in VECTORS["valid"]) == 2


@pytest.mark.parametrize("row", VECTORS["invalid"], ids=says)
def test_published_bad_invoices_are_refused(row):
    with pytest.raises(InvalidDestination):
        codec.parse(row["invoice"], MAIN)


def test_an_invoice_of_another_network_is_refused_and_the_right_prefix_named():
    with pytest.raises(InvalidDestination, match="begins with lnbc, and here one with lnbcrt"):
        codec.parse(invoice(chain_id=MAIN), REGTEST)
    with pytest.raises(InvalidDestination, match="begins with lnbcrt, and here one with lnbc "):
        codec.parse(invoice(chain_id=REGTEST), MAIN)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("LNURL1DP68GURN8GHJ7MTE9E3HWCTVD3JHGTNRDAKJ7", "LNURLs"),
        ("ada@example.com", "Lightning addresses"),
        ("lno1pqpq86q2fgcmqtqfe3", "BOLT 12"),
        ("bcrt1qdavt4j2sd7dlhqsavtnfxvzppw6k7qy97tmnu9", "no Lightning invoice"),
        ("", "no Lightning invoice"),
        ("lnbcrt" + "1" * 3_000, "no Lightning invoice"),
        ("lnbcrt1ünï", "no Lightning invoice"),
        ("lightning:", "no Lightning invoice"),
    ],
)
def test_what_is_no_invoice_is_refused_in_words_that_help(text, words):
    with pytest.raises(InvalidDestination, match=words):
        codec.parse(text, REGTEST)


def test_capital_letters_and_the_uri_of_qr_codes_name_the_same_invoice():
    text = invoice()
    assert codec.parse(text.upper(), REGTEST) == codec.parse(f"lightning:{text}", REGTEST) == codec.parse(text, REGTEST)


def test_the_recipient_may_not_hold_a_payment_for_longer_than_four_days():
    assert codec.parse(invoice(cltv=codec.CLTV_FINAL_MAX), REGTEST).cltv_final == codec.CLTV_FINAL_MAX
    with pytest.raises(InvalidDestination, match="wait 577 blocks"):
        codec.parse(invoice(cltv=codec.CLTV_FINAL_MAX + 1), REGTEST)


@pytest.mark.parametrize("msat", [1, 999, 1_500, 123_456_789])
def test_a_fraction_of_a_satoshi_cannot_be_paid(msat):
    with pytest.raises(InvalidDestination, match="fraction of a satoshi"):
        codec.parse(invoice(msat=msat), REGTEST)


def test_an_invoice_without_a_payment_secret_is_refused():
    bare = bolt11.decode(invoice())
    bare.tags.tags = [tag for tag in bare.tags if tag.char is not TagChar.payment_secret]
    with pytest.raises(InvalidDestination):
        codec.parse(bolt11.encode(bare, VECTORS["private_key"], ignore_exceptions=True), REGTEST)


@pytest.mark.parametrize("char", [TagChar.payment_hash, TagChar.payment_secret])
def test_a_field_given_twice_is_refused_because_wallets_differ_on_which_counts(char):
    with pytest.raises(InvalidDestination, match="more than once"):
        codec.parse(invoice(more=[Tag(char, hash_of(2))]), REGTEST)


@pytest.mark.parametrize(
    ("feature", "state", "words"),
    [
        (FeatureExtra(50), FeatureState.required, "bit 100"),
        (Feature.option_zeroconf, FeatureState.required, "bit 34"),
        (Feature.option_upfront_shutdown_script, FeatureState.required, "bit 4"),
    ],
)
def test_a_feature_that_is_demanded_and_not_known_is_refused(feature, state, words):
    with pytest.raises(InvalidDestination, match=words):
        codec.parse(invoice(features=PLAIN | {feature: state}), REGTEST)


def test_features_that_may_be_ignored_are():
    assert codec.parse(invoice(features=PLAIN | {FeatureExtra(50): FeatureState.supported}), REGTEST)


@pytest.mark.parametrize("state", FeatureState)
def test_amp_has_no_single_payment_hash_and_is_refused_even_where_it_is_an_offer(state):
    with pytest.raises(InvalidDestination, match="AMP"):
        # The package has another name for bits 30 and 31; BOLT 9 leaves them to AMP.
        codec.parse(invoice(features=PLAIN | {Feature.option_scid_alias: state}), REGTEST)


def resigned(text, head):
    """The invoice under another human-readable part, signed by the recipient: only our reading of that part can refuse it."""
    data = bech32_decode(text)[1]
    signing = u5_to_bitarray(data[:-104]).tobytes()
    signature = Signature.from_private_key(head, VECTORS["private_key"], signing).signature_data
    words = bitarray_to_u5(Bits(signature))
    return bech32_encode(head, [*data[:-104], *words])


@pytest.mark.parametrize(
    "amount", ["0", "01u", "10", "10x", "1.5u", "10uu", "10 u", "-10u", "10u-", "10u/1", "\u0661u", "25000000000m", "9" * 25]
)
def test_an_amount_that_is_not_canonical_is_refused_even_when_it_is_signed(amount):
    text = invoice()
    good = resigned(text, "lnbcrt10u")
    assert codec.parse(good, REGTEST).amount_msat == 1_000_000
    if amount == "10":  # ten bitcoins, and right
        assert codec.parse(resigned(text, "lnbcrt10"), REGTEST).amount_msat == 10 * 10**11
    else:
        with pytest.raises(InvalidDestination):
            codec.parse(resigned(text, f"lnbcrt{amount}") if amount.isascii() and " " not in amount else f"lnbcrt{amount}1qqq", REGTEST)


@pytest.mark.parametrize(("amount", "bitcoins"), [("1000", 1_000), ("2625000", 2_625_000), ("21000000", 21_000_000)])
def test_large_amounts_are_read_by_integers(amount, bitcoins):
    assert codec.parse(resigned(invoice(), f"lnbcrt{amount}"), REGTEST).amount_msat == bitcoins * 10**11
    with pytest.raises(InvalidDestination):
        codec.parse(resigned(invoice(), "lnbcrt21000001"), REGTEST)


@settings(max_examples=40)
@given(
    number=st.integers(1, 10**6),
    sat=st.one_of(st.none(), st.integers(1, 10**11 - 1)),
    cltv=st.integers(1, 576),
    expiry=st.integers(1, 2**31),
)
def test_what_a_wallet_encodes_is_what_is_read(number, sat, cltv, expiry):
    """Below 1,000 bitcoins: from there on the package writes a thousandth of what it was told."""
    read = codec.parse(invoice(number, sat, cltv=cltv, expiry_s=expiry, at_s=1_790_000_000), REGTEST)
    assert (read.payment_hash, read.amount_msat) == (hash_of(number), None if sat is None else sat * 1000)
    assert (read.payee, read.cltv_final, read.expires_s) == (VECTORS["payee"], cltv, 1_790_000_000 + expiry)


def test_a_mutated_invoice_is_never_another_one():
    """One letter changed, two exchanged, one left out or doubled, one capital: never accepted as something else."""
    dice = random.Random(11)
    text = invoice()
    accepted = 0
    for _ in range(MUTATED):
        place, kind = dice.randrange(len(text)), dice.randrange(5)
        other = dice.choice(CHARSET)
        mutated = {
            0: text[:place] + other + text[place + 1 :],
            1: text[:place] + text[place + 1 : place + 2] + text[place] + text[place + 2 :],
            2: text[:place] + text[place + 1 :],
            3: text[:place] + text[place] * 2 + text[place + 1 :],
            4: text[:place] + text[place].upper() + text[place + 1 :],
        }[kind]
        try:
            read = codec.parse(mutated, REGTEST)
        except InvalidDestination:
            continue
        assert read.text == text, mutated
        assert mutated == text
        accepted += 1
    assert accepted < MUTATED / 5


@given(st.text(max_size=400))
def test_no_text_breaks_the_reader(text):
    for head in ("", "lnbcrt1", "lnbcrt10u1", "lightning:lnbcrt1"):
        with pytest.raises(InvalidDestination):
            codec.parse(head + text, REGTEST)


@given(st.binary(min_size=0, max_size=200), st.integers(0, 300))
def test_signed_rubbish_breaks_nothing(noise, cut):
    """Any fields under a right checksum: read or refused, and nothing else."""
    words = [byte % 32 for byte in noise]
    whole = bech32_decode(invoice())[1]
    text = bech32_encode("lnbcrt10u", [*whole[: cut % len(whole)], *words, *whole[-104:]])
    try:
        read = codec.parse(text, REGTEST)
    except InvalidDestination:
        return
    assert len(read.payment_hash) == 64


# Networks


@pytest.mark.parametrize(
    ("magic", "prefix", "lnd"),
    [("f9beb4d9", "bc", "mainnet"), ("0b110907", "tb", "testnet"), ("0a03cf40", "tbs", "signet"), ("fabfb5da", "bcrt", "regtest")],
)
def test_a_chain_id_is_the_magic_of_the_bitcoin_network(magic, prefix, lnd):
    """https://en.bitcoin.it/wiki/Protocol_documentation#Message_structure https://github.com/bitcoin/bips/blob/master/bip-0325.mediawiki"""
    chain = codec.chain_of(int.from_bytes(bytes.fromhex(magic), "little"))
    assert (chain.prefix, chain.lnd) == (prefix, lnd)


def test_a_chain_id_of_another_family_is_refused():
    with pytest.raises(ValueError, match="chain id 1 is no Bitcoin network"):
        codec.chain_of(1)


# Orders


def test_the_same_intent_is_the_same_bytes_and_no_key_is_asked():
    intent = intent_of()
    signed = codec.sign(intent, NoKey())
    assert signed == codec.sign(intent, NoKey())
    assert signed.txid == hash_of(1)
    assert codec.broken_rules(intent, signed) == []
    assert codec.decode(signed.raw, REGTEST).to_bytes() == signed.raw


def test_an_order_pays_an_invoice_without_amount_what_the_intent_says():
    intent = intent_of(text=invoice(sat=None), sat=77)
    signed = codec.sign(intent, NoKey())
    assert codec.broken_rules(intent, signed) == []
    assert codec.decode(signed.raw, REGTEST).amount_msat == 77_000


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({"attempt_id": 2}, "attempt"),
        ({"version": 2}, "attempt"),
        ({"sender": OTHER_NODE}, "sender"),
        ({"kind": "cancel"}, "family"),
        ({"contract": "x"}, "contract"),
        ({"fee_cap": 9_999}, "fee cap"),
        ({"terms": TERMS | {"fee_limit_msat": 9_999}}, "terms"),
        ({"terms": TERMS | {"cltv_limit": 9}}, "terms"),
        ({"resources": ()}, "payment hash"),
        ({"resources": (Resource(hash_of(2)),)}, "payment hash"),
        ({"payments": (payment(invoice(2)),)}, "recipient"),
        ({"payments": (payment(invoice(1), 999),)}, "amount"),
        ({"payments": (payment(invoice(1)), payment(invoice(1)))}, "recipient"),
        ({"payments": (structs.replace(payment(invoice(1)), memo="x"),)}, "recipient"),
    ],
)
def test_bytes_that_say_anything_else_than_the_intent_break_a_rule(changed, broken):
    signed = codec.sign(intent_of(), NoKey())
    assert broken in codec.broken_rules(structs.replace(intent_of(), **changed), signed)


def test_an_order_whose_time_ends_after_its_invoice_breaks_a_rule():
    late = intent_of(terms={"send_by_ms": TERMS["send_by_ms"] + 86_400_000})
    assert codec.broken_rules(late, codec.sign(late, NoKey())) == ["expiry"]


def test_another_id_than_the_payment_hash_breaks_a_rule():
    signed = codec.sign(intent_of(), NoKey())
    assert codec.broken_rules(intent_of(), Signed(1, 1, hash_of(2), signed.raw)) == ["payment hash"]


@pytest.mark.parametrize(
    "changed",
    [
        {"family": "bitcoin"},
        {"kind": "cancel"},
        {"contract": "0x1"},
        {"payments": ()},
        {"payments": (payment(invoice(1)), payment(invoice(2)))},
        {"payments": (payment(invoice(1), 999),)},
        {"payments": (payment(invoice(1, sat=None), 0),)},
        {"payments": (structs.replace(payment(invoice(1, sat=None)), units=1_500),)},
        {"payments": (payment(invoice(1, key=OURS.to_hex())),)},
        {"payments": (payment("bcrt1qdavt4j2sd7dlhqsavtnfxvzppw6k7qy97tmnu9"),)},
        {"resources": ()},
        {"resources": (Resource(hash_of(1)), Resource(hash_of(2)))},
        {"sender": "me"},
        {"terms": {}},
        {"terms": TERMS | {"more": 1}},
        {"terms": TERMS | {"timeout_s": True}},
        {"terms": TERMS | {"timeout_s": 10**9}},
        {"terms": TERMS | {"cltv_limit": 2_017}},
        {"terms": TERMS | {"fee_limit_msat": -1}},
        {"chain_id": MAIN},
        {"chain_id": 1},
    ],
)
def test_an_intent_that_cannot_be_a_lightning_payment_is_not_signed(changed):
    with pytest.raises(ValueError):
        codec.sign(structs.replace(intent_of(), **changed), NoKey())


def changed(**fields):
    return json.dumps(json.loads(codec.sign(intent_of(), NoKey()).raw) | fields, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 8_000,
        b"1" * 9_000,
        changed(amount_msat="1000000"),
        changed(amount_msat=1_000_000.0),
        changed(amount_msat=True),
        changed(amount_msat=2_000_000),
        changed(amount_msat=-1),
        changed(chain_id=MAIN),
        changed(invoice=invoice(2)),
        changed(invoice=invoice(1).upper()),
        changed(invoice=""),
        changed(payment_hash=hash_of(2)),
        changed(node="02" + "g" * 64),
        changed(node=NODE.upper()),
        changed(cltv_limit=2**31),
        changed(more=1),
        changed() + b" ",
    ],
)
def test_bytes_that_are_no_order_are_not_read(raw):
    with pytest.raises(codec.InvalidOrder):
        codec.decode(raw, REGTEST)


def test_nothing_here_comes_from_a_key():
    with pytest.raises(ValueError, match="under its own keys"):
        codec.path(REGTEST, 0)
    with pytest.raises(ValueError, match="in the settings"):
        codec.address(OURS.public_key.format(compressed=False), REGTEST)
    assert codec.expires_ms(intent_of()) is None
    assert codec.same_address(invoice().upper(), invoice())
    assert not codec.same_address(invoice(1), invoice(2))
