"""Verdicts that meet an order in an unusual place: nothing is paid twice, nothing is lost, nothing holds up the others."""

import asyncio

import pytest
from msgspec.structs import replace

from penstock.catalog import Catalog
from penstock.core.attempt import advance
from penstock.core.errors import InvariantBroken
from penstock.core.event import Dead, Final, Included, Pending, Suspicious
from penstock.core.money import CoinAmount
from penstock.db import CommitUnknown, Conflict, DatabaseUnavailable
from penstock.ledger.audit import audit
from penstock.ledger.book import Unsure, balances, credit
from penstock.orders.settle import Verdict
from tests.fixtures.chain import Road
from tests.fixtures.rooms import USDT, rooms, units
from tests.integration.test_road import resume, usdt


def scenario(url, body, *, breaches=(), **options):
    async def run():
        async with rooms(url) as r:
            road = Road(r, **options)
            road.rail.funds = {"USDT": 1_000 * 10**6, "ETH": 10**18}
            await road.board.refresh()
            await road.treasury.refresh()
            await r.credit("m:1", "100")
            await body(r, road)
            assert {f.invariant for f in (await audit(r.database, {})).breaches} == set(breaches)

    asyncio.run(run())


def final(versions):
    return Final(versions[-1].txid, 101, 21_000 * 10**9)


async def halted(r):
    return (await r.database.read(lambda tx: tx.one("SELECT halted FROM lane")))["halted"]


def test_a_dead_attempt_gives_the_order_another_try_and_only_one_of_them_pays(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = lambda versions: Included(versions[0].txid, 101, 1, True)
        await road.follow()
        assert (await road.order("a"))["txid"]
        road.rail.answer = Dead("expired")
        await road.follow()
        order = await road.order("a")
        assert (order["state"], order["wire"], order["txid"]) == ("accepted", 1, "")  # and so it may fail: nothing of it was mined
        assert await balances(r.database, "m:1") == {USDT: (units("90"), units("10"))}
        await road.send()
        road.rail.answer = final
        assert await road.follow() == 1
        assert (await road.order("a"))["state"] == "succeeded"
        rows = await r.database.read(lambda tx: tx.all("SELECT slot, state FROM attempt ORDER BY slot"))
        assert [(row["slot"], row["state"]) for row in rows] == [(0, "dead"), (1, "final")]
        assert await balances(r.database, "m:1") == {USDT: (units("90"), 0)}

    scenario(migrated_url, body)


def test_what_a_person_has_resumed_in_spite_of_stops_the_lane_no_more_though_its_order_stays_quarantined(migrated_url):
    """A Lightning payment that its node has forgotten stopped the lane a minute after each `resume`, for ever."""

    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = Suspicious("its records are gone")
        await road.follow()
        assert "its records are gone" in await halted(r)
        await resume(r, "the node was restored from a backup", 1)
        for answer in (road.rail.answer, Pending(), road.rail.answer):  # it may look otherwise in between
            road.rail.answer = answer
            assert await road.follow() == 1
            assert await halted(r) == ""
        assert (await road.order("a"))["state"] == "quarantined"
        road.rail.answer = Suspicious("a stranger has spent its coin")
        await road.follow()
        assert "a stranger" in await halted(r)
        await resume(r, "our own sweep", 2)
        road.rail.answer = final
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"

    scenario(migrated_url, body)


def test_a_dead_attempt_leaves_a_quarantined_order_to_its_person_and_the_others_go_on(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b")])
        await road.send()
        a = await road.order("a")

        def seen(versions):
            return (
                Suspicious("a stranger") if versions[0].intent.payments[0].order_id == a["id"] else Included(versions[0].txid, 101, 1, True)
            )

        road.rail.answer = seen
        await road.follow()
        assert (await road.order("a"))["state"] == "quarantined"
        road.rail.answer = lambda versions: Dead("expired") if versions[0].intent.payments[0].order_id == a["id"] else final(versions)
        await road.follow()
        assert [(await road.order(name))["state"] for name in "ab"] == ["quarantined", "succeeded"]
        assert await balances(r.database, "m:1") == {USDT: (units("80"), units("10"))}
        assert await road.follow() == 0

    scenario(migrated_url, body)


def test_an_order_reported_early_whose_attempt_then_dies_stays_succeeded_and_stops_the_lane(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = lambda versions: Included(versions[0].txid, 101, 2, succeeded=True)
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"
        road.rail.answer = Dead("expired")
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"
        assert "reported as paid before finality" in await halted(r)
        assert await road.follow() == 0

    # The coins that were reported are still ours: the books say so, and a person has to pay or to reverse.
    scenario(migrated_url, body, breaches={"I6", "I10"}, report_depth=2)


def test_an_order_that_cannot_be_settled_does_not_hold_up_the_others(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, name) for name in "abc"])
        await road.send()
        await r.database.write(
            "tamper", lambda tx: tx.run("UPDATE orders SET state = 'failed', decided_at_ms = 1 WHERE merchant_order_id = 'b'")
        )
        road.rail.answer = final
        with pytest.raises(InvariantBroken, match="failed and its attempt"):
            await road.follow()
        assert [(await road.order(name))["state"] for name in "abc"] == ["succeeded", "failed", "succeeded"]
        assert await balances(r.database, "m:1") == {USDT: (units("70"), units("10"))}

    scenario(migrated_url, body, breaches={"I5", "I6"})


def test_a_cancellation_that_races_a_bind_either_pays_or_gives_back(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, f"o{n}", "2") for n in range(20)])
        ids = [(await road.order(f"o{n}"))["id"] for n in range(20)]
        claimed = await road.sender.claim(100)
        cancelled, _ = await asyncio.gather(
            asyncio.gather(*(road.settler.cancel(order_id, "changed their mind") for order_id in ids), return_exceptions=True),
            road.through(road.sender, claimed),
        )
        road.rail.answer = final
        await road.follow()
        states = [(await road.order(f"o{n}"))["state"] for n in range(20)]
        assert set(states) <= {"failed", "succeeded"}
        assert [getattr(found, "state", None) == "failed" for found in cancelled] == [state == "failed" for state in states]
        assert len(road.rail.sent) == states.count("succeeded")
        assert await balances(r.database, "m:1") == {USDT: (units("100") - units("2") * states.count("succeeded"), 0)}

    scenario(migrated_url, body)


def test_a_decision_is_told_once_and_wakes_whoever_delivers(migrated_url):
    async def body(r, road):
        woken = []
        road.settler.decided = lambda: woken.append("decided")
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = lambda versions: Included(versions[0].txid, 101, 1, succeeded=True)
        await road.follow()
        assert woken == []
        road.rail.answer = final
        await road.follow()
        assert woken == ["decided"]
        events = await r.database.read(lambda tx: tx.all("SELECT body FROM outbox"))
        assert len(events) == 1
        assert '"pay_status":"success"' in events[0]["body"]

    scenario(migrated_url, body)


@pytest.mark.parametrize("committed", [True, False])
def test_a_credit_whose_commit_is_of_unknown_outcome_is_booked_once(migrated_url, committed, monkeypatch):
    async def run():
        async with rooms(migrated_url) as r:
            write, broken = r.database.write, []

            async def breaks_once(label, job):
                if broken:
                    return await write(label, job)
                broken.append(label)
                if committed:
                    await write(label, job)
                raise CommitUnknown(label)

            monkeypatch.setattr(r.database, "write", breaks_once)
            coin = Catalog.load().coin(USDT)
            await credit(r.database, r.book, 7, "m:1", CoinAmount.parse(coin, "5"), reason="test", at_ms=1)
            assert broken == ["credit"]
            assert await balances(r.database, "m:1") == {USDT: (units("5"), 0)}
            with pytest.raises(Conflict):
                await credit(r.database, r.book, 7, "m:1", CoinAmount.parse(coin, "5"), reason="test", at_ms=1)

    asyncio.run(run())


def test_a_credit_of_which_nobody_can_tell_says_so(migrated_url, monkeypatch):
    async def run():
        async with rooms(migrated_url) as r:
            said = iter([CommitUnknown("credit")])

            async def away(label, job):
                raise next(said, DatabaseUnavailable("gone"))

            monkeypatch.setattr(r.database, "write", away)
            with pytest.raises(CommitUnknown):
                await credit(r.database, r.book, 7, "m:1", CoinAmount.parse(Catalog.load().coin(USDT), "5"), reason="test", at_ms=1)

    asyncio.run(run())


def test_networks_that_settle_at_the_same_moment_do_not_push_each_other_away(migrated_url):
    """They write one chain of batches. The loser of that race waited for its lease, and its network for the end of recovery."""

    async def body(r, road):
        drafts = [usdt(r, road, f"o{n}", "2") for n in range(8)]
        for n, draft in enumerate(drafts):  # a payer each: else the balance's lock would keep them apart
            await r.credit(f"u:100000{n}", "10")
            draft.wish = replace(draft.wish, payer=f"u:100000{n}")
        await r.submit_all(drafts)
        await road.send()
        await r.database.write("due", lambda tx: tx.run("UPDATE attempt SET due_at_ms = 1"))
        due = await road.follower.claim(100)
        verdicts = []
        for attempt in due:
            seen = final(attempt.views())
            verdicts.append(Verdict(attempt, seen, advance(attempt.state, seen, report_depth=None), None))
        await asyncio.gather(*(road.settler.apply([verdict]) for verdict in verdicts))
        assert [(await road.order(f"o{n}"))["state"] for n in range(8)] == ["succeeded"] * 8

    scenario(migrated_url, body)


def test_a_settlement_that_met_balances_which_moved_is_done_again_with_them_locked(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer, looks = final, []

        def late(tx, keys):
            looks.append(sorted(keys))
            raise Unsure

        r.book.look = late
        await road.follow()
        assert looks == [[("m:1", USDT)]]
        assert (await road.order("a"))["state"] == "succeeded"
        assert await balances(r.database, "m:1") == {USDT: (units("90"), 0)}

    scenario(migrated_url, body)
