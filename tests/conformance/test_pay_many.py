"""Many token orders in one EVM transaction, through every turn of its life: all of them are paid once, or none is and all are refunded."""

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from decimal import Decimal

import pytest

from penstock.commands import Commands
from penstock.core.errors import Refused
from penstock.core.event import Suspicious
from penstock.core.intent import Intent
from penstock.devnet.evm.contracts import slots_of
from penstock.prove.simulated.virtual import Crash
from penstock.rails.base import Submission, Verdict
from penstock.rails.evm import codec
from penstock.signer.policy import caps_of
from tests.conformance.places import ETHEREUM, ETHEREUM_MANY, broken_token
from tests.conformance.test_reorgs import give_code

PLACE = ETHEREUM_MANY
VALUE = "1.5"
NAMES = ("a", "b", "c")
SAYS_TRUE = bytes.fromhex("60015f5260205ff3")
"""Code that answers one word, 1, whatever it is asked, and does nothing."""


@pytest.fixture
def house(tmp_path):
    with PLACE.house(tmp_path) as built:
        yield built


def rows(house, sql):
    return house.run(house.product.database.read(lambda tx: tx.all(sql)))


def intents(house):
    """Of every version, in the order of the slots."""
    found = rows(house, "SELECT intent FROM version JOIN attempt ON attempt.id = attempt_id ORDER BY slot, number")
    return [Intent.from_json(row["intent"]) for row in found]


def sizes(house):
    """How many orders each attempt pays, in the order of their slots; an attempt that opens a token pays none."""
    return [len(intent.payments) for intent in intents(house) if intent.version == 1]


async def all_of(works):
    return await asyncio.gather(*works)


def recipients(house, names):
    return {name: PLACE.recipient(house, int.from_bytes(name.encode(), "big"), VALUE)[0] for name in names}


def asked(house, names, value=VALUE):
    """Orders asked for at once; who gets what."""
    to = recipients(house, names)
    answers = house.run(all_of(house.withdraw(name, "USDT", value, address) for name, address in to.items()))
    assert {answer["code"] for answer in answers} == {10000}, answers
    return to


def bound(house, names=NAMES):
    """Orders that share a transaction, which the nodes have and no block."""
    house.network.set_block_time(0)
    to = asked(house, names)
    for name in names:
        house.run(house.until(name, "sending"))
    house.wait(3)
    assert sizes(house)[-1] == len(names)
    return to


def ended(house, to, state, received, symbol="USDT"):
    """Each ended so, has its webhook, and got so much; their orders."""
    orders = []
    for name, address in to.items():
        order = house.run(house.until(name, "succeeded", "failed", "quarantined", within_s=9_000))
        assert order["state"] == state, order["states"]
        assert Decimal(PLACE.received(house, address, symbol)) == Decimal(received)
        orders.append(order)
    house.wait(5)
    assert {name: len(set(house.events.get(name, ()))) for name in to} == dict.fromkeys(to, state != "quarantined")
    return orders


def owed(house):
    """What the merchant has of the token that is not promised to anybody."""
    coin = house.product.catalog.by_symbol("USDT", PLACE.chain).coin
    (asset,) = house.run(house.ask("/assets", coin_id=coin.id))["data"]["list"]
    return asset["value"]


def take_back(house):
    """What the hot address allows PayMany is nothing any more, whoever changed it; nothing is mended."""
    token = bytes.fromhex(house.product.catalog.by_symbol("USDT", PLACE.chain).contract[2:])
    at = slots_of("PlainToken")["allowance"].to_bytes(32, "big")
    for holder in (house.run(house.hot()), codec.PAY_MANY):
        at = codec.keccak256(bytes.fromhex(holder[2:]).rjust(32, b"\0") + at)
    chain = house.network.chain
    chain._world.slots.write(chain.head.number, {(token, int.from_bytes(at, "big")): 0})
    return lambda: None


def break_token(house):
    """Whatever is asked of the token reverts, until that is mended."""
    return broken_token(house, "USDT", "")


def test_thirty_orders_go_in_two_transactions_and_the_native_coin_by_itself(house):
    names = [f"o{number}" for number in range(30)]
    to = recipients(house, names)
    native = PLACE.recipient(house, 99, "0.25")[0]
    works = [house.withdraw(name, "USDT", VALUE, address) for name, address in to.items()]
    answers = house.run(all_of([*works[:7], house.withdraw("native", "ETH", "0.25", native), *works[7:]]))
    assert {answer["code"] for answer in answers} == {10000}
    orders = ended(house, to, "succeeded", VALUE)
    ended(house, {"native": native}, "succeeded", "0.25", "ETH")
    assert sorted(sizes(house)) == [0, 1, 10, 20]
    assert sorted([order["txid"] for order in orders].count(txid) for txid in {order["txid"] for order in orders}) == [10, 20]
    assert len(intents(house)) == 4
    assert len(rows(house, "SELECT id FROM attempt WHERE state = 'final'")) == 4
    house.judge()


def test_two_orders_that_pay_one_recipient_the_same_are_both_paid_by_one_transaction(house):
    address, other = (PLACE.recipient(house, number, VALUE)[0] for number in (1, 2))
    wished = {"a": address, "b": address, "c": other}
    answers = house.run(all_of(house.withdraw(name, "USDT", VALUE, to) for name, to in wished.items()))
    assert {answer["code"] for answer in answers} == {10000}
    ended(house, {"a": address, "b": address}, "succeeded", "3")
    ended(house, {"c": other}, "succeeded", VALUE)
    assert sizes(house) == [0, 3]
    house.judge()


def test_before_the_allowance_is_mined_orders_go_alone_and_none_waits(tmp_path, monkeypatch):
    async def nothing(_commands, _chain):
        return []

    with monkeypatch.context() as closed:
        closed.setattr(Commands, "open_tokens", nothing)
        place = contextlib.ExitStack()
        house = place.enter_context(PLACE.house(tmp_path))
    with place:
        to = asked(house, ["before"])
        ended(house, to, "succeeded", VALUE)
        house.network.set_block_time(0)
        assert [row["crypto"] for row in house.run(Commands(house.product).open_tokens("ETH"))] == ["USDT"]
        assert house.run(Commands(house.product).open_tokens("ETH")) == []  # it is on its way
        house.wait(2)
        to = asked(house, NAMES)
        house.wait(2)
        assert {house.run(house.order(name))["state"] for name in NAMES} == {"sending"}
        assert sizes(house) == [1, 0, 1, 1, 1]
        house.network.set_block_time(1_000)
        ended(house, to, "succeeded", VALUE)
        asked(house, ["later", "later still"])
        house.run(house.until("later", "succeeded"))
        assert sizes(house)[-1] == 2
        house.judge()


CRASHES = [
    ("bind:after", 1),
    ("signer:journaled", 1),
    ("sign:before", 1),
    ("sign:after", 1),
    ("submit:after", 1),
    ("sent:before", 1),
    ("sent:after", 1),
    ("settle:booked", 1),
    ("settle:after", 1),
    ("settle:booked", 2),
    ("webhook:sent", 2),
]


@pytest.mark.parametrize(("label", "visit"), CRASHES)
def test_a_crash_in_the_life_of_many_pays_each_of_them_once(house, label, visit):
    house.die()
    house.start(crash_at=(label, visit))
    to = recipients(house, NAMES)

    async def story():
        answers = await all_of(house.withdraw(name, "USDT", VALUE, address) for name, address in to.items())
        assert {answer["code"] for answer in answers} == {10000}, answers
        for name in NAMES:
            await house.until(name, "succeeded")
        await asyncio.sleep(60)  # until it is final, and everybody has heard of it

    with pytest.raises(Crash):
        house.run(story())
    house.die()
    house.start()
    house.run(story())
    assert sizes(house) == [0, 3]
    assert len({order["txid"] for order in ended(house, to, "succeeded", VALUE)}) == 1
    house.judge()


@pytest.mark.parametrize("fate", ["keep", "drop"])
def test_a_reorg_that_undoes_many_lands_them_again_by_the_same_bytes(house, fate):
    to = asked(house, NAMES)
    for name in NAMES:
        house.run(house.until(name, "confirming"))
    house.wait(2)
    (txid,) = {row["txid"] for row in rows(house, "SELECT txid FROM attempt WHERE state = 'included'")}
    house.network.set_block_time(0)
    house.network.fork(6, fate)
    house.wait(5)
    house.network.set_block_time(1_000)
    orders = ended(house, to, "succeeded", VALUE)
    assert {order["txid"] for order in orders} == {txid}
    if fate == "drop":
        assert all(any("its block was undone" in step["reason"] for step in order["states"]) for order in orders)
    assert sizes(house) == [0, 3]
    house.judge()


def test_many_priced_too_low_are_bumped_on_their_nonce_and_each_is_paid_once(house):
    to = bound(house)
    house.network.spike(4)
    house.network.set_block_time(1_000)
    ended(house, to, "succeeded", VALUE)
    versions = [intent for intent in intents(house) if intent.payments]
    assert len(versions) > 1
    assert len({(intent.slot, intent.payments, intent.kind, intent.fee_cap) for intent in versions}) == 1
    house.judge()


@pytest.mark.parametrize("label", ["bump:before", "bump:after", "bump:sent"])
def test_a_crash_while_many_are_bumped_pays_each_of_them_once(house, label):
    to = bound(house)
    house.die()
    house.start(crash_at=(label, 1))
    house.network.spike(4)
    house.network.set_block_time(1_000)
    with pytest.raises(Crash):
        house.run(house.until("a", "succeeded"))
    house.die()
    house.start()
    ended(house, to, "succeeded", VALUE)
    assert len({(intent.slot, intent.payments) for intent in intents(house) if intent.payments}) == 1
    house.judge()


@pytest.mark.parametrize("spoil", [take_back, break_token])
def test_what_cannot_be_paid_together_when_it_lands_fails_all_of_it_and_pays_nobody(house, spoil):
    before = owed(house)
    to = bound(house)
    mend = spoil(house)
    house.network.set_block_time(1_000)
    for name in to:
        house.run(house.until(name, "failed", "succeeded", "quarantined"))
    mend()
    orders = ended(house, to, "failed", "0")
    assert len({order["txid"] for order in orders}) == 1
    assert owed(house) == before
    # The house still believes in the allowance for a while, and a node that tries the payments does not.
    more = asked(house, ["d", "e"])
    for name in more:
        assert house.run(house.until(name, "succeeded", "failed", "quarantined"))["state"] == "succeeded"
    assert sizes(house) == ([0, 3, 1, 1] if spoil is take_back else [0, 3, 2])
    house.judge()


def test_a_token_that_says_true_and_moves_nothing_is_for_a_person(house):
    to = bound(house)
    before = give_code(house, "USDT", SAYS_TRUE)
    house.network.set_block_time(1_000)
    house.run(house.until("c", "quarantined"))
    give_code(house, "USDT", before)
    orders = ended(house, to, "quarantined", "0")
    assert all("for each payment" in order["states"][-1]["reason"] for order in orders)


@pytest.mark.slow
def test_what_a_person_fails_of_many_leaves_the_others_and_pays_nobody_when_all_are_failed(tmp_path, monkeypatch):
    with PLACE.house(tmp_path) as house:
        rail = house.product.rails[PLACE.chain]

        async def nowhere(_raw):
            return Submission(Verdict.UNKNOWN, "no answer")

        async def strange(_versions):
            return Suspicious("nobody can tell")

        def decided(name, outcome, *, proved=True):
            house.run(Commands(house.product).decide_order(name, outcome, "a person has looked", txid="", proved=proved))

        with monkeypatch.context() as away:
            away.setattr(rail, "submit", nowhere)
            to = asked(house, NAMES)
            for name in NAMES:
                house.run(house.until(name, "sending"))
            house.wait(5)
            away.setattr(rail, "observe", strange)
            for name in NAMES:
                house.run(house.until(name, "quarantined", within_s=3_000))
        decided("a", "failed")
        house.run(Commands(house.product).resume(PLACE.chain, "a person has looked"))
        house.wait(60)
        assert [house.run(house.order(name))["state"] for name in NAMES] == ["failed", "quarantined", "quarantined"]
        assert {PLACE.received(house, address, "USDT") for address in to.values()} == {"0"}
        with pytest.raises(Refused, match="pays an order that a person has ended"):
            decided("b", "again", proved=False)
        decided("b", "failed")
        decided("c", "failed")
        house.wait(300)
        found = rows(house, "SELECT kind, state FROM version JOIN attempt ON attempt.id = attempt_id WHERE kind <> 'open' ORDER BY number")
        assert [(row["kind"], row["state"]) for row in found] == [("pay", "final"), ("cancel", "final")]
        ended(house, to, "failed", "0")
        ended(house, asked(house, ["d", "e"], "0.5"), "succeeded", "0.5")
        house.judge()


def test_what_the_signer_refuses_for_ever_takes_no_other_order_with_it(house):
    """A transaction is refused as a whole, so one order above `signer.order_max` left a hundred to a person."""
    signer = replace(house.settings.signer, order_max={"USDT": "50"})
    house.product.signer._caps = caps_of(replace(house.settings, signer=signer), house.product.catalog)
    large = recipients(house, ["large"])["large"]
    house.run(house.withdraw("large", "USDT", "60", large))
    to = asked(house, NAMES)
    house.run(house.until("large", "quarantined"))
    house.run(Commands(house.product).decide_order("large", "failed", "a person has looked", txid="", proved=False))
    house.run(Commands(house.product).resume("ETH", "a person has looked"))
    ended(house, to, "succeeded", VALUE)
    assert PLACE.received(house, large, "USDT") == "0"


def test_tokens_are_not_opened_at_a_fee_above_the_cap(tmp_path):
    """What the signer must refuse would stand in the way of every later slot."""
    with replace(ETHEREUM, settings=PLACE.settings | {"fee_max": "0.0002", "batch_max": 1}).house(tmp_path) as house:
        networks = {name: replace(one, batch_max=20) for name, one in house.settings.networks.items()}
        house.settings = replace(house.settings, networks=networks)
        house.restart()
        house.wait(10)
        house.network.spike(300)
        house.wait(3)
        with pytest.raises(Refused, match="above its cap"):
            house.run(Commands(house.product).open_tokens("ETH"))
        house.wait(900)
        assert [row["crypto"] for row in house.run(Commands(house.product).open_tokens("ETH"))] == ["USDT"]
        house.wait(10)
        ended(house, asked(house, NAMES), "succeeded", VALUE)
        assert sizes(house) == [0, 3]
        house.judge()


def test_each_of_many_hot_addresses_allows_it(tmp_path):
    with replace(PLACE, settings=PLACE.settings | {"hot_addresses": 7}).house(tmp_path) as house:
        assert sizes(house) == [0] * 7
        assert [row["halted"] for row in rows(house, "SELECT halted FROM lane")] == [""] * 7
        assert house.run(Commands(house.product).open_tokens("ETH")) == []
        house.judge()


def test_without_a_second_word_each_goes_alone_and_none_waits(house):
    """One node away, and an order that the other refused: all were held as long as it was away."""
    house.network.nodes[1].faults.down = "reset"
    large = recipients(house, ["large"])["large"]
    house.run(house.withdraw("large", "USDT", "700", large))  # the hot address has 500
    to = asked(house, NAMES)
    house.wait(60)
    assert {house.run(house.order(name))["state"] for name in NAMES} == {"confirming"}
    house.network.nodes[1].faults.down = ""
    ended(house, to, "succeeded", VALUE)
    assert house.run(house.order("large"))["hold_reason"] == "liquidity"
    house.judge()


@pytest.mark.parametrize("until", ["sending", "confirming", "succeeded"])
def test_a_database_of_before_they_were_bound_learns_them_from_the_journal(tmp_path, until):
    place = replace(PLACE, settings=PLACE.settings | {"batch_window_s": 20})
    with place.house(tmp_path) as house:
        to = asked(house, NAMES)
        file, copy = house.settings.home / "penstock.db", tmp_path / "copy.db"
        with contextlib.closing(sqlite3.connect(file)) as source, contextlib.closing(sqlite3.connect(copy)) as target:
            source.backup(target)
        assert sizes(house) == [0]
        if until == "sending":
            house.network.set_block_time(0)
        for name in NAMES:
            house.run(house.until(name, until))
        house.wait(2)
        house.die()
        for suffix in ("-wal", "-shm"):
            file.with_name(file.name + suffix).unlink(missing_ok=True)
        file.write_bytes(copy.read_bytes())
        house.start()
        house.network.set_block_time(1_000)
        orders = ended(house, to, "succeeded", VALUE)
        assert all(any("adopted" in step["reason"] for step in order["states"]) for order in orders)
        assert sizes(house) == [0, 3]
        house.judge()
