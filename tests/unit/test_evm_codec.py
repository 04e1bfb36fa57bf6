"""The EVM codec against published vectors, and against eth-account, which we did not write."""

from dataclasses import replace

import coincurve
import eth_abi
import pytest
import rlp
from eth_account import Account
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from penstock.core.intent import Intent, Payment
from penstock.rails.base import InvalidDestination
from penstock.rails.evm import codec

# https://eips.ethereum.org/EIPS/eip-55 (test cases)
EIP_55 = [
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0x8617E340B3D01FA5F11F306F4090FD50E238070D",
    "0xde709f2102306220921060314715629080e2fb77",
    "0x27b1fdb04752bbc536007a920d24acb045561c26",
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
]

# https://eips.ethereum.org/EIPS/eip-155 (example); its private key is 0x46 32 times
EIP_155_KEY = b"\x46" * 32
EIP_155 = codec.UnsignedTransaction(
    type=0,
    chain_id=1,
    nonce=9,
    max_priority_fee_per_gas=20 * 10**9,
    max_fee_per_gas=20 * 10**9,
    gas_limit=21_000,
    to="0x" + "35" * 20,
    value=10**18,
    data=b"",
)
EIP_155_UNSIGNED = "ec098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a764000080018080"
EIP_155_HASH = "daf5a779ae972f972197303d7b574746c7ef83eadac0f2791ad23db92e4c8e53"
EIP_155_R = 18515461264373351373200002665853028612451056578545711640558177340181847433846
EIP_155_S = 46948507304638947509940763649030358759909902576025900602547168820602576006531
EIP_155_RAW = (
    "f86c098504a817c800825208943535353535353535353535353535353535353535880de0b6b3a76400008025"
    "a028ef61340bd939bc2195fe537567866003e1a15d3c71ff63e1590620aa636276"
    "a067cbe9d8997f761aecb703304b3800ccf555c9f3dc64214b297fb1966a3b6d83"
)

# https://github.com/ethereumjs/ethereumjs-monorepo/blob/master/packages/tx/test/json/eip1559.json (first, second and eighth case;
# there wrapped in an RLP string, and "maxInclusionFeePerGas" is today's priority fee), chain id 7822
EIP_1559_KEY = bytes.fromhex("8f2a55949038a9610f50fb23b5883af3b4ecb3c3bb792cbcefbd1542c692be63")
EIP_1559 = [
    (
        (819, 75853, 121212, 35552, 43203529),
        (
            "02f870821e8e8203338301284d8301d97c828ae094000000000000000000000000000000000000aaaa8402933bc980c080"
            "a0d067f2167008c59219652f91cbf8788dbca5f771f6e91e2b7657e85b78b472e0"
            "a01d305af9fe81fdba43f0dfcd400ed24dcace0a7e30d4e85701dcaaf484cd079e"
        ),
    ),
    (
        (353, 38850, 136295, 32593, 61901619),
        (
            "02f86f821e8e8201618297c283021467827f5194000000000000000000000000000000000000aaaa8403b08b3380c001"
            "a004205678f13fc1d7b10feea6513dfa76e24418b6e08097d95c6f93a3b64e536d"
            "a01d45ad61bfece43862de2cce7d2575a8c1d08c26c87f3cb5f26d7b0be54a91b2"
        ),
    ),
    (
        (709, 86252, 94636, 28335, 6478043),
        (
            "02f86f821e8e8202c5830150ec830171ac826eaf94000000000000000000000000000000000000aaaa8362d8db80c001"
            "a09880d133cd636f8c8dce32e2c43494b9f2dc000eee8dc61931e09f866ed04b46"
            "a00e44d5c503c7f08b36c8b062c32a963f3dd20a71e95e3d903bfbe7f4da47cd47"
        ),
    ),
]

SENDER = codec.address_of_public_key(coincurve.PrivateKey(EIP_155_KEY).public_key.format())
RECIPIENT = EIP_55[4]
CONTRACT = EIP_55[5]


def sign(transaction: codec.UnsignedTransaction, key: bytes = EIP_155_KEY) -> bytes:
    signature = coincurve.PrivateKey(key).sign_recoverable(codec.signing_hash(transaction), hasher=None)
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    return codec.encode_signed(transaction, signature[64], r, s)


def pay(**changes) -> Intent:
    intent = Intent(
        attempt_id=1,
        version=1,
        kind="pay",
        chain="ETH",
        family="evm",
        chain_id=7_300_001,
        sender=SENDER,
        slot=5,
        token_id="token",
        contract=None,
        payments=(Payment(order_id=1, recipient=RECIPIENT, memo="", units=7),),
        terms={"gas_limit": 21_000, "max_fee_per_gas": 30, "max_priority_fee_per_gas": 2},
        fee_cap=630_000,
    )
    return structs.replace(intent, **changes)


# Addresses


@pytest.mark.parametrize("address", EIP_55)
def test_checksums_of_the_eip(address):
    assert codec.checksum(address.lower()) == address
    assert codec.checksum("0x" + address[2:].upper()) == address
    assert codec.parse_address(address) == address
    assert codec.parse_address(address.lower()) == address
    assert codec.parse_address("0x" + address[2:].upper()) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begin with 0x"),
        (RECIPIENT[2:], "begin with 0x"),
        ("0X" + RECIPIENT[2:], "small x"),
        (RECIPIENT[:-1], "39 digits after 0x where 40"),
        (RECIPIENT + "0", "41 digits"),
        ("0x" + "g" * 40, "only 0-9 and a-f"),
        (RECIPIENT.replace("A", "a", 1), "mistyped"),
        (RECIPIENT.swapcase().replace("0X", "0x"), "mistyped"),
        (RECIPIENT[:-1] + "e", "mistyped"),
        (codec.ZERO_ADDRESS, "zero address"),
        ("vitalik.eth", "names are not resolved; give the 0x address"),
        ("pay.someone.example", "names are not resolved"),
        ("0xme.eth", "names are not resolved"),
        (RECIPIENT.replace("a", "\N{CYRILLIC SMALL LETTER A}"), "not a plain ASCII"),  # noqa: RUF100
        (RECIPIENT.replace("0", "\N{FULLWIDTH DIGIT ZERO}"), "not a plain ASCII"),
        ("0x" + "\N{ARABIC-INDIC DIGIT ONE}" * 40, "not a plain ASCII"),
        (RECIPIENT[:10] + " " + RECIPIENT[11:], "not a plain ASCII"),
        (" " + RECIPIENT, "space"),
        (RECIPIENT + "\n", "space"),
        ("TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", "begin with 0x"),
    ],
)
def test_a_wrong_address_is_refused_in_one_sentence(text, words):
    with pytest.raises(InvalidDestination) as refused:
        codec.parse_address(text)
    sentence = str(refused.value)
    assert words in sentence
    assert sentence.endswith(".")
    assert len(sentence) < 200
    assert RECIPIENT not in sentence, "the right checksum is not offered: the mistake may be in the digits"


@given(st.text(max_size=60) | st.from_regex(r"0x[0-9a-fA-F]{39,41}", fullmatch=True))
def test_any_text_is_an_address_or_refused(text):
    try:
        parsed = codec.parse_address(text)
    except InvalidDestination:
        return
    assert parsed.lower() == text.lower()
    assert codec.checksum(text) == parsed


def test_the_account_of_a_key_is_that_of_eth_account():
    for number in (1, 2, 0xDEADBEEF):
        key = number.to_bytes(32, "big")
        public = coincurve.PrivateKey(key).public_key
        assert codec.address_of_public_key(public.format()) == Account.from_key(key).address
        assert codec.address_of_public_key(public.format(compressed=False)) == Account.from_key(key).address
    with pytest.raises(ValueError):
        codec.address_of_public_key(b"\x04" + b"\1" * 64)


# Token calls and logs


@given(st.binary(min_size=20, max_size=20), st.integers(0, codec.UINT256_MAX))
def test_token_calls_are_the_abi(recipient, units):
    address = "0x" + recipient.hex()
    # selectors: https://www.4byte.directory/signatures/?bytes4_signature=0xa9059cbb and 0x70a08231
    assert codec.transfer_call_data(address, units) == bytes.fromhex("a9059cbb") + eth_abi.encode(["address", "uint256"], [address, units])
    assert codec.balance_of_call_data(address) == bytes.fromhex("70a08231") + eth_abi.encode(["address"], [address])


@given(st.binary(max_size=200))
def test_the_question_to_the_gas_price_oracle_is_the_abi(unsigned):
    # selector: https://www.4byte.directory/signatures/?bytes4_signature=0x49948e0e
    assert codec.get_l1_fee_call_data(unsigned) == bytes.fromhex("49948e0e") + eth_abi.encode(["bytes"], [unsigned])


def test_a_call_answers_one_word_or_nothing_we_believe():
    assert codec.decode_uint256("0x" + "0" * 62 + "ff") == 255
    assert codec.decode_uint256(b"\0" * 31 + b"\1") == 1
    for answer in ("0x", "0x00", "00" * 32, "0x" + "00" * 33, b""):
        with pytest.raises(ValueError):
            codec.decode_uint256(answer)


def transfer_log(**changes):
    log = {
        "address": CONTRACT.lower(),
        "topics": [codec.TRANSFER_TOPIC, "0x" + "0" * 24 + SENDER[2:].lower(), "0x" + "0" * 24 + RECIPIENT[2:].lower()],
        "data": "0x" + "0" * 63 + "7",
        "removed": False,
    }
    return {**log, **changes}


def test_the_transfer_event_is_read_exactly():
    # https://www.4byte.directory/event-signatures/?bytes_signature=0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef
    assert codec.TRANSFER_TOPIC == "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
    assert codec.exact_transfers([transfer_log()], CONTRACT, SENDER, [(RECIPIENT, 7)])


@pytest.mark.parametrize(
    "changes",
    [
        {"topics": transfer_log()["topics"][:2]},
        {"topics": [*transfer_log()["topics"], "0x" + "00" * 32]},
        {"topics": ["0x" + "00" * 32, *transfer_log()["topics"][1:]]},
        {"topics": [codec.TRANSFER_TOPIC, "0x01" + "0" * 22 + SENDER[2:], transfer_log()["topics"][2]]},
        {"topics": None},
        {"topics": [1, 2, 3]},
        {"data": "0x"},
        {"data": "0x" + "00" * 64},
        {"data": "0x" + "0" * 62 + "7"},
        {"data": "0" * 63 + "7"},
        {"data": None},
        {"address": None},
        {"address": CONTRACT[2:]},
        {"removed": True},
    ],
)
def test_anything_else_is_no_transfer(changes):
    assert not codec.exact_transfers([transfer_log(**changes)], CONTRACT, SENDER, [(RECIPIENT, 7)])


def test_each_payment_has_its_transfer_as_often_as_it_is_paid():
    seven, eight = (RECIPIENT, 7), (RECIPIENT, 8)
    logs = [transfer_log(), transfer_log(data="0x" + "0" * 63 + "8"), transfer_log(address=RECIPIENT), transfer_log()]
    assert codec.exact_transfers(logs, CONTRACT.lower(), SENDER, [seven, eight, seven])
    for others in ([seven], [seven, eight], [seven, seven, seven, eight], [seven, seven, eight, eight], [(SENDER, 7)]):
        assert not codec.exact_transfers(logs, CONTRACT, SENDER, others)
    assert not codec.exact_transfers(logs, CONTRACT, RECIPIENT, [seven, eight, seven])


# Transactions


def test_the_example_of_eip_155():
    assert codec.encode_unsigned(EIP_155).hex() == EIP_155_UNSIGNED
    assert codec.signing_hash(EIP_155).hex() == EIP_155_HASH
    assert codec.encode_signed(EIP_155, 0, EIP_155_R, EIP_155_S).hex() == EIP_155_RAW
    assert sign(EIP_155).hex() == EIP_155_RAW
    decoded = codec.decode(bytes.fromhex(EIP_155_RAW), chain_id=1)
    assert (decoded.unsigned.nonce, decoded.r, decoded.s, decoded.y_parity) == (9, EIP_155_R, EIP_155_S, 0)
    assert decoded.sender == Account.from_key(EIP_155_KEY).address


@pytest.mark.parametrize(("numbers", "raw"), EIP_1559)
def test_published_transactions_of_type_2(numbers, raw):
    nonce, priority, fee, gas, value = numbers
    to = codec.checksum("0x" + "0" * 36 + "aaaa")
    transaction = codec.UnsignedTransaction(2, 7822, nonce, priority, fee, gas, to, value, b"")
    assert sign(transaction, EIP_1559_KEY).hex() == raw
    decoded = codec.decode(bytes.fromhex(raw), chain_id=7822)
    assert decoded.unsigned == transaction
    assert decoded.sender == Account.from_key(EIP_1559_KEY).address


fees = st.tuples(st.integers(0, 2**96), st.integers(0, 2**96)).map(sorted)
transactions = st.builds(
    lambda type_, chain_id, nonce, fee, gas, to, value, data: codec.UnsignedTransaction(
        type_, chain_id, nonce, fee[0] if type_ else fee[1], fee[1], gas, codec.checksum("0x" + to.hex()), value, data
    ),
    st.sampled_from([0, 2]),
    st.integers(1, 2**53),
    st.integers(0, codec.NONCE_MAX),
    fees,
    st.integers(21_000, 2**40),
    st.binary(min_size=20, max_size=20),
    st.integers(0, 2**128),
    st.binary(max_size=100),
)
keys = st.integers(1, codec.SECP256K1_ORDER - 1).map(lambda number: number.to_bytes(32, "big"))


@given(transactions, keys)
def test_signed_bytes_and_ids_are_those_of_eth_account(transaction, key):
    content = {
        "chainId": transaction.chain_id,
        "nonce": transaction.nonce,
        "gas": transaction.gas_limit,
        "to": transaction.to,
        "value": transaction.value,
        "data": transaction.data,
    }
    if transaction.type == 0:
        content["gasPrice"] = transaction.max_fee_per_gas
    else:
        content |= {"maxFeePerGas": transaction.max_fee_per_gas, "maxPriorityFeePerGas": transaction.max_priority_fee_per_gas}
    theirs = Account.sign_transaction(content, key)
    ours = sign(transaction, key)
    assert ours == bytes(theirs.raw_transaction)
    assert codec.transaction_id(ours) == "0x" + bytes(theirs.hash).hex()
    decoded = codec.decode(ours, chain_id=transaction.chain_id)
    assert decoded.unsigned == transaction
    assert decoded.sender == Account.from_key(key).address
    assert decoded.txid == codec.transaction_id(ours)
    assert decoded.raw == ours


@given(transactions, st.integers(0, 7), st.data())
def test_a_changed_bit_is_refused_or_another_transaction(transaction, bit, data):
    raw = sign(transaction)
    changed = bytearray(raw)
    changed[data.draw(st.integers(0, len(raw) - 1))] ^= 1 << bit
    try:
        decoded = codec.decode(bytes(changed))
    except codec.InvalidTransaction:
        return
    assert codec.encode_signed(decoded.unsigned, decoded.y_parity, decoded.r, decoded.s) == bytes(changed)
    assert (decoded.sender, decoded.unsigned) != (SENDER, transaction)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_transaction_or_refused(raw):
    with pytest.raises(codec.InvalidTransaction):
        codec.decode(raw)


def refused(raw: bytes, chain_id: int | None = None) -> str:
    with pytest.raises(codec.InvalidTransaction) as error:
        codec.decode(raw, chain_id)
    return str(error.value)


def test_what_no_node_takes_is_refused():
    raw = bytes.fromhex(EIP_155_RAW)
    items = rlp.decode(raw)
    high_s = (codec.SECP256K1_ORDER - EIP_155_S).to_bytes(32, "big")
    assert "EIP-2" in refused(rlp.encode([*items[:6], b"\x26", items[7], high_s]))
    with pytest.raises(codec.InvalidTransaction, match="EIP-2"):
        codec.encode_signed(EIP_155, 1, EIP_155_R, codec.SECP256K1_ORDER - EIP_155_S)
    assert "replay-protected" in refused(rlp.encode([*items[:6], b"\x1b", *items[7:]]))
    assert "invalid chain id for signer: have 1 want 7300001" in refused(raw, 7_300_001)
    assert "canonical" in refused(raw + b"\0")
    assert "canonical" in refused(raw[:-1])
    assert "zero byte" in refused(rlp.encode([b"\0" + items[0], *items[1:]]))
    assert "9 fields" in refused(rlp.encode(items[:8]))
    assert "20 bytes" in refused(rlp.encode([*items[:3], items[3][:19], *items[4:]]))
    assert "zero byte" in refused(rlp.encode([[items[0]], *items[1:]]))
    assert "type not supported" in refused(b"\x01" + raw)
    assert "type not supported" in refused(b"\x03" + raw)
    assert "canonical" in refused(b"\xf8\x02\x01\x02"), "long form of a short list"
    assert "1 to" in refused(b"")
    assert "1 to" in refused(b"\xf8" * (codec.RAW_BYTES_MAX + 1))
    assert refused(b"\xc1" * 100_000)
    listed = rlp.decode(bytes.fromhex(EIP_1559[0][1])[1:])
    listed[8] = [[b"\1" * 20, []]]
    assert "access lists" in refused(b"\x02" + rlp.encode(listed))


def test_the_creation_of_a_contract_is_decoded():
    raw = sign(replace(EIP_155, to=None, data=b"\x60\x00"))
    assert codec.decode(raw).unsigned.to is None


# Intents


def test_native_coin_goes_as_value():
    transaction = codec.build(pay())
    assert transaction == codec.UnsignedTransaction(2, 7_300_001, 5, 2, 30, 21_000, RECIPIENT, 7, b"")


def test_a_token_goes_as_a_call_of_its_contract():
    transaction = codec.build(pay(contract=CONTRACT, terms={"gas_limit": 60_000, "gas_price": 10}))
    assert (transaction.type, transaction.to, transaction.value) == (0, CONTRACT, 0)
    assert transaction.data == codec.transfer_call_data(RECIPIENT, 7)
    assert transaction.fee_max == 600_000


def test_a_cancel_sends_nothing_to_the_sender():
    for contract in (None, CONTRACT):
        transaction = codec.build(pay(kind="cancel", contract=contract))
        assert (transaction.to, transaction.value, transaction.data, transaction.nonce) == (SENDER, 0, b"", 5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fee_cap": 629_999}, "above its cap of 629999"),
        ({"terms": {"gas_limit": 21_000, "gas_price": 30, "l1_fee": 1}}, "above its cap"),
        ({"terms": {"gas_limit": 21_000}}, "terms are"),
        ({"terms": {"gas_limit": 21_000, "gas_price": 30, "max_fee_per_gas": 30, "max_priority_fee_per_gas": 2}}, "terms are"),
        ({"terms": {"gas_limit": 21_000, "gas_price": -30}}, "terms are"),
        ({"terms": {"gas_limit": 21_000, "gas_price": True}}, "terms are"),
        ({"terms": {"gas_limit": 20_999, "gas_price": 30}}, "less than 21000"),
        ({"terms": {"gas_limit": 21_000, "max_fee_per_gas": 1, "max_priority_fee_per_gas": 2}}, "higher than"),
        ({"family": "tron"}, "of the family evm"),
        ({"payments": ()}, "one at least"),
        ({"payments": pay().payments * 2, "contract": None}, "pays a token"),
        ({"payments": (structs.replace(pay().payments[0], units=0),)}, "from 1 to"),
        ({"payments": (structs.replace(pay().payments[0], units=2**256),)}, "from 1 to"),
        ({"payments": (structs.replace(pay().payments[0], recipient=codec.ZERO_ADDRESS),)}, "zero address"),
        ({"contract": "USDT"}, "begin with 0x"),
        ({"sender": ""}, "begin with 0x"),
        ({"kind": "mint"}, "it does not mint"),
        ({"slot": -1}, "nonce"),
        ({"slot": 2**64 - 1}, "nonce"),
        ({"chain_id": 0}, "chain id"),
    ],
)
def test_what_an_intent_must_not_say(changes, words):
    with pytest.raises(ValueError, match=words):
        codec.build(pay(**changes))


def test_the_l1_fee_counts_against_the_cap_and_is_not_in_the_bytes():
    terms = {**pay().terms, "l1_fee": 5}
    assert codec.build(pay(terms=terms, fee_cap=630_005)) == codec.build(pay())


def test_the_same_intent_is_the_same_bytes():
    assert sign(codec.build(Intent.from_json(pay().to_json()))) == sign(codec.build(pay()))
