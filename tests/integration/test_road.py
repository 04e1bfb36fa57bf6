"""Bind, sign, submit, follow, settle on both databases, with a rail that shows whatever the test wants to see."""

import asyncio
import contextlib

import pytest
from msgspec.structs import replace

from penstock.core.event import Absent, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.core.intent import SignLater, Standing
from penstock.ledger.audit import audit
from penstock.ledger.book import balances
from penstock.orders import attempts
from penstock.orders.attempts import resume_lane
from penstock.orders.follow import BATCHES_AT_ONCE
from penstock.orders.in_hand import REST_S
from penstock.orders.readiness import Readiness
from penstock.orders.store import OrderStore
from penstock.rails.base import NodeUnreachable
from penstock.signer.journal import JournalBroken
from tests.fixtures.chain import Road, ScriptedRail
from tests.fixtures.rooms import USDT, rooms, units


def scenario(url, body, **options):
    async def run():
        async with rooms(url) as r:
            road = Road(r, **options)
            road.rail.funds = {"USDT": 1_000 * 10**6, "ETH": 10**18}
            await road.board.refresh()
            await road.treasury.refresh()
            await r.credit("m:1", "100")
            await body(r, road)
            report = await audit(r.database, {})
            assert report.breaches == []

    asyncio.run(run())


def usdt(r, road, name, value="10"):
    draft = r.draft(name, value, recipient="")
    draft.wish = replace(draft.wish, token_id=road.catalog.by_symbol("USDT", "ETH").id, fee=units("1"), net=units(value) - units("1"))
    return draft


def final(versions):
    return Final(versions[-1].txid, 101, 21_000 * 10**9)


def test_a_payout_goes_from_accepted_to_succeeded(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        order = await road.order("a")
        assert (order["state"], order["wire"]) == ("sending", 1)
        assert len(road.rail.sent) == 1
        road.rail.answer = lambda versions: Included(versions[0].txid, 101, 1, succeeded=True)
        await road.follow()
        assert (await road.order("a"))["state"] == "confirming"
        road.rail.answer = final
        await road.follow()
        order = await road.order("a")
        assert (order["state"], order["wire"]) == ("succeeded", 2)
        assert await balances(r.database, "m:1") == {USDT: (units("90"), 0)}
        assert await road.follow() == 0

    scenario(migrated_url, body)


@contextlib.contextmanager
def not_asked(database):
    """Whoever begins a transaction meanwhile fails."""
    asked = database.read, database.write
    database.read = database.write = None
    yield
    database.read, database.write = asked


def test_while_every_network_is_looked_at_nobody_walks_past_what_waits(migrated_url):
    """With 50,000 orders due, each look for those of another network took 20 ms, twice for every batch."""

    async def body(r, road):
        answers = asyncio.Event()

        async def observe(versions):
            await answers.wait()
            raise NodeUnreachable("no answer within 8 s")

        road.rail.observe = observe
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        following = [asyncio.create_task(road.follow()) for _ in range(BATCHES_AT_ONCE)]
        while not road.follower.under_way.busy:
            await r.runtime.sleep(0)
        with not_asked(r.database):
            assert await road.follower.claim(100) == []
        answers.set()
        assert await asyncio.gather(*following) == [1] * BATCHES_AT_ONCE
        assert await road.follow() == 1

    scenario(migrated_url, body)


def test_while_one_batch_is_signed_the_next_is_bound_and_none_overtakes_another(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, f"o{n}", "2") for n in range(12)])
        signed, go = [], asyncio.Event()
        honest = road.signer.sign

        async def sign(intents):
            signed.append([intent.slot for intent in intents])
            await go.wait()
            return await honest(intents)

        road.signer.sign = sign
        for _ in range(3):
            await road.sender.handle(await road.sender.claim(4))
        with not_asked(r.database):
            assert await road.sender.claim(4) == []  # as many batches of one network as may be
        while await bound(r) < 12 or not signed:
            await r.runtime.sleep(0)
        assert signed == [[0, 1, 2, 3]]
        go.set()
        await road.sender.under_way.settled()
        assert signed == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
        rows = await r.database.read(lambda tx: tx.all("SELECT slot, state FROM attempt ORDER BY slot"))
        assert [(row["slot"], row["state"]) for row in rows] == [(slot, "sent") for slot in range(12)]

    async def bound(r):
        return len(await r.database.read(lambda tx: tx.all("SELECT id FROM attempt")))

    scenario(migrated_url, body)


def test_merchants_who_ask_at_once_get_their_own_orders_alone(migrated_url):
    async def body(r, road):
        await r.credit("m:2", "100")
        await r.submit_all([r.draft("a", "1"), r.draft("b", "1"), r.draft("a", "2", merchant=2)])
        store = OrderStore(r.runtime, r.database)
        first, second, third, nul = await asyncio.gather(
            store.find(1, ["a", "b", "c"]), store.find(2, ["a", "b"]), store.find(3, ["a"]), store.find(1, ["\0"]), return_exceptions=True
        )
        assert {name: (order.merchant_id, order.value) for name, order in first.items()} == {"a": (1, units("1")), "b": (1, units("1"))}
        assert {name: (order.merchant_id, order.value) for name, order in second.items()} == {"a": (2, units("2"))}
        assert third == {}
        assert not nul or isinstance(nul, Exception)  # PostgreSQL takes no such text; the others are answered all the same

    scenario(migrated_url, body)


def test_orders_share_no_slot_and_are_bound_lowest_first(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, f"o{n}", "2") for n in range(20)])
        await road.send()
        rows = await r.database.read(lambda tx: tx.all("SELECT slot, state FROM attempt ORDER BY slot"))
        assert [row["slot"] for row in rows] == list(range(20))
        assert {row["state"] for row in rows} == {"sent"}

    scenario(migrated_url, body)


def test_too_little_in_the_treasury_holds_the_order_until_it_is_refilled(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a", "50"), usdt(r, road, "b", "50")])
        road.rail.funds["USDT"] = 60 * 10**6
        road.rail.final = 101
        await r.database.write("unsee", lambda tx: tx.run("UPDATE treasury_seen SET observed = :observed", observed=60 * 10**6))
        await r.database.write(
            "gas",
            lambda tx: tx.run(
                "UPDATE treasury_seen SET observed = :observed WHERE token_id = :t", observed=10**18, t=road.catalog.native("ETH").id
            ),
        )
        await road.send()
        assert (await road.order("a"))["state"] == "sending"
        held = await road.order("b")
        assert (held["state"], held["hold_reason"], held["wire"]) == ("held", "liquidity", 0)
        await r.database.write(
            "refill",
            lambda tx: tx.run(
                "UPDATE treasury_seen SET observed = :observed WHERE token_id = :t", observed=200 * 10**6, t=held["token_id"]
            ),
        )
        await road.make_orders_due()
        await road.send()
        assert (await road.order("b"))["state"] == "sending"

    scenario(migrated_url, body)


def test_a_fee_over_the_cap_holds_the_order(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        road.rail.fee_cap = 1
        await road.board.refresh()
        await road.send()
        assert (await road.order("a"))["hold_reason"] == "fee cap"

    scenario(migrated_url, body)


def test_reported_early_it_stays_succeeded_through_a_reorg_and_is_sent_again(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = lambda versions: Included(versions[0].txid, 101, 2, succeeded=True)
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"
        road.rail.answer = Absent()
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"
        assert len(road.rail.sent) == 2
        assert road.rail.sent[0] == road.rail.sent[1]
        assert (await audit(r.database, {})).breaches == []
        road.rail.answer = final
        await road.follow()

    scenario(migrated_url, body, report_depth=2)


def test_a_reorg_before_the_report_takes_the_order_back_but_never_its_wire_status(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = lambda versions: Included(versions[0].txid, 101, 1, succeeded=True)
        await road.follow()
        road.rail.answer = Absent()
        await road.follow()
        order = await road.order("a")
        assert (order["state"], order["wire"], order["txid"]) == ("sending", 1, "")
        assert road.rail.sent[0] == road.rail.sent[1]

    scenario(migrated_url, body)


def test_failed_on_chain_gives_the_money_back_and_charges_no_fee(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = lambda versions: FailedOnChain(versions[0].txid, 101, 21_000 * 10**9, "reverted")
        await road.follow()
        order = await road.order("a")
        assert (order["state"], order["wire"]) == ("failed", 3)
        assert order["txid"].startswith("0x")
        assert await balances(r.database, "m:1") == {USDT: (units("100"), 0)}

    scenario(migrated_url, body)


def test_a_stuck_payment_is_bumped_on_the_same_slot_and_any_version_may_win(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = Pending(stuck=True)
        await road.follow()
        rows = await r.database.read(lambda tx: tx.all("SELECT number, txid FROM version ORDER BY number"))
        assert [row["number"] for row in rows] == [1, 2]
        assert len({row["txid"] for row in rows}) == 2
        road.rail.answer = lambda versions: Final(versions[0].txid, 101, 21_000 * 10**9)
        await road.follow()
        order = await road.order("a")
        assert (order["state"], order["txid"]) == ("succeeded", rows[0]["txid"])

    scenario(migrated_url, body)


def test_at_the_cap_the_same_bytes_are_sent_again(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer, road.rail.bumps = Pending(stuck=True), False
        await road.follow()
        assert road.rail.sent[0] == road.rail.sent[1]

    scenario(migrated_url, body)


def test_what_only_a_person_can_judge_is_quarantined_and_stops_the_lane(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = Suspicious("the slot was used by an unknown transaction")
        await road.follow()
        order = await road.order("a")
        assert (order["state"], order["wire"]) == ("quarantined", 1)
        road.rail.answer = final
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"

    scenario(migrated_url, body)


def test_a_halted_lane_binds_nothing_more(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await r.database.write("halt", lambda tx: tx.run("UPDATE lane SET halted = 'a key leaked'"))
        await road.send()
        order = await road.order("a")
        assert (order["state"], order["hold_reason"]) == ("held", "network paused")
        assert road.rail.sent == []

    scenario(migrated_url, body)


def test_the_signer_refuses_one_and_it_goes_to_a_person(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        road.signer.refuses = True
        await road.send()
        assert (await road.order("a"))["state"] == "quarantined"
        assert road.rail.sent == []

    scenario(migrated_url, body)


async def sign_again(r, road):
    """What was put off is due again."""
    await road.follow()
    return await r.database.read(lambda tx: tx.all("SELECT slot, state, seen FROM attempt ORDER BY slot"))


def test_a_signer_that_is_away_keeps_what_is_bound_waiting_and_nothing_new_is_bound(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b")])
        road.signer.later = SignLater("the signer does not answer", everything=True)
        await road.send()
        assert [(row["state"], row["seen"]) for row in await sign_again(r, road)] == [("bound", "the signer does not answer")] * 2
        road.signer.standing_now = Standing("the signer does not answer", {})
        await r.submit_all([usdt(r, road, "c")])
        await road.send()
        held = await road.order("c")
        assert (held["state"], held["hold_reason"]) == ("held", "network paused")
        road.signer.later, road.signer.standing_now = None, Standing("", {})
        assert {row["state"] for row in await sign_again(r, road)} == {"sent"}
        await road.make_orders_due()
        await road.send()
        assert {(await road.order(name))["state"] for name in "abc"} == {"sending"}
        assert len(set(road.rail.sent)) == 3

    scenario(migrated_url, body)


def test_an_intent_that_is_put_off_waits_alone_and_the_others_go(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b"), usdt(r, road, "c")])
        first = (await r.database.read(lambda tx: tx.one("SELECT next_slot FROM lane")))["next_slot"]
        road.signer.later, road.signer.later_for = SignLater("the cap of the day is reached", everything=False), {first + 1}
        await road.send()
        states = await r.database.read(lambda tx: tx.all("SELECT state, seen FROM attempt ORDER BY slot"))
        assert [row["state"] for row in states] == ["sent", "bound", "sent"]
        assert states[1]["seen"] == "the cap of the day is reached"
        road.signer.later = None
        assert {row["state"] for row in await sign_again(r, road)} == {"sent"}
        assert {(await road.order(name))["state"] for name in "abc"} == {"sending"}

    scenario(migrated_url, body)


def test_orders_for_which_the_signers_day_has_no_room_are_held_without_a_slot(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a", "50"), usdt(r, road, "b", "30"), usdt(r, road, "c", "10")])
        road.signer.standing_now = Standing("", {"USDT": 60 * 10**18, "ETH": 0})
        await road.send()
        states = {name: (await road.order(name))["state"] for name in "abc"}
        assert states == {"a": "sending", "b": "held", "c": "sending"}
        assert (await road.order("b"))["hold_reason"] == "policy"
        road.signer.standing_now = Standing("", {"USDT": 250 * 10**18})
        await road.make_orders_due()
        await road.send()
        assert (await road.order("b"))["state"] == "sending"
        assert len(await r.database.read(lambda tx: tx.all("SELECT slot FROM attempt"))) == 3

    scenario(migrated_url, body)


class SlowSigner:
    """Signs only when it may go on, and counts what it signs against a cap of 20 USDT. Its `stale`th word on what that leaves, once it was
    asked to sign, is said before it signs and heard after that was stored and sent.
    """

    def __init__(self, r, road, stale=0):
        self.asked, self.go, self.spent, self.said = asyncio.Event(), asyncio.Event(), 0, 0
        self._r, self._road, self._stale, self._sign = r, road, stale, road.signer.sign
        road.signer.sign, road.signer.standing = self.sign, self.standing

    async def sign(self, intents):
        self.asked.set()
        await self.go.wait()
        self.spent += sum(payment.units for intent in intents for payment in intent.payments) * 10**12
        return await self._sign(intents)

    async def standing(self):
        left = Standing("", {"USDT": 20 * 10**18 - self.spent})
        self.said += self.asked.is_set()
        if self._stale and self.said == self._stale:
            self.go.set()
            while not self._road.rail.sent:
                await self._r.runtime.sleep(0)
        return left


async def begin_to_send(r, road, name):
    await r.submit_all([usdt(r, road, name, "13.5")])
    await road.sender.handle(await road.sender.claim(100))


async def held_by_the_cap(r, road, name):
    while (order := await road.order(name))["state"] == "accepted":
        await r.runtime.sleep(0)
    assert (order["state"], order["hold_reason"]) == ("held", "policy"), "it has a slot, and nothing behind that can land for a day"
    told = await r.database.read(lambda tx: tx.all("SELECT reason FROM order_history WHERE after = 'held'"))
    assert [row["reason"] for row in told] == ["policy: the signer's cap of 24 hours leaves 7.5 USDT now (signer.day_max)"]


def test_an_order_finds_no_room_in_the_signers_day_that_the_batch_before_it_is_about_to_take(migrated_url):
    """It was bound, put off for up to 24 hours, and what was bound behind it could not land."""

    async def body(r, road):
        signer = SlowSigner(r, road)
        await begin_to_send(r, road, "a")
        await signer.asked.wait()
        await begin_to_send(r, road, "b")
        await held_by_the_cap(r, road, "b")
        signer.go.set()
        await road.sender.under_way.settled()
        assert (await road.order("a"))["state"] == "sending"
        signer.spent = 0  # a day later
        await road.make_orders_due()
        await road.send()
        assert (await road.order("b"))["state"] == "sending"

    scenario(migrated_url, body)


@pytest.mark.parametrize("stale", [1, 2])
def test_what_is_stored_while_the_signer_says_what_its_day_leaves_is_not_free(migrated_url, stale):
    """It had no room in the signer's word, which is from before, and none by the tables, where it has its bytes already."""

    async def body(r, road):
        signer = SlowSigner(r, road, stale)
        await begin_to_send(r, road, "a")
        await signer.asked.wait()
        await begin_to_send(r, road, "b")
        await held_by_the_cap(r, road, "b")
        await road.sender.under_way.settled()

    scenario(migrated_url, body)


def test_the_signers_day_is_one_for_all_networks_and_what_it_refused_takes_no_room_in_it(migrated_url):
    async def body(r, road):
        road.signer.standing_now = Standing("", {"USDT": 20 * 10**18})
        token_id = road.catalog.by_symbol("USDT", "TRX").id

        def bound_elsewhere(tx):
            tx.run("INSERT INTO lane (id, chain, number, address, next_slot, halted) VALUES (7, 'TRX', 0, 'T', 1, '')")
            tx.insert(
                "attempt(id {INT}, lane_id {INT}, slot {INT}, token_id TEXT, state TEXT, outflow {AMOUNT}, fee_cap {AMOUNT}, txid TEXT, seen TEXT, "
                "created_at_ms {INT}, due_at_ms {INT}, lease TEXT, lease_until_ms {INT})",
                [
                    {
                        "id": 7,
                        "lane_id": 7,
                        "slot": 0,
                        "token_id": token_id,
                        "state": "bound",
                        "outflow": 12_500_000,
                        "fee_cap": 1,
                        "txid": "",
                    }
                    | {"seen": "", "created_at_ms": 1, "due_at_ms": 1, "lease": "", "lease_until_ms": 0}
                ],
            )

        await r.database.write("elsewhere", bound_elsewhere)
        await begin_to_send(r, road, "a")
        await road.sender.under_way.settled()
        await held_by_the_cap(r, road, "a")
        await r.database.write("refused", lambda tx: tx.run("UPDATE attempt SET due_at_ms = NULL"))
        await road.make_orders_due()
        await road.send()
        assert (await road.order("a"))["state"] == "sending"
        await r.database.write("forget", lambda tx: [tx.run("DELETE FROM attempt WHERE id = 7"), tx.run("DELETE FROM lane WHERE id = 7")])

    scenario(migrated_url, body)


def test_a_house_whose_signer_has_no_cap_of_a_day_counts_nothing(migrated_url, monkeypatch):
    async def body(r, road):
        monkeypatch.setattr(attempts, "unsigned", None)
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        assert (await road.order("a"))["state"] == "sending"

    scenario(migrated_url, body)


def test_readiness_says_what_is_bound_and_not_signed_and_why(migrated_url):
    """A signer that puts off stops nothing and halts nothing: only its log knew."""

    async def body(r, road):
        room = Readiness(runtime=r.runtime, database=r.database, board=road.board, prices=road.board._prices, treasury=road.treasury)
        await r.submit_all([usdt(r, road, name) for name in "ab"])
        road.signer.later = SignLater("the cap of the day is reached", everything=True)
        await road.send()
        told = "2 bound on ETH for more than a minute and not signed: the cap of the day is reached"
        assert told not in (await room.reasons())[1]
        await r.database.write("age", lambda tx: tx.run("UPDATE attempt SET created_at_ms = created_at_ms - 61000"))
        assert told in (await room.reasons())[1]
        road.signer.later = None
        await sign_again(r, road)
        assert not [text for text in (await room.reasons())[1] if "not signed" in text]

    scenario(migrated_url, body)


def test_an_order_of_before_the_seals_is_held_and_takes_no_slot(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b")])
        await r.database.write("old", lambda tx: tx.run("UPDATE orders SET seal = '' WHERE merchant_order_id = 'a'"))
        await road.send()
        assert ((await road.order("a"))["state"], (await road.order("a"))["hold_reason"]) == ("held", "policy")
        assert (await road.order("b"))["state"] == "sending"

    scenario(migrated_url, body)


def test_nobody_answers_and_nothing_changes(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()

        def down(versions):
            raise NodeUnreachable("no node answers")

        road.rail.answer = down
        await road.follow()
        assert (await road.order("a"))["state"] == "sending"

    scenario(migrated_url, body)


@pytest.mark.parametrize("step", ["bound", "signed"])
def test_what_a_crash_left_between_two_steps_is_resumed_with_the_same_bytes(migrated_url, step):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        orders = await road.sender.claim(10)
        versions = await road.sender._bind("ETH", 0, orders)
        if step == "signed":
            await road.stages.sign(versions)
        await road.follow()
        assert (await road.order("a"))["state"] == "sending"
        assert len(road.rail.sent) == 1
        road.rail.answer = final
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"
        assert len(set(road.rail.sent)) == 1

    scenario(migrated_url, body)


def test_cancelled_before_it_is_bound_and_not_after(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b")])
        a = await road.order("a")
        cancelled = await road.settler.cancel(a["id"], "the user changed their mind")
        assert cancelled.state == "failed"
        await road.send()
        b = await road.order("b")
        assert b["state"] == "sending"
        assert await road.settler.cancel(b["id"], "too late") is None
        assert await balances(r.database, "m:1") == {USDT: (units("90"), units("10"))}

    scenario(migrated_url, body)


def test_what_is_in_hand_is_not_claimed_again_and_what_failed_rests(migrated_url, monkeypatch):
    """Without the rest, orders that fail each time would keep those behind them from ever being claimed."""

    async def body(r, road):
        def broken(*values, **more):
            raise ZeroDivisionError

        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b")])
        (first,), (second,) = await road.sender.claim(1), await road.sender.claim(10)
        assert (first.merchant_order_id, second.merchant_order_id) == ("a", "b")
        monkeypatch.setattr(road.rail, "bind", broken)
        with pytest.raises(ZeroDivisionError):
            await road.through(road.sender, [first])
        assert await road.sender.claim(10) == []
        later = r.runtime.monotonic() + REST_S
        monkeypatch.setattr(r.runtime, "monotonic", lambda: later)
        assert await road.sender.claim(10) == [first]

    scenario(migrated_url, body)


def test_a_worker_that_slept_while_another_looked_settles_nothing(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        now = r.runtime.now_ms()
        await r.database.write("due", lambda tx: tx.run("UPDATE attempt SET due_at_ms = :now", now=now - 1))
        zombie = await r.database.read(lambda tx: attempts.due(tx, now_ms=now, limit=10))
        await r.database.write("due", lambda tx: tx.run("UPDATE attempt SET due_at_ms = :now", now=now))
        owner = await road.follower.claim(10)
        road.rail.answer = final
        await road.through(road.follower, zombie)
        assert (await road.order("a"))["state"] == "sending"
        await road.through(road.follower, owner)
        assert (await road.order("a"))["state"] == "succeeded"

    scenario(migrated_url, body)


def test_coins_that_arrive_book_themselves_and_coins_that_vanish_stop_the_lane(migrated_url):
    async def body(r, road):
        assert (await audit(r.database, {USDT: "USDT"})).balances["house:funding"]["USDT"] == "900"
        road.rail.funds["USDT"] += 5 * 10**6
        road.rail.final += 1
        await road.treasury.refresh()
        assert (await audit(r.database, {USDT: "USDT"})).balances["house:funding"]["USDT"] == "905"
        road.rail.funds["USDT"] -= 1
        road.rail.final += 1
        await road.treasury.refresh()
        lane = await r.database.read(lambda tx: tx.one("SELECT halted FROM lane"))
        assert "0.000001 USDT left the hot address" in lane["halted"]

    scenario(migrated_url, body)


def test_more_orders_than_may_be_in_flight_wait_their_turn(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, f"o{n}", "2") for n in range(5)])
        await road.send()
        assert len(road.rail.sent) == 3
        road.rail.answer = final
        await road.follow()
        await road.make_orders_due()
        await road.send()
        assert len(road.rail.sent) == 5

    scenario(migrated_url, body, in_flight_max=3)


def test_a_node_that_forgot_what_is_final_in_our_books_is_not_believed(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = final
        await road.follow()
        await road.treasury.refresh()
        assert "the books have 1 final" in road.treasury.faults["ETH"]
        road.rail.used = 1
        await road.treasury.refresh()
        assert road.treasury.faults == {}

    scenario(migrated_url, body)


def test_resumed_after_the_signer_refused_the_slot_is_filled_and_the_order_is_paid(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        road.signer.refuses = True
        await road.send()
        assert await road.follow() == 0
        road.signer.refuses = False
        now = r.runtime.now_ms()
        await r.database.write("resume", lambda tx: resume_lane(tx, "ETH", "the cap is raised", action_id=1, now_ms=now))
        await road.follow()
        assert len(road.rail.sent) == 1
        road.rail.answer = final
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"

    scenario(migrated_url, body)


def test_a_bump_that_the_signer_refuses_leaves_the_first_version_followed(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer, road.signer.refuses = Pending(stuck=True), True
        await road.follow()
        assert (await road.order("a"))["state"] == "quarantined"
        road.rail.answer = final
        assert await road.follow() == 1
        assert (await road.order("a"))["state"] == "succeeded"
        assert len(road.rail.sent) == 1

    scenario(migrated_url, body)


def test_a_signer_that_is_out_of_order_does_not_keep_what_is_paid_from_being_settled(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b")])
        await road.through(road.sender, await road.sender.claim(1))
        await road.sender._bind("ETH", 0, await road.sender.claim(10))

        async def broken(intents):
            raise JournalBroken("the disk is full")

        road.signer.sign, road.rail.answer = broken, final
        with pytest.raises(JournalBroken):
            await road.follow()
        assert [(await road.order(name))["state"] for name in "ab"] == ["succeeded", "sending"]

    scenario(migrated_url, body)


def test_with_as_many_versions_as_there_may_be_the_last_bytes_are_sent_again(migrated_url, monkeypatch):
    async def body(r, road):
        monkeypatch.setattr("penstock.orders.follow.VERSIONS_MAX", 2)
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = Pending(stuck=True)
        for _ in range(2):
            await road.follow()
        assert len(road.rail.sent) == 3
        assert len(set(road.rail.sent)) == 2

    scenario(migrated_url, body)


def test_what_one_node_alone_keeps_in_a_block_is_sent_again_to_the_others(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = lambda versions: Included(versions[0].txid, 101, 0, succeeded=True)
        await road.follow()
        assert len(road.rail.sent) == 1
        await road.follow()
        assert len(road.rail.sent) == 2

    scenario(migrated_url, body)


def test_reported_early_with_one_version_and_paid_by_another_it_shows_the_one_that_is_on_the_chain(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = Pending(stuck=True)
        await road.follow()
        road.rail.answer = lambda versions: Included(versions[0].txid, 101, 2, succeeded=True)
        await road.follow()
        reported = await road.order("a")
        road.rail.answer = lambda versions: Final(versions[1].txid, 103, 21_000 * 10**9)
        await road.follow()
        order = await road.order("a")
        assert (reported["state"], order["state"]) == ("succeeded", "succeeded")
        assert order["txid"] != reported["txid"]
        paid = await r.database.read(lambda tx: tx.one("SELECT txid FROM attempt"))
        assert order["txid"] == paid["txid"]

    scenario(migrated_url, body, report_depth=2)


async def resume(r, reason, action_id):
    now = r.runtime.now_ms()
    await r.database.write("resume", lambda tx: resume_lane(tx, "ETH", reason, action_id=action_id, now_ms=now))


async def halted(r):
    return (await r.database.read(lambda tx: tx.one("SELECT halted FROM lane")))["halted"]


def test_what_left_is_booked_when_a_person_has_said_why_and_the_next_outflow_stops_again(migrated_url):
    async def body(r, road):
        async def look():
            road.rail.final += 1
            await asyncio.sleep(0.002)
            await road.treasury.refresh()

        road.rail.funds["USDT"] -= 50 * 10**6
        await look()
        assert "50 USDT left the hot address" in await halted(r)
        await resume(r, "moved to the vault", 1)
        await look()
        await look()
        assert await halted(r) == ""
        assert (await audit(r.database, {USDT: "USDT"})).balances["house:funding"]["USDT"] == "850"
        notes = await r.database.read(lambda tx: tx.all("SELECT note FROM entry WHERE posting_kind = 'left'"))
        assert notes == [{"note": "moved to the vault"}]
        road.rail.funds["USDT"] -= 50 * 10**6
        await look()
        assert "50 USDT left the hot address" in await halted(r)

    scenario(migrated_url, body)


def test_slots_that_others_used_are_passed_over_when_a_person_has_looked_and_they_are_final(migrated_url):
    async def body(r, road):
        road.rail.mined, road.rail.used = 2, 0
        await road.treasury.refresh()
        assert "used slot 1 and we have bound only to -1" in await halted(r)
        await resume(r, "our own sweep", 1)
        await road.treasury.refresh()
        assert "used slot 1" in await halted(r)
        road.rail.used = 2
        await resume(r, "our own sweep", 2)
        await road.treasury.refresh()
        assert await halted(r) == ""
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        assert [row["slot"] for row in await r.database.read(lambda tx: tx.all("SELECT slot FROM attempt"))] == [2]

    scenario(migrated_url, body)


def test_a_network_whose_nodes_let_us_wait_does_not_hold_up_what_is_paid_on_another(migrated_url):
    async def body(r, road):
        slow = ScriptedRail(r.runtime, road.catalog.network("BSC"))
        slow.funds, answers = {"USDT": 10**21, "BNB": 10**18}, asyncio.Event()

        async def observe(versions):
            await answers.wait()
            raise NodeUnreachable("no answer within 8 s")

        slow.observe = observe
        road.board.rails["BSC"] = slow
        await road.board.refresh()
        await road.treasury.refresh()
        b = usdt(r, road, "b")
        b.wish = replace(b.wish, chain="BSC", token_id=road.catalog.by_symbol("USDT", "BSC").id)
        await r.submit_all([usdt(r, road, "a"), b])
        await road.send()
        road.rail.answer = final
        following = asyncio.create_task(road.follow())
        async with asyncio.timeout(5):
            while (await road.order("a"))["state"] != "succeeded":
                await asyncio.sleep(0.01)
        assert not following.done()
        answers.set()
        assert await following == 2
        assert (await road.order("b"))["state"] == "sending"

    scenario(migrated_url, body)
