"""What TRON's codec writes and reads, against published bytes and against an independent decoder of addresses."""

import json
from pathlib import Path

import base58
import pytest
from bip_utils import Bip32Slip10Secp256k1, Bip39SeedGenerator, TrxAddrDecoder
from Crypto.Hash import keccak
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.core.intent import Codec, Intent, Payment
from penstock.rails.base import InvalidDestination
from penstock.rails.tron import codec, schema
from penstock.signer.keys import LaneKey

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "tron.json").read_text())
USDT = "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
KEY = LaneKey(bytes.fromhex(VECTORS["keys"][0]["private_key"]))
HOT = VECTORS["keys"][0]["address"]
ALICE = "THTR75o8xXAgCTQqpiot2AFRAjvW1tSbVV"
NOBODY = "T9yD14Nj9j7xAB4dbGeiX9h8unkKHxuWwb"

accounts = st.binary(min_size=20, max_size=20).filter(any).map(lambda body: base58.b58encode_check(b"\x41" + body).decode())


def terms(**changes):
    return {
        "ref_block": 70_000_000,
        "ref_block_hash": 0xB21ACE8D6AC20E7E,
        "expiration": 1_790_000_480_000,
        "net_fee_max": 400_000,
    } | changes


def intent(contract=USDT, units=5_000_000, **changes):
    fields = {
        "attempt_id": 1_999_999_999_999_999_999,
        "version": 1,
        "kind": "pay",
        "chain": "TRX",
        "family": "tron",
        "chain_id": 728126428,
        "sender": HOT,
        "slot": 7,
        "token_id": "token",
        "contract": contract,
        "payments": (Payment(1, ALICE, "", units),),
        "terms": terms(fee_limit=20_000_000) if contract else terms(),
        "fee_cap": 30_000_000,
    }
    return Intent(**(fields | changes))


def test_it_is_a_codec_as_the_signer_wants_it():
    checked: Codec = codec
    assert all(callable(getattr(checked, name)) for name in ("path", "address", "same_address", "sign", "broken_rules", "expires_ms"))


@pytest.mark.parametrize("vector", VECTORS["keys"])
def test_a_published_key_has_its_published_address(vector):
    assert codec.address(LaneKey(bytes.fromhex(vector["private_key"])).public_key, 728126428) == vector["address"]


def test_the_published_words_give_the_published_address_on_our_path():
    seed = Bip39SeedGenerator(VECTORS["derivation"]["words"]).Generate()
    node = Bip32Slip10Secp256k1.FromSeed(seed).DerivePath(codec.path(728126428, 0))
    assert codec.address(LaneKey(node.PrivateKey().Raw().ToBytes()).public_key, 728126428) == VECTORS["derivation"]["address"]


@pytest.mark.parametrize("vector", VECTORS["hexadecimal"])
def test_hexadecimal_and_base58_are_one_account(vector):
    assert codec.parse_address(vector["hex"]) == codec.parse_address(vector["hex"].upper()) == vector["address"]
    assert codec.account_hex(vector["address"]) == vector["hex"]
    assert codec.same_address(vector["hex"].upper(), vector["address"])
    assert not codec.same_address(vector["address"], vector["address"].lower())


def test_a_published_transfer_is_signed_to_the_same_id_and_signature():
    it = VECTORS["transfer"]
    key = LaneKey(bytes.fromhex(it["private_key"]))
    moved = intent(
        None,
        it["amount"],
        attempt_id=it["timestamp"],
        sender=it["owner"],
        payments=(Payment(1, it["to"], "", it["amount"]),),
        terms=terms(ref_block=it["ref_block"], ref_block_hash=int(it["ref_block_hash"], 16), expiration=it["expiration"]),
    )
    signed = codec.sign(moved, key)
    assert signed.txid == it["txid"]
    assert signed.raw.endswith(bytes.fromhex(it["signature"]))
    assert codec.broken_rules(moved, signed) == []
    assert codec.expires_ms(moved) == it["expiration"]


@pytest.mark.parametrize("vector", VECTORS["answers"], ids=lambda vector: vector["txid"][:8])
def test_what_a_real_node_answered_is_encoded_to_the_same_bytes(vector):
    transaction = codec.UnsignedTransaction(
        bytes.fromhex(vector["ref_block_bytes"]),
        bytes.fromhex(vector["ref_block_hash"]),
        vector["expiration"],
        vector["timestamp"],
        vector["fee_limit"],
        codec.address_of_hex(vector["owner"]),
        codec.address_of_hex(vector["to"]),
        vector.get("amount", 0),
        bytes.fromhex(vector["data"]) if "data" in vector else None,
    )
    assert codec.encode_unsigned(transaction).hex() == vector["raw_data"]
    assert codec.transaction_id(codec.encode_unsigned(transaction)) == vector["txid"]


def test_a_signed_answer_of_a_real_node_names_its_sender():
    vector = VECTORS["answers"][0]
    message = schema.Transaction(signature=bytes.fromhex(vector["signature"]))
    message.raw_data.ParseFromString(bytes.fromhex(vector["raw_data"]))
    found = codec.decode(message.SerializeToString())
    assert found.txid == vector["txid"]
    assert found.sender == found.unsigned.owner == codec.address_of_hex(vector["owner"])


@pytest.mark.parametrize("contract", [None, USDT])
def test_what_is_signed_is_read_again_as_what_was_meant(contract):
    it = intent(contract)
    signed = codec.sign(it, KEY)
    assert codec.sign(it, KEY) == signed
    assert codec.broken_rules(it, signed) == []
    found = codec.decode(signed.raw)
    assert found.sender == HOT
    assert codec.bandwidth(found.unsigned) == len(signed.raw) + 64


@pytest.mark.parametrize("contract", [None, USDT])
def test_two_attempts_that_differ_in_nothing_but_their_id_have_two_transaction_ids(contract):
    it = intent(contract)
    ids = {codec.sign(replace(it, attempt_id=it.attempt_id + step), KEY).txid for step in range(50)}
    assert len(ids) == 50


OTHER = {
    "recipient": {"payments": (Payment(1, "TW1dU4L3eNm7Lw8WvieLKEHpXWAussRG9Z", "", 5_000_000),)},
    "amount": {"payments": (Payment(1, ALICE, "", 5_000_001),)},
    "sender": {"sender": ALICE},
    "attempt": {"attempt_id": 5},
    "expiration": {"terms": terms(fee_limit=20_000_000, expiration=1_790_000_480_001)},
    "reference block": {"terms": terms(fee_limit=20_000_000, ref_block=70_000_001)},
    "branch": {"terms": terms(fee_limit=20_000_000, ref_block_hash=5)},
    "fee limit": {"terms": terms(fee_limit=20_000_001)},
    "cap": {"fee_cap": 20_399_999},
}


@pytest.mark.parametrize("changes", OTHER.values(), ids=OTHER)
def test_bytes_of_another_intent_break_a_rule(changes):
    signed = codec.sign(intent(), KEY)
    assert codec.broken_rules(replace(intent(), **changes), signed)


@pytest.mark.parametrize("name", ["recipient", "amount", "sender", "attempt"])
def test_bytes_of_another_native_intent_break_a_rule(name):
    signed = codec.sign(intent(None), KEY)
    assert codec.broken_rules(replace(intent(None), **OTHER[name]), signed)


def test_another_contract_or_the_native_coin_breaks_a_rule():
    signed = codec.sign(intent(), KEY)
    assert "recipient" in codec.broken_rules(intent(ALICE), signed)
    assert {"recipient", "value", "call"} <= set(codec.broken_rules(intent(None), signed))
    assert "transaction id" in codec.broken_rules(intent(), replace(signed, txid="00" * 32))


WRONG = {
    "family": {"family": "evm"},
    "cancel": {"kind": "cancel"},
    "second version": {"version": 2},
    "two payments": {"payments": (Payment(1, ALICE, "", 1), Payment(2, ALICE, "", 1))},
    "nothing": {"payments": (Payment(1, ALICE, "", 0),)},
    "negative": {"payments": (Payment(1, ALICE, "", -1),)},
    "no terms": {"terms": {}},
    "no fee limit": {"terms": terms()},
    "unknown term": {"terms": terms(fee_limit=1, gas=1)},
    "fee limit 0": {"terms": terms(fee_limit=0)},
    "a boolean": {"terms": terms(fee_limit=True)},
    "a negative term": {"terms": terms(fee_limit=1, net_fee_max=-1)},
    "a term that overflows": {"terms": terms(fee_limit=1, ref_block_hash=2**64)},
    "never expires": {"terms": terms(fee_limit=1, expiration=0)},
    "above the cap": {"fee_cap": 20_399_999},
    "attempt 0": {"attempt_id": 0},
    "attempt too large": {"attempt_id": 2**63},
    "a bad recipient": {"payments": (Payment(1, ALICE[:-1] + "W", "", 1),)},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_an_intent_that_cannot_be_this_familys_is_refused(changes):
    with pytest.raises(ValueError):
        codec.sign(intent(**changes), KEY)


def test_an_amount_of_trx_beyond_its_field_is_refused_and_a_token_may_be_larger():
    with pytest.raises(ValueError):
        codec.sign(intent(None, 2**63), KEY)
    assert codec.broken_rules(intent(units=2**255), codec.sign(intent(units=2**255), KEY)) == []


def tampered(name):
    """Our own signed bytes with one thing more that a strict reader must not overlook."""
    signed = codec.sign(intent(), KEY).raw
    message = schema.Transaction.FromString(signed)
    if name == "second contract":
        message.raw_data.contract.add().CopyFrom(message.raw_data.contract[0])
    elif name == "call value":
        call = schema.TriggerSmartContract.FromString(message.raw_data.contract[0].parameter.value)
        call.call_value = 1
        message.raw_data.contract[0].parameter.value = call.SerializeToString()
        return message.SerializeToString()
    elif name == "type url":
        message.raw_data.contract[0].parameter.type_url = "type.googleapis.com/protocol.TransferContract"
    elif name == "type":
        message.raw_data.contract[0].type = 5
    elif name == "second signature":
        return signed + b"\x12\x41" + message.signature
    elif name == "result":
        return signed + b"\x2a\x00"
    elif name == "memo":
        return with_raw_suffix(signed, b"\x52\x02hi")
    elif name == "permission":
        return with_permission(signed)
    elif name == "high s":
        s = codec.SECP256K1_ORDER - int.from_bytes(message.signature[32:64], "big")
        message.signature = message.signature[:32] + s.to_bytes(32, "big") + bytes([message.signature[64] ^ 1])
    elif name == "short signature":
        message.signature = message.signature[:64]
    elif name == "no signature":
        message.signature = b""
    elif name == "cut":
        return signed[:-1]
    elif name == "empty":
        return b""
    elif name == "long":
        return signed + bytes(5000)
    return message.SerializeToString()


def with_raw_suffix(signed, suffix):
    message = schema.Transaction.FromString(signed)
    inner = message.raw_data.SerializeToString() + suffix
    length = len(inner)
    return b"\x0a" + bytes([length & 0x7F | 0x80, length >> 7]) + inner + b"\x12\x41" + message.signature


def with_permission(signed):
    message = schema.Transaction.FromString(signed)
    contract = message.raw_data.contract[0]
    contract.ParseFromString(contract.SerializeToString() + b"\x28\x02")
    return message.SerializeToString()


@pytest.mark.parametrize(
    "name",
    [
        "second contract",
        "type url",
        "type",
        "second signature",
        "result",
        "memo",
        "permission",
        "high s",
        "short signature",
        "no signature",
        "cut",
        "empty",
        "long",
    ],
)
def test_bytes_in_any_other_form_are_refused(name):
    with pytest.raises(codec.InvalidTransaction):
        codec.decode(tampered(name))


def test_a_value_smuggled_into_a_call_breaks_a_rule():
    signed = codec.sign(intent(), KEY)
    assert {"value", "sender", "transaction id"} <= set(codec.broken_rules(intent(), replace(signed, raw=tampered("call value"))))


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused_and_nothing_else(raw):
    try:
        codec.decode(raw)
    except codec.InvalidTransaction:
        return
    raise AssertionError("random bytes carry no signature")


@given(
    recipient=accounts,
    units=st.integers(1, 2**63 - 1),
    attempt=st.integers(1, 2**63 - 1),
    native=st.booleans(),
    block=st.integers(0, 2**53),
)
def test_every_payment_survives_the_round_trip(recipient, units, attempt, native, block):
    it = intent(
        None if native else USDT,
        payments=(Payment(1, recipient, "", units),),
        attempt_id=attempt,
        terms=terms(ref_block=block) | ({} if native else {"fee_limit": 1}),
    )
    signed = codec.sign(it, KEY)
    assert codec.broken_rules(it, signed) == []
    assert Intent.from_json(it.to_json()) == it


# Addresses


BAD = {
    "spaces": " " + ALICE,
    "line break": ALICE + "\n",
    "an EVM address": "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "a Bitcoin address": "175tWpb8K1S7NmH4Zx6rewF9WQrcZv245W",
    "too short": ALICE[:-1],
    "too long": ALICE + "V",
    "a character that base58 lacks": ALICE[:-1] + "0",
    "a look-alike": ALICE[:-1] + "\u0474",
    "another checksum": ALICE[:-1] + "W",
    "lower case": ALICE.lower(),
    "nobody": NOBODY,
    "nobody in hexadecimal": "41" + "00" * 20,
    "short hexadecimal": "41" + "5c" * 19,
    "bad hexadecimal": "41" + "5g" * 20,
    "another network's prefix": "a0" + "5c" * 20,
    "nothing": "",
    "a name": "alice.trx",
    "very long": "T" * 100_000,
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_a_bad_address_is_refused_in_one_sentence(text):
    with pytest.raises(InvalidDestination) as refusal:
        codec.parse_address(text)
    assert str(refusal.value).endswith(".")
    assert "\n" not in str(refusal.value)


def independent(text):
    """Whether another library takes the text as an address."""
    try:
        return TrxAddrDecoder.DecodeAddr(text) != bytes(20)
    except ValueError:
        return False


@given(accounts, st.data())
def test_a_mutated_address_is_taken_exactly_when_another_decoder_takes_it(address, data):
    place = data.draw(st.integers(0, len(address) - 1))
    mutated = data.draw(
        st.sampled_from(
            [
                address,
                address[:place] + data.draw(st.characters(min_codepoint=33, max_codepoint=0x4FF)) + address[place + 1 :],
                address[:place] + address[place:].swapcase(),
                address[:place] + address[place + 1 :],
                address[:place] + address[place] + address[place:],
                address[:place] + address[place + 1 : place + 2] + address[place : place + 1] + address[place + 2 :],
            ]
        )
    )
    try:
        taken = codec.parse_address(mutated)
    except InvalidDestination:
        assert not independent(mutated)
    else:
        assert independent(mutated)
        assert taken == mutated


@given(st.binary(min_size=20, max_size=20).filter(any), st.integers(0, 255).filter(lambda prefix: prefix != 0x41))
def test_no_address_of_another_network_is_taken(body, prefix):
    with pytest.raises(InvalidDestination):
        codec.parse_address(base58.b58encode_check(bytes([prefix]) + body).decode())


# Logs


def log(**changes):
    fields = {
        "address": codec.account_hex(USDT)[2:],
        "topics": [codec.TRANSFER_TOPIC, "0" * 24 + codec.account_hex(HOT)[2:], "0" * 24 + codec.account_hex(ALICE)[2:]],
        "data": f"{5_000_000:064x}",
    }
    return fields | changes


def test_exactly_the_transfer_that_was_meant_is_counted():
    assert codec.exact_transfer_count([log(), log(data=f"{1:064x}")], USDT, HOT, ALICE, 5_000_000) == 1
    assert codec.exact_transfer_count([log(), log()], USDT, HOT, ALICE, 5_000_000) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "00" * 20},
        {"address": codec.account_hex(USDT)},
        {"address": None},
        {"topics": None},
        {"topics": log()["topics"][:2]},
        {"topics": [*log()["topics"], "00" * 32]},
        {"topics": ["00" * 32, *log()["topics"][1:]]},
        {"topics": [codec.TRANSFER_TOPIC, log()["topics"][2], log()["topics"][1]]},
        {"topics": [codec.TRANSFER_TOPIC, "1" + log()["topics"][1][1:], log()["topics"][2]]},
        {"topics": [codec.TRANSFER_TOPIC, 5, log()["topics"][2]]},
        {"data": f"{4_999_999:064x}"},
        {"data": ""},
        {"data": log()["data"] * 2},
        {"data": None},
    ],
)
def test_anything_else_is_not_the_transfer(changes):
    assert codec.exact_transfer_count([log(**changes)], USDT, HOT, ALICE, 5_000_000) == 0


def test_the_events_topic_is_the_hash_of_its_signature():
    """A typing error here was found by TRON's box, which computes it: every payment of a token went to a person."""
    assert keccak.new(digest_bits=256, data=b"Transfer(address,address,uint256)").hexdigest() == codec.TRANSFER_TOPIC
