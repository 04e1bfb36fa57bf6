"""TRON's life and death by the clock: bytes that reach the network some blocks before, at and after their expiration (C4)."""

import pytest

from tests.conformance.places import TRON as PLACE

BLOCK_MS = 1_000


@pytest.mark.parametrize("blocks", range(-3, 4))
def test_bytes_that_come_at_the_edge_of_their_life_are_paid_once_whatever_side_they_fall(tmp_path, blocks):
    with PLACE.house(tmp_path) as house:
        for node in house.network.nodes:
            node.faults.drop = 10**6
        address, memo = PLACE.recipient(house, 1, "12.5")
        assert house.run(house.withdraw("a", PLACE.main, "12.5", address, memo))["code"] == 10000
        house.run(house.until("a", "sending"))
        house.wait(2)
        (row,) = house.run(house.product.database.read(lambda tx: tx.all("SELECT raw, intent FROM version")))
        expiration = int(row["intent"].partition('"expiration":')[2].partition(",")[0].rstrip("}"))
        while house.network.chain.head.time_ms < expiration + (blocks - 1) * BLOCK_MS:
            house.wait(0.5)
            house.network.tick()
        for node in house.network.nodes:
            node.faults.drop = 0
        order = house.run(house.until("a", "succeeded", "failed", "quarantined"))
        assert order["state"] == "succeeded"
        assert PLACE.received(house, address, PLACE.main) == "12.5"
        states = [attempt["state"] for attempt in order["attempts"]]
        assert states in (["final"], ["dead", "final"])
        if blocks < 0:
            assert states == ["final"]
        if blocks > 0:
            assert states == ["dead", "final"]
        house.judge()
