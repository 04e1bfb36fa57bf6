"""What merchants see of an order: fields, JSON types and texts of answers, order information and webhooks (spec 4.1, 4.2, 7.2, 16)."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from penstock.core import wire
from penstock.core.money import LEDGER_DECIMALS, parse_units
from penstock.core.order import Order, OrderState, WireStatus
from penstock.core.snowflake import from_wire
from tests.fixtures.not_run import not_run

USDT = "8e5741cf-6e51-4892-9d04-3d40e1dd0128"
TXID = "0xfdcb291148cf201a40afffcfd56fab4061ec90bdc54b7e1121405336003b2c29"


def units(text):
    return parse_units(text, LEDGER_DECIMALS)


# The base document's second example: on POLYGON, the merchant pays, 126 seconds from creation to payment.
OUTSIDE = Order(
    id=from_wire("202311110049091723140772755197952"),
    record_id=from_wire("202311110049091723140772755197952") + (3 << 22),
    merchant_id=1,
    merchant_order_id="po_2Y0Xr931AUUskX4azBtIzE6qHPX",
    payer="m:1",
    recipient="",
    address="0x52908400098527886E0F7030069857D2E4169EE7",
    destination="0x52908400098527886E0F7030069857D2E4169EE7",
    memo="",
    token_id="token",
    coin_id=USDT,
    crypto="USDT",
    chain="POLYGON",
    contract="0xc2132d05d31c914a87c6611c10748aeb04b58e8f",
    merchant_pays_fee=True,
    value=units("0.001"),
    fee=units("0.046957"),
    net=units("0.001"),
    reserve=units("0.047957"),
    fee_usd="0.05",
    token_rate="1",
    native_rate="0.7",
    gas_quoted=10**15,
    state=OrderState.ACCEPTED,
    wire=WireStatus.PENDING,
    hold_reason="",
    fail_reason="",
    txid="",
    decided_at_ms=None,
)
SUCCEEDED = replace(OUTSIDE, state=OrderState.SUCCEEDED, wire=WireStatus.SUCCESSFUL, txid=TXID, decided_at_ms=1_699_663_875_999)
FAILED = replace(OUTSIDE, state=OrderState.FAILED, wire=WireStatus.FAILED, fail_reason="reverted", decided_at_ms=1_699_663_875_999)
INTERNAL = replace(
    OUTSIDE, id=from_wire("202310310658501719247540351442944"), merchant_order_id="1698735528116569", recipient="u:9454818", address="9454818",
    destination="", chain="TRX", contract="TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t", merchant_pays_fee=False, value=units("1"), fee=0, net=units("1"),
    reserve=0, fee_usd="0", state=OrderState.SUCCEEDED, wire=WireStatus.SUCCESSFUL, decided_at_ms=1_698_735_530_123,
)  # fmt: skip
ALL = [
    OUTSIDE,
    replace(OUTSIDE, state=OrderState.CONFIRMING, wire=WireStatus.PROCESSING, txid=TXID),
    SUCCEEDED,
    FAILED,
    replace(FAILED, txid=TXID),
    INTERNAL,
]


def shape(value):
    """Fields and JSON types, nested."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shape(inner) for inner in value]
    return type(value)


def test_the_answer_to_a_withdrawal():
    answer = wire.withdraw_data(OUTSIDE)
    assert answer == {
        "order_id": "202311110049091723140772755197952",
        "record_id": "202311110049091723140772767780864",
        "network_fee": "0.046957",
        "network_coin_id": USDT,
        "network_fee_crypto": "USDT",
        "network_symbol": "USDT",
        "network_fee_value": "0.05",
        "net_receivable": "0.001",
    }
    assert set(shape(answer).values()) == {str}


def test_the_answer_is_the_same_whatever_happened_since():
    assert {wire.compact(wire.withdraw_data(order)) for order in (OUTSIDE, SUCCEEDED, FAILED)} == {
        wire.compact(wire.withdraw_data(OUTSIDE))
    }


def test_an_internal_answer_has_no_fee():
    answer = wire.withdraw_data(INTERNAL)
    assert (answer["network_fee"], answer["network_fee_value"], answer["net_receivable"]) == ("0", "0", "1")


@pytest.mark.parametrize("order", ALL)
def test_order_information_has_every_field_in_its_type(order):
    detail = {
        "merchant_order_id": str, "order_id": str, "chain": str, "contract": str, "crypto": str, "order_amount": str, "token_rate": str,
        "status": str, "created": int,
    }  # fmt: skip
    trade = {
        "amount": str, "chain": str, "contract": str, "crypto": str, "service_fee": str, "network_fee": str, "network_coin_id": str,
        "network_fee_crypto": str, "network_fee_value": str, "txid": str, "pay_time": int, "token_rate": str, "status": str,
    }  # fmt: skip
    assert shape(wire.bill_info(order)) == {"order_detail": detail, "trade_list": [trade]}


def test_order_information_of_the_base_documents_payout_on_chain():
    info = wire.bill_info(SUCCEEDED)
    trade = info["trade_list"][0]
    assert info["order_detail"] == {
        "merchant_order_id": "po_2Y0Xr931AUUskX4azBtIzE6qHPX", "order_id": "202311110049091723140772755197952", "chain": "POLYGON",
        "contract": "0xc2132d05d31c914a87c6611c10748aeb04b58e8f", "crypto": "USDT", "order_amount": "0.001", "token_rate": "1",
        "status": "Successful", "created": 1_699_663_749,
    }  # fmt: skip
    assert (trade["amount"], trade["network_fee"], trade["service_fee"]) == ("0.001", "0.046957", "0")
    assert (trade["txid"], trade["pay_time"], trade["status"]) == (TXID, 1_699_663_875, "Successful")


def test_order_information_of_the_base_documents_internal_payout():
    info = wire.bill_info(INTERNAL)
    trade = info["trade_list"][0]
    assert (info["order_detail"]["created"], trade["pay_time"]) == (1_698_735_530, 1_698_735_530)
    assert (trade["txid"], trade["network_fee"], trade["amount"]) == ("", "0", "1")


def test_while_it_is_under_way_the_trade_is_processing_unpaid_and_without_a_hash():
    pending, processing = (wire.bill_info(order) for order in ALL[:2])
    assert (pending["order_detail"]["status"], processing["order_detail"]["status"]) == ("Pending", "Processing")
    for info in (pending, processing):
        trade = info["trade_list"][0]
        assert (trade["status"], trade["txid"], trade["pay_time"], trade["amount"]) == ("Processing", "", 0, "0.001")


@pytest.mark.parametrize("txid", ["", TXID])
def test_a_failed_order_paid_nothing_and_cost_nothing(txid):
    info = wire.bill_info(replace(FAILED, txid=txid))
    trade = info["trade_list"][0]
    assert (info["order_detail"]["status"], info["order_detail"]["order_amount"], trade["status"]) == ("Failed", "0.001", "Failed")
    assert (trade["amount"], trade["network_fee"], trade["network_fee_value"]) == ("0", "0", "0")
    assert (trade["txid"], trade["pay_time"]) == (txid, 1_699_663_875)


@pytest.mark.parametrize("order", [SUCCEEDED, FAILED, INTERNAL])
def test_a_webhook_has_every_field_in_its_type(order):
    body = wire.webhook_body(order)
    assert list(body) == [
        "pay_status", "order_type", "order_id", "record_id", "withdraw_amount", "net_receivable", "network_fee", "network_fee_crypto",
        "network_coin_id", "network_fee_value", "chain", "contract", "crypto", "to_address", "memo", "txid", "merchant_order_id",
        "merchant_pays_fee",
    ]  # fmt: skip
    assert [name for name, value in body.items() if not isinstance(value, str)] == ["merchant_pays_fee"]
    assert isinstance(body["merchant_pays_fee"], bool)
    assert body["order_type"] == "API Withdrawal"


def test_the_webhook_of_a_payout_on_chain():
    body = wire.webhook_body(SUCCEEDED)
    assert (body["pay_status"], body["txid"], body["to_address"]) == ("success", TXID, OUTSIDE.address)
    assert (body["withdraw_amount"], body["net_receivable"], body["network_fee"]) == ("0.001", "0.001", "0.046957")


def test_the_webhook_of_an_internal_payout_says_so_in_the_txid():
    body = wire.webhook_body(INTERNAL)
    assert (body["pay_status"], body["txid"], body["to_address"], body["merchant_pays_fee"]) == (
        "success",
        "internal transfer",
        "9454818",
        False,
    )
    assert (body["withdraw_amount"], body["net_receivable"], body["network_fee"], body["network_fee_value"]) == ("1", "1", "0", "0")


def test_the_webhook_of_a_failure():
    body = wire.webhook_body(replace(FAILED, txid=TXID))
    assert (body["pay_status"], body["txid"]) == ("failed", TXID)
    assert (body["withdraw_amount"], body["net_receivable"], body["network_fee"], body["network_fee_value"]) == ("0.001", "0", "0", "0")


@pytest.mark.parametrize("order", ALL)
def test_both_places_agree_on_what_an_answer_said(order):
    answer, info, body = wire.withdraw_data(order), wire.bill_info(order), wire.webhook_body(order)
    assert answer["order_id"] == info["order_detail"]["order_id"] == body["order_id"]
    if order.wire is not WireStatus.FAILED:
        for name in ("network_fee", "network_coin_id", "network_fee_crypto", "network_fee_value"):
            assert answer[name] == info["trade_list"][0][name] == body[name]


def test_no_float_is_ever_printed():
    """The encoder would write one, and null for NaN: so none may ever be handed to it."""

    def refuse(text):
        raise AssertionError(text)

    for order in ALL:
        for value in (wire.withdraw_data(order), wire.bill_info(order), wire.webhook_body(order)):
            again = json.loads(json.dumps(value), parse_float=refuse, parse_constant=refuse)
            assert again == value


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


def test_every_character_there_is_stands_as_the_standard_library_writes_it():
    """Answers and webhooks are signed over these bytes, and stored events were written by either."""
    text = "".join(chr(point) for point in range(0x110000) if not 0xD800 <= point <= 0xDFFF)
    value = {text: [text, None, True, 2**80, WireStatus.FAILED, OrderState.HELD]}
    assert wire.compact(value) == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("point", [0xD800, 0xDBFF, 0xDC00, 0xDFFF])
def test_half_a_surrogate_pair_is_never_written(point):
    with pytest.raises(UnicodeEncodeError):
        wire.compact({"memo": f"a{chr(point)}b"})


@given(texts, texts, st.sampled_from(ALL))
def test_bytes_are_compact_raw_utf8_for_any_text(name, address, order):
    order = replace(order, merchant_order_id=name, address=address)
    raw = wire.compact(wire.webhook_body(order))
    again = json.loads(raw.decode("utf-8", "strict"))
    assert (again["merchant_order_id"], again["to_address"]) == (name, address)
    assert json.dumps(again, separators=(",", ":"), ensure_ascii=False).encode() == raw


def test_javascript_reads_and_writes_the_same_bytes():
    node = shutil.which("node")
    if node is None:
        not_run("the round trip of signed bodies through JavaScript: there is no node on this machine")
    nasty = "".join(map(chr, range(0x250))) + "\u2028\u2029\ufeff\ufffd\uffff\U0001f4b8 </script> \\/ \\u00e9 é ß 漢"
    bodies = [
        wire.compact({"code": 10000, "msg": "success", "data": call(replace(order, merchant_order_id=nasty, address=nasty))})
        for order in ALL
        for call in (wire.withdraw_data, wire.bill_info, wire.webhook_body)
    ]
    script = (
        "const lines = require('fs').readFileSync(0, 'utf8').split('\\n').filter(Boolean);"
        "process.stdout.write(lines.map(l => JSON.stringify(JSON.parse(l))).join('\\n'))"
    )
    done = subprocess.run([node, "-e", script], input=b"\n".join(bodies), capture_output=True, check=True, timeout=60)
    assert done.stdout == b"\n".join(bodies)
