"""The continuous audit: what it finds between two passes, what a finding stops, and what a person's word about it is worth."""

import asyncio

import pytest

from penstock.db import open_database
from penstock.ledger.audit import Terms, audit, look_again
from penstock.ledger.checkpoint import Checkpoint
from penstock.orders import auditor, readiness
from penstock.orders.auditor import Auditor
from penstock.prove.lanes.tamper import as_an_intruder
from penstock.runtime import SystemRuntime
from tests.fixtures.rooms import USDT, Rooms, rooms, units
from tests.integration.test_audit import TAMPERS, a_day, attempt, order, terms_of

BEFORE = {"a batch is gone", "an entry is gone", "a batch is sealed anew", "a posting is changed", "a note is rewritten"}
"""What is touched in the past of a checkpoint is found by reading everything, or by the balances that no longer fit."""


def scenario(url, body):
    async def run():
        async with rooms(url) as r:
            road = await a_day(r)
            await body(r, road, made(r, road))

    asyncio.run(run())


def made(r, road):
    return Auditor(runtime=r.runtime, database=r.database, catalog=road.catalog, terms=lambda: terms_of(road))


async def touch(r, sql, **values):
    await r.database.write("touch", lambda tx: tx.run(sql, **values))


async def halted(r):
    return (await r.database.read(lambda tx: tx.one("SELECT halted FROM lane")))["halted"]


async def resume(r, road, chain=""):
    return await auditor.resume(r.database, road.catalog, chain, "looked at it", next_ids=r.next_ids, now_ms=r.runtime.now_ms())


def found(report):
    return {(finding.invariant, finding.level) for finding in report.findings}


def test_a_pass_goes_on_where_the_one_before_ended(migrated_url):
    async def body(r, road, auditor_):
        first = await auditor_.turn()
        assert first.findings == []
        assert first.counts["entries"] > 10
        again = await auditor_.turn()
        assert (again.findings, again.counts["entries"]) == ([], 0)
        await r.credit("m:1", "3")
        assert ((await auditor_.turn()).counts["entries"]) == 1
        heads = await r.database.read(lambda tx: tx.all("SELECT number FROM audit_checkpoint ORDER BY number"))
        assert [row["number"] for row in heads] == [1, 2]  # a pass over nothing new leaves no row
        assert (await audit(r.database, {}, terms_of(road))).findings == []

    scenario(migrated_url, body)


def test_a_long_past_is_read_in_slices_that_find_what_one_reading_finds(migrated_url, monkeypatch):
    monkeypatch.setattr(auditor, "SLICE_ENTRIES", 4)
    monkeypatch.setattr(auditor, "LONG_SLICE_ENTRIES", 4)

    async def body(r, road, auditor_):
        whole = await r.database.read(lambda tx: look_again(tx, terms_of(road)))
        # A breach in the past, and one that only the sums at the end can show.
        await touch(r, "UPDATE orders SET fee_usd = '9' WHERE id = " + order("paid"))
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=7)
        report = await auditor_.turn()
        assert (report.whole, found(report)) == (True, {("I3", "stop")})
        rows = await r.database.read(lambda tx: tx.all("SELECT invariant FROM audit_finding ORDER BY invariant"))
        assert {row["invariant"] for row in rows} == {"I3", "I15"}
        ties = await r.database.read(lambda tx: tx.all("SELECT number FROM audit_checkpoint"))
        assert len(ties) > 2
        kept = await r.database.read(Checkpoint.load)
        assert (kept.heads, kept.house) == (whole[1].heads, whole[1].house)
        # What an earlier pass found stands until a pass to the end does not find it any more.
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=units("5"))
        await r.credit("m:1", "3")
        assert found(await auditor_.turn()) == set()
        rows = await r.database.read(lambda tx: tx.all("SELECT invariant FROM audit_finding"))
        assert {row["invariant"] for row in rows} == {"I15"}
        # The past of the checkpoint is as one reading leaves it: everything from the first row fits to it.
        assert found(await audit(r.database, {}, terms_of(road))) == {("I15", "alert"), ("I16", "alert")}  # and the lane that I3 halted

    scenario(migrated_url, body)


def test_the_first_pass_waits_for_one_slice_and_nothing_is_sent_before_its_end(migrated_url, monkeypatch):
    monkeypatch.setattr(auditor, "SLICE_ENTRIES", 4)
    monkeypatch.setattr(auditor, "LONG_SLICE_ENTRIES", 4)

    async def body(r, road, auditor_):
        await auditor_.first()
        assert not auditor_.caught_up
        run = await r.database.read(lambda tx: tx.one("SELECT ended_at_ms FROM audit_run"))
        assert run["ended_at_ms"] == 0
        await auditor_.turn()
        assert auditor_.caught_up
        again = made(r, road)
        await again.first()
        assert again.caught_up  # nothing new: the first slice was the whole pass

    scenario(migrated_url, body)


def test_before_the_first_checkpoint_both_readers_find_the_same(migrated_url):
    async def body(r, road, auditor_):
        only_whole = {"a merchant's id stands for another order", "an order is gone", "a lane is halted"}
        for name, sql, values, expected in TAMPERS:

            def job(tx, sql=sql, values=values):
                as_an_intruder(tx)
                tx.run(sql, **values)
                raise Undo(look_again(tx, terms_of(road))[0])

            try:
                await r.database.write("touch", job)
            except Undo as undone:
                missed = expected - found(undone.args[0])
                assert not missed or name in only_whole | {"a batch is gone", "an entry is gone"}, (name, missed)

    scenario(migrated_url, body)


class Undo(Exception):
    """Takes back what was touched, with what was found."""


def test_a_balance_that_nobody_touched_is_compared_in_every_pass(migrated_url):
    async def body(r, road, auditor_):
        assert (await auditor_.turn()).findings == []
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=10**30)
        report = await auditor_.turn()
        assert found(report) == {("I3", "stop")}
        assert "u:1000001:available stores 1000000000000 USDT and its postings sum to 5" in report.findings[0].text

    scenario(migrated_url, body)


def test_a_balance_that_is_gone_is_missed(migrated_url):
    async def body(r, road, auditor_):
        assert (await auditor_.turn()).findings == []
        await touch(r, "DELETE FROM balance WHERE holder = 'u:1000001'")
        assert found(await auditor_.turn()) == {("I3", "stop")}

    scenario(migrated_url, body)


def test_a_breach_halts_every_lane_that_pays_its_coin_until_a_person_has_looked(migrated_url):
    async def body(r, road, auditor_):
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=7)
        await auditor_.turn()
        assert (await halted(r)).startswith("I3: u:1000001:available stores")
        await road.make_orders_due()
        assert await road.send() == 1
        assert (await road.order("waiting"))["hold_reason"] == "network paused"
        assert list(await resume(r, road, "ETH")) == ["ETH"]
        assert await halted(r) == ""
        # The same finding is known by now.
        assert found(await auditor_.turn()) == {("I3", "stop")}
        assert await halted(r) == ""
        # It has changed: somebody has to look again.
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=8)
        await auditor_.turn()
        assert (await halted(r)).startswith("I3: ")

    scenario(migrated_url, body)


def test_a_finding_that_is_over_stops_again_when_it_comes_back(migrated_url):
    async def body(r, road, auditor_):
        change = "UPDATE balance SET available = :available WHERE holder = 'u:1000001'"
        was = (await r.database.read(lambda tx: tx.one("SELECT available FROM balance WHERE holder = 'u:1000001'")))["available"]
        await touch(r, change, available=7)
        await auditor_.turn()
        await resume(r, road)
        await touch(r, change, available=was)
        assert (await auditor_.turn()).findings == []
        await touch(r, change, available=7)
        await auditor_.turn()
        assert await halted(r) != ""

    scenario(migrated_url, body)


def test_a_breach_of_another_networks_coin_halts_nothing_here(migrated_url):
    async def body(r, road, auditor_):
        bitcoin = road.catalog.native("BTC").coin.id
        await touch(
            r,
            "INSERT INTO balance (id, holder, coin_id, available, reserved, version) VALUES (1, 'm:1', :coin, :available, :reserved, 0)",
            coin=bitcoin, available=1, reserved=0,
        )  # fmt: skip
        assert found(await auditor_.turn()) == {("I3", "stop")}
        assert await halted(r) == ""
        # Nothing stands, and yet somebody has to say that they have seen it.
        assert "stores" in (await resume(r, road))[""]
        assert await resume(r, road) == {}

    scenario(migrated_url, body)


def test_what_was_bound_is_not_signed_while_its_lane_stands(migrated_url):
    async def body(r, road, auditor_):
        await road.make_orders_due()
        signed = road.signer.sign
        road.signer.refuses = False

        async def never(intents):
            raise AssertionError(intents)

        road.signer.sign = never
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=7)
        orders = await road.sender.claim(100)
        versions = await road.sender._bind("ETH", 0, orders)
        await auditor_.turn()
        assert len(versions) == 1
        assert await road.stages.sign(versions) == []
        assert await road.follow() == 1
        row = await r.database.read(lambda tx: tx.one(f"SELECT state, seen, due_at_ms FROM attempt WHERE id = {attempt('waiting')}"))
        assert (row["state"], row["seen"]) == ("bound", "waits to be signed until the network is resumed")
        assert row["due_at_ms"] is not None
        road.signer.sign = signed
        await resume(r, road, "ETH")
        assert await road.follow() == 1
        assert (await road.order("waiting"))["state"] == "sending"
        row = await r.database.read(lambda tx: tx.one(f"SELECT state FROM attempt WHERE id = {attempt('waiting')}"))
        assert row["state"] == "sent"

    scenario(migrated_url, body)


def test_one_process_audits_at_a_time_and_a_dead_one_is_followed(migrated_url):
    async def body(r, road, auditor_):
        assert await r.database.write("claim", lambda tx: auditor_._claim(tx, "mine"))
        assert await made(r, road).turn() is None
        await touch(r, "UPDATE audit_run SET lease_until_ms = :now", now=r.runtime.now_ms())
        other = made(r, road)
        assert (await other.turn()).findings == []
        # Whoever slept through it writes nothing any more.
        report, checkpoint = await r.database.read(lambda tx: look_again(tx, terms_of(road)))
        with pytest.raises(Exception, match="another process has taken the audit over"):
            await r.database.write("store", lambda tx: auditor_._store(tx, "mine", report, checkpoint))

    scenario(migrated_url, body)


def test_passes_beside_writers_raise_no_false_alarm(migrated_url):
    """Two processes take orders while a third audits without a pause."""

    async def run():
        async with rooms(migrated_url) as r:
            road = await a_day(r)
            auditor_ = made(r, road)
            runtime = SystemRuntime()
            database = open_database(runtime, migrated_url)
            other = Rooms(database, runtime, worker=2)
            done = asyncio.Event()

            async def take(place, worker):
                for round_ in range(12):
                    await place.credit(f"m:{worker}", "2")
                    drafts = [
                        place.draft(f"{worker}-{round_}-{n}", "1", merchant=worker, recipient="" if n % 2 else "u:1000001")
                        for n in range(6)
                    ]
                    await place.submit_all(drafts)

            async def look():
                passes = 0
                while not done.is_set():
                    assert [f for f in (await auditor_.turn()).findings if f.invariant != "I11"] == []
                    passes += 1
                return passes

            watching = asyncio.create_task(look())
            await asyncio.gather(take(r, 1), take(other, 2))
            done.set()
            assert await watching > 2
            assert (await auditor_.turn()).breaches == []
            assert (await audit(r.database, {}, terms_of(road))).breaches == []
            await database.close()
            runtime.close()

    asyncio.run(run())


def test_the_checkpoint_itself_cannot_be_bent(migrated_url):
    async def body(r, road, auditor_):
        await auditor_.turn()
        await touch(r, "UPDATE audit_balance SET available = :available WHERE holder = 'm:1'", available=1)
        texts = [f.text for f in (await audit(r.database, {}, terms_of(road))).findings]
        assert texts == ["the checkpoint says 0.000000000000000001 USDT for m:1:available, and its postings up to there sum to 75 USDT"]

    scenario(migrated_url, body)


def test_what_nobody_takes_up_is_late_after_ten_minutes(migrated_url):
    async def body(r, road, auditor_):
        now_ms = r.runtime.now_ms()
        on_time = Terms({USDT: "USDT"}, terms_of(road).tokens, now_ms)
        late = Terms({USDT: "USDT"}, terms_of(road).tokens, now_ms + 11 * 60_000)
        assert (await audit(r.database, {}, on_time)).findings == []
        texts = sorted(f.text for f in (await audit(r.database, {}, late)).findings)
        assert [text.partition(",")[0] for text in texts] == ["1 order is overdue", "3 events are overdue"]
        await touch(r, f"UPDATE orders SET due_at_ms = NULL WHERE id = {order('waiting')}")
        texts = [f.text for f in (await audit(r.database, {}, on_time)).findings]
        assert len(texts) == 1
        assert texts[0].endswith("is accepted and nobody will look at it")

    scenario(migrated_url, body)


def test_readiness_says_what_was_found_until_it_is_acknowledged(migrated_url):
    async def body(r, road, auditor_):
        room = readiness.Readiness(
            runtime=r.runtime, database=r.database, board=road.board, prices=road.board._prices, treasury=road.treasury
        )
        room.signer = road.signer
        await auditor_.turn()
        assert (await room.reasons())[0] == []
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=7)
        await auditor_.turn()
        reasons, warnings = await room.reasons()
        assert len(reasons) == 1
        assert reasons[0].startswith("the audit found (I3): u:1000001:available stores")
        assert any(text.startswith("nothing is sent on ETH: I3") for text in warnings)
        assert {("finding", "stop", 1), ("lane", "halted", 1)} <= set(await room.waiting())
        await resume(r, road, "ETH")
        reasons, warnings = await room.reasons()
        assert reasons == []
        assert any("1 findings of the audit were acknowledged" in text for text in warnings)
        assert ("finding", "acknowledged", 1) in await room.waiting()

    scenario(migrated_url, body)


def test_what_a_person_said_is_a_link_of_the_chain(migrated_url):
    async def body(r, road, auditor_):
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=7)
        await auditor_.turn()
        await resume(r, road, "ETH")
        rows = await r.database.read(lambda tx: tx.all("SELECT action, number, reason FROM operator_action ORDER BY number"))
        assert [(row["action"], row["number"], row["reason"]) for row in rows] == [
            ("resume", 1, "looked at it"),
            ("acknowledge", 2, "looked at it"),
        ]

    scenario(migrated_url, body)


def test_a_bump_waits_while_its_lane_stands(migrated_url):
    async def body(r, road, auditor_):
        from penstock.core.event import Pending

        await road.make_orders_due()
        await road.send()
        road.rail.answer = Pending(stuck=True)
        await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=7)
        await auditor_.turn()
        await road.follow()
        count = "SELECT COUNT(*) AS n FROM version WHERE attempt_id = " + attempt("waiting")
        assert (await r.database.read(lambda tx: tx.one(count)))["n"] == 1
        await resume(r, road, "ETH")
        await road.follow()
        assert (await r.database.read(lambda tx: tx.one(count)))["n"] == 2

    scenario(migrated_url, body)
