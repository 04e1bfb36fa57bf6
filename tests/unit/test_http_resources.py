"""The smaller calls: accounts, balances, fees, rates, coins, heights, resends, and what is not there yet (spec 4.4 to 4.13)."""

import pytest

from penstock.catalog import Catalog
from penstock.core.errors import Problem, Refused
from penstock.core.money import Coin, CoinAmount
from penstock.core.party import Account, Merchant, Secret
from tests.fixtures.api import CATALOG, NOW_S, SECRET, USDT, USDT_ETH

SOL = "31c27e3c-0e6d-4e16-9b5c-857601daa1e8"
NOTHING = "00000000-0000-4000-8000-000000000000"
NO_BODY = [b"", {}, b" {} "]


# ----------------------------------------------------------------------------------------------------------------- accounts


@pytest.mark.parametrize("c_id", ["9454818", 9454818])
def test_an_account_is_found_and_its_nickname_masked_under_both_spellings(api, c_id):
    assert api.post("/check/user", {"c_id": c_id}).data == {"c_id": "9454818", "nickname": "Ä***r", "nikename": "Ä***r"}


@pytest.mark.parametrize(("nickname", "masked"), [("", "***"), ("A", "A***"), ("Ann", "A***"), ("Anna", "A***a"), ("😀bcd😎", "😀***😎")])
def test_short_nicknames_show_less(api, nickname, masked):
    api.house.people["9454818"] = Account(9454818, "a@example.com", nickname)
    assert api.post("/check/user", {"c_id": "9454818"}).data["nickname"] == masked


@pytest.mark.parametrize("c_id", ["9454819", "0", "ann@example.com", "x", "٩", "9454818 "])
def test_an_unknown_account_has_the_vendors_own_error(api, c_id):
    api.house.people["ann@example.com"] = api.house.people["9454818"]  # asking by e-mail would tell the id of a person
    reply = api.post("/check/user", {"c_id": c_id})
    assert (reply.code, reply.json["reason"], reply.json["data"]) == (224083, "ToUserNotFound", None)
    assert reply.msg == "users do not exist"


@pytest.mark.parametrize("body", [b"", {}, {"c_id": None}, {"c_id": ""}, {"c_id": True}, {"c_id": [1]}, {"c_id": 1.5}, {"cid": "9454818"}])
def test_without_an_account_id_there_is_nothing_to_check(api, body):
    reply = api.post("/check/user", body)
    assert (reply.code, reply.msg.split()[0]) == (11000, "c_id")


# ----------------------------------------------------------------------------------------------------------------- balances


def with_balances(api, **texts):
    for symbol, text in texts.items():
        coin = CATALOG.coin_by_symbol(symbol)
        api.house.balances[coin.id] = CoinAmount.parse(coin, text)


USDT_ASSET = {"coin_id": USDT, "token_id": USDT, "crypto": "USDT", "name": "Tether USD", "value": "12.5", "price": "1", "logo": ""}


@pytest.mark.parametrize("body", [*NO_BODY, {"coin_id": ""}, {"coin_id": None}, {"coin_id": "", "token_id": ""}, {"coin_id": 0}])
def test_all_balances_in_the_order_of_the_catalogue(api, body):
    with_balances(api, USDT="12.5", ETH="0.000000000000000001", SOL="0")
    assets = api.post("/assets", body).data["list"]
    listed = [coin.symbol for coin in CATALOG.coins() if coin.symbol in {"USDT", "ETH", "SOL"}]
    assert [asset["crypto"] for asset in assets] == listed
    assert {asset["crypto"]: asset["value"] for asset in assets} == {"USDT": "12.5", "ETH": "0.000000000000000001", "SOL": "0"}
    (usdt,) = (asset for asset in assets if asset["crypto"] == "USDT")
    assert usdt | {"name": "", "logo": ""} == USDT_ASSET | {"name": "", "logo": ""}


@pytest.mark.parametrize("body", [{"coin_id": USDT}, {"token_id": USDT}, {"coin_id": USDT, "token_id": SOL}, {"token_id": USDT_ETH}])
def test_one_balance_by_coin_id_or_by_the_old_name(api, body):
    with_balances(api, USDT="12.5", ETH="1")
    (asset,) = api.post("/assets", body).data["list"]
    assert (asset["coin_id"], asset["token_id"], asset["value"]) == (USDT, USDT, "12.5")


def test_each_merchant_sees_their_own_balances(api):
    other = "2" * 33
    api.house.merchants[other] = Merchant(2, "Other", other, (Secret(SECRET),), "")
    with_balances(api, USDT="12.5")
    assert api.post("/assets", app_id=other).data == {"list": []}


def test_a_coin_that_was_never_had_has_nothing(api):
    assert api.post("/assets", {"coin_id": USDT}).data["list"][0]["value"] == "0"
    assert api.post("/assets").data == {"list": []}


def test_a_balance_of_a_coin_that_left_the_catalogue_is_still_shown(api):
    with_balances(api, USDT="1")
    gone = Coin(NOTHING, "OLD", "Old coin", 8)
    api.house.balances[gone.id] = CoinAmount.parse(gone, "5")
    assert [asset["crypto"] for asset in api.post("/assets").data["list"]] == ["USDT", "OLD"]


def test_an_unknown_coin_is_said_to_be_unknown(api):
    assert api.post("/assets", {"coin_id": NOTHING}).code == 13000
    assert api.post("/assets", {"coin_id": 5}).code == 11000


# ------------------------------------------------------------------------------------------------------------ fees and rates


@pytest.mark.parametrize(
    ("more", "fee"),
    [
        ({}, "0.0344"),
        ({"address": "", "memo": ""}, "0.0344"),
        ({"address": None, "memo": None}, "0.0344"),
        ({"address": "0x" + "1" * 40}, "0.0344"),
        ({"address": "9454818"}, "0"),
        ({"address": 9454818}, "0"),
        ({"address": "ann@example.com", "memo": 5}, "0"),
    ],
)
def test_the_fee_of_a_token(api, more, fee):
    assert api.post("/network/fee", {"token_id": USDT_ETH, **more}).data == {"token_id": USDT_ETH, "crypto": "USDT", "fee": fee}


def test_a_fee_that_cannot_be_told_says_why(api):
    assert api.post("/network/fee", {"token_id": NOTHING}).code == 13000
    assert api.post("/network/fee", {}).msg.startswith("token_id is missing")
    api.house.raises = Refused(Problem.SERVICE_ERROR, "There is no fee estimate for ETH yet: try again in a moment.")
    assert api.post("/network/fee", {"token_id": USDT_ETH}).msg == "There is no fee estimate for ETH yet: try again in a moment."


@pytest.mark.parametrize(
    ("price", "amount", "value"),
    [
        ("16944.3", '"1000"', "0.0590168965374787"),  # both published examples, rounded half up
        ("23980.08", '"1000"', "0.0417012787280109"),
        ("1", '"1000"', "1000"),
        ("1", "1000", "1000"),
        ("1", "0.10", "0.1"),
        ("3", '"1"', "0.3333333333333333"),
        ("3", '"2"', "0.6666666666666667"),
        ("0.000000000000000001", '"1"', "1000000000000000000"),
        ("1000000000", '"0.000000000000000001"', "0"),
    ],
)
def test_the_rate_has_16_decimals_rounded_half_up(api, price, amount, value):
    api.house.price = price
    body = f'{{"token_id":"{USDT_ETH}","amount":{amount}}}'.encode()
    assert api.post("/token/rate", body).data == {"price": price, "value": value}


def test_the_rate_by_a_coins_id(api):
    assert api.post("/token/rate", {"token_id": USDT, "amount": "1"}).data == {"price": "1", "value": "1"}


@pytest.mark.parametrize("amount", [None, "", "0", "-1", "1e3", "ten", True, [], {}])
def test_a_rate_needs_an_amount(api, amount):
    reply = api.post("/token/rate", {"token_id": USDT_ETH, "amount": amount})
    assert (reply.code, reply.msg.split()[0]) == (11000, "amount")


def test_no_price_is_a_service_error_with_its_reason(api):
    api.house.price = "0"
    reply = api.post("/token/rate", {"token_id": USDT_ETH, "amount": "1"})
    assert (reply.code, reply.msg) == (224066, "There is no price for USDT yet.")
    api.house.usd = lambda _: 0
    api.limit()
    assert api.post("/token/rate", {"token_id": USDT_ETH, "amount": "1"}).code == 224066
    assert api.post("/token/rate", {"token_id": NOTHING, "amount": "1"}).code == 13000


# -------------------------------------------------------------------------------------------------------------------- coins


@pytest.mark.parametrize("body", NO_BODY)
def test_all_coins_with_all_their_tokens(api, body):
    coins = {coin["crypto"]: coin for coin in api.post("/coin/all", body).data["list"]}
    assert list(coins) == [coin.symbol for coin in CATALOG.coins()]
    usdt = coins["USDT"]
    assert {name: usdt[name] for name in ("symbol", "coin_id", "price", "status")} == {
        "symbol": "USDT",
        "coin_id": USDT,
        "price": "1",
        "status": 1,
    }
    (token,) = (token for token in usdt["tokens"] if token["chain"] == "ETH")
    assert token | {"logo": "", "chain_logo": ""} == {
        "token_id": USDT_ETH,
        "crypto": "USDT",
        "logo": "",
        "name": "Ethereum",
        "network": "ERC20",
        "chain": "ETH",
        "contract": "0xdAC17F958D2ee523a2206206994597C13D831ec7",
        "chain_logo": "",
        "is_support_memo": False,
        "status": 1,
        "precision": 6,
        "network_fee_crypto": "USDT",
        "network_coin_id": USDT,
    }


def test_a_network_that_is_off_suspends_its_tokens_and_not_the_coin(api):
    api.house.off = {"ETH"}
    (usdt,) = (coin for coin in api.post("/coin/all").data["list"] if coin["crypto"] == "USDT")
    assert usdt["status"] == 1
    assert {token["status"] for token in usdt["tokens"] if token["chain"] == "ETH"} == {2}
    assert {token["status"] for token in usdt["tokens"] if token["chain"] == "POLYGON"} == {1}


def test_a_token_that_is_to_be_delisted_says_so_while_its_network_is_on(api, tmp_path):
    (tmp_path / "catalog.toml").write_text("[tokens.ETH.USDT]\nstatus = 3\n")
    api.house.catalogue = Catalog.load(overrides=tmp_path / "catalog.toml")
    api.limit()

    def status():
        (usdt,) = (coin for coin in api.post("/coin/all").data["list"] if coin["crypto"] == "USDT")
        return next(token["status"] for token in usdt["tokens"] if token["chain"] == "ETH")

    assert status() == 3
    api.house.off = {"ETH"}
    assert status() == 2


def test_a_token_shows_as_many_decimals_as_a_payout_may_have(api):
    (sats,) = (coin for coin in api.post("/coin/all").data["list"] if coin["crypto"] == "SATS")
    assert (sats["precision"], [token["precision"] for token in sats["tokens"]]) == (0, [0])


def test_the_least_amount_is_the_operators_or_one_unit_as_shown(api):
    def least():
        (usdt,) = (coin for coin in api.post("/coin/all").data["list"] if coin["crypto"] == "USDT")
        return usdt["min"], usdt["precision"]

    text, precision = least()
    assert text == "0." + "0" * (precision - 1) + "1"
    api.limit(minimum={"USDT": "5"})
    assert least()[0] == "5"


def test_the_deprecated_views_show_the_same_coins_and_tokens(api):
    coins = api.post("/coin/all").data["list"]
    old = api.post("/support/token").data["list"]
    assert [coin["token_id"] for coin in old] == [coin["coin_id"] for coin in coins]
    assert set(old[0]) == {"crypto", "name", "logo", "min", "price", "token_id"}
    for coin in coins:
        tokens = api.post("/token/chain", {"token_id": coin["coin_id"]}).data["list"]
        assert [token["token_id"] for token in tokens] == [token["token_id"] for token in coin["tokens"]]
    assert api.post("/token/chain", {"token_id": USDT_ETH}).data == api.post("/token/chain", {"token_id": USDT}).data
    assert api.post("/token/chain", {"token_id": NOTHING}).code == 13000
    assert api.post("/token/chain").code == 11000


@pytest.mark.parametrize("body", NO_BODY)
def test_heights_come_as_an_array_of_numbers(api, body):
    assert api.post("/get/network/height/info", body).data == [
        {"chain": "ETH", "current_chain_height": 18_000_000, "tx_confirm_block_num": 64, "block_rate": 12},
        {"chain": "POLYGON", "current_chain_height": 50_000_000, "tx_confirm_block_num": 24},
    ]


# ------------------------------------------------------------------------------------------------------------------ resends

START = NOW_S - 7200


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, (START, START + 3600, True, "All Type")),
        ({"end_timestamp": None, "webhook_result": "", "transaction_type": None}, (START, START + 3600, True, "All Type")),
        ({"end_timestamp": 0}, (START, START + 3600, True, "All Type")),
        ({"end_timestamp": START + 60}, (START, START + 60, True, "All Type")),
        ({"end_timestamp": START + 3600, "webhook_result": "All Result"}, (START, START + 3600, False, "All Type")),
        ({"start_timestamp": str(START), "transaction_type": "API Withdrawal"}, (START, START + 3600, True, "API Withdrawal")),
        ({"transaction_type": "Direct Deposit"}, (START, START + 3600, True, "Direct Deposit")),
    ],
)
def test_webhooks_of_a_time_span_are_resent(api, more, asked):
    assert api.post("/webhook/resend", {"start_timestamp": START, **more}).data == {"resend_count": 3}
    start, end, failed_only, kind = asked
    assert api.house.effects == [(1, start * 1000, end * 1000, failed_only, kind)]


@pytest.mark.parametrize(
    ("more", "code", "field"),
    [
        ({"start_timestamp": None}, 11000, "start_timestamp"),
        ({"start_timestamp": 0}, 11000, "start_timestamp"),
        ({"start_timestamp": 1.5}, 11000, "start_timestamp"),
        ({"start_timestamp": -5}, 11000, "start_timestamp"),
        ({"start_timestamp": START * 1000}, 11000, "start_timestamp"),
        ({"start_timestamp": True}, 11000, "start_timestamp"),
        ({"end_timestamp": "soon"}, 11000, "end_timestamp"),
        ({"end_timestamp": START}, 11000, "end_timestamp"),
        ({"end_timestamp": START - 1}, 11000, "end_timestamp"),
        ({"end_timestamp": START + 3601}, 11008, "The span"),
        ({"webhook_result": "failed"}, 11000, "webhook_result"),
        ({"webhook_result": 1}, 11000, "webhook_result"),
        ({"transaction_type": "Withdrawal"}, 11000, "transaction_type"),
        ({"transaction_type": []}, 11000, "transaction_type"),
    ],
)
def test_a_resend_that_is_not_clear_is_refused(api, more, code, field):
    reply = api.post("/webhook/resend", {"start_timestamp": START, **more})
    assert (reply.code, reply.msg.startswith(field)) == (code, True)
    assert api.house.effects == []


def test_a_replayed_resend_has_no_second_effect(api):
    first = api.post("/webhook/resend", {"start_timestamp": START}, timestamp=str(NOW_S + 100))
    api.runtime.ms += 200_000
    api.runtime.seconds += 200
    again = api.post("/webhook/resend", {"start_timestamp": START}, timestamp=str(NOW_S + 100))
    assert again.data == first.data
    assert len(api.house.effects) == 1
    assert api.post("/webhook/resend", {"start_timestamp": START}).data == {"resend_count": 3}
    assert len(api.house.effects) == 2


def test_a_refused_resend_may_be_tried_again(api):
    api.house.raises = Refused(Problem.REQUEST_DAILY_LIMIT, "One call a minute is allowed: wait 12 seconds.")
    assert api.post("/webhook/resend", {"start_timestamp": START}).code == 11009
    api.house.raises = None
    assert api.post("/webhook/resend", {"start_timestamp": START}).code == 10000


# ------------------------------------------------------------------------------------------------------------------ not yet


@pytest.mark.parametrize("path", ["/concise/url/get", "/bill/create", "/payment/address/get"])
@pytest.mark.parametrize("body", [b"", {}, {"merchant_order_id": "a", "product_price": "1", "valid_timestamp": 0}])
def test_deposits_are_said_to_be_missing_signed(api, path, body):
    reply = api.post(path, body)
    assert (reply.status, reply.code, reply.json["reason"], reply.is_signed) == (200, 11013, "NoSupportVersion", True)
    assert "not available" in reply.msg
