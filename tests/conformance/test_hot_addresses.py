"""Several hot addresses of one network: a stuck transaction holds only what is behind it, and one house pays everybody once from all of them."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from penstock.config import SettingWrong
from penstock.devnet.control import control
from tests.conformance.places import ETHEREUM, PLACES

ORDERS = 9


def recipient(house, place, number):
    """Made once: on some networks an account costs a fee."""
    known = vars(house).setdefault("recipients", {})
    if number not in known:
        known[number] = place.recipient(house, number, "1")
    return known[number]


def wish(house, place, number):
    address, memo = recipient(house, place, number)
    return house.withdraw(f"o{number}", place.main, "1", address, memo)


def ask(house, place, numbers):
    async def at_once():
        return await asyncio.gather(*(wish(house, place, number) for number in numbers))

    assert {answer["code"] for answer in house.run(at_once())} == {10000}


def paid(house, place, number, within_s=3_000.0):
    assert house.run(house.until(f"o{number}", "succeeded", "failed", "quarantined", within_s=within_s))["state"] == "succeeded"
    assert place.received(house, recipient(house, place, number)[0], place.main) == "1"


def attempts_of(house):
    """How many attempts each lane has ever had."""
    sql = (
        "SELECT lane.number FROM attempt JOIN lane ON lane.id = lane_id JOIN version ON version.attempt_id = attempt.id WHERE kind = 'pay'"
    )
    rows = house.run(house.product.database.read(lambda tx: tx.all(f"{sql} AND version.number = 1")))
    return Counter(row["number"] for row in rows)


def restart_with(house, hot_addresses):
    networks = {name: replace(one, hot_addresses=hot_addresses) for name, one in house.settings.networks.items()}
    house.settings = replace(house.settings, networks=networks)
    house.restart()


@pytest.fixture
def place():
    return replace(ETHEREUM, settings={"confirmations": 7, "hot_addresses": 3, "block_ms": 1_000})


def test_a_stuck_transaction_holds_what_is_behind_it_alone_and_later_orders_go_elsewhere(tmp_path, place):
    with place.house(tmp_path) as house:
        stuck = house.run(house.all_hot())[1]
        control([house.network], {"do": "shun", "address": stuck})
        ask(house, place, range(ORDERS))
        house.wait(60)
        spread = attempts_of(house)
        assert spread == {0: 3, 1: 3, 2: 3}
        states = Counter(house.run(house.order(f"o{number}"))["state"] for number in range(ORDERS))
        assert states == {"succeeded": 6, "sending": 3}
        ask(house, place, range(ORDERS, 2 * ORDERS))
        for number in range(ORDERS, 2 * ORDERS):
            paid(house, place, number, within_s=60)
        assert attempts_of(house)[1] == 3, "the stuck one gets none while others move"
        control([house.network], {"do": "unshun", "address": stuck})
        for number in range(2 * ORDERS):
            paid(house, place, number)
        house.judge()


@pytest.mark.parametrize("name", ["ETH", "TRX", "XRP"])
@pytest.mark.parametrize("dies_at", ["bind:after", "sign:after", "submit:after", "settle:before"])
def test_a_house_with_three_hot_addresses_that_dies_pays_everybody_once(tmp_path, name, dies_at):
    place = replace(PLACES[name], settings={**PLACES[name].settings, "hot_addresses": 3})
    with place.house(tmp_path) as house:

        def work():
            async def all_of_them():
                for number in range(6):
                    await wish(house, place, number)
                for number in range(6):
                    await house.until(f"o{number}", "succeeded", "failed", "quarantined")

            return all_of_them()

        house.surviving(work, crash_at=(dies_at, 1))
        assert house.crashes == 1
        for number in range(6):
            paid(house, place, number)
        assert len(attempts_of(house)) == 3
        house.judge()


def test_orders_go_where_the_coins_are(tmp_path, place):
    with place.house(tmp_path) as house:
        token = house.product.catalog.by_symbol("USDT", "ETH")
        have = sum(house.network.holding(address, token.contract) for address in house.run(house.all_hot()))
        rich = house.run(house.all_hot())[2]
        house.network.fund(rich, have, token.contract)
        house.wait(30)
        each = have // 3 // 10**token.decimals
        address, memo = recipient(house, place, 1)
        answer = house.run(house.withdraw("o1", "USDT", str(each + 1), address, memo))
        assert answer["code"] == 10000
        house.run(house.until("o1", "succeeded", "held"))
        assert attempts_of(house) == {2: 1}
        house.judge()


def test_the_number_of_hot_addresses_may_be_raised_and_lowered_while_payments_are_under_way(tmp_path, place):
    with place.house(tmp_path) as house:
        house.network.set_block_time(0)
        ask(house, place, range(3))
        house.wait(5)
        assert attempts_of(house) == {0: 1, 1: 1, 2: 1}
        restart_with(house, 1)
        ask(house, place, range(3, 6))
        house.network.set_block_time(1_000)
        for number in range(6):
            paid(house, place, number)
        assert attempts_of(house) == {0: 4, 1: 1, 2: 1}
        house.judge()
        restart_with(house, 4)
        house.wait(30)
        lanes = house.run(house.product.database.read(lambda tx: tx.all("SELECT number FROM lane ORDER BY number")))
        assert [row["number"] for row in lanes] == [0, 1, 2, 3]
        ask(house, place, range(6, 12))
        for number in range(6, 12):
            paid(house, place, number)
        house.judge()


def test_a_payout_to_any_hot_address_is_refused_also_to_one_that_is_not_used(tmp_path, place):
    with place.house(tmp_path) as house:
        for address in house.product.signer.addresses("ETH"):
            assert house.run(house.withdraw(address, "USDT", "1", address))["code"] == 14008


def test_coins_that_leave_one_hot_address_without_us_stop_the_network(tmp_path, place):
    with place.house(tmp_path) as house:
        lane = house.run(house.product.database.read(lambda tx: tx.one("SELECT id FROM lane WHERE number = 1")))["id"]
        native = house.product.catalog.native("ETH")
        more = "UPDATE treasury_seen SET observed = :observed WHERE lane_id = :lane AND token_id = :token"

        def look_richer(tx):
            seen = tx.one("SELECT observed FROM treasury_seen WHERE lane_id = :lane AND token_id = :token", lane=lane, token=native.id)
            tx.run(more, observed=seen["observed"] + 5, lane=lane, token=native.id)

        house.run(house.product.database.write("test", look_richer))
        house.wait(30)
        halted = house.run(house.product.database.read(lambda tx: tx.all("SELECT halted FROM lane")))
        assert len(halted) == 3 and all("left the hot address" in row["halted"] for row in halted)
        ask(house, place, [1])
        house.wait(30)
        assert house.run(house.order("o1"))["hold_reason"] == "network paused"


def test_a_database_of_before_a_hot_address_was_opened_gets_its_payments_back_by_itself(tmp_path, place):
    place = replace(place, settings={**place.settings, "hot_addresses": 1})
    with place.house(tmp_path) as house:
        token = house.product.catalog.by_symbol("USDT", "ETH")
        value = str(house.network.holding(house.run(house.hot()), token.contract) // 10**token.decimals + 1)
        address, memo = place.recipient(house, 1, value)
        assert house.run(house.withdraw("o1", "USDT", value, address, memo))["code"] == 10000
        house.run(house.until("o1", "held"))
        house.die()
        file = house.settings.home / "penstock.db"
        older = file.read_bytes()
        restart_with(house, 2)
        second = house.run(house.all_hot())[1]
        control([house.network], {"do": "shun", "address": second})
        for symbol in ("ETH", "USDT"):
            contract = house.product.catalog.by_symbol(symbol, "ETH").contract
            house.network.fund(second, 2 * int(value) * 10**6 if contract else 10**19, contract)
        house.run(house.until("o1", "sending"))
        house.wait(5)
        assert attempts_of(house) == {1: 1}
        house.die()
        file.write_bytes(older)
        house.start()
        house.wait(30)
        control([house.network], {"do": "unshun", "address": second})
        assert house.run(house.until("o1", "succeeded", "failed", "quarantined"))["state"] == "succeeded"
        assert place.received(house, address, "USDT") == value
        assert attempts_of(house) == {1: 1}
        house.judge()


@pytest.mark.parametrize(
    ("name", "number", "why"), [("BTC", 2, "one transaction holds no other up"), ("LIGHTNING", 2, "at most 1"), ("XRP", 17, "at most 16")]
)
def test_more_hot_addresses_than_a_network_can_have_are_refused_with_a_sentence(tmp_path, name, number, why):
    place = replace(PLACES[name], settings={**PLACES[name].settings, "hot_addresses": number})
    with pytest.raises(SettingWrong, match=why), place.house(tmp_path):
        raise AssertionError("it started")
