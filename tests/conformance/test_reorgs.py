"""Blocks that are undone, one to twelve deep: back to sent, the same bytes again, and in the end what the chain says (C2)."""

from dataclasses import replace
from decimal import Decimal

import pytest

from penstock.catalog import Catalog
from penstock.devnet.evm.box import network_of
from penstock.devnet.evm.chain import EvmChain
from penstock.devnet.evm.specs import specs
from tests.conformance.places import BITCOIN, ETHEREUM, REVERTS

DEPTHS = range(1, 13)
CONFIRMATIONS = 14


def deep_ethereum(now_ms):
    spec = next(spec for spec in specs(Catalog.load()) if spec.name == "ETH")
    return network_of(EvmChain(replace(spec, finality_depth=20), now_ms=now_ms, seed=1))


PLACES = {
    "ETH": replace(ETHEREUM, born=deep_ethereum, settings={"confirmations": CONFIRMATIONS}),
    "BTC": replace(BITCOIN, settings={"confirmations": CONFIRMATIONS}),
}


def give_code(house, symbol, code):
    """The token's code is another one, and was so in every block that may be undone."""
    history = house.network.chain._world.accounts
    account = bytes.fromhex(house.product.catalog.by_symbol(symbol, "ETH").contract[2:])
    before = history.newest(account).code
    history._values[account] = [value._replace(code=code) for value in history._values[account]]
    return before


def under_way(house, place, name, depth):
    """A payment that is so deep in the chain, and its recipient."""
    value = place.pays[place.main]
    address, memo = place.recipient(house, depth, value)
    assert house.run(house.withdraw(name, place.main, value, address, memo))["code"] == 10000
    house.run(house.until(name, "confirming"))
    (attempt,) = house.run(house.order(name))["attempts"]
    landed = next(version["txid"] for version in attempt["versions"])
    while depth_of(house, landed) < depth:
        house.wait(0.5)
    return address, landed


def depth_of(house, txid):
    rows = house.run(house.product.database.read(lambda tx: tx.all("SELECT block FROM attempt WHERE txid = :txid", txid=txid)))
    return house.network.status()["head"] - rows[0]["block"] + 1 if rows and rows[0]["block"] is not None else 0


@pytest.mark.parametrize("fate", ["keep", "drop", "reorder"])
@pytest.mark.parametrize("name", list(PLACES))
def test_a_reorg_of_any_depth_changes_nothing_but_the_block(tmp_path, name, fate):
    place = PLACES[name]
    with place.house(tmp_path) as house:
        for depth in DEPTHS:
            order = f"deep {depth}"
            address, txid = under_way(house, place, order, depth)
            house.network.fork(depth, fate)
            found = house.run(house.until(order, "succeeded", "failed", "quarantined"))
            assert found["state"] == "succeeded", (depth, found["states"])
            assert [[version["txid"] for version in attempt["versions"]] for attempt in found["attempts"]] == [[txid]]
            assert place.received(house, address, place.main) == place.pays[place.main]
            assert len(set(house.events[order])) == 1
        house.judge()


def test_a_success_that_a_reorg_makes_fail_fails_and_gives_the_money_back(tmp_path):
    place = PLACES["ETH"]
    with place.house(tmp_path) as house:
        for depth in DEPTHS:
            order = f"deep {depth}"
            address, _ = under_way(house, place, order, depth)
            code = give_code(house, place.main, REVERTS)
            house.network.fork(depth, "keep")
            found = house.run(house.until(order, "succeeded", "failed", "quarantined"))
            give_code(house, place.main, code)
            assert (found["state"], len(found["attempts"])) == ("failed", 1), (depth, found["states"])
            assert Decimal(place.received(house, address, place.main)) == 0
        house.judge()


def test_a_failure_that_a_reorg_makes_succeed_is_paid_once_and_never_by_another_nonce(tmp_path):
    """C3: reverted, and then not: nothing may be concluded before finality."""
    place = PLACES["ETH"]
    with place.house(tmp_path) as house:
        for depth in DEPTHS:
            order, value = f"deep {depth}", place.pays[place.main]
            house.network.set_block_time(0)
            address, memo = place.recipient(house, depth, value)
            assert house.run(house.withdraw(order, place.main, value, address, memo))["code"] == 10000
            house.run(house.until(order, "sending"))
            house.wait(2)
            code = give_code(house, place.main, REVERTS)
            house.network.mine(depth)
            house.wait(5)
            seen = house.run(house.order(order))["attempts"][-1]["seen"]
            assert "reverted" in seen, seen
            give_code(house, place.main, code)
            house.network.fork(depth, "keep")
            house.network.set_block_time(1_000)
            found = house.run(house.until(order, "succeeded", "failed", "quarantined"))
            assert (found["state"], len(found["attempts"]), len(found["attempts"][0]["versions"])) == ("succeeded", 1, 1), depth
            assert place.received(house, address, place.main) == value
        house.judge()
