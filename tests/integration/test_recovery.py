"""A start compares journal, tables and chain, on both databases: what a restored past has forgotten comes back, or is named."""

import asyncio

import pytest

from penstock.core.event import Dead, FailedOnChain, Pending
from penstock.core.intent import SignLater
from penstock.ledger.audit import audit
from penstock.ledger.book import balances
from penstock.orders import attempts, recovery
from tests.fixtures.restored import House, copy_of
from tests.fixtures.rooms import USDT, rooms, units
from tests.integration.test_road import final, usdt


def past_and_present(url, folder, before, forgotten, after):
    """A day until the backup, what happens after it, and the day after the backup was put back."""

    async def run():
        async with rooms(url, worker=1) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await house.settled()
            await before(house)
        with copy_of(url, folder) as copy:
            async with rooms(url, worker=2) as r:
                house = await House(r, house).start()
                await forgotten(house)
            async with rooms(copy, worker=3) as r:
                house = await House(r, house).start()
                await after(house)
                assert (await audit(r.database, {})).breaches == []

    asyncio.run(run())


async def accept(house, *names):
    await house.rooms.submit_all([usdt(house.rooms, house.road, name) for name in names])


async def send(house, *names):
    await accept(house, *names)
    await house.road.send()


async def paid(house):
    """What was sent is final on the chain now, and so it stays."""
    house.road.rail.answer = final
    house.road.rail.used = len([e for e in house.signer.journal if e.kind == "sign" and e.intent.version == 1])
    await house.road.follow()


def test_an_order_that_is_still_there_gets_its_attempt_back_and_is_paid_once(migrated_url, tmp_path):
    async def before(house):
        await accept(house, "a")

    async def forgotten(house):
        await house.road.send()
        await paid(house)
        assert (await house.road.order("a"))["state"] == "succeeded"

    async def after(house):
        order = await house.road.order("a")
        assert order["state"] == "succeeded"
        steps = await house.all("SELECT after, reason FROM order_history ORDER BY id")
        assert "adopted from the signer's journal" in steps[0]["reason"]
        assert len([entry for entry in house.signer.journal if entry.kind == "sign"]) == 1
        assert await balances(house.rooms.database, "m:1") == {USDT: (units("90"), 0)}
        assert house.recovery.held("ETH") == ""
        await send(house, "b")
        assert [row["slot"] for row in await house.all("SELECT slot FROM attempt ORDER BY slot")] == [0, 1]

    past_and_present(migrated_url, tmp_path, before, forgotten, after)


def test_what_is_under_way_goes_on_with_the_same_bytes_and_nothing_new_is_signed(migrated_url, tmp_path):
    async def before(house):
        await accept(house, "a", "b")

    async def forgotten(house):
        await house.road.send()
        house.sent = list(house.road.rail.sent)

    async def after(house):
        assert house.recovery.held("ETH") == ""
        await house.road.follow()
        assert set(house.road.rail.sent) == set(house.road.rail.sent[:2])
        rows = await house.all("SELECT state FROM attempt")
        assert [row["state"] for row in rows] == ["sent", "sent"]
        await paid(house)
        assert {(await house.road.order(name))["state"] for name in "ab"} == {"succeeded"}

    past_and_present(migrated_url, tmp_path, before, forgotten, after)


async def raise_fee(house):
    """Another version, on the same slot."""
    house.road.rail.answer = Pending(stuck=True)
    await house.road.follow()
    assert len(await house.all("SELECT id FROM version")) == 2
    house.road.rail.answer = Pending()


def test_every_version_of_an_attempt_comes_back(migrated_url, tmp_path):
    async def before(house):
        await send(house, "a")

    async def after(house):
        rows = await house.all("SELECT number, txid, journaled FROM version ORDER BY number")
        assert [(row["number"], row["journaled"]) for row in rows] == [(1, 1), (2, 1)]
        assert [row["txid"] for row in rows] == [entry.txid for entry in house.signer.journal]
        house.road.rail.answer = final
        await paid(house)
        assert (await house.road.order("a"))["state"] == "succeeded"

    past_and_present(migrated_url, tmp_path, before, raise_fee, after)


async def raise_fee_unread(house):
    """Another version, on the same slot; and the signer reads its journal for a long time after the next start."""
    await raise_fee(house)

    async def reading(after):
        del after
        raise SignLater("it still reads its journal", everything=True)

    house.signer.entries = reading


async def ended_before_the_journal_is_read(house, seen, state):
    """Of the attempt the tables know one version, and that is what the chain has."""
    house.road.rail.answer, house.road.rail.used = seen, 1
    await house.road.follow()
    assert (await house.road.order("a"))["state"] == state
    assert await house.all("SELECT number FROM version") == [{"number": 1}]
    del house.signer.entries
    await house.settled()


def reverted(versions):
    return FailedOnChain(versions[-1].txid, 101, 21_000 * 10**9, "reverted")


@pytest.mark.parametrize(("seen", "state"), [(final, "succeeded"), (reverted, "failed")])
def test_a_version_that_comes_to_light_when_its_attempt_is_over_stops_nothing_and_is_not_followed(migrated_url, tmp_path, seen, state):
    async def before(house):
        await send(house, "a")

    async def after(house):
        await ended_before_the_journal_is_read(house, seen, state)
        assert house.recovery.held("ETH") == ""
        assert await house.all("SELECT halted FROM lane") == [{"halted": ""}]
        rows = await house.all("SELECT number, journaled FROM version ORDER BY number")
        assert [(row["number"], row["journaled"]) for row in rows] == [(1, 1), (2, 1)]
        assert await house.all("SELECT attempt_id FROM journal_stray") == []
        # What the entry that decided the order covers, its steps among it, is as it was.
        assert [finding for finding in (await audit(house.rooms.database, {})).findings if finding.invariant == "I15"] == []
        assert await house.all("SELECT state, due_at_ms FROM attempt") == [{"state": "final", "due_at_ms": None}]
        assert await house.road.follow() == 0

    past_and_present(migrated_url, tmp_path, before, raise_fee_unread, after)


def test_an_attempt_that_is_over_and_yet_due_holds_up_neither_the_others_nor_the_next_start(migrated_url):
    async def body():
        async with rooms(migrated_url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await house.settled()
            await send(house, "a")
            await paid(house)
            house.road.rail.answer = Pending()
            # As databases are that had met such a version before.
            await r.database.write("test", lambda tx: tx.run("UPDATE attempt SET due_at_ms = 1"))
            await send(house, "b")
            assert await house.road.follow() == 1
            house = await House(r, house).start()
            assert house.recovery.held("ETH") == ""
            await paid(house)
            assert (await house.road.order("b"))["state"] == "succeeded"

    asyncio.run(body())


async def nothing(house):
    del house


async def resume(house, reason):
    now_ms, (action_id,) = house.rooms.runtime.now_ms(), house.rooms.next_ids(1)

    def job(tx):
        return attempts.resume_lane(tx, "ETH", reason, action_id=action_id, now_ms=now_ms)

    return await house.rooms.database.write("resume", job)


def test_an_attempt_whose_order_is_gone_stops_the_network_until_a_person_lets_it_go_on(migrated_url, tmp_path):
    async def forgotten(house):
        await send(house, "a")

    async def after(house):
        held = house.recovery.held("ETH")
        assert "is not in this database" in held
        assert "merchant's 1/a" in held
        await send(house, "b")
        assert await house.all("SELECT id FROM attempt") == []
        assert len(house.road.rail.sent) == 1
        assert (await resume(house, "the merchant asks again")).startswith("recovery: ")
        await house.settled()
        assert house.recovery.held("ETH") == ""
        await house.road.make_orders_due()
        await house.road.send()
        await paid(house)
        (entry,) = await house.all("SELECT note FROM entry WHERE posting_kind = 'final' AND note <> ''")
        assert entry["note"] == "the merchant asks again"
        assert (await house.road.order("b"))["state"] == "succeeded"
        assert [row["slot"] for row in await house.all("SELECT slot FROM attempt ORDER BY slot")] == [0, 1]
        await send(house, "a")
        again = await house.road.order("a")
        assert again["state"] == "quarantined"
        (step,) = await house.all(f"SELECT reason FROM order_history WHERE order_id = {again['id']}")
        assert house.signer.journal[0].txid in step["reason"]

    past_and_present(migrated_url, tmp_path, nothing, forgotten, after)


def test_a_slot_that_was_taken_and_never_signed_is_handed_out_before_any_other(migrated_url, tmp_path):
    async def before(house):
        await accept(house, "a", "b")

    async def forgotten(house):
        real = house.signer.sign

        async def only_the_second(intents):
            return await real([intent for intent in intents if intent.slot == 1])

        house.signer.sign = only_the_second
        await house.road.send()
        house.signer.sign = real

    async def after(house):
        await house.road.make_orders_due()
        await house.road.send()
        rows = await house.all("SELECT slot, state FROM attempt ORDER BY slot")
        assert [row["slot"] for row in rows] == [0, 1]
        assert await house.all("SELECT slot FROM lane_gap") == []
        await paid(house)
        assert {(await house.road.order(name))["state"] for name in "ab"} == {"succeeded"}

    past_and_present(migrated_url, tmp_path, before, forgotten, after)


def test_an_attempt_that_was_buried_comes_back_dead_and_the_next_one_of_its_order_alive(migrated_url, tmp_path):
    async def before(house):
        await accept(house, "a")

    async def forgotten(house):
        await house.road.send()
        house.road.rail.answer = Dead("it expired")
        await house.road.follow()
        await house.road.make_orders_due()
        await house.road.send()
        assert [entry.kind for entry in house.signer.journal] == ["sign", "death", "sign"]
        house.road.rail.answer = Pending()

    async def after(house):
        rows = await house.all("SELECT slot, state FROM attempt ORDER BY slot")
        assert [(row["slot"], row["state"]) for row in rows] == [(0, "dead"), (1, "sent")]
        assert (await house.road.order("a"))["state"] == "sending"
        await paid(house)
        assert (await house.road.order("a"))["state"] == "succeeded"

    past_and_present(migrated_url, tmp_path, before, forgotten, after)


def test_a_death_that_only_the_journal_knows_frees_the_order(migrated_url, tmp_path):
    async def before(house):
        await send(house, "a")

    async def forgotten(house):
        house.road.rail.answer = Dead("it expired")
        await house.road.follow()
        house.road.rail.answer = Pending()

    async def after(house):
        rows = await house.all("SELECT state FROM attempt ORDER BY slot")
        assert rows[0]["state"] == "dead"
        assert (await house.road.order("a"))["state"] == "accepted"

    past_and_present(migrated_url, tmp_path, before, forgotten, after)


def test_bytes_that_a_crash_kept_from_the_tables_come_from_the_journal(migrated_url):
    async def body():
        async with rooms(migrated_url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            real = attempts.store_signed
            attempts.store_signed = lambda tx, signed: None  # noqa: ARG005  the commit after the signature is lost
            try:
                await send(house, "a")
            finally:
                attempts.store_signed = real
            assert await house.all("SELECT id FROM version WHERE raw IS NOT NULL") == []
            house = await House(r, house).start()
            (version,) = await house.all("SELECT txid FROM version")
            assert version["txid"] == house.signer.journal[0].txid
            assert len(house.signer.journal) == 1

    asyncio.run(body())


def test_bytes_that_come_from_the_journal_may_have_been_given_by_a_life_that_is_forgotten(migrated_url, tmp_path):
    """Where a rail withholds bytes after a time, `signed` says that nobody has them: a restored database may not say so."""

    async def withheld(raw):
        return "its time is over"

    async def before(house):
        await accept(house, "a")

    async def forgotten(house):
        await house.road.send()
        assert len(house.road.rail.sent) == 1
        house.road.rail.withheld = withheld

    async def after(house):
        assert [row["state"] for row in await house.all("SELECT state FROM attempt")] == ["sent"]

    past_and_present(migrated_url, tmp_path, before, forgotten, after)


def test_a_journal_older_than_the_tables_stops_the_network_until_it_is_put_back(migrated_url):
    async def body():
        async with rooms(migrated_url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await send(house, "a", "b")
            whole = list(house.signer.journal)
            for length in (0, 1):
                del house.signer.journal[length:]
                house = await House(r, house).start()
                assert "older than the database" in house.recovery.held("ETH")
                house.signer.journal[:] = whole
                await house.settled()
                assert house.recovery.held("ETH") == ""

    asyncio.run(body())


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_journal_that_is_lost_is_taught_again_only_by_a_persons_word(migrated_url, length):
    async def body():
        async with rooms(migrated_url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await send(house, "a", "b")
            await paid(house)
            house.road.rail.answer = Pending()
            await send(house, "c")
            await house.recovery.compare()
            txids = {entry.txid for entry in house.signer.journal}
            del house.signer.journal[length:]
            house = await House(r, house).start()
            assert "older than the database" in house.recovery.held("ETH")
            assert len(house.signer.journal) == length
            now_ms, (action_id,) = r.runtime.now_ms() + 1, r.next_ids(1)
            told = await r.database.write("relearn", lambda tx: recovery.relearn(tx, "lost", action_id=action_id, now_ms=now_ms))
            assert told
            await house.settled()
            assert house.recovery.held("ETH") == ""
            assert {entry.txid for entry in house.signer.journal} == txids
            again = await r.database.write("relearn", lambda tx: recovery.relearn(tx, "lost", action_id=1, now_ms=now_ms))
            assert not again

    asyncio.run(body())


async def relearn(r):
    now_ms, (action_id,) = r.runtime.now_ms() + 1, r.next_ids(1)
    return await r.database.write("relearn", lambda tx: recovery.relearn(tx, "lost", action_id=action_id, now_ms=now_ms))


def capped(signer):
    """It signs no new attempt while its journal has as many as its day lets it, which is to be set."""
    honest, signer.room = signer.sign, 0

    async def sign(intents):
        known = {entry.attempt_id for entry in signer.journal}
        if any(intent.attempt_id not in known for intent in intents) and len(known) >= signer.room:
            raise SignLater("12.5 of 20 USDT were signed within 24 hours (signer.day_max)", everything=False)
        return await honest(intents)

    signer.sign = sign


def test_one_word_teaches_a_lost_journal_though_the_signers_day_has_no_room_for_all_of_it(migrated_url):
    """After the first payments the word counted as done: the network asked for it again each day, and for nothing else."""

    async def body():
        async with rooms(migrated_url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await send(house, "a", "b", "c")
            await paid(house)
            txids = {entry.txid for entry in house.signer.journal}
            house.signer.journal.clear()
            capped(house.signer)
            house = await House(r, house).start()
            assert "`penstock signer relearn`" in house.recovery.held("ETH")
            assert await relearn(r)
            for day in (1, 2):
                house.signer.room = day
                await house.settled()
                assert house.recovery.held("ETH").endswith("12.5 of 20 USDT were signed within 24 hours (signer.day_max)")
                assert "relearn" not in house.recovery.held("ETH")
                assert len(house.signer.journal) == day
                house = await House(r, house).start()  # and over starts
                assert house.recovery.held("ETH").endswith("(signer.day_max)")
            house.signer.room = 3
            await house.settled()
            assert house.recovery.held("ETH") == ""
            assert {entry.txid for entry in house.signer.journal} == txids

    asyncio.run(body())


@pytest.mark.parametrize("found", [False, True])
def test_a_journal_that_is_lost_once_more_is_taught_only_by_another_word(migrated_url, found):
    """Whether it was taught before, or a copy was found and put back after all."""

    async def body():
        async with rooms(migrated_url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await send(house, "a", "b")
            whole = list(house.signer.journal)
            house.signer.journal.clear()
            house = await House(r, house).start()
            assert await relearn(r)
            if found:
                house.signer.journal[:] = whole
            await house.settled()
            assert house.recovery.held("ETH") == ""
            house.signer.journal.clear()
            house = await House(r, house).start()
            assert "older than the database" in house.recovery.held("ETH")
            assert house.signer.journal == []
            assert await relearn(r)
            await house.settled()
            assert house.recovery.held("ETH") == ""

    asyncio.run(body())


def test_a_signer_that_is_away_holds_a_start_and_not_what_runs(migrated_url):
    async def body():
        async with rooms(migrated_url) as r:
            house = House(r)
            real = house.signer.entries

            async def away(after):
                del after
                raise SignLater("the signer does not answer", everything=True)

            house.signer.entries = away
            await house.start()
            assert "cannot be read" in house.recovery.held("ETH")
            house.signer.entries = real
            await house.settled()
            assert house.recovery.held("ETH") == ""
            house.signer.entries = away
            await house.settled()
            assert house.recovery.held("ETH") == ""

    asyncio.run(body())


def test_a_database_that_went_away_is_met_like_a_start(migrated_url):
    async def body():
        async with rooms(migrated_url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await house.settled()
            assert house.recovery.held("ETH") == ""
            r.database.breaks += 1
            await send(house, "a")
            assert house.recovery.held("ETH") != ""
            assert await house.all("SELECT id FROM attempt") == []
            await house.settled()
            await house.road.make_orders_due()
            await house.road.send()
            assert (await house.road.order("a"))["state"] == "sending"

    asyncio.run(body())


def test_nothing_is_sent_before_the_books_of_before_the_start_are_audited(migrated_url):
    async def body():
        async with rooms(migrated_url) as r:
            house = House(r)
            house.recovery.audited = lambda: False
            await house.start()
            await r.credit("m:1", "100")
            assert house.recovery.held("ETH") == recovery.UNAUDITED
            await send(house, "a")
            assert await house.all("SELECT id FROM attempt") == []
            assert await house.all("SELECT chain FROM recovery_hold") == [{"chain": "ETH"}]  # for people and other processes
            house.recovery.audited = lambda: True
            await house.settled()
            await house.road.make_orders_due()
            await house.road.send()
            assert (await house.road.order("a"))["state"] == "sending"

    asyncio.run(body())


def test_while_a_network_is_held_nothing_is_bound_signed_or_sent_and_looking_goes_on(migrated_url):
    async def body():
        async with rooms(migrated_url) as r:
            house = await House(r).start()
            await r.credit("m:1", "100")
            await send(house, "a")
            sent, signed = len(house.road.rail.sent), len(house.signer.journal)
            house.road.sender._held = house.road.stages._held = house.road.follower._held = lambda chain: "held by the test"  # noqa: ARG005
            house.road.rail.answer = Pending(stuck=True)
            await house.road.follow()
            await send(house, "b")
            assert (len(house.road.rail.sent), len(house.signer.journal)) == (sent, signed)
            assert (await house.road.order("b"))["state"] == "accepted"
            await paid(house)
            assert (await house.road.order("a"))["state"] == "succeeded"

    asyncio.run(body())


def forget_and_ask_again(url, folder, after):
    """An order is paid, forgotten, let go on by a person, asked for again, and quarantined."""

    async def forgotten(house):
        await send(house, "a")

    async def asked_again(house):
        await resume(house, "the merchant asks again")
        await house.settled()
        await paid(house)
        await send(house, "a")
        assert (await house.road.order("a"))["state"] == "quarantined"
        await after(house)

    past_and_present(url, folder, nothing, forgotten, asked_again)
