"""Two batches of one process under way at once, as on PostgreSQL: one has only COMMIT before it, and the next one is written."""

import asyncio
import contextlib
import threading

from penstock.core.errors import Problem, Refused
from penstock.core.order import Order
from penstock.db import open_database
from penstock.ledger.book import balances
from penstock.runtime import SystemRuntime
from tests.fixtures.rooms import USDT, Rooms, units

PATIENCE_S = 20


class Held(SystemRuntime):
    """The first batch of the intake stops before its COMMIT until it may go on."""

    def __init__(self):
        super().__init__()
        self.reached, self.go_on = threading.Event(), threading.Event()

    def crash_point(self, label):
        if label == "intake:before" and not self.reached.is_set():
            self.reached.set()
            self.go_on.wait(PATIENCE_S)


@contextlib.asynccontextmanager
async def house(url):
    """Rooms whose intake runs, and the runtime that holds its first batch."""
    runtime = Held()
    database = open_database(runtime, url)
    rooms = Rooms(database, runtime)
    for holder in ("m:1", "m:2"):
        await rooms.credit(holder, "10")
    committer = asyncio.create_task(rooms.intake.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            yield rooms, runtime
    finally:
        runtime.go_on.set()
        rooms.intake.stop()
        await committer
        await database.close()
        runtime.close()


def submitted(rooms, *drafts):
    return [asyncio.create_task(rooms.intake.submit(draft)) for draft in drafts]


async def held(rooms, runtime, draft):
    """The answer that a draft waits for whose batch is held before its COMMIT."""
    (answer,) = submitted(rooms, draft)
    while not runtime.reached.is_set():
        await rooms.database.read(lambda tx: tx.one("SELECT 1 AS alive"))
    return answer


async def waits_or_is_over(rooms, answers):
    """Until all are answered, or a transaction waits for what another one holds; whether it does."""
    while not all(answer.done() for answer in answers):
        # Somebody of this database who waits for a row or a transaction.
        waiting = await rooms.database.read(
            lambda tx: tx.all(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND state = 'active'"
            )
        )
        if waiting:
            return True
    return False


async def told(answers):
    return await asyncio.gather(*answers, return_exceptions=True)


def test_a_batch_is_answered_while_the_one_before_waits_for_its_commit(postgres_migrated):
    async def scenario():
        async with house(postgres_migrated) as (rooms, runtime):
            first = await held(rooms, runtime, rooms.draft("a"))
            second = submitted(rooms, rooms.draft("b", recipient="", merchant=2))
            assert not await waits_or_is_over(rooms, second), "it waits for something of the first batch"
            assert not first.done()
            runtime.go_on.set()
            assert [type(answer) for answer in await told([first, *second])] == [Order, Order]
            report = await rooms.audit()
            assert (report.breaches, report.counts["orders"], report.counts["committers"]) == ([], 2, 2)

    asyncio.run(scenario())


def test_an_id_that_the_batch_before_has_taken_waits_for_it_and_is_the_same_order(postgres_migrated):
    async def scenario():
        async with house(postgres_migrated) as (rooms, runtime):
            first = await held(rooms, runtime, rooms.draft("same", "3", recipient=""))
            behind = submitted(rooms, rooms.draft("same", "3", recipient=""), rooms.draft("same", "4", recipient=""))
            assert await waits_or_is_over(rooms, behind)
            assert not any(answer.done() for answer in behind)
            runtime.go_on.set()
            one, repeat, other = await told([first, *behind])
            assert repeat == one
            assert isinstance(other, Refused)
            assert other.problem is Problem.ORDER_DUPLICATE
            assert await balances(rooms.database, "m:1") == {USDT: (units("7"), units("3"))}
            assert (await rooms.audit()).breaches == []

    asyncio.run(scenario())


def test_money_that_the_batch_before_has_taken_is_refused_by_what_is_left(postgres_migrated):
    async def scenario():
        async with house(postgres_migrated) as (rooms, runtime):
            first = await held(rooms, runtime, rooms.draft("a", "6", recipient=""))
            behind = submitted(rooms, rooms.draft("b", "5", recipient=""), rooms.draft("c", "3", recipient=""))
            assert await waits_or_is_over(rooms, behind)
            runtime.go_on.set()
            one, short, covered = await told([first, *behind])
            assert (type(one), type(covered)) == (Order, Order)
            assert isinstance(short, Refused)
            assert "has 4 available" in short.msg
            assert await balances(rooms.database, "m:1") == {USDT: (units("1"), units("9"))}
            assert (await rooms.audit()).breaches == []

    asyncio.run(scenario())


def test_a_batch_that_dies_before_its_commit_finds_the_order_that_the_one_behind_has_made(postgres_migrated):
    async def scenario():
        async with house(postgres_migrated) as (rooms, runtime):
            first = await held(rooms, runtime, rooms.draft("same", "3", recipient=""))
            behind = submitted(rooms, rooms.draft("same", "3", recipient=""))
            assert await waits_or_is_over(rooms, behind)
            await rooms.database.read(
                lambda tx: tx.all(
                    "SELECT pg_terminate_backend(pid, 5000) AS is_gone FROM pg_stat_activity "
                    "WHERE datname = current_database() AND state = 'idle in transaction' AND pid <> pg_backend_pid()"
                )
            )
            (made,) = await told(behind)
            assert not first.done()
            runtime.go_on.set()
            assert await told([first]) == [made]
            assert await balances(rooms.database, "m:1") == {USDT: (units("7"), units("3"))}
            report = await rooms.audit()
            assert (report.breaches, report.counts["orders"]) == ([], 1)

    asyncio.run(scenario())
