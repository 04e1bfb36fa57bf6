"""What goes out: bytes that JavaScript prints back unchanged, shapes of the vendor's documents, no body that works as a request."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from penstock.core.errors import Problem, Refused
from penstock.core.money import CoinAmount
from penstock.core.order import OrderState, WireStatus
from penstock.core.party import Account
from penstock.core.snowflake import from_wire
from penstock.core.wire import compact, webhook_body
from penstock.http.fields import SAFE_INTEGER_MAX
from tests.fixtures.api import CATALOG, ENDPOINTS, NOW_S, VALID, WITHDRAWAL, Api, an_order, units
from tests.fixtures.not_run import not_run

BASE = json.loads((Path(__file__).parent.parent / "vectors" / "base_documents.json").read_text())

NASTY = 'é "q" \\ / <b>&amp; \u2028 😀 \u00a0 \\u0041'


def busy(api: Api) -> Api:
    """A house with something to show in every answer."""
    for coin in CATALOG.coins():
        api.house.balances[coin.id] = CoinAmount.parse(coin, "1234567890.000000000000000001")
    api.house.people["9454818"] = Account(9454818, "ann@example.com", "é/😎")
    api.house.orders[1, "order-1"] = an_order(merchant_order_id="order-1")
    api.house.orders[1, "/é<&>😀"] = an_order(
        merchant_order_id="/é<&>😀",
        recipient="",
        fee=units("0.000000000000000001"),
        fee_usd="0.01",
        state=OrderState.FAILED,
        wire=WireStatus.FAILED,
    )
    return api


def bodies(api: Api) -> list[bytes]:
    """Every kind of body that goes out: each success, each refusal, each unsigned constant, webhooks."""
    busy(api)
    found = [api.post(path, VALID[path]).body for path in ENDPOINTS]
    found += [api.post("/bill/info", {"merchant_order_ids": ["/é<&>😀", "order-1"]}).body]
    found += [api.post("/coin/all", raw).body for raw in (b"\xff", b"{", b'{"' + b"\\u0061" * 3 + b'":1,"aaa":2}', b"[" * 5000, b"NaN")]
    found += [api.post("/withdraw", body).body for body in ({}, WITHDRAWAL | {"value": []}, WITHDRAWAL | {"value": NASTY})]
    found += [api.post("/coin/all", signature="0" * 64).body, api.send("GET", "/").body, api.post("/coin/all", b" " * 65_537).body]
    found += [api.post("/coin/all", timestamp="1600000000").body, api.get("/readyz").body, api.get("/healthz").body]
    for problem in Problem:
        api.house.raises = Refused(problem, NASTY)
        found.append(api.post("/withdraw", WITHDRAWAL | {"merchant_order_id": problem.name}).body)
    api.house.raises = None
    found += [compact(webhook_body(order)) for order in api.house.orders.values()]
    return found


def as_javascript_prints(value):
    """JSON.stringify, for what may go out at all."""
    match value:
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case int():
            assert abs(value) <= SAFE_INTEGER_MAX
            return str(value)
        case str():
            assert not re.search("[\ud800-\udfff]", value)
            escapes = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
            return '"' + "".join(escapes.get(c) or (f"\\u{ord(c):04x}" if c < " " else c) for c in value) + '"'
        case list():
            return "[" + ",".join(map(as_javascript_prints, value)) + "]"
        case dict():
            assert not any(re.fullmatch(r"0|[1-9][0-9]*", name) for name in value), "JavaScript puts such keys first"
            return "{" + ",".join(f"{as_javascript_prints(name)}:{as_javascript_prints(item)}" for name, item in value.items()) + "}"
        case _:
            raise AssertionError(f"{value!r} must not go out")


def test_each_body_is_what_javascript_prints_by_the_rules(api):
    for body in bodies(api):
        assert as_javascript_prints(json.loads(body)).encode() == body


def test_each_body_is_what_javascript_prints_in_node(api):
    node = shutil.which("node")
    if node is None:
        not_run("node is not installed: JSON.stringify(JSON.parse(body)) was compared by the rules alone")
    texts = [body.decode() for body in bodies(api)]
    program = (
        "const texts = JSON.parse(require('fs').readFileSync(0, 'utf8'));"
        "console.log(JSON.stringify(texts.map(text => JSON.stringify(JSON.parse(text)))));"
    )
    done = subprocess.run([node, "-e", program], input=json.dumps(texts), capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == texts


def test_no_body_that_we_sign_is_a_request(api):
    """Requests, answers and webhooks share one formula: what we signed would be validly signed if it came back (spec 1.3)."""
    signed = bodies(api)
    api.house.effects.clear()
    for body in signed:
        if body == b'{"status":"ok"}' or body.startswith(b'{"ready"'):
            continue  # operations, never signed
        for path in ENDPOINTS:
            reply = api.post(path, body)
            assert (reply.code, reply.is_signed) == (11000, True), (path, body)
    assert api.house.effects == []


@pytest.mark.parametrize("pair", [("code", "msg"), ("pay_status", "order_type")])
@pytest.mark.parametrize("path", ENDPOINTS)
def test_two_words_at_the_top_are_enough_to_refuse(api, path, pair):
    first, second = pair
    assert api.post(path, {**VALID[path], first: None, second: ""}).msg.startswith("The body has the form of an answer or a webhook")
    assert api.post(path, {**VALID[path], first: 1, "inner": {second: 1}}).code in (10000, 11013)
    assert api.post(path, {**VALID[path], second: 1}).code in (10000, 11013)


# ----------------------------------------------------------------------------------------------------------------- envelope


@pytest.mark.parametrize("path", ENDPOINTS[:8] + ENDPOINTS[11:])
def test_a_success_is_exactly_code_msg_and_data(api, path):
    reply = busy(api).post(path, VALID[path])
    assert reply.body.startswith(b'{"code":10000,"msg":"success","data":')
    assert list(reply.json) == ["code", "msg", "data"]
    arrays = ("/bill/info", "/get/network/height/info")
    assert isinstance(reply.data, list if path in arrays else dict)


def test_a_failure_has_a_reason_a_sentence_and_null(api):
    reply = api.post("/withdraw")
    assert list(reply.json) == ["code", "reason", "msg", "data"]
    assert (type(reply.code), reply.json["data"]) == (int, None)
    assert reply.msg.endswith(".")


EXACT = {"code", "created", "pay_time", "status", "precision", "current_chain_height", "tx_confirm_block_num", "block_rate", "resend_count"}


def kinds(value, name=""):
    """(name, JSON type) of every leaf."""
    if isinstance(value, dict):
        return {pair for key, item in value.items() for pair in kinds(item, key)}
    if isinstance(value, list):
        return {pair for item in value for pair in kinds(item, name)}
    return {(name, type(value))}


@pytest.mark.parametrize("path", ENDPOINTS[:8] + ENDPOINTS[11:])
def test_only_the_documented_fields_are_numbers_or_booleans(api, path):
    """Spec 14.18. `status` is text in orders and a number in coin/all."""
    for name, kind in kinds(busy(api).post(path, VALID[path]).json):
        if kind is int:
            assert name in EXACT
        elif kind is bool:
            assert name in {"is_support_memo", "merchant_pays_fee"}
        else:
            assert kind is str
            assert name not in EXACT - {"status"}


# ---------------------------------------------------------------------------------------------------------- base documents


def assert_has_shape_of(ours, theirs, where="$"):
    """Every field of the example is there, with its JSON type."""
    assert type(ours) is type(theirs), where
    if isinstance(theirs, dict):
        for name, value in theirs.items():
            assert name in ours, f"{where}.{name}"
            assert_has_shape_of(ours[name], value, f"{where}.{name}")
    elif isinstance(theirs, list):
        for item in ours:
            assert_has_shape_of(item, theirs[0], f"{where}[]")


def order_of_example(example, **changes):
    """An order that must print as the base document's example does."""
    detail, (trade,) = example["order_detail"], example["trade_list"]
    order_id = from_wire(detail["order_id"].removeprefix("CP"))
    assert order_id is not None
    return an_order(
        id=order_id,
        merchant_order_id=detail["merchant_order_id"],
        **{name: detail[name] for name in ("chain", "contract", "crypto", "token_rate")},
        coin_id=trade["network_coin_id"],
        value=units(detail["order_amount"]),
        net=units(trade["amount"]),
        fee=units(trade["network_fee"]),
        fee_usd=trade["network_fee_value"],
        txid=trade["txid"],
        decided_at_ms=trade["pay_time"] * 1000,
        **changes,
    )


def test_the_documents_withdrawal_is_understood_and_answered_in_its_shape(api):
    reply = api.post("/withdraw", BASE["withdraw_request"])
    assert_has_shape_of(reply.json, BASE["withdraw_success"])
    request = api.house.effects[0]
    assert {name: getattr(request, name) for name in ("token_id", "address", "merchant_order_id", "merchant_pays_fee", "memo")} == {
        name: value for name, value in BASE["withdraw_request"].items() if name != "value"
    }
    assert request.value == units("10")


def test_the_documents_withdrawal_as_printed_is_not_json(api):
    reply = api.post("/withdraw", BASE["withdraw_request_as_printed"].encode())
    assert (reply.code, reply.is_signed) == (11000, True)
    assert "not valid JSON" in reply.msg


def test_the_documents_failure_has_our_shape(api):
    api.house.raises = Refused(Problem.SERVICE_ERROR, "Service error, please try again")
    reply = api.post("/withdraw", WITHDRAWAL)
    assert_has_shape_of(reply.json, BASE["withdraw_failure"])
    assert reply.code == BASE["withdraw_failure"]["code"]


def test_the_documents_order_information_is_reproduced_value_by_value(api):
    internal, outside = BASE["bill_info_success"]["data"]
    orders = [order_of_example(internal), order_of_example(outside, recipient="", merchant_pays_fee=True)]
    for order in orders:
        api.house.orders[1, order.merchant_order_id] = order
    reply = api.post("/bill/info", {"merchant_order_ids": [order.merchant_order_id for order in orders]})
    assert_has_shape_of(reply.json, BASE["bill_info_success"])
    # Ours has plain 33 digits where one example has the prefix CP (open point 24), and the withdrawn coin as the fee's (16.3).
    outside["order_detail"]["order_id"] = outside["order_detail"]["order_id"].removeprefix("CP")
    internal["trade_list"][0]["network_fee_crypto"] = "USDT"
    assert reply.data == [internal, outside]


def test_the_documents_order_request_is_understood(api):
    assert api.post("/bill/info", BASE["bill_info_request"]).data == []


# ---------------------------------------------------------------------------------------------------------------- every row


def codes(api: Api) -> set[int]:
    """What HTTP itself can say, without any room refusing."""
    api.limit(requests_per_second=1)
    replies = [api.post("/coin/all", client=(f"192.0.2.{n}", 1)) for n in (1, 1, 2)]
    api.limit()
    replies += [
        api.send("GET", "/"),
        api.post("/coin/all", signature="0" * 64),
        api.post("/coin/all", b"x"),
        api.post("/coin/all", extra=(("Content-Encoding", "br"),)),
        api.post("/coin/all", timestamp=str(NOW_S - 500)),
        api.post("/webhook/resend", {"start_timestamp": 1, "end_timestamp": 3602}),
        api.post("/bill/info", {"merchant_order_ids": ["a"] * 101}),
        api.post("/bill/create"),
        api.post("/network/fee", {"token_id": "x"}),
        api.post("/withdraw", WITHDRAWAL | {"value": "0.0000000000000000001"}),
        api.post("/check/user", {"c_id": "1"}),
    ]
    api.house.price = "0"
    replies += [api.post("/token/rate", VALID["/token/rate"])]
    return {reply.code for reply in replies}


def test_each_row_that_http_can_produce_by_itself(api):
    assert codes(api) == {10000, 11000, 11001, 11003, 11004, 11005, 11006, 11008, 11010, 11013, 13000, 14013, 224066, 224083}
