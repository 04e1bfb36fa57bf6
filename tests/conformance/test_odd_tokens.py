"""Tokens of an EVM network that change their manners while a payment is on its way: its own event decides, and nothing is sent again (C8)."""

import pytest

from penstock.devnet.evm.contracts import code_of
from penstock.devnet.tron.tokens import CONTRACT, behave_call
from tests.conformance.places import ETHEREUM as PLACE
from tests.conformance.test_reorgs import give_code


def upgrade(house, behaviour):
    """The contract at the token's address is another one from now on, and behaves so."""
    give_code(house, PLACE.main, code_of(CONTRACT))
    token = house.product.catalog.by_symbol(PLACE.main, PLACE.chain)
    house.network.chain._from_faucet(token.contract, 0, behave_call(behaviour), 100_000)


@pytest.mark.parametrize(
    ("behaviour", "state", "received"),
    [
        ("usual", "succeeded", "12.5"),
        ("false", "succeeded", "12.5"),  # it returns false, and has paid
        ("nothing", "succeeded", "12.5"),  # it returns no data at all
        ("silent", "quarantined", "12.5"),  # it pays without an event
        ("short", "quarantined", "12.375"),  # a fee on the transfer
        ("twice", "quarantined", "12.5"),
        ("lying", "succeeded", "0"),  # the limit: a token's own event is what its payment is
        ("paused", "failed", "0"),  # also a recipient on its list
        ("broken", "failed", "0"),
        ("endless", "failed", "0"),
    ],
)
def test_a_token_that_is_upgraded_on_the_way_is_judged_by_its_event_and_paid_once(tmp_path, behaviour, state, received):
    with PLACE.house(tmp_path) as house:
        house.network.set_block_time(0)
        address, memo = PLACE.recipient(house, 1, "12.5")
        assert house.run(house.withdraw("a", PLACE.main, "12.5", address, memo))["code"] == 10000
        house.run(house.until("a", "sending"))
        house.wait(3)
        txid = house.run(house.order("a"))["attempts"][0]["versions"][0]["txid"]
        house.network.forget(txid)
        upgrade(house, behaviour)
        house.network.mine(1)
        house.network.set_block_time(1_000)
        order = house.run(house.until("a", "succeeded", "failed", "quarantined"))
        house.wait(120)
        order = house.run(house.order("a"))
        assert (order["state"], len(order["attempts"])) == (state, 1), order["states"]
        assert PLACE.received(house, address, PLACE.main) == received
        token = house.product.catalog.by_symbol(PLACE.main, PLACE.chain)
        assert house.network.holding(house.run(house.hot()), token.contract) >= 500 * 10**6 - 12_500_000
