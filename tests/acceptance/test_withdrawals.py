"""Withdrawals over the wire against the running program: what the answer, bill/info, the webhook, the chain and the books say of each."""

import json
import re
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.gateway import Gateway, Merchant, in_threads, ready, token_id, unique
from tests.fixtures.networks import AnvilChain, BoxChain, Chain, fresh_address

USDT, ETH = token_id("USDT", "ETH"), token_id("ETH", "ETH")
USDT_BSC, BNB = token_id("USDT", "BSC"), token_id("BNB", "BSC")
USDT_COIN = "8e5741cf-6e51-4892-9d04-3d40e1dd0128"

BASE = json.loads((Path(__file__).parents[1] / "vectors" / "base_documents.json").read_text())
PLAIN = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")
TXID = re.compile(r"0x[0-9a-f]{64}")
ORDER_ID = re.compile(r"[0-9]{33}")


@pytest.fixture(scope="module")
def merchant(gateway: Gateway) -> Merchant:
    return gateway.merchant(USDT="5000", ETH="50", BNB="50")


@pytest.fixture(scope="module")
def account(gateway: Gateway) -> tuple[str, str]:
    return gateway.account()


def assert_same_shape(ours: Any, theirs: Any, where: str = "$") -> None:
    """Every field of their example is in ours, with the same JSON type."""
    assert type(ours) is type(theirs), where
    if isinstance(theirs, dict):
        assert theirs.keys() <= ours.keys(), where
        for name, value in theirs.items():
            assert_same_shape(ours[name], value, f"{where}.{name}")
    elif isinstance(theirs, list):
        for item in ours:
            assert_same_shape(item, theirs[0], f"{where}[]")


# ------------------------------------------------------------------------------------------------------------ inside the house


@pytest.mark.parametrize("way", ["id", "e-mail"])
@pytest.mark.parametrize("pays_fee", [False, True])
def test_inside_the_house(gateway: Gateway, merchant: Merchant, account: tuple[str, str], way: str, pays_fee: bool) -> None:
    address = account[0] if way == "id" else account[1].upper()
    before = Decimal(merchant.balance("USDT"))
    name = unique("inside")
    reply = merchant.withdraw(
        merchant_order_id=name, address=address, token_id=USDT_BSC, value="1.50", merchant_pays_fee=pays_fee, memo="7"
    )
    assert reply.is_signed
    made = reply.data
    assert ORDER_ID.fullmatch(made["order_id"]) and ORDER_ID.fullmatch(made["record_id"])
    assert made == {
        "order_id": made["order_id"],
        "record_id": made["record_id"],
        "network_fee": "0",
        "network_coin_id": USDT_COIN,
        "network_fee_crypto": "USDT",
        "network_symbol": "USDT",
        "network_fee_value": "0",
        "net_receivable": "1.5",
    }
    # Final before the answer was sent (spec 16.3).
    [found] = merchant.info(name)
    detail, [trade] = found["order_detail"], found["trade_list"]
    assert detail["status"] == trade["status"] == "Successful"
    assert detail["created"] == trade["pay_time"] == pytest.approx(time.time(), abs=10)
    assert detail["order_amount"] == trade["amount"] == "1.5"
    assert trade["txid"] == "" and trade["network_fee"] == "0"
    assert detail["chain"] == "BSC" and detail["contract"].lower() == "0x55d398326f99059ff775485246999027b3197955"
    assert merchant.event(name) == {
        "pay_status": "success",
        "order_type": "API Withdrawal",
        "order_id": made["order_id"],
        "record_id": made["record_id"],
        "withdraw_amount": "1.5",
        "net_receivable": "1.5",
        "network_fee": "0",
        "network_fee_crypto": "USDT",
        "network_coin_id": USDT_COIN,
        "network_fee_value": "0",
        "chain": "BSC",
        "contract": detail["contract"],
        "crypto": "USDT",
        "to_address": address,
        "memo": "",
        "txid": "internal transfer",
        "merchant_order_id": name,
        "merchant_pays_fee": pays_fee,
    }
    assert Decimal(merchant.balance("USDT")) == before - Decimal("1.5")


def test_inside_the_house_any_token_of_the_coin_serves(merchant: Merchant, account: tuple[str, str]) -> None:
    # Polygon is off here, and a coin's own id names no network at all (spec 16.4).
    for token in (token_id("USDT", "POLYGON"), USDT_COIN):
        assert merchant.withdraw(address=account[0], token_id=token, value="1").code == 10000
    assert merchant.withdraw(address=fresh_address(), token_id=token_id("USDT", "POLYGON"), value="9").code == 14004


# -------------------------------------------------------------------------------------------------------------------- on chain


@pytest.mark.parametrize("pays_fee", [False, True], ids=["recipient pays", "merchant pays"])
@pytest.mark.parametrize(("network", "symbol"), [("ETH", "ETH"), ("ETH", "USDT"), ("BSC", "BNB"), ("BSC", "USDT")])
def test_on_chain(gateway: Gateway, merchant: Merchant, ethereum: Chain, binance: Chain, network: str, symbol: str, pays_fee: bool) -> None:
    chain = ethereum if network == "ETH" else binance
    token, address, name = token_id(symbol, network), fresh_address(), unique("out")
    before = Decimal(merchant.balance(symbol))
    value = Decimal("12.25") if symbol == "USDT" else Decimal("0.125")
    made = merchant.withdraw(
        merchant_order_id=name, address=address, token_id=token, value=str(value), memo="573049", merchant_pays_fee=pays_fee
    ).data
    fee, net = Decimal(made["network_fee"]), Decimal(made["net_receivable"])
    assert fee > 0
    assert net == (value if pays_fee else value - fee)
    assert made["network_fee_crypto"] == made["network_symbol"] == symbol
    assert Decimal(merchant.balance(symbol)) == before - net - fee
    [found] = merchant.final(name)
    detail, [trade] = found["order_detail"], found["trade_list"]
    assert detail["status"] == trade["status"] == "Successful"
    assert detail["order_amount"] == str(value) and detail["chain"] == trade["chain"] == network
    assert trade["amount"] == made["net_receivable"] and trade["network_fee"] == made["network_fee"]
    assert trade["network_fee_value"] == made["network_fee_value"] and trade["token_rate"] == detail["token_rate"]
    assert trade["pay_time"] >= detail["created"] and TXID.fullmatch(trade["txid"])
    for text in (*made.values(), detail["order_amount"], trade["amount"], trade["network_fee"], detail["token_rate"]):
        assert isinstance(text, str)
    for amount in (made["network_fee"], made["net_receivable"], detail["order_amount"], trade["amount"], detail["token_rate"]):
        assert PLAIN.fullmatch(amount)
    event = merchant.event(name)
    expected = {"pay_status": "success", "order_type": "API Withdrawal", "withdraw_amount": str(value), "to_address": address, "memo": ""}
    expected |= {"txid": trade["txid"], "merchant_pays_fee": pays_fee, "contract": detail["contract"], "chain": network, "crypto": symbol}
    expected |= {name: made[name] for name in made if name != "network_symbol"} | {"merchant_order_id": name}
    assert event == expected
    # The chain itself: what arrived, and that the hash is the transaction that did it.
    assert chain.balance(address, symbol) == chain.units(made["net_receivable"], symbol)
    receipt = chain.rpc("eth_getTransactionReceipt", trade["txid"])
    assert receipt["status"] == "0x1" and receipt["from"].lower() == gateway.hot_address().lower()


def test_answers_have_the_shape_of_the_base_documents(merchant: Merchant, account: tuple[str, str]) -> None:
    names = [unique("shape"), unique("shape")]
    made = merchant.withdraw(merchant_order_id=names[0], address=account[0], token_id=USDT, value="1")
    assert_same_shape(made.json, BASE["withdraw_success"])
    merchant.withdraw(merchant_order_id=names[1], address=fresh_address(), token_id=USDT, value="10", merchant_pays_fee=True)
    merchant.final(*names)
    info = merchant.call("/bill/info", {"merchant_order_ids": names})
    assert_same_shape(info.json, BASE["bill_info_success"])
    assert [one["order_detail"]["merchant_order_id"] for one in info.data] == names
    refused = merchant.call("/withdraw", BASE["withdraw_request"])  # XRP, which has no network here
    assert_same_shape(refused.json, BASE["withdraw_failure"])
    assert refused.json["data"] is None and refused.json["reason"]
    # The documents' own text is no JSON: refused, after the signature (spec 16.12).
    assert merchant.call("/withdraw", BASE["withdraw_request_as_printed"].encode()).code == 11000


def test_asks_for_at_most_100_orders(merchant: Merchant) -> None:
    assert merchant.call("/bill/info", {"merchant_order_ids": ["nobody"] * 100}).data == []
    assert merchant.call("/bill/info", {"merchant_order_ids": ["nobody"] * 101}).code == 11010
    assert merchant.call("/bill/info", {"merchant_order_ids": []}).code == 11000


@pytest.mark.parametrize(
    ("code", "change"),
    [
        (11000, {"value": "0"}),
        (11000, {"value": "1e3"}),
        (11000, {"merchant_order_id": "x" * 65}),
        (11000, {"merchant_pays_fee": "true"}),
        (13000, {"token_id": "no-such-token"}),
        (14000, {"value": "99999999"}),
        (14007, {"address": "0x52908400098527886E0F7030069857D2E4169Ee7"}),  # one letter of the checksum in the wrong case
        (14007, {"address": "0x0000000000000000000000000000000000000000"}),
        (14008, {"address": "0xdAC17F958D2ee523a2206206994597C13D831ec7"}),  # the token's own contract
        (14007, {"address": "vitalik.eth"}),
        (14013, {"value": "1.0000001"}),
        (14019, {"value": "0.000001"}),
        (224083, {"address": "9999999"}),
        (224083, {"address": "nobody@example.com"}),
    ],
)
def test_refusals_say_why_and_leave_nothing_behind(merchant: Merchant, code: int, change: dict[str, str]) -> None:
    name = unique("no")
    before = merchant.balance("USDT")
    fields = {"merchant_order_id": name, "address": "0x52908400098527886E0F7030069857D2E4169EE7", "token_id": USDT, "value": "10"}
    reply = merchant.call("/withdraw", fields | change)
    assert reply.status == 200 and reply.is_signed
    assert reply.code == code and reply.json["data"] is None, reply.raw
    assert len(reply.json["msg"]) > 10 and ".." not in reply.json["msg"]
    assert merchant.info(name) == [] and merchant.balance("USDT") == before


def test_own_hot_address_is_refused(gateway: Gateway, merchant: Merchant) -> None:
    assert merchant.withdraw(address=gateway.hot_address(), token_id=USDT, value="10").code == 14008


# ------------------------------------------------------------------------------------------------- held, refilled, cancelled


def test_waits_for_the_treasury_says_why_and_goes_on(gateway: Gateway, binance: BoxChain) -> None:
    """Held for liquidity; one is cancelled meanwhile (spec 16.10), the other paid once coins came."""
    merchant = gateway.merchant(USDC="900000000")
    names = [unique("held"), unique("cancelled")]
    address, usdc = fresh_address(), token_id("USDC", "BSC")
    for name in names:
        merchant.accepted(merchant_order_id=name, address=address, token_id=usdc, value="3000000", merchant_pays_fee=True)
    shown = gateway.wait(lambda: ((one := gateway.order(names[1]))["state"] == "held" and one) or None)
    assert shown["hold_reason"] == "liquidity" and "lacks" in shown["waits_for"] and "USDC on BSC" in shown["waits_for"]
    assert "refilled" in shown["next"] and shown["attempts"] == []
    assert [one["order_detail"]["status"] for one in merchant.info(*names)] == ["Pending", "Pending"]

    cancelled = gateway.command("order", "cancel", names[1], "--reason", "asked by the customer")
    assert cancelled["state"] == "failed" and cancelled["status"] == "Failed"
    [found] = merchant.info(names[1])
    detail, [trade] = found["order_detail"], found["trade_list"]
    assert detail["status"] == trade["status"] == "Failed" and detail["order_amount"] == "3000000"
    assert trade["amount"] == trade["network_fee"] == trade["network_fee_value"] == "0" and trade["txid"] == ""
    assert trade["pay_time"] == pytest.approx(time.time(), abs=15)
    event = merchant.event(names[1])
    assert event["pay_status"] == "failed" and event["withdraw_amount"] == "3000000"
    assert event["net_receivable"] == event["network_fee"] == event["network_fee_value"] == "0" and event["txid"] == ""
    [waiting] = merchant.info(names[0])
    assert Decimal(merchant.balance("USDC")) == 900000000 - 3000000 - Decimal(waiting["trade_list"][0]["network_fee"])
    again = gateway.run("order", "cancel", names[1], "--reason", "twice")
    assert again.code == 1 and "until it is bound" in again.err

    binance.fund(gateway.hot_address(), {"USDC": "3000000"})
    [found] = merchant.final(names[0])
    assert found["order_detail"]["status"] == "Successful"
    assert binance.balance(address, "USDC") == binance.units("3000000", "USDC")
    assert merchant.event(names[0])["pay_status"] == "success"
    states = [one["state"] for one in gateway.order(names[0])["states"]]
    assert states[:2] == ["accepted", "held"] and states[-1] == "succeeded"


def test_an_account_pays_out(gateway: Gateway, merchant: Merchant, ethereum: Chain) -> None:
    c_id, _ = gateway.account()
    merchant.accepted(address=c_id, token_id=USDT, value="40")
    address = fresh_address()
    words = ("account", "withdraw", c_id, "--token", "USDT:ETH", "--address", address, "--amount")
    order = gateway.command(*words, "30")
    shown = gateway.wait(lambda: ((one := gateway.order(order["order_id"]))["state"] == "succeeded" and one) or None)
    assert ethereum.balance(address, "USDT") == ethereum.units(shown["net_receivable"], "USDT")
    seen = gateway.command("account", "show", c_id)
    assert seen["balances"] == [{"crypto": "USDT", "available": "10", "reserved": "0"}]
    assert [(one["amount"], one["state"]) for one in seen["history"]] == [("-30", "succeeded"), ("40", "succeeded")]
    too_much = gateway.run(*words, "11")
    assert too_much.code == 1 and "14000" in too_much.err


# ------------------------------------------------------------------------------------------------------------------------ races


def test_a_thousand_repeats_of_one_id_make_one_order(gateway: Gateway, account: tuple[str, str]) -> None:
    merchant = gateway.merchant(USDT="100")
    fields = {"merchant_order_id": unique("repeat"), "address": account[0], "token_id": USDT, "value": "30"}
    answers = merchant.call_at_once("/withdraw", [fields] * 1000)
    assert {json.dumps(answer) for answer in answers} == {json.dumps(answers[0])} and answers[0]["code"] == 10000
    assert merchant.balance("USDT") == "70"
    assert merchant.call("/withdraw", fields | {"value": "31"}).code == 11011
    assert merchant.call("/withdraw", fields | {"value": "30.0", "memo": None, "merchant_pays_fee": False}).data == answers[0]["data"]
    for memo in ("83513", 99120):  # no content where the token takes none: some clients send new digits each time
        assert merchant.call("/withdraw", fields | {"memo": memo}).data == answers[0]["data"]
    listed = gateway.command("order", "list", "--app-id", merchant.app_id)["orders"]
    assert [order["merchant_order_id"] for order in listed] == [fields["merchant_order_id"]]
    merchant.event(fields["merchant_order_id"])


def test_a_thousand_repeats_on_chain_pay_once(gateway: Gateway, ethereum: AnvilChain) -> None:
    merchant = gateway.merchant(USDT="1000")
    address = fresh_address()
    fields = {"merchant_order_id": unique("repeat"), "address": address, "token_id": USDT, "value": "20", "merchant_pays_fee": True}
    answers = merchant.call_at_once("/withdraw", [fields] * 1000)
    assert len({answer["data"]["order_id"] for answer in answers}) == 1
    merchant.final(fields["merchant_order_id"])
    assert ethereum.balance(address, "USDT") == ethereum.units("20", "USDT")


def test_a_thousand_withdrawals_of_a_balance_that_covers_one(gateway: Gateway, account: tuple[str, str]) -> None:
    merchant = gateway.merchant(USDT="10")
    bodies = [{"merchant_order_id": unique("race"), "address": account[0], "token_id": USDT, "value": "10"} for _ in range(1000)]
    codes = [answer["code"] for answer in merchant.call_at_once("/withdraw", bodies)]
    assert codes.count(10000) == 1 and codes.count(14000) == 999
    assert merchant.balance("USDT") == "0"
    assert len(gateway.command("order", "list", "--app-id", merchant.app_id)["orders"]) == 1


# -------------------------------------------------------------------------------------------------------- merchants, secrets


def test_two_merchants_with_one_id_never_see_each_other(gateway: Gateway, account: tuple[str, str]) -> None:
    one, other = gateway.merchant(USDT="10"), gateway.merchant(USDT="10")
    name = unique("shared")
    first = one.withdraw(merchant_order_id=name, address=account[0], token_id=USDT, value="1").data
    assert other.info(name) == []
    second = other.withdraw(merchant_order_id=name, address=account[0], token_id=USDT, value="2").data
    assert first["order_id"] != second["order_id"]
    assert [found["order_detail"]["order_id"] for found in one.info(name)] == [first["order_id"]]
    assert [found["order_detail"]["order_id"] for found in other.info(name)] == [second["order_id"]]
    assert (one.balance("USDT"), other.balance("USDT")) == ("9", "8")
    assert one.event(name)["order_id"] == first["order_id"] and other.event(name)["order_id"] == second["order_id"]


def test_counts_from_the_very_next_request(gateway: Gateway) -> None:
    merchant = gateway.merchant()
    assert merchant.call("/assets").data == {"list": []}
    gateway.credit(merchant, "USDT", "5")
    assert merchant.balance("USDT") == "5"
    c_id, email = gateway.account()
    assert merchant.call("/check/user", {"c_id": c_id}).data["c_id"] == c_id
    assert merchant.withdraw(address=email, token_id=USDT, value="5").code == 10000


def test_a_disabled_merchant_is_told_so_signed(gateway: Gateway) -> None:
    merchant = gateway.merchant()
    merchant.call("/assets")
    assert gateway.command("merchant", "set", merchant.app_id, "--disabled")["disabled"] is True
    reply = gateway.wait(lambda: ((one := merchant.call("/assets")).code == 12000 and one) or None, 5)
    assert reply.is_signed and reply.json["reason"] == "MerchantDisabled"
    gateway.command("merchant", "set", merchant.app_id, "--enabled")
    gateway.wait(lambda: merchant.call("/assets").code == 10000 or None, 5)


def test_an_allow_list_holds(gateway: Gateway) -> None:
    merchant = gateway.merchant()
    merchant.call("/assets")
    gateway.command("merchant", "set", merchant.app_id, "--ip-allow", "127.0.0.7, 10.1.0.0/16")
    reply = gateway.wait(lambda: ((one := merchant.call("/assets")).code == 12002 and one) or None, 5)
    assert reply.is_signed
    assert merchant.call("/assets", source="127.0.0.7").code == 10000
    # Nobody is a trusted proxy here, so a header proves nothing.
    forged = {"X-Forwarded-For": "127.0.0.7"}
    assert merchant.call("/assets", **forged).code == 12002
    gateway.command("merchant", "set", merchant.app_id, "--ip-allow", "")
    gateway.wait(lambda: merchant.call("/assets").code == 10000 or None, 5)


def test_two_secrets_are_valid_during_a_rotation(gateway: Gateway, account: tuple[str, str]) -> None:
    merchant = gateway.merchant(USDT="10")
    old = merchant.secret
    merchant.call("/assets")
    rotated = gateway.command("merchant", "rotate-secret", merchant.app_id, "--overlap-hours", "1")
    new = rotated["app_secret"]
    assert rotated["old_secret_valid_until_at_ms"] == pytest.approx((time.time() + 3600) * 1000, abs=10_000)
    gateway.wait(lambda: merchant.call("/assets", secret=new).code == 10000 or None, 5)
    # `call` checks that each answer is signed with the secret that the question was signed with.
    assert merchant.call("/assets", secret=old).is_signed and merchant.call("/assets", secret=new).is_signed
    merchant.secret = new
    name = unique("rotated")
    merchant.accepted(merchant_order_id=name, address=account[0], token_id=USDT, value="1")
    merchant.event(name)
    last = gateway.command("merchant", "rotate-secret", merchant.app_id, "--overlap-hours", "0")["app_secret"]
    gateway.wait(lambda: not merchant.call("/assets", secret=new).is_signed or None, 5)
    assert merchant.call("/assets", secret=last).code == 10000


# ------------------------------------------------------------------------------------------------------- strangers and limits


def test_strangers_get_one_constant_unsigned_answer(gateway: Gateway, merchant: Merchant) -> None:
    body = b'{"c_id":"1"}'
    right = merchant.headers(body)
    replies = [
        gateway.send("POST", "/ccpayment/v1/check/user", body, headers)
        for headers in (
            {},
            right | {"Appid": "202300000000000000000000000000009"},
            right | {"Sign": "0" * 64},
            right | {"Timestamp": str(int(right["Timestamp"]) + 1)},
            {name: value for name, value in right.items() if name != "Sign"},
            right | {"Timestamp": right["Timestamp"] + '{"a":1}'},
        )
    ]
    replies.append(gateway.send("POST", "/ccpayment/v1/check/user", body + b" ", right))
    assert {reply.raw for reply in replies} == {replies[0].raw} and {reply.status for reply in replies} == {200}
    assert replies[0].code == 11005 and not any(reply.is_signed for reply in replies)
    stale = str(int(time.time()) - 200)
    sign = merchant.headers(body) | {"Timestamp": stale}
    assert not gateway.send("POST", "/ccpayment/v1/check/user", body, sign).is_signed


def test_our_own_signed_bodies_are_no_requests(gateway: Gateway, merchant: Merchant, account: tuple[str, str]) -> None:
    name = unique("echo")
    answer = merchant.withdraw(merchant_order_id=name, address=account[0], token_id=USDT, value="1")
    merchant.event(name)
    [webhook] = merchant.arrivals(name)
    for headers, raw in ((answer.headers, answer.raw), (webhook.headers, webhook.raw)):
        signed = {key: headers[key] for key in ("appid", "timestamp", "sign")}
        for path in ("/withdraw", "/assets", "/coin/all", "/bill/info", "/webhook/resend"):
            reply = gateway.send("POST", "/ccpayment/v1" + path, raw, signed)
            assert reply.code == 11000 and reply.is_signed, (path, reply.raw)


def test_deposits_are_not_here_yet_and_unknown_paths_do_not_exist(gateway: Gateway, merchant: Merchant) -> None:
    for path in ("/concise/url/get", "/bill/create", "/payment/address/get"):
        for slash in ("", "/"):
            reply = merchant.call(path + slash, {"user_id": "u-1", "chain": "ETH"})
            assert reply.code == 11013 and reply.is_signed and "not available" in reply.json["msg"]
    assert gateway.get("/ccpayment/v1/assets").status == 404
    assert merchant.call("/withdrawal").status == 404


def test_too_many_requests_are_told_to_wait(new_gateway: Any) -> None:
    """Per source address before authentication, unsigned; per merchant after it, signed."""
    gateway = new_gateway(PENSTOCK_LIMITS__REQUESTS_PER_SECOND="2")
    gateway.start()
    ready(gateway)
    merchant = gateway.merchant()
    ours = in_threads([lambda: merchant.call("/assets")] * 12)
    refused = [reply for reply in ours if reply.code == 11004]
    # The merchant has the same rate as the address, so now and then it is the merchant's that is used up first.
    assert any(not reply.is_signed for reply in refused)
    assert any(reply.code == 10000 for reply in ours)
    assert all(int(reply.headers["retry-after"]) >= 1 and reply.json["reason"] == "RateLimit" for reply in refused)
    # Many addresses, one merchant: each address is within its rate, the merchant is not.
    sources = in_threads([lambda n=n: merchant.call("/assets", source=f"127.0.0.{n}") for n in range(10, 22)])
    refused = [reply for reply in sources if reply.code == 11004]
    assert refused and all(reply.is_signed and int(reply.headers["retry-after"]) >= 1 for reply in refused)
    # Internal payouts need no network at all.
    gateway.credit(merchant, "USDT", "3")
    c_id, _ = gateway.account()
    name = unique("quiet")
    fields = {"merchant_order_id": name, "address": c_id, "token_id": USDT, "value": "3"}
    gateway.wait(lambda: merchant.call("/withdraw", fields).code == 10000 or None, 15)
    merchant.event(name)
    gateway.audit()


# -------------------------------------------------------------------------------------------------------------------- the end


def test_books_are_sound_after_all_of_this(gateway: Gateway, merchant: Merchant, account: tuple[str, str]) -> None:
    merchant.accepted(merchant_order_id=unique("last"), address=account[0], token_id=USDT, value="1")
    report = gateway.audit()
    assert report["counts"]["orders"] >= 1, "how many of the others ran in this house is chance"
    # Merchants here were credited more than the chains hold: declared and unseen, which is a warning and no breach.
    assert all(warning["invariant"] == "I11" for warning in report["warnings"])
