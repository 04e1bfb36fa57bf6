"""Addresses, transactions and signatures of the XRP Ledger, against published vectors and independent decoders."""

import contextlib
import hashlib
import json
import random
from pathlib import Path

import coincurve
import pytest
from bip_utils import Bip32Slip10Secp256k1, Bip39SeedGenerator, XrpAddrDecoder
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from xrpl.core import binarycodec, keypairs

from penstock.core.intent import Codec, Intent, Signed
from penstock.rails.base import InvalidDestination
from penstock.rails.xrp import codec
from penstock.rails.xrp.address import parse_extended
from tests.fixtures.xrp_bench import (
    BOX,
    ISSUER,
    KEY,
    MAIN,
    OTHER,
    RECIPIENT,
    RLUSD,
    RLUSD_CODE,
    SENDER,
    compressed,
    intent_of,
    key_of,
    payment,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "xrp.json").read_text())
X_ADDRESSES = VECTORS["x_addresses"]["vectors"]
ALPHABET = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
MUTATED = 10_000
accounts = st.binary(min_size=20, max_size=20)
tags = st.none() | st.integers(0, codec.TAG_MAX)


def checked_bytes(text):
    """Base58 with the ledger's alphabet and a double SHA-256, written here anew; None when the checksum is wrong."""
    number = 0
    for character in text:
        if character not in ALPHABET:
            return None
        number = number * 58 + ALPHABET.index(character)
    zeros = len(text) - len(text.lstrip("r"))
    raw = b"\0" * zeros + number.to_bytes((number.bit_length() + 7) // 8, "big")
    body, check = raw[:-4], raw[-4:]
    return body if hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4] == check else None


def independent(text):
    """(account id, tag, of a test network or None for a classic address), or None for what is no address."""
    body = checked_bytes(text)
    if body is None:
        return None
    if len(body) == 21 and body[0] == 0:
        return body[1:], None, None
    if len(body) != 31 or body[:2] not in (b"\x05\x44", b"\x04\x93"):
        return None
    flag, tag, rest = body[22], int.from_bytes(body[23:27], "little"), body[27:]
    if flag > 1 or any(rest) or (flag == 0 and tag):
        return None
    return body[2:22], tag if flag else None, body[:2] == b"\x04\x93"


def written(body):
    """Base58 with checksum of any bytes."""
    raw = body + hashlib.sha256(hashlib.sha256(body).digest()).digest()[:4]
    number, text = int.from_bytes(raw, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = ALPHABET[digit] + text
    return "r" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def classic(account_id):
    return written(b"\0" + account_id)


def extended(account_id, tag, of_test=False, *, upper=b"\0\0\0\0", flag=None):
    prefix = b"\x04\x93" if of_test else b"\x05\x44"
    flags = bytes([(tag is not None) if flag is None else flag])
    return written(prefix + account_id + flags + (tag or 0).to_bytes(4, "little") + upper)


# Addresses


@pytest.mark.parametrize(("address", "tag", "of_test", "text"), X_ADDRESSES)
def test_published_x_addresses_are_read_to_the_last_bit(address, tag, of_test, text):
    assert codec.parse_address(text, is_test=of_test) == codec.Target(address, tag)
    assert independent(text) == (checked_bytes(address)[1:], tag, of_test)


@pytest.mark.parametrize(("address", "tag", "of_test", "text"), X_ADDRESSES)
def test_an_x_address_of_the_other_kind_of_network_is_refused(address, tag, of_test, text):
    with pytest.raises(InvalidDestination, match="main network"):
        codec.parse_address(text, is_test=not of_test)


@pytest.mark.parametrize("text", VECTORS["x_addresses"]["invalid"])
def test_published_mistakes_are_refused(text):
    with pytest.raises(InvalidDestination):
        codec.parse_address(text, is_test=False)


@pytest.mark.parametrize("text", ["rwyQp3eC5j6AumcptZhfmiXAykpeswZKeJ", *(row[0] for row in X_ADDRESSES)])
def test_classic_addresses_are_the_same_on_every_network(text):
    assert codec.parse_address(text, is_test=False) == codec.parse_address(text, is_test=True) == codec.Target(text)


@pytest.mark.parametrize("text", list(codec.NOBODYS))
def test_addresses_without_a_key_are_well_formed_and_refused(text):
    assert XrpAddrDecoder.DecodeAddr(text) == checked_bytes(text)[1:]
    for spelled in (text, extended(checked_bytes(text)[1:], 7)):
        with pytest.raises(InvalidDestination, match="belongs to nobody"):
            codec.parse_address(spelled, is_test=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "begins with r"),
        (" rwyQp3eC5j6AumcptZhfmiXAykpeswZKeJ", "space"),
        ("rwyQp3eC5j6AumcptZhfmiXAykpeswZKe\u0458", "Character 34"),
        ("0x52908400098527886E0F7030069857D2E4169EE7", "begins with r"),
        ("TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "no X-address"),
        ("sn259rEFXrQrWyx3Q7XneWcwV6dfL", "begins with r"),
        ("r" * 200, "mistyped"),
        ("X" + "1" * 46, "no X-address"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_never_repeats_the_text(text, says):
    with pytest.raises(InvalidDestination, match=says) as refused:
        codec.parse_address(text, is_test=False)
    assert len(text) < 20 or text not in str(refused.value)


def test_ten_thousand_mutated_addresses_are_taken_only_where_an_independent_decoder_takes_them():
    dice = random.Random(5)
    taken = 0
    for _ in range(MUTATED):
        account_id, tag = dice.randbytes(20), dice.choice([None, dice.randrange(2**32)])
        text = mutated(dice, dice.choice([classic(account_id), extended(account_id, tag, dice.random() < 0.2)]))
        expected = independent(text) if len(text) < 60 and text.isascii() else None
        good = expected is not None and expected[2] is not True
        taken += good
        with contextlib.nullcontext() if good else pytest.raises(InvalidDestination):
            found = codec.parse_address(text, is_test=False)
            assert (checked_bytes(found.address)[1:], found.tag) == expected[:2]
    assert MUTATED // 20 < taken < MUTATED // 2


def mutated(dice, text):
    place = dice.randrange(len(text))
    match dice.randrange(7):
        case 0:
            return text
        case 1:
            return text[:place] + dice.choice(ALPHABET) + text[place + 1 :]
        case 2:
            return text[:place] + text[place].swapcase() + text[place + 1 :]
        case 3:
            return text[:place] + text[place + 1 :]
        case 4:
            return text[:place] + dice.choice("0OIl\u0440\u0430") + text[place + 1 :]
        case 5:
            return text[:place] + text[place:].swapcase()
        case _:
            return text + dice.choice(ALPHABET)


@pytest.mark.parametrize(
    "text",
    [
        extended(b"\x11" * 20, 7, upper=b"\1\0\0\0"),
        extended(b"\x11" * 20, None, upper=b"\0\0\0\1"),
        extended(b"\x11" * 20, 7, flag=0),
        extended(b"\x11" * 20, 7, flag=2),
        written(b"\x05\x44" + b"\x11" * 20 + b"\1" + b"\7\0\0\0" + b"\0" * 5),
        written(b"\x05\x44" + b"\x11" * 20 + b"\1" + b"\7\0\0\0" + b"\0" * 3),
        written(b"\x00" + b"\x11" * 21),
    ],
)
def test_well_checked_text_with_wrong_insides_is_no_address(text):
    assert checked_bytes(text) is not None
    with pytest.raises(InvalidDestination):
        codec.parse_address(text, is_test=False)
    assert parse_extended(text) is None


@given(accounts, tags, st.booleans())
def test_every_account_and_tag_comes_back(account_id, tag, of_test):
    address = classic(account_id)
    assert codec.is_classic(address)
    assert parse_extended(extended(account_id, tag, of_test)) == (codec.Target(address, tag), of_test)
    assert codec.same_address(extended(account_id, tag), address)
    assert codec.same_address(extended(account_id, tag), extended(account_id, 5, True))


def test_two_accounts_are_not_the_same_nor_is_text_that_is_no_address():
    assert not codec.same_address(SENDER, RECIPIENT)
    assert not codec.same_address(SENDER, SENDER.swapcase())
    assert not codec.same_address("x", "")


# Tags


@pytest.mark.parametrize(("memo", "tag"), [("", None), ("0", 0), ("573049", 573049), ("00573049", 573049), ("4294967295", 2**32 - 1)])
def test_a_memo_is_a_tag(memo, tag):
    assert codec.parse_tag(memo) == tag


@pytest.mark.parametrize("memo", ["4294967296", "-1", "1.0", "abc", " 1", "1\n", "٣", "0x10", "99999999999"])
def test_what_is_no_32_bit_number_is_no_tag(memo):
    with pytest.raises(InvalidDestination, match="destination tag"):
        codec.parse_tag(memo)


# Tokens


@pytest.mark.parametrize("text", [RLUSD, f"USD.{ISSUER}", f"u$<.{ISSUER}"])
def test_a_token_is_a_code_and_an_issuer(text):
    found = codec.parse_contract(text)
    assert f"{found.currency}.{found.issuer}" == text


@pytest.mark.parametrize(
    "text",
    ["", "RLUSD", f"RLUSD.{ISSUER}", f"XRP.{ISSUER}", f"xrp.{ISSUER}", f"{RLUSD_CODE.lower()}.{ISSUER}", f"{'0' * 40}.{ISSUER}",
     f"0000000000000000000000005553440000000000.{ISSUER}", f"USD.{ISSUER[:-1]}f", "USD.rrrrrrrrrrrrrrrrrrrrrhoLvTp", f"USD.{ISSUER}.x"],
)  # fmt: skip
def test_what_could_be_two_tokens_or_none_is_refused(text):
    with pytest.raises(ValueError, match=r"code|issuer"):
        codec.parse_contract(text)


# Keys


def test_the_codec_is_what_the_signer_wants():
    wanted: Codec = codec
    assert wanted.path(MAIN, 3) == "m/44'/144'/0'/0/3"
    assert wanted.expires_ms(intent_of()) is None
    with pytest.raises(ValueError, match="lane"):
        codec.path(MAIN, -1)


def test_the_published_words_give_the_published_key():
    vector = VECTORS["derivation"]
    node = Bip32Slip10Secp256k1.FromSeed(Bip39SeedGenerator(vector["mnemonic"]).Generate()).DerivePath(codec.path(MAIN, 0))
    assert node.PrivateKey().Raw().ToHex().upper() == vector["private_key"]
    assert node.PublicKey().RawCompressed().ToHex().upper() == vector["public_key"]


@pytest.mark.parametrize(("public_key", "address"), VECTORS["accounts"]["vectors"])
def test_published_keys_have_their_published_addresses(public_key, address):
    point = coincurve.PublicKey(bytes.fromhex(public_key))
    assert codec.address(point.format(compressed=False), MAIN) == codec.address(point.format(), BOX) == address


# Transactions


@pytest.mark.parametrize("vector", VECTORS["transactions"]["vectors"], ids=lambda vector: vector["id"][:8])
def test_published_transactions_have_their_id_signer_and_fields(vector):
    found = codec.decode_signed(bytes.fromhex(vector["blob"]))
    assert (found.txid, found.fields["Account"]) == (vector["id"], vector["account"])
    assert (found.signer != vector["account"]) == vector.get("signed_by_a_regular_key", False)
    assert (found.fields["TransactionType"], found.fields["Sequence"], found.fields["Fee"]) == (
        vector["type"],
        vector["sequence"],
        vector["fee"],
    )


def every_kind():
    return {
        "xrp": intent_of(),
        "xrp with tag": intent_of(payment(memo="573049")),
        "xrp with tag 0": intent_of(payment(memo="0")),
        "token": intent_of(contract=RLUSD),
        "token with tag": intent_of(payment(memo="4294967295"), contract=RLUSD),
        "on the main network": intent_of(chain_id=MAIN),
        "cancel": intent_of(kind="cancel", version=2),
        "open": intent_of(kind="open", contract=RLUSD, payments=()),
        "cancel of an open": intent_of(kind="cancel", contract=RLUSD, payments=(), version=2),
    }


@pytest.mark.parametrize("name", list(every_kind()))
def test_what_we_sign_is_what_xrpl_py_would_sign(name):
    intent = every_kind()[name]
    signed = codec.sign(intent, KEY)
    fields = binarycodec.decode(signed.raw.hex())
    unsigned = {name: value for name, value in fields.items() if name != "TxnSignature"}
    message = bytes.fromhex(binarycodec.encode_for_signing(unsigned))
    secret = "00" + KEY._key.secret.hex().upper()
    assert fields["TxnSignature"] == keypairs.sign(message, secret)
    assert keypairs.is_valid_message(message, bytes.fromhex(fields["TxnSignature"]), fields["SigningPubKey"])
    assert keypairs.derive_classic_address(fields["SigningPubKey"]) == fields["Account"] == SENDER
    assert codec.broken_rules(intent, signed) == []
    assert codec.sign(Intent.from_json(intent.to_json()), KEY) == signed


def test_a_payment_says_exactly_what_the_intent_says_and_nothing_more():
    assert binarycodec.decode(codec.sign(intent_of(payment(memo="7"), contract=RLUSD), KEY).raw.hex()).keys() == {
        "TransactionType", "NetworkID", "Flags", "Sequence", "DestinationTag", "LastLedgerSequence", "Amount", "Fee", "SigningPubKey",
        "TxnSignature", "Account", "Destination",
    }  # fmt: skip
    fields = codec.build(intent_of(payment(memo="7"), contract=RLUSD))
    assert fields["Amount"] == {"currency": RLUSD_CODE, "issuer": ISSUER, "value": "12.500001"}
    assert (fields["Flags"] & 0x00020000, fields["DestinationTag"], fields["LastLedgerSequence"]) == (0, 7, 130)


def test_a_token_is_opened_for_as_much_as_is_exact_and_for_nobody_elses_payments():
    fields = codec.build(intent_of(kind="open", contract=RLUSD, payments=()))
    assert (fields["TransactionType"], fields["Flags"]) == ("TrustSet", 0x80020000)
    assert fields["LimitAmount"] == {"currency": RLUSD_CODE, "issuer": ISSUER, "value": "999999999.999999"}
    assert not {"Destination", "Amount", "DestinationTag"} & set(fields)


def test_the_network_is_named_above_1024_and_only_there():
    assert "NetworkID" not in codec.build(intent_of(chain_id=0))
    assert "NetworkID" not in codec.build(intent_of(chain_id=1024))
    assert codec.build(intent_of(chain_id=1025))["NetworkID"] == 1025


ALTERED = {
    "transaction id": lambda intent, signed: (intent, structs.replace(signed, txid="0" * 64)),
    "sender": lambda intent, _: (intent, codec.sign(structs.replace(intent, sender=codec.address(key_of(9).public_key, 0)), key_of(9))),
    "kind": lambda intent, _: (intent, codec.sign(structs.replace(intent, kind="cancel"), KEY)),
    "network id": lambda intent, _: (intent, codec.sign(structs.replace(intent, chain_id=7300145), KEY)),
    "sequence": lambda intent, _: (intent, codec.sign(structs.replace(intent, slot=6), KEY)),
    "recipient": lambda intent, _: (intent, codec.sign(structs.replace(intent, payments=(payment(memo="7", recipient=OTHER),)), KEY)),
    "tag": lambda intent, _: (intent, codec.sign(structs.replace(intent, payments=(payment(memo="8"),)), KEY)),
    "amount": lambda intent, _: (intent, codec.sign(structs.replace(intent, payments=(payment(12_500_002, memo="7"),)), KEY)),
    "fee": lambda intent, _: (intent, codec.sign(structs.replace(intent, terms={"fee": 13, "last_ledger": 130}), KEY)),
    "fee cap": lambda intent, signed: (structs.replace(intent, fee_cap=11), signed),
    "expiry": lambda intent, _: (intent, codec.sign(structs.replace(intent, terms={"fee": 12, "last_ledger": 131}), KEY)),
}


@pytest.mark.parametrize("contract", [None, RLUSD])
@pytest.mark.parametrize("rule", list(ALTERED))
def test_the_reader_names_the_rule_that_bytes_break(rule, contract):
    intent = intent_of(payment(memo="7"), contract=contract)
    assert rule in codec.broken_rules(*ALTERED[rule](intent, codec.sign(intent, KEY)))


def signed_with(key=KEY, **changes):
    """Bytes with other fields than we would ever build, well signed."""
    fields = {**codec.build(intent_of(contract=RLUSD)), "SigningPubKey": compressed(key), **changes}
    secret = "00" + key._key.secret.hex().upper()
    fields["TxnSignature"] = keypairs.sign(bytes.fromhex(binarycodec.encode_for_signing(fields)), secret)
    raw = bytes.fromhex(binarycodec.encode(fields))
    return Signed(1, 1, codec.transaction_id(raw), raw)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"Flags": 0x80020000}, "flags"),  # tfPartialPayment
        ({"Flags": 0}, "flags"),
        ({"SendMax": {"currency": RLUSD_CODE, "issuer": ISSUER, "value": "99"}}, "fields"),
        ({"DestinationTag": 9}, "fields"),
        ({"Memos": [{"Memo": {"MemoData": "00"}}]}, "fields"),
        ({"Amount": {"currency": "USD", "issuer": ISSUER, "value": "12.500001"}}, "amount"),
        ({"Amount": {"currency": RLUSD_CODE, "issuer": OTHER, "value": "12.500001"}}, "amount"),
        ({"Amount": "12500001"}, "amount"),
        ({"Sequence": 0, "TicketSequence": 5}, "sequence"),
    ],
)
def test_whatever_a_payment_says_beyond_the_intent_is_found(changes, rule):
    assert rule in codec.broken_rules(intent_of(contract=RLUSD), signed_with(**changes))


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"LimitAmount": {"currency": RLUSD_CODE, "issuer": ISSUER, "value": "999999999.999998"}}, "limit"),
        ({"LimitAmount": {"currency": RLUSD_CODE, "issuer": OTHER, "value": "999999999.999999"}}, "limit"),
        ({"Flags": 0x80000000}, "flags"),
        ({"QualityIn": 5}, "fields"),
    ],
)
def test_a_trust_line_other_than_the_pinned_one_is_found(changes, rule):
    intent = intent_of(kind="open", contract=RLUSD, payments=())
    fields = {**codec.build(intent), "SigningPubKey": compressed(KEY), **changes}
    fields["TxnSignature"] = keypairs.sign(bytes.fromhex(binarycodec.encode_for_signing(fields)), "00" + KEY._key.secret.hex().upper())
    raw = bytes.fromhex(binarycodec.encode(fields))
    assert rule in codec.broken_rules(intent, Signed(1, 1, codec.transaction_id(raw), raw))


def test_another_key_than_the_accounts_is_found():
    assert "sender" in codec.broken_rules(intent_of(contract=RLUSD), signed_with(key_of(4)))


@pytest.mark.parametrize(
    "changes",
    [
        {"family": "evm"}, {"kind": "burn"}, {"slot": 0}, {"slot": 2**32}, {"terms": {"fee": 12}}, {"terms": {"fee": 12, "last_ledger": 0}},
        {"terms": {"fee": 12, "last_ledger": 2**32}}, {"terms": {"fee": 0, "last_ledger": 9}}, {"terms": {"fee": 5_001, "last_ledger": 9}},
        {"terms": {"fee": "12", "last_ledger": 9}}, {"terms": {"fee": True, "last_ledger": 9}}, {"payments": ()}, {"chain_id": -1},
        {"payments": (payment(0),)}, {"payments": (payment(-1),)}, {"payments": (payment(10**17 + 1),)}, {"payments": (payment(memo="x"),)},
        {"payments": (payment(memo="007"),)}, {"payments": (payment(memo="4294967296"),)}, {"payments": (payment(recipient=SENDER),)},
        {"payments": (payment(recipient="X7AcgcsBL6XDcUb289X4mJ8djcdyKaB5hJDWMArnXr61cqZ"),)}, {"payments": (payment(), payment())},
        {"contract": RLUSD, "payments": (payment(10**15),)}, {"contract": RLUSD, "payments": (payment(0),)}, {"contract": "RLUSD"},
        {"kind": "open", "payments": ()}, {"kind": "open", "contract": RLUSD}, {"kind": "cancel", "payments": (payment(), payment())},
    ],
)  # fmt: skip
def test_an_intent_that_is_not_this_familys_is_never_signed(changes):
    with pytest.raises(ValueError, match=r"XRP|payments|terms|fee|sequence|last_ledger|classic|tag|token|currency"):
        codec.sign(intent_of(**changes), KEY)


def test_a_key_that_is_not_the_senders_signs_nothing():
    with pytest.raises(ValueError, match="not the sender's"):
        codec.sign(intent_of(), key_of(3))


@given(st.integers(1, codec.ISSUED_UNITS_MAX), tags)
def test_every_amount_of_a_token_comes_back_to_the_last_unit(units, tag):
    intent = intent_of(payment(units, memo="" if tag is None else str(tag)), contract=RLUSD)
    signed = codec.sign(intent, KEY)
    assert codec.broken_rules(intent, signed) == []
    assert codec.units_of(RLUSD, codec.decode_signed(signed.raw).fields["Amount"]) == units


@given(st.integers(1, codec.DROPS_MAX), st.integers(1, 2**32 - 1), st.integers(1, 2**32 - 1))
def test_every_amount_of_xrp_sequence_and_expiry_comes_back(units, slot, last_ledger):
    intent = intent_of(payment(units), slot=slot, last_ledger=last_ledger)
    signed = codec.sign(intent, KEY)
    assert codec.broken_rules(intent, signed) == []
    assert codec.units_of(None, codec.decode_signed(signed.raw).fields["Amount"]) == units


@pytest.mark.parametrize(
    "said", [None, 5, "5.5", "-5", "1e3", {"value": "5"}, {"currency": "USD", "issuer": ISSUER, "value": "5"}, "9" * 90]
)
def test_what_is_no_such_amount_has_no_units(said):
    assert codec.units_of(None, said) is None
    assert codec.units_of(RLUSD, said) is None


@given(st.data())
def test_a_changed_byte_is_never_taken_for_our_transaction(data):
    intent = intent_of(payment(memo="7"))
    raw = bytearray(codec.sign(intent, KEY).raw)
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(codec.InvalidTransaction):
        assert codec.broken_rules(intent, Signed(1, 1, codec.transaction_id(bytes(raw)), bytes(raw)))


@given(st.binary(max_size=300))
def test_bytes_that_are_no_transaction_are_refused_in_one_way(raw):
    with pytest.raises(codec.InvalidTransaction):
        codec.decode_signed(raw)


def test_the_other_signature_of_the_same_transaction_is_not_taken():
    signed = codec.sign(intent_of(), KEY)
    fields = binarycodec.decode(signed.raw.hex())
    compact = coincurve.ecdsa.serialize_compact(coincurve.ecdsa.der_to_cdata(bytes.fromhex(fields["TxnSignature"])))
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    high = (order - int.from_bytes(compact[32:], "big")).to_bytes(32, "big")
    fields["TxnSignature"] = bytes(coincurve.ecdsa.cdata_to_der(coincurve.ecdsa.deserialize_compact(compact[:32] + high))).hex().upper()
    with pytest.raises(codec.InvalidTransaction, match="signature"):
        codec.decode_signed(bytes.fromhex(binarycodec.encode(fields)))


def test_the_same_fields_in_another_order_are_not_taken():
    """They decode to the same transaction and verify, but have another id."""
    raw = codec.sign(intent_of(), KEY).raw
    network, flags, sequence = raw[3:8], raw[8:13], raw[13:18]
    assert (network[0], flags[0], sequence[0]) == (0x21, 0x22, 0x24)
    twin = raw[:3] + network + sequence + flags + raw[18:]
    assert binarycodec.decode(twin.hex()) == binarycodec.decode(raw.hex())
    with pytest.raises(codec.InvalidTransaction, match="canonical form"):
        codec.decode_signed(twin)


def test_bytes_that_are_far_too_long_are_not_even_read():
    with pytest.raises(codec.InvalidTransaction, match="bytes"):
        codec.decode_signed(b"\x12" * 5_000)
