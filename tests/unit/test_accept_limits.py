"""The operator's least and most amounts of a coin, at the last unit on both sides, and the mark by which repeats of a request are known."""

import asyncio
from types import SimpleNamespace

import pytest

from penstock.core.errors import Problem, Refused
from penstock.core.money import LEDGER_DECIMALS, parse_units
from penstock.core.order import Order, fingerprint
from penstock.core.party import Account, Merchant
from penstock.core.seal import OrderSeal
from penstock.core.withdrawal import WithdrawRequest
from penstock.orders.accept import Accept, Policy
from tests.fixtures.api import CATALOG, USDT_ETH

XRP = CATALOG.native("XRP").id
MERCHANT = Merchant(1, "shop", "1", (), "")
POLICY = Policy(minimum={"USDT": "5"}, maximum={"USDT": "100.5"})


def draft_of(value, policy=POLICY, *, token_id=USDT_ETH, memo=""):
    """What the intake would be given for a payout inside the house."""

    class Door:
        async def submit(self, draft):
            self.draft = draft

        async def find(self, text):
            return Account(int(text), "someone@example.com", "someone")

    door = Door()
    board = SimpleNamespace(rate_text=lambda _coin: "1")
    accept = Accept(
        catalog=CATALOG,
        board=board,
        accounts=door,
        intake=door,
        policy=policy,
        next_ids=lambda n: list(range(1, n + 1)),
        seal=OrderSeal(bytes(32)),
    )
    request = WithdrawRequest("order-1", "9454818", token_id, value, memo, False, False)
    asyncio.run(accept.withdraw(MERCHANT, request))
    return door.draft


@pytest.mark.parametrize(
    ("text", "past", "problem"),
    [("5", -1, Problem.VALUE_BELOW_LIMIT), ("100.5", 1, Problem.VALUE_ABOVE_LIMIT)],
)
def test_a_limit_itself_passes_and_the_next_unit_does_not(text, past, problem):
    limit = parse_units(text, LEDGER_DECIMALS)
    assert isinstance(draft_of(limit).wish, Order)
    refused = draft_of(limit + past).wish
    assert isinstance(refused, Refused)
    assert refused.problem is problem
    assert f"{text} USDT" in refused.msg


@pytest.mark.parametrize("units", [1, 10**60])
def test_a_coin_without_limits_has_none(units):
    assert isinstance(draft_of(units, Policy(minimum={"BTC": "1"}, maximum={"BTC": "1"})).wish, Order)


@pytest.mark.parametrize("units", [0, -1, -(10**20)])
def test_nothing_and_less_than_nothing_are_never_paid(units):
    refused = draft_of(units, Policy()).wish
    assert isinstance(refused, Refused)
    assert refused.problem is Problem.INVALID_ARGUMENT


@pytest.mark.parametrize("text", ["5", "12.5", "100.000000000000000001", "0.000000000000000001", "1000000"])
def test_the_mark_is_over_the_value_in_plain_notation(text):
    """Stored marks are compared with it for ever: it must not change with how the value is carried."""
    mark = fingerprint(address="9454818", token_id=USDT_ETH, value=text, memo="", merchant_pays_fee=False)
    assert draft_of(parse_units(text, LEDGER_DECIMALS)).fingerprint == mark


def test_a_memo_counts_where_the_token_takes_one_and_nowhere_else():
    units = parse_units("5", LEDGER_DECIMALS)
    plain, digits = draft_of(units), draft_of(units, memo="83513")
    assert (digits.fingerprint, digits.wish.memo) == (plain.fingerprint, "")
    # What was stored while it counted is the same request still.
    assert plain.former == ""
    assert digits.former == fingerprint(address="9454818", token_id=USDT_ETH, value="5", memo="83513", merchant_pays_fee=False)
    one, other = (draft_of(units, token_id=XRP, memo=memo) for memo in ("1", "2"))
    assert one.fingerprint != other.fingerprint and (one.former, other.former) == ("", "")
