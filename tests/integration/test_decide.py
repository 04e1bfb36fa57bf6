"""A person decides what is quarantined, on both databases: what makes it safe is demanded, and books, chain and order agree afterwards."""

import asyncio

import pytest

from penstock.core.errors import Refused
from penstock.core.event import FailedOnChain, Pending, Suspicious
from penstock.ledger.audit import audit
from penstock.ledger.book import balances
from penstock.rails.base import NodeUnreachable
from tests.fixtures.restored import House
from tests.fixtures.rooms import USDT, rooms, units
from tests.integration.test_recovery import accept, forget_and_ask_again, paid, resume, send
from tests.integration.test_road import final

STRANGE = Suspicious("success without the exact event")


def scenario(url, body):
    async def run():
        async with rooms(url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await house.settled()
            await body(house)
            assert (await audit(r.database, {})).breaches == []

    asyncio.run(run())


async def quarantined(house, name="a"):
    await send(house, name)
    house.road.rail.answer = STRANGE
    await house.road.follow()
    order = await house.road.order(name)
    assert order["state"] == "quarantined"
    return order


async def balance(house):
    return (await balances(house.rooms.database, "m:1"))[USDT]


async def halted(house):
    (lane,) = await house.all("SELECT halted FROM lane")
    return lane["halted"]


def test_again_goes_on_with_the_same_attempt(migrated_url):
    async def body(house):
        order = await quarantined(house)
        await resume(house, "looked")
        house.road.rail.answer = Pending()
        await house.decider.again(order["id"], "the node was wrong")
        assert (await house.road.order("a"))["state"] == "sending"
        await paid(house)
        assert (await house.road.order("a"))["state"] == "succeeded"
        assert len(await house.all("SELECT id FROM attempt")) == 1
        actions = await house.all("SELECT reason FROM operator_action WHERE action = 'decide'")
        assert [row["reason"] for row in actions] == ["the node was wrong"]

    scenario(migrated_url, body)


def test_paid_by_one_of_ours_takes_the_outcome_from_the_chain(migrated_url):
    async def body(house):
        order = await quarantined(house)
        txid = house.signer.journal[0].txid
        for silent in (NodeUnreachable("none answers"), FailedOnChain(txid, 101, 1, "reverted")):

            def answer(versions, silent=silent):
                del versions
                if isinstance(silent, Exception):
                    raise silent
                return silent

            house.road.rail.answer = answer
            with pytest.raises(Refused):
                await house.decider.paid(order["id"], txid, "the explorer shows it")
        house.road.rail.answer = final
        decided = await house.decider.paid(order["id"], txid, "the explorer shows it")
        assert (decided.state, decided.txid) == ("succeeded", txid)
        assert [row["state"] for row in await house.all("SELECT state FROM attempt")] == ["final"]
        assert await balance(house) == (units("90"), 0)

    scenario(migrated_url, body)


def test_paid_by_a_persons_word_settles_once_and_the_chain_may_say_so_later(migrated_url):
    async def body(house):
        order = await quarantined(house)
        txid = house.signer.journal[0].txid
        await house.decider.paid(order["id"], txid, "the recipient confirms it")
        assert (await house.road.order("a"))["state"] == "succeeded"
        assert await balance(house) == (units("90"), 0)
        await paid(house)
        assert await balance(house) == (units("90"), 0)
        assert len(await house.all("SELECT id FROM outbox")) == 1

    scenario(migrated_url, body)


def test_paid_elsewhere_is_refused_while_our_own_attempt_may_pay(migrated_url):
    async def body(house):
        order = await quarantined(house)
        with pytest.raises(Refused, match="twice"):
            await house.decider.paid(order["id"], "0x" + "ab" * 32, "by hand")
        assert (await house.road.order("a"))["state"] == "quarantined"

    scenario(migrated_url, body)


def test_failed_needs_proof_where_something_was_signed_and_frees_nothing_that_the_chain_could_take(migrated_url):
    async def body(house):
        order = await quarantined(house)
        with pytest.raises(Refused, match="--proved"):
            await house.decider.failed(order["id"], "the recipient has nothing", proved=False)
        assert await balance(house) == (units("90"), units("10"))
        await house.decider.failed(order["id"], "the recipient has nothing", proved=True)
        assert (await house.road.order("a"))["state"] == "failed"
        assert await balance(house) == (units("100"), 0)
        assert house.signer.buried == []
        assert [(row["slot"], row["state"]) for row in await house.all("SELECT slot, state FROM attempt")] == [(0, "sent")]
        await resume(house, "looked")
        assert (await audit(house.rooms.database, {})).breaches == []
        await paid(house)
        assert "not under way with it" in await halted(house)
        assert await balance(house) == (units("100"), 0)

    scenario(migrated_url, body)


def test_failed_where_nothing_was_ever_signed_gives_the_slot_back(migrated_url):
    async def body(house):
        house.signer.refuses = True
        await send(house, "a")
        assert (await house.road.order("a"))["state"] == "quarantined"
        house.signer.refuses = False
        order = await house.road.order("a")
        await house.decider.failed(order["id"], "the seal was wrong", proved=False)
        assert (await house.road.order("a"))["state"] == "failed"
        assert await balance(house) == (units("100"), 0)
        assert len(house.signer.buried) == 1
        await resume(house, "looked")
        await send(house, "b")
        rows = await house.all("SELECT slot, state FROM attempt WHERE slot >= 0")
        assert [(row["slot"], row["state"]) for row in rows] == [(0, "sent")]

    scenario(migrated_url, body)


def test_failed_is_refused_where_only_the_journal_knows_of_a_signature(migrated_url):
    async def body(house):
        real = house.signer.sign

        async def signs_and_is_not_heard(intents):
            await real(intents)
            house.signer.refuses = True
            return await real(intents)

        house.signer.sign = signs_and_is_not_heard
        await send(house, "a")
        house.signer.sign, house.signer.refuses = real, False
        order = await house.road.order("a")
        assert order["state"] == "quarantined"
        with pytest.raises(Refused, match="can still pay it"):
            await house.decider.failed(order["id"], "it was refused", proved=False)

    scenario(migrated_url, body)


def test_an_order_whose_name_was_spent_before_a_restore_is_paid_by_that_transaction_alone(migrated_url, tmp_path):
    async def after(house):
        order = await house.road.order("a")
        txid = house.signer.journal[0].txid
        with pytest.raises(Refused, match="none of its transactions"):
            await house.decider.paid(order["id"], "0x" + "ab" * 32, "the recipient has it")
        with pytest.raises(Refused, match="nothing is under way"):
            await house.decider.again(order["id"], "try")
        with pytest.raises(Refused, match="--proved"):
            await house.decider.failed(order["id"], "never arrived", proved=False)
        decided = await house.decider.paid(order["id"], txid, "the recipient has it")
        assert (decided.state, decided.txid) == ("succeeded", txid)
        assert await balance(house) == (units("90"), 0)
        assert len(await house.all("SELECT id FROM outbox")) == 1
        lines = await house.all(f"SELECT amount FROM posting WHERE account = 'house:funding' AND coin_id = '{USDT}'")
        assert sum(line["amount"] for line in lines) == units("900")  # 1000 arrived, 100 are the merchant's, and the house bears nothing

    forget_and_ask_again(migrated_url, tmp_path, after)


def test_only_what_is_quarantined_is_decided(migrated_url):
    async def body(house):
        await accept(house, "a")
        order = await house.road.order("a")
        for decide in (
            house.decider.again(order["id"], "x"),
            house.decider.paid(order["id"], "0x1", "x"),
            house.decider.failed(order["id"], "x", proved=True),
        ):
            with pytest.raises(Refused, match="it is accepted"):
                await decide

    scenario(migrated_url, body)
