"""What one node says while the other is away: it may be blind or late, and never makes our own payment a stranger's."""

import pytest

from tests.conformance.places import BITCOIN, TRON

FAR_MS = 10**15


def hold_back(house, due_at_ms):
    """When the follower looks again is the outcome of a race; here the test decides it, also after a look that is under way."""
    for _ in range(2):
        house.run(house.product.database.write("test", lambda tx: tx.run("UPDATE attempt SET due_at_ms = :at_ms", at_ms=due_at_ms)))
        house.wait(0.2)


def attempt_of(house):
    (row,) = house.run(house.product.database.read(lambda tx: tx.all("SELECT state, seen, seen_at_ms FROM attempt")))
    return row


@pytest.mark.parametrize("place", [BITCOIN, TRON], ids=lambda place: place.chain)
def test_a_payment_that_one_blind_node_alone_was_asked_of_is_no_outflow(tmp_path, place):
    """The treasury was seen at a block with our payment; before the books had it final one node was away and the other blind. Its "nowhere"
    counted as a look, so that what had left was a stranger's, and the lane stood.
    """
    with place.house(tmp_path) as house:
        treasury, nodes = house.product.treasury, house.network.nodes
        value = place.pays[place.main]
        address, memo = place.recipient(house, 1, value)
        assert house.run(house.withdraw("a", place.main, value, address, memo))["code"] == 10000
        house.run(house.until("a", "confirming"))
        hold_back(house, FAR_MS)
        house.network.mine(30)
        for _ in range(2):  # the first may end what waited from before
            house.run(treasury.refresh())
        assert treasury._waiting, treasury.faults or "a look at a block in which the books have nothing yet"
        looked_at_ms = house.now_ms()

        nodes[0].faults.blind, nodes[1].faults.down = True, "reset"
        hold_back(house, 0)
        while (attempt := attempt_of(house))["seen_at_ms"] <= looked_at_ms:
            house.wait(0.1)
        assert attempt["state"] == "sent", attempt
        hold_back(house, FAR_MS)
        nodes[0].faults.blind, nodes[1].faults.down = False, ""
        house.wait(2)  # what failed lately is asked again
        for _ in range(3):
            house.run(treasury.refresh())
        assert house.run(house.order("a"))["state"] in ("sending", "confirming")
        assert house.run(house.product.database.read(lambda tx: tx.all("SELECT halted FROM lane"))) == [{"halted": ""}]

        hold_back(house, 0)
        house.run(house.until("a", "succeeded"))
        assert place.received(house, address, place.main) == value
        house.judge()
