"""What happens to nonces of an EVM network: a stuck one with a hundred behind it, a stranger on one, and prices that go mad (C3)."""

import asyncio
from dataclasses import replace

import pytest
from msgspec import structs

from penstock.core.intent import Intent
from penstock.rails.evm import codec
from tests.conformance.places import ETHEREUM

BEHIND = 100


@pytest.fixture
def place():
    return replace(ETHEREUM, settings={"confirmations": 7, "in_flight_max": 2 * BEHIND})


def wish(house, place, number):
    address, memo = place.recipient(house, number, "1")
    return house.withdraw(f"o{number}", place.main, "1", address, memo)


async def all_at_once(works):
    return await asyncio.gather(*works)


def attempts(house):
    return house.run(house.product.database.read(lambda tx: tx.all("SELECT slot, state FROM attempt ORDER BY slot")))


def test_a_stuck_nonce_with_a_hundred_behind_it_is_bumped_and_leaves_no_gap(tmp_path, place):
    with place.house(tmp_path) as house:
        house.network.set_block_time(0)
        answers = house.run(all_at_once([wish(house, place, number) for number in range(BEHIND + 1)]))
        assert {answer["code"] for answer in answers} == {10000}
        house.wait(30)
        before = attempts(house)
        assert [row["slot"] for row in before] == list(range(BEHIND + 1))
        head = house.run(house.product.database.read(lambda tx: tx.one("SELECT txid FROM attempt WHERE slot = 0")))["txid"]
        house.network.forget(head)
        house.network.spike(4)
        house.network.set_block_time(1_000)
        for number in range(BEHIND + 1):
            assert house.run(house.until(f"o{number}", "succeeded", "failed", "quarantined"))["state"] == "succeeded"
        assert [(row["slot"], row["state"]) for row in attempts(house)] == [(slot, "final") for slot in range(BEHIND + 1)]
        house.judge()


def test_a_stranger_who_takes_our_nonce_stops_the_lane_and_pays_nobody_twice(tmp_path, place):
    with place.house(tmp_path) as house:
        house.network.set_block_time(0)
        assert house.run(wish(house, place, 1))["code"] == 10000
        house.run(house.until("o1", "sending"))
        house.wait(5)
        row = house.run(house.product.database.read(lambda tx: tx.one("SELECT intent, txid FROM version")))
        ours = Intent.from_json(row["intent"])
        address, _ = place.recipient(house, 2, "1")
        key = next(iter(house.product.signer._senders["ETH"].values()))
        stolen = codec.sign(structs.replace(ours, attempt_id=99, payments=(structs.replace(ours.payments[0], recipient=address),)), key)
        house.network.forget(row["txid"])
        house.network.chain.submit(stolen.raw)
        house.network.set_block_time(1_000)
        order = house.run(house.until("o1", "quarantined", "failed", "succeeded"))
        assert order["state"] == "quarantined"
        assert "none of ours" in order["states"][-1]["reason"]
        assert place.received(house, place.recipient(house, 1, "1")[0], place.main) == "0"
        assert house.run(wish(house, place, 3))["code"] == 10000
        house.wait(60)
        assert house.run(house.order("o3"))["state"] == "held"
        assert [row["slot"] for row in attempts(house)] == [0]


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_price_a_thousand_times_as_high_costs_no_more_than_the_cap_and_ends(tmp_path, place, when):
    with place.house(tmp_path) as house:
        house.network.set_block_time(0)
        if when == "before":
            house.network.spike(1_000)
            house.network.set_block_time(1_000)
            house.wait(120)
        task = house.loop.create_task(wish(house, place, 1))
        house.wait(5)
        if when == "after":
            house.network.spike(1_000)
            house.network.set_block_time(1_000)
        house.wait(300)
        house.network.spike(1)
        house.run(asyncio.wait_for(task, None))
        order = house.run(house.until("o1", "succeeded", "failed", "quarantined"))
        assert order["state"] == "succeeded"
        (row,) = house.run(house.product.database.read(lambda tx: tx.all("SELECT gas_paid, fee_cap FROM attempt")))
        assert row["gas_paid"] <= row["fee_cap"]
        house.judge()
