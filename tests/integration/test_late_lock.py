"""Balances that are only looked at until everything else is written, and what others do to them meanwhile: on PostgreSQL, where there are others."""

import asyncio
import threading

import pytest

from penstock.core import ledger
from penstock.core.errors import Problem, Refused
from penstock.core.order import Order
from penstock.ledger.book import Overdraft, Unsure, balances
from tests.fixtures.rooms import ANSWERED_S, USDT, rooms, units

HELD = "m:1"
NOW_MS = 1_790_000_000_000
WAITING = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def reserve(r, amount):
    return ledger.reserve(r.next_ids()[0], HELD, USDT, units(amount))


def credit(r, holder, amount):
    return ledger.credit(str(r.next_ids()[0]), holder, USDT, units(amount), "test")


async def looked(r, *holders):
    """A sheet of balances as they are now, without a lock."""
    return await r.database.read(lambda tx: r.book.look(tx, [(holder, USDT) for holder in holders]))


async def closed(r, sheet):
    await r.database.write("late", lambda tx: r.book.close(tx, sheet, NOW_MS))


async def spend(r, amount):
    """Somebody else's whole transaction."""

    def job(tx):
        sheet = r.others.open(tx, [(HELD, USDT)])
        sheet.post(reserve(r, amount))
        r.others.close(tx, sheet, NOW_MS)

    await r.database.write("spend", job)


async def entries(r):
    rows = await r.database.read(lambda tx: tx.all("SELECT posting_kind FROM entry ORDER BY id"))
    return [row["posting_kind"] for row in rows]


def test_what_others_took_meanwhile_stays_taken(postgres_migrated):
    async def scenario():
        async with rooms(postgres_migrated) as r:
            await r.credit(HELD, "10")
            sheet = await looked(r, HELD)
            sheet.post(reserve(r, "3"))
            await spend(r, "5")
            await closed(r, sheet)
            assert await balances(r.database, HELD) == {USDT: (units("2"), units("8"))}
            assert await entries(r) == ["credit", "reserve", "reserve"]

    asyncio.run(scenario())


def test_what_others_left_too_little_of_is_not_written(postgres_migrated):
    async def scenario():
        async with rooms(postgres_migrated) as r:
            await r.credit(HELD, "10")
            sheet = await looked(r, HELD)
            sheet.post(reserve(r, "3"))
            await spend(r, "8")
            with pytest.raises(Unsure):
                await closed(r, sheet)
            assert await balances(r.database, HELD) == {USDT: (units("2"), units("8"))}
            assert await entries(r) == ["credit", "reserve"]

    asyncio.run(scenario())


@pytest.mark.parametrize("others_take", ["5", "8"])
def test_what_others_take_while_we_wait_for_the_lock_counts(postgres_migrated, others_take):
    async def scenario():
        async with rooms(postgres_migrated) as r:
            await r.credit(HELD, "10")
            sheet = await looked(r, HELD)
            sheet.post(reserve(r, "3"))
            has_lock, may_commit = threading.Event(), threading.Event()

            def hold(tx):
                others = r.others.open(tx, [(HELD, USDT)])
                others.post(reserve(r, others_take))
                r.others.close(tx, others, NOW_MS)
                has_lock.set()
                may_commit.wait(ANSWERED_S)

            holding = asyncio.ensure_future(r.database.write("hold", hold))
            await asyncio.to_thread(has_lock.wait, ANSWERED_S)
            closing = asyncio.ensure_future(closed(r, sheet))
            async with asyncio.timeout(ANSWERED_S):
                while not await r.database.read(lambda tx: tx.all(WAITING)):
                    await asyncio.sleep(0.01)
            may_commit.set()
            await holding
            if others_take == "8":
                with pytest.raises(Unsure):
                    await closing
            else:
                await closing
            assert await balances(r.database, HELD) == {USDT: (units("2"), units("8"))}

    asyncio.run(scenario())


def test_what_is_covered_at_the_end_but_not_in_the_order_of_arrival_is_not_written(postgres_migrated):
    async def scenario():
        async with rooms(postgres_migrated) as r:
            await r.credit(HELD, "10")
            sheet = await looked(r, HELD)
            sheet.post(reserve(r, "7"))
            sheet.post(credit(r, HELD, "7"))
            await spend(r, "4")
            with pytest.raises(Unsure):
                await closed(r, sheet)
            assert await balances(r.database, HELD) == {USDT: (units("6"), units("4"))}

    asyncio.run(scenario())


def test_a_balance_that_nobody_had_is_made_at_the_end_or_is_there_by_then(postgres_migrated):
    async def scenario():
        async with rooms(postgres_migrated) as r:
            sheet = await looked(r, "u:1000001", "u:1000002", "u:1000003")
            for holder in ("u:1000001", "u:1000002"):
                sheet.post(credit(r, holder, "4"))
            await r.credit("u:1000002", "1", book=r.others)
            await closed(r, sheet)
            assert await balances(r.database, "u:1000001") == {USDT: (units("4"), 0)}
            assert await balances(r.database, "u:1000002") == {USDT: (units("5"), 0)}
            assert await balances(r.database, "u:1000003") == {}

    asyncio.run(scenario())


def test_a_look_refuses_nobody(postgres_migrated):
    async def scenario():
        async with rooms(postgres_migrated) as r:
            await r.credit(HELD, "1")
            sheet = await looked(r, HELD)
            sheet.post(reserve(r, "1"))
            with pytest.raises(Unsure):
                sheet.post(reserve(r, "1"))
            assert len(sheet.entries) == 1

    asyncio.run(scenario())


def test_where_the_writer_is_alone_a_look_is_a_lock(migrated_url):
    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit(HELD, "1")

            def job(tx):
                sheet = r.book.look(tx, [(HELD, USDT)])
                sheet.post(reserve(r, "2"))

            with pytest.raises(Overdraft if r.database.dialect == "sqlite" else Unsure):
                await r.database.write("late", job)

    asyncio.run(scenario())


def test_orders_whose_money_goes_while_they_are_written_are_judged_again_by_what_is_there_then(postgres_migrated):
    async def scenario():
        async with rooms(postgres_migrated, worker=1) as one, rooms(postgres_migrated, worker=2) as two:
            await one.credit(HELD, "10")
            loop, close, others = asyncio.get_running_loop(), one.book.close, ["6"]

            def close_later(tx, sheet, at_ms):
                while others:
                    asyncio.run_coroutine_threadsafe(spend(two, others.pop()), loop).result()
                close(tx, sheet, at_ms)

            one.book.close = close_later
            answers = await one.submit_all(
                [one.draft(name, "3", recipient=recipient) for name, recipient in (("a", ""), ("b", "u:1000001"))]
            )
            assert isinstance(answers[0], Order)
            assert isinstance(answers[1], Refused)
            assert answers[1].problem is Problem.BALANCE_INSUFFICIENT
            assert "has 1 available" in answers[1].msg
            assert await balances(one.database, HELD) == {USDT: (units("1"), units("9"))}
            assert await one.database.read(lambda tx: tx.all("SELECT merchant_order_id AS name FROM order_key")) == [{"name": "a"}]
            assert await one.database.read(lambda tx: tx.all("SELECT id FROM outbox")) == []
            again = await one.submit_all([one.draft("b", "1", recipient="u:1000001")])
            assert isinstance(again[0], Order)

    asyncio.run(scenario())
