"""/withdraw and /bill/info: what is understood, what is refused, and with which words (spec 4.1, 4.2, 14, 16)."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.core.errors import Refused
from penstock.core.money import LEDGER_DECIMALS, plain
from penstock.core.order import OrderState, WireStatus
from penstock.core.party import Merchant, Secret
from penstock.core.withdrawal import WithdrawRequest
from penstock.http.strict_json import parse
from penstock.http.withdrawals import decode_order_ids, decode_withdraw
from tests.fixtures.api import SECRET, USDT_ETH, WITHDRAWAL, an_order, units

PLAIN = WithdrawRequest(
    merchant_order_id="order-1",
    address="9454818",
    token_id=USDT_ETH,
    value=units("10"),
    memo="",
    memo_is_number_zero=False,
    merchant_pays_fee=False,
)


def asked(api, body):
    """What the order room was asked for."""
    assert api.post("/withdraw", body).code == 10000
    return api.house.effects[-1]


def with_json(**fields):
    """A withdrawal whose fields are given as JSON text; None leaves one out."""
    members = {name: json.dumps(value) for name, value in WITHDRAWAL.items()} | fields
    return ("{" + ",".join(f'"{name}":{text}' for name, text in members.items() if text is not None) + "}").encode()


def test_a_withdrawal_is_handed_on_and_answered(api):
    reply = api.post("/withdraw", WITHDRAWAL)
    assert api.house.effects == [PLAIN]
    order = an_order(merchant_order_id="order-1")
    assert reply.data == {
        "order_id": "202310310658501719247540351442944",
        "record_id": "202310310658501719247540364025856",
        "network_fee": "0",
        "network_coin_id": order.coin_id,
        "network_fee_crypto": "USDT",
        "network_symbol": "USDT",
        "network_fee_value": "0",
        "net_receivable": "1",
    }
    assert api.post("/withdraw", WITHDRAWAL).body == reply.body


@pytest.mark.parametrize(
    "body",
    [
        # Java sends nulls and fields that its naming rules add; PHP and Go send empty strings; merchants send whatever.
        WITHDRAWAL | {"memo": None, "merchant_pays_fee": None},
        WITHDRAWAL | {"memo": "", "merchant_pays_fee": False},
        WITHDRAWAL | {"merchant_pays_fee": ""},
        WITHDRAWAL | {"merchant_pays_fee": 0},
        WITHDRAWAL | {"cid": "x", "app_id": "y", "notify_url": "", "remark": "", "order_valid_period": 0, "extend": {"a": [1, None]}},
        WITHDRAWAL | {"value": 10},
        WITHDRAWAL | {"address": 9454818},
        json.dumps(WITHDRAWAL, indent=4).encode(),
        json.dumps(WITHDRAWAL).replace("o", "\\u006f").encode(),
        json.dumps(WITHDRAWAL).replace("-", "\\u002d").encode(),
    ],
)
def test_sdk_quirks_mean_the_same_request(api, body):
    assert asked(api, body) == PLAIN


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"10"', "10"),
        ('"10.0"', "10"),
        ('"0010.500"', "10.5"),
        ('"0.000000000000000001"', "0.000000000000000001"),
        ('"1.0000000000000000000000000"', "1"),
        ("10", "10"),
        ("10.50", "10.5"),
        ("0.1", "0.1"),
        ("12345678901234567890.123456789012345678", "12345678901234567890.123456789012345678"),
        ('"' + "9" * 59 + '"', "9" * 59),
    ],
)
def test_a_value_is_read_as_a_decimal_and_normalised(api, text, value):
    assert asked(api, with_json(value=text)).value == units(value)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (t, 11000)
        for t in ('"0"', '"0.00"', "0", '"-1"', "-1", '"+1"', '"1e3"', "1e3", "1E-2", '"1,000"', '" 1"', '"1 "', '"."', '"1."', '".5"')
    ]
    + [
        (t, 11000)
        for t in ('"\u0661"', '"0x10"', '"NaN"', '"1_000"', '"' + "9" * 60 + '"', "true", "[]", "{}", '"ten"', None, "null", '""')
    ]
    + [('"0.0000000000000000001"', 14013), ("0.1234567890123456789", 14013)],
)
def test_anything_else_is_no_value(api, text, code):
    reply = api.post("/withdraw", with_json(value=text))
    assert reply.code == code
    assert reply.msg.startswith("value ")
    assert api.house.effects == []


@pytest.mark.parametrize(
    ("text", "memo", "is_number_zero"),
    [
        (None, "", False),
        ("null", "", False),
        ('""', "", False),
        ('"0"', "0", False),
        ("0", "", True),
        ('"573049"', "573049", False),
        ("573049", "573049", False),
        ('"000573049"', "000573049", False),
        ("18446744073709551615", "18446744073709551615", False),
        ('"a memo, with spaces"', "a memo, with spaces", False),
        ('" "', " ", False),
    ],
)
def test_a_memo_is_text_whatever_its_type(api, text, memo, is_number_zero):
    request = asked(api, with_json(memo=text))
    assert (request.memo, request.memo_is_number_zero) == (memo, is_number_zero)


@pytest.mark.parametrize("text", ["-1", "1.5", "1e3", "-0", "0.0", "true", "false", "[]", "{}", '"' + "m" * 257 + '"', '"\\u2028"'])
def test_anything_else_is_no_memo(api, text):
    reply = api.post("/withdraw", with_json(memo=text))
    assert (reply.code, reply.msg.split()[0]) == (11000, "memo")


@pytest.mark.parametrize(("text", "flag"), [(None, False), ("null", False), ("false", False), ("true", True), ('""', False), ("0", False)])
def test_who_pays_the_fee(api, text, flag):
    assert asked(api, with_json(merchant_pays_fee=text)).merchant_pays_fee is flag


@pytest.mark.parametrize("text", ["1", '"true"', '"false"', '"0"', "[]", "{}", "0.0"])
def test_who_pays_the_fee_is_never_guessed(api, text):
    reply = api.post("/withdraw", with_json(merchant_pays_fee=text))
    assert (reply.code, reply.msg.split()[0]) == (11000, "merchant_pays_fee")
    assert api.house.effects == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('"1"', "1"),
        ('"12345"', "12345"),
        ('"po_2Y0Xr931AUUskX4azBtIzE6qHPX"', "po_2Y0Xr931AUUskX4azBtIzE6qHPX"),
        ('"' + "a" * 64 + '"', "a" * 64),
        ('" a "', " a "),
        ('"Ünï çødé 1"', "Ünï çødé 1"),
        ('"' + "😀" * 64 + '"', "😀" * 64),
        ("0", "0"),
        ("12345", "12345"),
        ("9007199254740991", "9007199254740991"),
    ],
)
def test_an_order_id_is_kept_to_the_letter(api, text, name):
    assert asked(api, with_json(merchant_order_id=text)).merchant_order_id == name
    assert api.post("/bill/info", ('{"merchant_order_ids":[' + text + "]}").encode()).data[0]["order_detail"]["merchant_order_id"] == name


@pytest.mark.parametrize(
    "text",
    [
        None,
        "null",
        '""',
        '"' + "a" * 65 + '"',
        "9007199254740992",
        "-1",
        "1.0",
        "1e3",
        "true",
        "[]",
        '["a"]',
        "{}",
        '"a\\u200bb"',
        '"\\u2029"',
    ],
)
def test_anything_else_is_no_order_id(api, text):
    reply = api.post("/withdraw", with_json(merchant_order_id=text))
    assert (reply.code, reply.msg.split()[0]) == (11000, "merchant_order_id")
    assert "1 to 64 printable characters" in reply.msg
    assert api.house.effects == []


@pytest.mark.parametrize("address", ["Ann@Example.com", " ann@example.com ", "0xabc", "  0xabc", "lnbc1" + "q" * 2000, "名前@例.jp"])
def test_an_address_is_handed_on_as_it_was_given(api, address):
    assert asked(api, WITHDRAWAL | {"address": address}).address == address


@pytest.mark.parametrize("field", ["address", "token_id"])
@pytest.mark.parametrize("text", [None, "null", '""', "true", "[]", "{}", "1.5", '"' + "a" * 2049 + '"', '"a\\u200eb"'])
def test_anything_else_is_no_address_or_token(api, field, text):
    reply = api.post("/withdraw", with_json(**{field: text}))
    assert (reply.code, reply.msg.split()[0]) == (11000, field)


def test_an_empty_body_names_the_first_field_that_is_missing(api):
    for body in (b"", b"{}"):
        assert api.post("/withdraw", body).msg == "merchant_order_id is missing: give your own id of 1 to 64 printable characters."


# ------------------------------------------------------------------------------------------------------- order information


def placed(api, *names, merchant=1):
    for name in names:
        api.house.orders[merchant, name] = an_order(merchant_id=merchant, merchant_order_id=name)


def names_in(reply):
    return [element["order_detail"]["merchant_order_id"] for element in reply.data]


def test_orders_come_in_the_order_of_the_request_each_once_and_unknown_ones_not_at_all(api):
    placed(api, "a", "b", "c")
    ids = ["c", "nobody", "a", "c", "", "x" * 65]
    assert names_in(api.post("/bill/info", {"merchant_order_ids": ids})) == ["c", "a"]
    assert api.post("/bill/info", {"merchant_order_ids": ["nobody"]}).data == []
    assert api.post("/bill/info", {"merchant_order_ids": [""]}).data == []


@pytest.mark.parametrize(
    "body",
    [
        {"merchant_order_ids": ["12"]},
        {"merchant_order_ids": [12]},
        {"merchant_order_ids": "12"},
        {"merchant_order_id": "12"},
        {"merchant_order_id": ["12"]},
        {"merchant_order_id": 12},
        {"merchant_order_ids": None, "merchant_order_id": "12"},
        {"merchant_order_ids": "", "merchant_order_id": "12"},
    ],
)
def test_both_names_and_forms_of_the_list_are_understood(api, body):
    placed(api, "12")
    assert names_in(api.post("/bill/info", body)) == ["12"]


def test_100_ids_pass_and_101_do_not_counted_raw(api):
    placed(api, "a")
    assert names_in(api.post("/bill/info", {"merchant_order_ids": ["a"] * 100})) == ["a"]
    reply = api.post("/bill/info", {"merchant_order_ids": ["a"] * 101})
    assert (reply.code, "101" in reply.msg) == (11010, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"merchant_order_ids": []},
        {"merchant_order_id": []},
        {"merchant_order_ids": None},
        {"merchant_order_ids": {}},
        {"merchant_order_ids": True},
        {"merchant_order_ids": [None]},
        {"merchant_order_ids": [True]},
        {"merchant_order_ids": [["a"]]},
        {"merchant_order_ids": [1.5]},
        {"merchant_order_ids": [2**53]},
        {"merchant_order_ids": ["a", {}]},
    ],
)
def test_anything_else_is_no_list_of_ids(api, body):
    reply = api.post("/bill/info", body)
    assert (reply.code, reply.msg.startswith("merchant_order_id")) == (11000, True)


def test_merchants_never_see_each_others_orders(api):
    other = "2" * 33
    api.house.merchants[other] = Merchant(2, "Other", other, (Secret(SECRET),), "")
    placed(api, "mine")
    placed(api, "same")
    api.house.orders[2, "same"] = an_order(merchant_id=2, merchant_order_id="same", value=units("7"))
    ask = {"merchant_order_ids": ["mine", "same"]}
    assert [e["order_detail"]["order_amount"] for e in api.post("/bill/info", ask).data] == ["1", "1"]
    assert [e["order_detail"]["order_amount"] for e in api.post("/bill/info", ask, app_id=other).data] == ["7"]


HASH = "0x" + "ab" * 32
OUTSIDE = an_order(recipient="", address="0xabc", fee=units("0.5"), net=units("9.5"), value=units("10"), fee_usd="0.50", decided_at_ms=None)


@pytest.mark.parametrize(
    ("state", "shown", "detail", "trade"),
    [
        (OrderState.ACCEPTED, WireStatus.PENDING, "Pending", ("Processing", "9.5", "0.5", "", 0)),
        (OrderState.SENDING, WireStatus.PROCESSING, "Processing", ("Processing", "9.5", "0.5", "", 0)),
        (OrderState.ACCEPTED, WireStatus.PROCESSING, "Processing", ("Processing", "9.5", "0.5", "", 0)),
        (OrderState.SUCCEEDED, WireStatus.SUCCESSFUL, "Successful", ("Successful", "9.5", "0.5", HASH, 1_698_735_600)),
        (OrderState.FAILED, WireStatus.FAILED, "Failed", ("Failed", "0", "0", HASH, 1_698_735_600)),
    ],
)
def test_each_state_as_merchants_see_it(api, state, shown, detail, trade):
    decided = 1_698_735_600_500 if shown >= WireStatus.SUCCESSFUL else None
    api.house.orders[1, "order-1"] = replace(OUTSIDE, state=state, wire=shown, txid=HASH, decided_at_ms=decided)
    (order,) = api.post("/bill/info", {"merchant_order_ids": ["order-1"]}).data
    (shown_trade,) = order["trade_list"]
    assert order["order_detail"]["status"] == detail
    assert tuple(shown_trade[name] for name in ("status", "amount", "network_fee", "txid", "pay_time")) == trade
    assert "refund_list" not in order


def test_an_internal_order_has_no_transaction_id_and_is_paid_in_the_second_it_was_made(api):
    placed(api, "order-1")
    (order,) = api.post("/bill/info", {"merchant_order_ids": ["order-1"]}).data
    assert order["trade_list"][0]["txid"] == ""
    assert order["trade_list"][0]["pay_time"] == order["order_detail"]["created"] == 1_698_735_530


# ----------------------------------------------------------------------------------------------------------------- any body


@given(st.integers(1, 10**40), st.integers(0, 6), st.integers(0, 6), st.booleans())
def test_every_amount_survives_decoding(amount, zeros_before, zeros_after, as_number):
    text = plain(amount, LEDGER_DECIMALS)
    whole, _, fraction = text.partition(".")
    written = text if as_number and len(whole) <= 20 else f'"{"0" * zeros_before}{whole}.{fraction or 0}{"0" * zeros_after}"'
    assert decode_withdraw(parse(with_json(value=written))).value == units(text)


some = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=70), st.lists(st.text(max_size=3), max_size=3))
names = ["merchant_order_id", "address", "token_id", "value", "memo", "merchant_pays_fee", "merchant_order_ids", "other"]


@given(st.dictionaries(st.sampled_from(names), some))
def test_any_fields_are_understood_or_refused_in_words(fields):
    for decode in (decode_withdraw, decode_order_ids):
        said = ""
        try:
            decode(parse(json.dumps(fields).encode()))
        except Refused as refused:
            said = refused.msg
        assert not said or (said.endswith(".") and len(said) < 200)
