"""The vendor's own Python client, unmodified from PyPI, against the running program.

Its addresses are constants that its methods look up when they are called, so they are turned to us at run time; no file of it is changed.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import ccpayment.ccpayment
import pytest

from tests.fixtures.gateway import Gateway, Merchant, token_id, unique
from tests.fixtures.networks import Chain, fresh_address

USDT = token_id("USDT", "ETH")


@pytest.fixture(scope="module")
def merchant(gateway: Gateway) -> Merchant:
    return gateway.merchant(USDT="1000")


@pytest.fixture
def client(gateway: Gateway, merchant: Merchant, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    module: ModuleType = ccpayment.ccpayment
    for name, value in list(vars(module).items()):
        if name.endswith("_URL") and isinstance(value, str):
            assert value.startswith("https://admin.ccpayment.com/")
            monkeypatch.setattr(module, name, value.replace("https://admin.ccpayment.com", gateway.url))
    return module.CCPaymentClass(merchant.app_id, merchant.secret)


def data_of(answer: tuple[Any, bool]) -> Any:
    """Its own check of our signature says True."""
    body, verified = answer
    assert verified is True
    assert body["code"] == 10000 and body["msg"] == "success", body
    return body["data"]


def test_withdraws_inside_the_house_and_accepts_the_webhook(client: Any, gateway: Gateway, merchant: Merchant) -> None:
    c_id, _ = gateway.account()
    name = unique("client")
    made = data_of(client.withdraw(USDT, c_id, "12.5", name))
    assert made["network_fee"] == "0" and made["net_receivable"] == "12.5"
    [found] = data_of(client.get_order_info([name]))
    assert found["order_detail"]["order_id"] == made["order_id"]
    assert found["order_detail"]["status"] == "Successful"
    merchant.event(name)
    [arrival] = merchant.arrivals(name)
    assert client.webhook(arrival.raw.decode(), arrival.headers["timestamp"], arrival.headers["sign"]) is True
    assert client.webhook(arrival.raw.decode() + " ", arrival.headers["timestamp"], arrival.headers["sign"]) is False


@pytest.mark.parametrize("merchant_pays", [False, True], ids=["recipient pays", "merchant pays"])
def test_withdraws_on_chain(client: Any, merchant: Merchant, ethereum: Chain, merchant_pays: bool) -> None:
    name, address = unique("client"), fresh_address()
    made = data_of(client.withdraw(USDT, address, "25", name, memo="20394", merchant_pays_fee=merchant_pays))
    event = merchant.event(name)
    [arrival] = merchant.arrivals(name)
    assert client.webhook(arrival.raw.decode(), arrival.headers["timestamp"], arrival.headers["sign"]) is True
    assert event["pay_status"] == "success" and event["order_id"] == made["order_id"]
    [found] = data_of(client.get_order_info([name]))
    assert found["trade_list"][0]["txid"] == event["txid"]
    assert ethereum.balance(address, "USDT") == ethereum.units(made["net_receivable"], "USDT")


def test_asks_everything_else(client: Any, gateway: Gateway) -> None:
    c_id, _ = gateway.account()
    assert data_of(client.check_user(c_id))["nickname"] == "Ä***r"
    coin_id = "8e5741cf-6e51-4892-9d04-3d40e1dd0128"
    [asset] = data_of(client.assets(coin_id))["list"]
    assert asset["token_id"] == coin_id and asset["crypto"] == "USDT"
    fee = data_of(client.network_fee(USDT))
    assert fee["token_id"] == USDT and fee["crypto"] == "USDT" and float(fee["fee"]) > 0
    assert data_of(client.network_fee(USDT, c_id))["fee"] == "0"
    rate = data_of(client.get_token_rate(USDT, "1000"))
    assert float(rate["price"]) * float(rate["value"]) == pytest.approx(1000)
    coins = data_of(client.get_support_coin())["list"]
    assert {"BNB", "ETH", "USDC", "USDT"} <= {coin["crypto"] for coin in coins}
    assert USDT in {token["token_id"] for coin in coins for token in coin["tokens"]}
    heights = {height["chain"]: height for height in data_of(client.get_chain_height_info())}
    assert heights["ETH"]["current_chain_height"] > 0
    assert {coin["token_id"] for coin in data_of(client.get_support_token())["list"]} == {coin["coin_id"] for coin in coins}
    assert USDT in {token["token_id"] for token in data_of(client.get_token_chain(coin_id))["list"]}


def test_is_told_that_deposits_are_not_here_yet(client: Any) -> None:
    for body, _ in (client.payment_address("user-1", "ETH"), client.create_order(USDT, "1", unique("in"), "USD")):
        assert body["code"] == 11013 and body["reason"] == "NoSupportVersion" and body["data"] is None
