"""The whole product on the XRP Ledger in a box: what only this network has (the rest is in tests/conformance)."""

import pytest

from penstock.catalog import Catalog
from penstock.commands import Commands
from penstock.core.intent import Intent, Payment
from penstock.devnet.box import Arguments
from penstock.devnet.boxes import make_networks
from penstock.rails.xrp import codec
from penstock.rails.xrp.fees import WINDOW
from penstock.signer.keys import derive
from tests.fixtures.house import house_on
from tests.fixtures.xrp_bench import RECIPIENT

RLUSD = Catalog.load().by_symbol("RLUSD", "XRP").contract


def made(now_ms):
    (network,) = make_networks(Catalog.load(), ["XRP"], now_ms=now_ms, seed=1)
    return network


@pytest.fixture
def house(tmp_path):
    with house_on(tmp_path, made) as built:
        built.run(built.set_up({"XRP": "1000", "RLUSD": "1000"}))
        built.network.fund(built.run(built.hot()), 50_000_000)
        built.wait(20)
        yield built


def account(house, name, **how):
    return house.network.verbs["account"](Arguments({"name": name, **how}))["address"]


def accepted(house, name, symbol, value, address, memo=""):
    answer = house.run(house.withdraw(name, symbol, value, address, memo))
    assert answer["code"] == 10000, answer


def ends(house, name):
    return house.run(house.until(name, "succeeded", "failed", "quarantined"))


def opened(house, units=500_000_000):
    assert [row["crypto"] for row in house.run(Commands(house.product).open_tokens("XRP"))] == ["RLUSD", "USDC"]
    house.wait(15)
    house.network.fund(house.run(house.hot()), units, RLUSD)
    house.wait(15)


def test_a_token_is_opened_once_funded_and_paid_with_its_tag(house):
    opened(house)
    assert house.run(Commands(house.product).open_tokens("XRP")) == []
    exchange = account(house, "exchange", settings="require_dest", trusts=RLUSD)
    accepted(house, "a", "RLUSD", "12.345678", exchange, "573049")
    assert ends(house, "a")["state"] == "succeeded"
    assert house.network.holding(exchange, RLUSD) == 12_345_678
    house.judge()


def test_a_token_waits_until_the_hot_address_can_hold_it(house):
    holder = account(house, "holder", trusts=RLUSD)
    accepted(house, "a", "RLUSD", "1.5", holder)
    order = house.run(house.until("a", "held"))
    assert order["hold_reason"] == "policy"
    opened(house)
    assert ends(house, "a")["state"] == "succeeded"
    assert house.network.holding(holder, RLUSD) == 1_500_000
    house.judge()


def test_recipients_that_cannot_take_it_are_refused_while_the_merchant_waits(house):
    exchange, hermit = account(house, "exchange", settings="require_dest"), account(house, "hermit", settings="deposit_auth")
    house.wait(5)
    assert house.run(house.withdraw("a", "XRP", "5", exchange))["code"] == 14003
    assert house.run(house.withdraw("b", "XRP", "5", hermit))["code"] == 14007
    assert house.run(house.withdraw("c", "RLUSD", "5", exchange, "7"))["code"] == 14007
    small = house.run(house.withdraw("e", "XRP", "0.999999", RECIPIENT))
    assert (small["code"], "must be at least 1 XRP" in small["msg"]) == (14005, True)
    accepted(house, "d", "XRP", "5", exchange, "7")
    assert ends(house, "d")["state"] == "succeeded"
    house.judge()


def test_what_the_account_must_keep_is_never_paid_out(house):
    held = house.network.holding(house.run(house.hot()))
    assert held == 50_000_000
    accepted(house, "a", "XRP", "49.5", RECIPIENT)
    order = house.run(house.until("a", "held"))
    assert order["hold_reason"] == "liquidity"
    assert "must keep 1 XRP" in str(order)
    accepted(house, "b", "XRP", "40", account(house, "b"))
    assert ends(house, "b")["state"] == "succeeded"
    house.network.fund(house.run(house.hot()), 60_000_000)
    assert ends(house, "a")["state"] == "succeeded"
    assert house.network.holding(RECIPIENT) == 49_500_000
    house.judge()


def test_what_nobody_took_in_time_is_paid_by_a_later_version_of_the_same_sequence(house):
    for node in house.network.nodes:
        node.faults.drop = 10_000
    accepted(house, "a", "XRP", "5", RECIPIENT)
    house.wait(4 * WINDOW)
    for node in house.network.nodes:
        node.faults.drop = 0
    order = ends(house, "a")
    assert order["state"] == "succeeded"
    (attempt,) = order["attempts"]
    assert 2 <= len(attempt["versions"]) <= 4
    assert house.network.holding(RECIPIENT) == 5_000_000
    house.judge()


def test_a_long_outage_uses_up_few_versions(house):
    for node in house.network.nodes:
        node.faults.drop = 10_000_000
    accepted(house, "a", "XRP", "5", RECIPIENT)
    house.wait(900)
    for node in house.network.nodes:
        node.faults.drop = 0
    order = house.run(house.until("a", "succeeded", "failed", "quarantined", within_s=4_000))
    assert order["state"] == "succeeded"
    assert 4 <= len(order["attempts"][0]["versions"]) <= 8
    assert house.network.holding(RECIPIENT) == 5_000_000
    house.judge()


def test_a_second_instance_with_our_key_stops_the_lane_and_pays_nothing_twice(house):
    """C5: the sequence moves without us."""
    hot = house.run(house.hot())
    key = derive(house.keys, codec.path(0, 0))
    chain = house.network.chain
    slot = chain.state.accounts.at(hot, chain.closed).sequence
    stolen = Intent(
        attempt_id=1, version=1, kind="pay", chain="XRP", family="xrp", chain_id=7300144, sender=hot, slot=slot, token_id="x", contract=None,
        payments=(Payment(1, RECIPIENT, "", 7_000_000),), terms={"fee": 20, "last_ledger": chain.closed + 50}, fee_cap=20,
    )  # fmt: skip
    house.network.set_block_time(0)
    accepted(house, "a", "XRP", "5", account(house, "a"))
    house.wait(3)
    for txid in chain.waiting:
        house.network.forget(txid)
    chain.submit(codec.sign(stolen, key).raw)
    house.network.mine(2)
    house.network.set_block_time(1_000)
    order = ends(house, "a")
    assert order["state"] == "quarantined"
    lanes = house.run(house.product.database.read(lambda tx: tx.all("SELECT halted FROM lane")))
    assert lanes[0]["halted"]
    assert house.network.holding(RECIPIENT) == 7_000_000
    house.wait(120)
    assert house.network.holding(account(house, "a")) == 20_000_000
