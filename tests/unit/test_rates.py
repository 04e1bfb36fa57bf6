"""Prices: a source that lies, sleeps or shouts changes nothing; conversions are integers and say how they round."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.catalog import Catalog
from penstock.core.money import Coin, CoinAmount
from penstock.rates import (
    BODY_BYTES_MAX,
    ONE_USD,
    TIMEOUT_S,
    BadPrice,
    HttpSource,
    NoPrice,
    Prices,
    Rate,
    StalePrice,
    convert,
    parse_json,
    parse_price,
    static_prices,
    usd_text,
    usd_value,
)

ETH = Coin("e8f64d3d-df5b-411d-897f-c6d8d30206b7", "ETH", "Ethereum", 18)
USDT = Coin("8e5741cf-6e51-4892-9d04-3d40e1dd0128", "USDT", "Tether USD", 6)
NOW = 1_700_000_000_000
MINUTE = 60_000


def rate(text: str, at_ms: int = NOW) -> Rate:
    return Rate(parse_price(text), "test", at_ms)


@pytest.fixture
def prices() -> Prices:
    return Prices(age_max_ms=10 * MINUTE)


class Site:
    """A source in a box: canned bodies by URL, and what it was asked."""

    def __init__(self, bodies):
        self.bodies, self.asked = bodies, []

    async def __call__(self, url, *, bytes_max, timeout_s):
        assert (bytes_max, timeout_s) == (BODY_BYTES_MAX, TIMEOUT_S)
        self.asked.append(url)
        body = self.bodies[url]
        if isinstance(body, Exception):
            raise body
        return body if isinstance(body, bytes) else json.dumps(body).encode()


def refresh(source, prices, site, now_ms=NOW):
    return asyncio.run(source.refresh(prices, site, now_ms=now_ms))


# ------------------------------------------------------------------------------------------------------------------- age


def test_a_price_is_good_until_its_limit_and_not_a_millisecond_longer(prices):
    assert prices.offer("ETH", rate("2000"), now_ms=NOW)
    assert prices.usd("ETH", now_ms=NOW + 10 * MINUTE).usd == 2000 * ONE_USD
    with pytest.raises(StalePrice, match="ETH is 600 s old, the limit is 600 s"):
        prices.usd("ETH", now_ms=NOW + 10 * MINUTE + 1)


def test_the_last_known_price_is_there_whatever_its_age_and_its_lack_is_no_error(prices):
    prices.offer("ETH", rate("2000"), now_ms=NOW)
    assert str(prices.last_known("ETH")) == "2000"
    assert prices.last_known("BTC") is None


def test_no_price_says_so_and_why(prices):
    with pytest.raises(NoPrice, match="no price for BTC: no source gives one"):
        prices.usd("BTC", now_ms=NOW)
    prices.offer("BTC", rate("1"), now_ms=NOW - 60 * MINUTE)
    with pytest.raises(NoPrice, match="ahead of ours"):
        prices.usd("BTC", now_ms=NOW)


def test_a_clock_that_was_set_back_makes_a_price_stale_and_the_next_one_is_taken(prices):
    prices.offer("ETH", rate("2000"), now_ms=NOW)
    earlier = NOW - 60 * MINUTE
    with pytest.raises(StalePrice, match="set back"):
        prices.usd("ETH", now_ms=earlier)
    assert prices.offer("ETH", rate("2001", earlier), now_ms=earlier)
    assert str(prices.usd("ETH", now_ms=earlier)) == "2001"


# ---------------------------------------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "0.0000000000000000001", "1000000001", "1e12", "-1e-5"])
def test_zero_negative_and_absurd_prices_are_refused(text):
    with pytest.raises(BadPrice):
        parse_price(text)


@pytest.mark.parametrize(
    ("text", "usd"),
    [
        ("1", ONE_USD),
        ("16944.3", 169443 * 10**17),
        ("1.2e-05", 12 * 10**12),
        ("2E3", 2000 * ONE_USD),
        ("0.0000000000000000019", 1),
        ("1000000000", 10**9 * ONE_USD),
    ],
)
def test_prices_are_exact_and_finer_than_18_decimals_is_cut(text, usd):
    assert parse_price(text) == usd


@pytest.mark.parametrize(
    "value", ["", "1,5", "NaN", "Infinity", "0x10", "1e999", "\u0661", " 1", "+1", ".5", "1.", True, None, 1.5, 1, ["1"], {}]
)
def test_what_is_no_text_of_a_number_is_no_price(value):
    with pytest.raises(BadPrice):
        parse_price(value)


@pytest.mark.parametrize(("text", "believed"), [("4000", True), ("4000.01", False), ("1000", True), ("999.99", False)])
def test_a_jump_beyond_the_ratio_is_refused_both_ways(prices, text, believed):
    prices.offer("ETH", rate("2000"), now_ms=NOW)
    assert prices.offer("ETH", rate(text, NOW + 1), now_ms=NOW + 1) is believed
    assert str(prices.last_known("ETH")) == (text if believed else "2000")
    assert ("ETH" in prices.problems) is not believed


def test_a_refused_jump_lets_the_old_price_age_until_a_person_looks(prices):
    prices.offer("ETH", rate("2000"), now_ms=NOW)
    later = NOW + 11 * MINUTE
    assert not prices.offer("ETH", rate("9000", later), now_ms=later)
    with pytest.raises(StalePrice):
        prices.usd("ETH", now_ms=later)
    assert "jumped from 2000 to 9000" in prices.problems["ETH"]
    prices.forget("ETH")
    assert prices.offer("ETH", rate("9000", later), now_ms=later)
    assert prices.problems == {}


def test_a_price_older_than_the_last_or_from_the_future_is_refused(prices):
    prices.offer("ETH", rate("2000"), now_ms=NOW)
    assert not prices.offer("ETH", rate("2001", NOW - 1), now_ms=NOW)
    assert not prices.offer("ETH", rate("2001", NOW + 5 * MINUTE), now_ms=NOW)
    assert prices.usd("ETH", now_ms=NOW).at_ms == NOW


@pytest.mark.parametrize("settings", [{"age_max_ms": 0}, {"age_max_ms": 1, "jump_max": 1}])
def test_limits_that_limit_nothing_are_refused(settings):
    with pytest.raises(ValueError, match="would be right"):
        Prices(**settings)


# ----------------------------------------------------------------------------------------------------------- static file


def test_the_shipped_file_prices_every_coin_of_the_catalogue_and_never_ages(prices):
    prices.use_static(static_prices())
    for coin in Catalog.load().coins():
        assert prices.usd(coin.symbol, now_ms=NOW * 10).is_static
    assert set(prices.static_symbols) == {coin.symbol for coin in Catalog.load().coins()}


def test_a_source_takes_a_coin_from_the_file_whatever_the_file_said_and_the_file_never_takes_it_back(prices):
    prices.use_static(static_prices())
    assert prices.offer("ETH", rate("100"), now_ms=NOW)
    assert "ETH" not in prices.static_symbols
    prices.use_static(static_prices())
    assert str(prices.usd("ETH", now_ms=NOW)) == "100"


@pytest.mark.parametrize("line", ["ETH = 3000.5", "ETH = 3000", 'ETH = "0"', 'ETH = "-1"', 'ETH = "1e3"', 'ETH = "1e3', "[ETH]\nusd = '1'"])
def test_a_file_with_a_wrong_price_is_refused_by_name(tmp_path, line):
    path = tmp_path / "prices.toml"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(BadPrice, match=r"prices\.toml"):
        static_prices(path)
    with pytest.raises(BadPrice, match=r"none\.toml"):
        static_prices(tmp_path / "none.toml")


# ------------------------------------------------------------------------------------------------------------------ http


def test_one_call_for_all_coins(prices):
    source = HttpSource(url="https://p.example/?ids={ids}", ids={"ETH": "ethereum", "USDT": "tether"}, pointer="/{id}/usd")
    site = Site({"https://p.example/?ids=ethereum,tether": b'{"ethereum":{"usd":2000.123456789012345678},"tether":{"usd":"0.9998"}}'})
    assert refresh(source, prices, site) == 2
    assert str(prices.usd("ETH", now_ms=NOW)) == "2000.123456789012345678"
    assert str(prices.usd("USDT", now_ms=NOW)) == "0.9998"
    assert not prices.static_symbols


def test_one_call_a_coin_and_one_that_fails_spoils_no_other(prices):
    source = HttpSource(url="https://p.example/{id}", ids={"ETH": "ETH-USD", "BNB": "BNB-USD"}, pointer="/data/0/price")
    secret = ConnectionError("https://p.example/ETH-USD?key=SECRET")
    site = Site({"https://p.example/ETH-USD": secret, "https://p.example/BNB-USD": {"data": [{"price": "600.5"}]}})
    assert refresh(source, prices, site) == 1
    assert site.asked == ["https://p.example/ETH-USD", "https://p.example/BNB-USD"]
    assert prices.problems == {"ETH": "http gave no answer: ConnectionError"}
    assert str(prices.usd("BNB", now_ms=NOW)) == "600.5"


def test_a_source_that_says_when_is_taken_at_its_word_but_not_for_the_future(prices):
    source = HttpSource(url="https://p/{id}", ids={"ETH": "eth"}, pointer="/usd", at_pointer="/at")
    refresh(source, prices, Site({"https://p/eth": {"usd": 2000, "at": NOW // 1000 - 300}}))
    assert prices.usd("ETH", now_ms=NOW).at_ms == NOW - 300_000
    refresh(source, prices, Site({"https://p/eth": {"usd": 2001, "at": NOW}}))
    assert str(prices.last_known("ETH")) == "2000"
    assert "ahead of ours" in prices.problems["ETH"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"{",
        b"[" * 50_000,
        b"{}",
        b"[]",
        b"5",
        b'{"eth":null}',
        b'{"eth":{"usd":null}}',
        b'{"eth":{"usd":true}}',
        b'{"eth":{"usd":0}}',
        b'{"eth":{"usd":NaN}}',
        b'{"eth":{"usd":1e400}}',
        b'{"eth":{"usd":2000}}' + b" " * BODY_BYTES_MAX,
    ],
)
def test_whatever_a_source_sends_nothing_is_raised_and_the_last_price_stays(prices, body):
    prices.offer("ETH", rate("2000", NOW - 1), now_ms=NOW)
    source = HttpSource(url="https://p/?ids={ids}", ids={"ETH": "eth"}, pointer="/eth/usd")
    assert refresh(source, prices, Site({"https://p/?ids=eth": body})) == 0
    assert str(prices.usd("ETH", now_ms=NOW)) == "2000"
    assert len(prices.problems["ETH"]) < 300


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "https://p/", "ids": {}, "pointer": "/usd"},
        {"url": "https://p/{id}?{ids}", "ids": {}, "pointer": "/usd"},
        {"url": "https://p/{id}", "ids": {}, "pointer": "usd"},
        {"url": "https://p/{id}", "ids": {"ETH": "a/../b"}, "pointer": "/usd"},
        {"url": "https://p/{id}", "ids": {"ETH": "a&b=c"}, "pointer": "/usd"},
    ],
)
def test_a_source_that_cannot_work_is_refused_when_it_is_configured(settings):
    with pytest.raises(ValueError, match=r"price source|JSON pointer"):
        HttpSource(**settings)


def test_json_numbers_never_become_floats():
    assert parse_json(b'[1, 0.1, 1e5, {"a": -0.30}]') == ["1", "0.1", "1e5", {"a": "-0.30"}]


# ----------------------------------------------------------------------------------------------------------- conversions


def test_a_fee_in_gas_becomes_a_fee_in_the_withdrawn_coin_rounded_up():
    gas = CoinAmount.parse(ETH, "0.000021")
    assert str(convert(gas, rate("3000"), rate("1"), USDT)) == "0.063"
    third = convert(CoinAmount(ETH, 1), rate("1"), rate("3"), USDT)
    assert third.units == 1
    assert third.coin == USDT
    assert convert(CoinAmount.zero(ETH), rate("3000"), rate("1"), USDT) == CoinAmount.zero(USDT)


def test_what_an_amount_is_worth():
    assert usd_value(CoinAmount.parse(USDT, "0.046957"), rate("1")) == 46957 * 10**12
    assert usd_value(CoinAmount(ETH, 1), rate("0.5")) == 1
    assert usd_value(CoinAmount(ETH, 1), rate("0.4999")) == 0
    assert usd_value(-CoinAmount.parse(ETH, "2"), rate("3000")) == -6000 * ONE_USD


@pytest.mark.parametrize(
    ("units", "text"),
    [
        (85 * 10**16, "0.85"),
        (ONE_USD, "1.00"),
        (5 * 10**15, "0.01"),
        (49 * 10**14, "0.00"),
        (12345 * 10**15, "12.35"),
        (0, "0.00"),
        (-5 * 10**17, "-0.50"),
        (-1, "0.00"),
    ],
)
def test_usd_on_the_wire_has_two_decimals(units, text):
    assert usd_text(units) == text


@given(units=st.integers(0, 10**40), from_usd=st.integers(1, 10**27), to_usd=st.integers(1, 10**27))
def test_converting_never_loses_and_adds_less_than_one_unit(units, from_usd, to_usd):
    there = convert(CoinAmount(ETH, units), Rate(from_usd, "t", 0), Rate(to_usd, "t", 0), USDT).units
    assert 0 <= there * to_usd - units * from_usd < to_usd


@given(st.integers(1, 10**27))
def test_every_price_text_comes_back_exactly(usd):
    assert parse_price(str(Rate(usd, "t", 0))) == usd
