"""Histories written by hand: what the judge of the history lane must find, and what it must not."""

from dataclasses import replace

import pytest

from penstock.prove.histories.history import CONFLICT, OK, SHORT, UNKNOWN, Call, History
from penstock.prove.histories.models import Wish
from penstock.prove.histories.serial import NEVER

E18 = 10**18
COIN = "usdt"


def wish(name="a", value="3", address="0xaa"):
    return Wish(name, address, "usdt-on-eth", COIN, "ETH", value, int(value) * E18, False)


def data(name="a", number=1, value="3"):
    return {
        "order_id": f"o{number}",
        "record_id": f"r{number}",
        "network_fee": "1",
        "network_coin_id": COIN,
        "net_receivable": str(int(value) - 1),
    }


def element(name="a", number=1, status="Processing", value="3", txid=""):
    detail = {"merchant_order_id": name, "order_id": f"o{number}", "order_amount": value, "status": status, "created": 17}
    return {"order_detail": detail, "trade_list": [{"status": status, "txid": txid}]}


def create(began, ended, code=OK, said=None, of=None):
    of = of or wish()
    if code == OK and said is None:
        said = data(value=of.value)
    return Call("create", "m", of.merchant_order_id, began, ended, code, said, of)


def query(began, ended, said=None, name="a"):
    return Call("query", "m", name, began, ended, OK, said)


def event(at, status="success", address="0xaa", number=1):
    body = {"pay_status": status, "to_address": address, "withdraw_amount": "3", "order_id": f"o{number}", "record_id": f"r{number}"}
    return Call("event", "m", "a", 0.0, at, OK, body)


def balance(began, ended, whole):
    return Call("balance", "m", COIN, began, ended, OK, whole * E18)


def cancel(began, ended, code=OK):
    return Call("cancel", "m", "a", began, ended, code)


def found(*calls, credit=10):
    return [(one.breach, one.text) for one in History(list(calls), {("m", COIN): credit * E18}).judge()]


def breaches(*calls, **kwargs):
    return [breach for breach, _ in found(*calls, **kwargs)]


SOUND = {
    "an order from its request to its end": [
        create(1, 2), balance(3, 4, 7), query(3, 4, element()), event(6), query(7, 8, element(status="Successful", txid="0x1"))
    ],
    "an answer that was lost, and the order is there": [create(1, NEVER, UNKNOWN), balance(2, 3, 10), balance(4, 5, 7), query(6, 7, element())],
    "an answer that was lost, and the order is not there": [create(1, NEVER, UNKNOWN), balance(2, 3, 10), query(6, 7)],
    "a repeat that gets the same": [create(1, NEVER, UNKNOWN), create(2, 3), create(4, 5), query(6, 7, element())],
    "two contents at once, of which one wins": [
        create(1, 4), create(1, 4, CONFLICT, of=wish(value="5")), balance(5, 6, 7), query(7, 8, element())
    ],
    "a cancel that gives the amount back": [
        create(1, 2), balance(3, 4, 7), cancel(5, 6), balance(7, 8, 10), query(9, 10, element(status="Failed")), event(11, "failed")
    ],
    "a cancel that nobody answered, and that was": [
        create(1, 2), cancel(3, NEVER, UNKNOWN), balance(4, 5, 7), balance(6, 7, 10), query(8, 9, element(status="Failed"))
    ],
    "a refusal for want of money, and the order later": [
        create(1, 3, SHORT, of=wish(value="9")), create(1, 3, of=wish("b")), query(5, 6, name="a"), query(5, 6, element("b"), "b")
    ],
    "a read while it is being stored": [create(1, 9), balance(2, 3, 10), balance(4, 5, 7), query(10, 11, element())],
}  # fmt: skip

UNSOUND = {
    "a lost order": ("lost_order", [create(1, 2), query(3, 4)]),
    "an order that was there and is gone": ("lost_order", [create(1, NEVER, UNKNOWN), query(3, 4, element()), query(5, 6)]),
    "a doubled order": ("double_payment", [create(1, 2), create(3, 4, said=data(number=2)), query(5, 6, element())]),
    "an order that another body was answered with": ("other", [create(1, 2), create(3, 4, of=wish(value="5")), query(5, 6, element())]),
    "an answer that changed": ("other", [create(1, 2), create(3, 4, said=data() | {"network_fee_value": "9"}), query(5, 6, element())]),
    "an id that is taken by nobody": ("lost_order", [create(1, 2, CONFLICT), query(3, 4)]),
    "a refusal where there was an order": ("other", [create(1, 2), create(3, 4, SHORT, of=wish(value="9")), query(5, 6, element())]),
    "the wrong amount shown": ("other", [create(1, 2), query(3, 4, element(value="4"))]),
    "a state that went back": (
        "other", [create(1, 2), query(3, 4, element(status="Processing")), query(5, 6, element(status="Pending"))]
    ),
    "an end that was left": ("other", [create(1, 2), query(3, 4, element(status="Failed")), query(5, 6, element(status="Successful"))]),
    "an end that changed its words": (
        "other",
        [create(1, 2), query(3, 4, element(status="Successful", txid="0x1")), query(5, 6, element(status="Successful", txid="0x2"))],
    ),
    "an event that says otherwise": ("other", [create(1, 2), event(3, "failed"), query(5, 6, element(status="Successful"))]),
    "an event of what is still on its way": ("other", [create(1, 2), event(3), query(5, 6, element())]),
    "an event for another address": ("other", [create(1, 2), event(3, address="0xbb"), query(5, 6, element(status="Successful"))]),
    "an event with another number": ("other", [create(1, 2), event(3, number=2), query(5, 6, element(status="Successful"))]),
    "a cancel of what was under way": ("other", [create(1, 2), query(3, 4, element(status="Successful")), cancel(5, 6)]),
    "a stale read": ("ledger_imbalance", [create(1, 2), balance(3, 4, 10), query(5, 6, element())]),
    "a balance that went down and up": (
        "ledger_imbalance", [create(1, 9), balance(2, 3, 7), balance(4, 5, 10), query(10, 11, element())]
    ),
    "a balance from nowhere": ("ledger_imbalance", [create(1, 2), balance(3, 4, 6), query(5, 6, element())]),
    "an order that cost nothing": ("ledger_imbalance", [create(1, 2), query(3, 4, element()), balance(5, 6, 10)]),
    "an order that was taken twice": ("ledger_imbalance", [create(1, 2), query(3, 4, element()), balance(5, 6, 4)]),
    "a refused order that cost something": ("ledger_imbalance", [create(1, 2, SHORT, of=wish(value="11")), balance(3, 4, -1), query(5, 6)]),
    "a refusal with money enough": ("ledger_imbalance", [create(1, 2, SHORT), query(3, 4)]),
    "more spent than there was": ("ledger_imbalance", [create(1, 2, of=wish(value="11")), query(3, 4, element(value="11"))]),
    "a cancelled order that gave nothing back": (
        "ledger_imbalance", [create(1, 2), cancel(3, 4), balance(5, 6, 7), query(7, 8, element(status="Failed"))]
    ),
    "money back from what never failed": (
        "ledger_imbalance", [create(1, 2), balance(3, 4, 7), balance(5, 6, 10), query(7, 8, element(status="Successful"))]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOUND)
def test_what_can_be_explained_is_found_sound(name):
    assert found(*SOUND[name]) == []


@pytest.mark.parametrize("name", UNSOUND)
def test_what_nothing_explains_is_found(name):
    breach, calls = UNSOUND[name]
    assert breaches(*calls) == [breach]


def test_a_number_that_names_two_orders_is_found():
    calls = [create(1, 2), create(3, 4, of=wish("b")), query(5, 6, element()), query(5, 6, element("b"), "b")]
    assert {text.split(" was")[0] for _, text in found(*calls)} == {"order_id o1", "record_id r1"}


def test_each_merchant_is_judged_by_its_own_calls():
    mine, theirs = create(1, 2), replace(create(1, 2, said=data(number=2)), merchant="n")
    calls = [mine, query(3, 4, element()), balance(3, 4, 7), theirs, replace(query(3, 4, element(number=2)), merchant="n")]
    assert found(*calls) == []
