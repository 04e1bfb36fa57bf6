"""Ids never repeat and never fall: across processes, restarts, crashes and clock steps, on both databases."""

import asyncio
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from penstock.core.snowflake import SEQUENCES, WORKERS, compose, moment_ms
from penstock.db import CommitUnknown, open_database
from penstock.ids import LEASE_MS, IdSource, LeaseLost, NoWorkerFree
from penstock.prove.simulated.virtual import Journal, VirtualLoop, VirtualRuntime
from penstock.runtime import SystemRuntime

START = 1_790_000_000_000


class Clock(SystemRuntime):
    """The real machine but for its clocks and its choice of numbers."""

    def __init__(self, seed=0):
        super().__init__()
        self.ms = START
        self.ticks = 0.0
        self._random = random.Random(seed)

    def now_ms(self):
        return self.ms

    def monotonic(self):
        return self.ticks

    def random_below(self, bound):
        return self._random.randrange(bound)

    async def sleep(self, seconds):
        self.ticks += seconds
        self.ms += int(seconds * 1000)
        await asyncio.sleep(0)


def scenario(url, body, runtime=None):
    runtime = runtime or Clock()

    async def run():
        database = open_database(runtime, url)
        try:
            await body(runtime, database)
        finally:
            await database.close()

    asyncio.run(run())
    runtime.close()


async def rows(database):
    return await database.read(lambda tx: tx.all("SELECT * FROM worker_lease ORDER BY worker"))


def worker_of(snowflake):
    return snowflake >> 12 & 1023


def test_ids_rise_and_carry_the_clock(migrated_url):
    async def body(clock, database):
        ids = await IdSource.lease(clock, database, "test")
        first = ids.next()[0]
        assert moment_ms(first) == clock.ms
        assert worker_of(first) == ids.worker
        clock.ms += 5
        second, third = ids.next(2)
        assert moment_ms(second) == clock.ms
        assert first < second < third

    scenario(migrated_url, body)


def test_the_clock_steps_back_and_ids_go_on_counting(migrated_url):
    async def body(clock, database):
        ids = await IdSource.lease(clock, database, "test")
        before = ids.next(10)
        clock.ms -= 3_600_000
        after = ids.next(10)
        assert after[0] == before[-1] + 1
        await ids.renew()
        assert ids.next()[0] == after[-1] + 1

    scenario(migrated_url, body)


def test_more_than_4096_in_a_millisecond_borrow_the_next_up_to_the_horizon(migrated_url):
    async def body(clock, database):
        ids = await IdSource.lease(clock, database, "test")
        drawn = ids.next(3 * SEQUENCES)
        assert drawn == sorted(set(drawn))
        assert moment_ms(drawn[-1]) == clock.ms + 2
        with pytest.raises(LeaseLost):
            ids.next((LEASE_MS + 1) * SEQUENCES)
        assert ids.next()[0] > drawn[-1]

    scenario(migrated_url, body)


def test_beyond_the_horizon_there_are_no_ids_until_the_lease_is_renewed(migrated_url):
    async def body(clock, database):
        ids = await IdSource.lease(clock, database, "test")
        horizon = (await rows(database))[0]["last_ms"]
        assert horizon == clock.ms + LEASE_MS
        clock.ms = horizon
        ids.next()
        clock.ms = horizon + 1
        with pytest.raises(LeaseLost):
            ids.next()
        keeper = asyncio.create_task(ids.keep())
        while ids._starved:
            await asyncio.sleep(0.001)
        assert moment_ms(ids.next()[0]) <= (await rows(database))[0]["last_ms"]
        await ids.release()
        await keeper

    scenario(migrated_url, body)


def test_after_a_crash_another_number_is_taken_and_ids_are_not_in_the_future(migrated_url):
    async def body(clock, database):
        crashed = await IdSource.lease(clock, database, "crashed")
        old = crashed.next(5)
        clock.ms += 1
        fresh = await IdSource.lease(clock, database, "fresh")
        assert fresh.worker != crashed.worker
        assert moment_ms(fresh.next()[0]) == clock.ms
        assert not set(old) & set(fresh.next(5))

    scenario(migrated_url, body)


def test_a_clean_stop_writes_the_true_last_millisecond_and_ends_drawing(migrated_url):
    async def body(clock, database):
        ids = await IdSource.lease(clock, database, "test")
        last = ids.next(7)[-1]
        await ids.release()
        row = (await rows(database))[0]
        assert (row["last_ms"], row["leased_until_ms"]) == (moment_ms(last), 0)
        with pytest.raises(LeaseLost):
            ids.next()
        with pytest.raises(LeaseLost):
            _ = ids.worker

    scenario(migrated_url, body)


def fill(tx, *, but=(), last_ms=START + 10**9, until_ms=START + 10**9):
    table = [{"worker": n, "leased_until_ms": until_ms, "last_ms": last_ms} for n in range(WORKERS) if n not in but]
    tx.run(
        "INSERT INTO worker_lease (worker, holder, leased_until_ms, last_ms) SELECT w.worker, 'x', w.leased_until_ms, w.last_ms "
        "FROM {ROWS w(worker {INT}, leased_until_ms {INT}, last_ms {INT})}",
        w=table,
    )


def test_all_numbers_leased_is_said_and_the_only_free_one_is_found(migrated_url):
    async def body(clock, database):
        await database.write("fill", lambda tx: fill(tx, but=[77]))
        ids = await IdSource.lease(clock, database, "test")
        assert ids.worker == 77
        with pytest.raises(NoWorkerFree, match="30 s after it crashed"):
            await IdSource.lease(clock, database, "one too many")

    scenario(migrated_url, body)


def test_when_every_free_number_is_ahead_of_the_clock_the_nearest_is_taken_and_counting_goes_on(migrated_url):
    async def body(clock, database):
        await database.write("fill", lambda tx: fill(tx, but=[5], until_ms=0))
        await database.write("near", lambda tx: tx.run("INSERT INTO worker_lease VALUES (5, 'x', 0, :ms)", ms=START + 5_000))
        ids = await IdSource.lease(clock, database, "test")
        assert ids.worker == 5
        assert ids.next()[0] == compose(START + 5_001, 5, 0)

    scenario(migrated_url, body)


def test_a_number_that_was_taken_over_is_not_used_again_and_ids_still_rise(migrated_url):
    async def body(clock, database):
        ids = await IdSource.lease(clock, database, "test")
        await database.write("others", lambda tx: fill(tx, but=[ids.worker]))
        lost = ids.worker
        before = ids.next(3)
        # The machine stands still for a minute; a neighbour takes the number over.
        clock.ms += 60_000
        neighbour = await IdSource.lease(clock, database, "neighbour")
        assert neighbour.worker == lost
        theirs = neighbour.next(3)
        with pytest.raises(LeaseLost):
            ids.next()
        await database.write("free", lambda tx: tx.run("DELETE FROM worker_lease WHERE worker = 1000"))
        await ids.renew()
        assert ids.worker == 1000
        after = ids.next(3)
        assert after[0] > before[-1]
        assert len({*before, *theirs, *after}) == 9

    scenario(migrated_url, body)


def test_a_zombie_with_a_slow_clock_draws_only_below_its_own_horizon(migrated_url):
    async def body(clock, database):
        zombie = await IdSource.lease(clock, database, "zombie")
        await database.write("others", lambda tx: fill(tx, but=[zombie.worker]))
        clock.ms += 60_000
        owner = await IdSource.lease(clock, database, "owner")
        owned = owner.next(SEQUENCES * 3)
        clock.ms -= 60_000
        late = zombie.next(SEQUENCES * 100)
        assert late[-1] < owned[0]

    scenario(migrated_url, body)


class Stormy(Clock):
    """Every choice is the same one, so that all who lease at once meet at one number."""

    def random_below(self, bound):
        return 0


def test_many_that_choose_the_same_number_each_get_their_own(migrated_url):
    async def body(clock, database):
        sources = await asyncio.gather(*(IdSource.lease(clock, database, f"p{n}") for n in range(16)))
        assert sorted(source.worker for source in sources) == list(range(16))

    scenario(migrated_url, body, Stormy())


def test_a_commit_of_unknown_outcome_costs_a_number_and_never_an_id(migrated_url):
    async def body(clock, database):
        honest = database.write
        fails = iter([True, False])

        async def write(label, job):
            result = await honest(label, job)
            if next(fails, False):
                raise CommitUnknown(label)
            return result

        database.write = write
        ids = await IdSource.lease(clock, database, "test")
        assert len(await rows(database)) == 2
        assert ids.next()[0] > 0

    scenario(migrated_url, body)


def test_keep_renews_before_the_horizon_through_an_hour(migrated_url):
    loop = VirtualLoop()
    runtime = VirtualRuntime(loop, random.Random(1), Journal())

    async def body():
        database = open_database(runtime, migrated_url)
        ids = await IdSource.lease(runtime, database, "test")
        keeper = runtime.spawn(ids.keep(), name="keep")
        drawn = []
        for _ in range(3_600):
            drawn += ids.next(3)
            await runtime.sleep(1)
        assert drawn == sorted(set(drawn))
        assert moment_ms(drawn[-1]) >= runtime.now_ms() - 1_100
        await ids.release()
        await keeper
        await database.close()

    loop.run_until_complete(body())
    loop.close()


def test_threads_of_one_process_never_share_an_id(migrated_url):
    async def body(clock, database):
        ids = await IdSource.lease(clock, database, "test")
        drawn = [[] for _ in range(8)]

        def draw(mine):
            for _ in range(200):
                mine += ids.next(7)

        threads = [threading.Thread(target=draw, args=(mine,)) for mine in drawn]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(mine == sorted(mine) for mine in drawn)
        assert len({i for mine in drawn for i in mine}) == 8 * 200 * 7

    scenario(migrated_url, body)


DRAW = """
import asyncio, os, sys
from penstock.db import open_database
from penstock.ids import IdSource
from penstock.prove.simulated.virtual import Journal, VirtualLoop, VirtualRuntime
from penstock.runtime import SystemRuntime

async def main():
    runtime = SystemRuntime()
    database = open_database(runtime, sys.argv[1])
    ids = await IdSource.lease(runtime, database, "process")
    print(*ids.next(5_000), sep="\\n", flush=True)
    os._exit(9)  # as a crash would: no release

asyncio.run(main())
"""


def test_processes_that_crash_one_after_and_beside_another_never_share_an_id(migrated_url):
    source = Path(__file__).parent.parent.parent / "src"
    command = [sys.executable, "-c", DRAW, migrated_url]
    seen = set()
    for _ in range(2):
        beside = [subprocess.Popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": str(source)}) for _ in range(3)]
        for process in beside:
            output, _ = process.communicate(timeout=60)
            assert process.returncode == 9
            drawn = {int(line) for line in output.split() if line.isdigit()}
            assert len(drawn) == 5_000
            assert not seen & drawn
            seen |= drawn
