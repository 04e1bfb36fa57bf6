"""Amounts: exact both ways, plain text only, unlike ones kept apart, nothing rounded silently."""

import re
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.money import (
    LEDGER_DECIMALS,
    WHOLE_DIGITS_MAX,
    Coin,
    CoinAmount,
    Inexact,
    MoneyError,
    NotAnAmount,
    Token,
    TokenAmount,
    UnlikeAmounts,
    parse_units,
    plain,
    round_up_to_token,
)

USDT = Coin("8e5741cf-6e51-4892-9d04-3d40e1dd0128", "USDT", "Tether USD", 6)
ETH = Coin("e8f64d3d-df5b-411d-897f-c6d8d30206b7", "ETH", "Ethereum", 18)
PLAIN = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]*[1-9])?", re.ASCII)

decimals = st.integers(0, LEDGER_DECIMALS)


def token(places, coin=USDT):
    return Token(f"{coin.symbol}-{places}", coin, "ETH", "ERC20", "0xdAC17F958D2ee523a2206206994597C13D831ec7", "0xdAC1", places)


@given(decimals, st.data())
def test_units_to_text_and_back_are_the_same_units(places, data):
    units = data.draw(st.integers(0, 10 ** (WHOLE_DIGITS_MAX + places) - 1))
    text = plain(units, places)
    assert PLAIN.fullmatch(text)
    assert parse_units(text, places) == units
    assert Fraction(text) == Fraction(units, 10**places)


@given(decimals, st.integers(0, 10**30), st.integers(0, 40), st.integers(0, 40))
def test_leading_and_trailing_zeros_change_nothing(places, units, before, after):
    whole, _, fraction = plain(units, places).partition(".")
    assert parse_units(f"{'0' * before}{whole}.{fraction}0{'0' * after}", places) == units


@given(st.integers(min_value=1), decimals)
def test_a_negative_amount_prints_with_its_sign_and_never_parses(units, places):
    assert plain(-units, places) == "-" + plain(units, places)
    with pytest.raises(NotAnAmount):
        parse_units(plain(-units, places), places)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ".", "-", "+", "1.", ".5", "1..2", "1.2.3", "-1", "+1", "-0", "--1", "1-", "1e3", "1E-2", "1e", "0x10", "0b1", "1_000", "1,5",
        "1'000", "1 000", " 1", "1 ", "\t1", "1\n", "\n1", "1\r\n", "1\x00", "\ufeff1", "1\u00a0", "1\u200b", "1\u2028", "NaN", "nan", "Infinity",
        "inf", "1/2", "½", "²", "1²", "Ⅷ", "١٢", "१२", "\uff11\uff12", "1\uff12", "\U0001d7cf", "1\u066b5", "1.\uff15", "1\uff0e5", "null", "true", "1f", "1d", "1L", "$1", "1 USDT",
        "(1)", "1%", "1;2",
    ],
)  # fmt: skip
def test_what_is_not_plain_decimal_text_is_refused(text):
    with pytest.raises(NotAnAmount):
        parse_units(text, 18)


@given(st.one_of(st.text(max_size=80), st.text("0123456789.+-eE_ ,\n٣\uff13", max_size=20)), decimals)
def test_whatever_is_accepted_is_plain_ascii_and_worth_what_it_says(text, places):
    try:
        units = parse_units(text, places)
    except MoneyError:
        return
    assert re.fullmatch(r"[0-9]+(\.[0-9]+)?", text, re.ASCII)
    assert Fraction(units, 10**places) == Fraction(text)


@pytest.mark.parametrize("digits", [WHOLE_DIGITS_MAX + 1, 78, 4_301, 60_000])
def test_sixty_digits_and_more_are_larger_than_any_amount(digits):
    with pytest.raises(NotAnAmount, match="larger than any amount"):
        parse_units("9" * digits, 18)


def test_fifty_nine_digits_and_eighteen_decimals_fit_the_column():
    units = parse_units("9" * WHOLE_DIGITS_MAX + "." + "9" * 18, 18)
    assert units == 10**77 - 1
    assert parse_units("0" * 60_000 + "1." + "0" * 60_000, 0) == 1


@given(decimals, st.integers(0, 10**20), st.integers(1, 30), st.integers(1, 9))
def test_one_decimal_too_many_is_inexact_and_never_rounded(places, whole, extra, last):
    text = f"{whole}." + "0" * (places + extra - 1) + str(last)
    with pytest.raises(Inexact) as caught:
        parse_units(text, places)
    assert caught.value.decimals == places


@pytest.mark.parametrize("text", ["1" * 60_000, "1." + "1" * 60_000, "x" * 60_000])
def test_a_refusal_does_not_repeat_a_text_of_any_length(text):
    with pytest.raises(MoneyError) as caught:
        parse_units(text, 6)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("places", [-1, 19, 24, 77])
def test_a_token_with_more_decimals_than_the_books_is_refused(places):
    with pytest.raises(MoneyError, match="decimals"):
        token(places)


@given(decimals, st.integers(-(10**50), 10**50))
def test_a_token_amount_is_exact_in_the_coin_and_back(places, units):
    amount = TokenAmount(token(places), units)
    assert amount.to_coin().to_token(amount.token) == amount
    assert str(amount.to_coin()) == str(amount)


@given(st.integers(0, 17), st.integers(-(10**40), 10**40), st.data())
def test_dust_finer_than_the_token_is_inexact(places, units, data):
    thing = token(places)
    dust = data.draw(st.integers(1, thing.scale - 1))
    with pytest.raises(Inexact):
        CoinAmount(USDT, units * thing.scale + dust).to_token(thing)


@given(decimals, st.integers(0, 10**60))
def test_a_quote_is_rounded_up_to_the_token_by_less_than_one_base_unit(places, units):
    thing = token(places)
    rounded = round_up_to_token(CoinAmount(USDT, units), thing)
    assert 0 <= rounded.units - units < thing.scale
    assert round_up_to_token(rounded, thing) == rounded
    rounded.to_token(thing)


def test_unlike_amounts_do_not_add_compare_or_convert():
    one, other = CoinAmount(USDT, 1), CoinAmount(ETH, 1)
    for act in (lambda: one + other, lambda: one - other, lambda: one < other, lambda: one <= other, lambda: one > other):
        with pytest.raises(UnlikeAmounts):
            act()
    with pytest.raises(UnlikeAmounts):
        one.to_token(token(6, ETH))
    with pytest.raises(UnlikeAmounts):
        round_up_to_token(one, token(6, ETH))
    assert one != other


@pytest.mark.parametrize("other", [1, 1.0, "1", None])
def test_a_bare_number_is_no_amount(other):
    for act in (lambda: CoinAmount(USDT, 1) + other, lambda: other + CoinAmount(USDT, 1), lambda: TokenAmount(token(6), 1) + other):
        with pytest.raises((TypeError, AttributeError)):
            act()


def test_token_amounts_are_not_coin_amounts():
    with pytest.raises((TypeError, AttributeError)):
        CoinAmount(USDT, 1) + TokenAmount(token(6), 1)


@given(st.integers(), st.integers(), st.integers())
def test_like_amounts_add_like_integers(a, b, c):
    x, y, z = (CoinAmount(USDT, units) for units in (a, b, c))
    assert (x + y) - y == x
    assert (x + y) + z == x + (y + z)
    assert x + -x == CoinAmount.zero(USDT)
    assert (x < y, x <= y, bool(x)) == (a < b, a <= b, a != 0)


def test_the_same_coin_under_another_name_is_the_same_coin():
    renamed = Coin(USDT.id, "USDt", "Tether", 2)
    assert (CoinAmount(USDT, 1) + CoinAmount(renamed, 2)).units == 3


def test_a_token_without_a_contract_is_its_networks_own_coin():
    assert not token(6).is_native
    assert replace(token(18, ETH), contract=None).is_native


@pytest.mark.parametrize(("step", "places"), [(1, 11), (10, 10), (1_000, 8)])
def test_a_payout_has_as_many_decimals_as_the_step_leaves(step, places):
    """Lightning counts millisatoshi and pays satoshi."""
    assert replace(token(11), step=step).payout_decimals == places
