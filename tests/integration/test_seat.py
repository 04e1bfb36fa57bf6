"""One worker a database: who may take the seat, how soon, and what is left to a worker that lost it."""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest

from penstock.db import Database, open_database
from penstock.orders import seat
from penstock.orders.seat import Seat, SeatLost
from penstock.runtime import SystemRuntime
from tests.fixtures.databases import fresh_database

NUMBERS = itertools.count(1)


def on_a_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    return functools.wraps(test)(lambda *args, **fixtures: asyncio.run(test(*args, **fixtures)))


class Watch(SystemRuntime):
    """A machine whose seconds pass when a test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.passed_s = 0.0
        self.ticks: asyncio.Semaphore | None = None

    def monotonic(self) -> float:
        return self.passed_s

    async def sleep(self, seconds: float) -> None:
        if self.ticks is not None:
            await self.ticks.acquire()
        self.passed_s += seconds
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def worker(url: str, name: str) -> AsyncIterator[tuple[Seat, Database, Watch]]:
    runtime = Watch()
    database = open_database(runtime, url)
    try:
        yield Seat(runtime, database, name, lambda count: list(itertools.islice(NUMBERS, count))), database, runtime
    finally:
        await database.close()
        runtime.close()


async def note(database: Database, name: str) -> None:
    """What a worker commits."""
    await database.write("note", lambda tx: tx.run("INSERT INTO single_use VALUES (:name, 1)", name=name))


async def noted(database: Database) -> list[str]:
    return [row["name"] for row in await database.read(lambda tx: tx.all("SELECT name FROM single_use ORDER BY name"))]


@on_a_loop
async def test_a_worker_that_wakes_after_another_has_begun_commits_nothing_any_more(migrated_url):
    async with worker(migrated_url, "a") as (first, one, _), worker(migrated_url, "b") as (second, two, watch):
        await first.take()
        await note(one, "before")
        await second.take()
        assert watch.passed_s >= seat.LEASE_S, "whoever has only just been seen is given time"
        with pytest.raises(SeatLost, match="another process works on this database"):
            await note(one, "zombie")
        await note(two, "after")
        with pytest.raises(SeatLost):
            await first.keep()
        with pytest.raises(SeatLost):
            await first.release()
        assert await noted(two) == ["after", "before"]


@on_a_loop
async def test_nobody_takes_the_seat_of_a_worker_that_lives(migrated_url):
    async with worker(migrated_url, "a") as (first, one, _), worker(migrated_url, "b") as (second, _, watch):
        await first.take()
        watch.ticks = asyncio.Semaphore(0)
        waiting = asyncio.create_task(second.take())
        for _ in range(12):
            await one.write("seat.beat", lambda tx: tx.run("UPDATE seat SET beat = beat + 1"))
            for _ in range(int(seat.LEASE_S / 2 / seat.LOOK_S)):
                watch.ticks.release()
            while not watch.ticks.locked():
                await asyncio.sleep(0.001)
        assert watch.passed_s > 5 * seat.LEASE_S
        assert not waiting.done()
        await first.release()
        watch.ticks.release()
        await waiting
        with pytest.raises(SeatLost):
            await note(one, "late")


@pytest.mark.parametrize("how", ["a start on the same home", "a clean stop"])
@on_a_loop
async def test_the_next_worker_need_not_wait_after(migrated_url, how):
    async with worker(migrated_url, "a") as (first, one, _), worker(migrated_url, "a" if "same" in how else "b") as (second, two, watch):
        await first.take()
        if how == "a clean stop":
            await first.release()
        await second.take()
        assert watch.passed_s == 0
        await note(two, "work")
        with pytest.raises(SeatLost):
            await note(one, "zombie")


@on_a_loop
async def test_of_many_that_wait_for_one_seat_one_has_it(migrated_url):
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(worker(migrated_url, f"home {n}")) for n in range(5)]
        await asyncio.wait([asyncio.create_task(one.take()) for one, _, _ in workers])
        done = await asyncio.gather(*(note(database, str(n)) for n, (_, database, _) in enumerate(workers)), return_exceptions=True)
        assert [type(error) for error in done].count(SeatLost) == 4 and done.count(None) == 1, done


@on_a_loop
async def test_a_database_that_was_put_back_is_worked_on_by_nobody_who_began_after(migrated_url):
    """Its seat has an older number: a worker of its future stops, as one that was pushed off does."""
    async with worker(migrated_url, "a") as (first, one, _):
        await first.take()
        row = await one.read(lambda tx: tx.one("SELECT number FROM seat"))
        await one.write("restore", lambda tx: tx.run("UPDATE seat SET number = :number", number=row["number"] - 1))
        with pytest.raises(SeatLost):
            await note(one, "work")


@on_a_loop
async def test_a_transaction_under_way_ends_before_another_worker_begins(postgres_template, postgres_url):
    """PostgreSQL alone can have two at once."""
    with fresh_database(postgres_url, postgres_template) as url:
        async with worker(url, "a") as (first, one, _), worker(url, "a") as (second, two, _):
            await first.take()
            order: list[str] = []
            began, go_on = asyncio.Event(), asyncio.Event()
            loop = asyncio.get_running_loop()

            def job(tx):
                loop.call_soon_threadsafe(began.set)
                asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
                tx.run("INSERT INTO single_use VALUES ('under way', 1)")
                order.append("committed")

            writing = asyncio.create_task(one.write("bind", job))
            await began.wait()
            taking = asyncio.create_task(second.take())
            taking.add_done_callback(lambda _: order.append("taken"))
            while not await two.read(lambda tx: tx.all("SELECT 1 AS x FROM pg_locks WHERE NOT granted")):
                await asyncio.sleep(0.01)
            go_on.set()
            await asyncio.gather(writing, taking)
            assert order == ["committed", "taken"] and await noted(two) == ["under way"]
