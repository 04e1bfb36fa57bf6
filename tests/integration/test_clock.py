"""The wall clock steps: what waits is done when it should, on both databases."""

import asyncio

from penstock.orders.clock import Clock
from penstock.runtime import SystemRuntime
from tests.fixtures.chain import Road
from tests.fixtures.rooms import rooms
from tests.integration.test_road import usdt

HOUR_MS = 3_600_000


class Stepping(SystemRuntime):
    """A wall clock that is off by as much as the test says."""

    off_ms = 0

    def now_ms(self):
        return super().now_ms() + self.off_ms


def scenario(url, body):
    async def run():
        async with rooms(url) as r:
            road = Road(r)
            road.rail.funds = {"USDT": 1_000 * 10**6, "ETH": 10**18}
            await road.board.refresh()
            await road.treasury.refresh()
            await r.credit("m:1", "100")
            await r.submit_all([usdt(r, road, "a")])
            await body(r)

    asyncio.run(run())


async def put_off(r, until_ms):
    await r.database.write("test", lambda tx: tx.run("UPDATE orders SET due_at_ms = :until_ms", until_ms=until_ms))


async def due_at_ms(r):
    return (await r.database.read(lambda tx: tx.one("SELECT due_at_ms FROM orders")))["due_at_ms"]


def test_what_a_clock_that_was_ahead_put_off_is_due_when_it_comes_back(migrated_url):
    async def body(r):
        runtime = Stepping()
        wall = Clock(runtime, r.database)
        runtime.off_ms = HOUR_MS
        await wall.look()
        late = runtime.now_ms() + 60_000
        await put_off(r, late)
        runtime.off_ms = 0
        await wall.look()
        # By exactly the hour; a millisecond or two pass between two looks.
        assert abs(await due_at_ms(r) - (late - HOUR_MS)) < 1_000

    scenario(migrated_url, body)


def test_a_clock_that_steps_back_makes_nobody_wait_and_what_is_due_stays_due(migrated_url):
    async def body(r):
        runtime = Stepping()
        wall = Clock(runtime, r.database)
        soon = runtime.now_ms() + 5_000
        await put_off(r, soon)
        runtime.off_ms = -HOUR_MS
        await wall.look()
        assert await due_at_ms(r) - runtime.now_ms() <= 5_000
        await put_off(r, 1)
        runtime.off_ms = -2 * HOUR_MS
        await wall.look()
        assert await due_at_ms(r) == 1

    scenario(migrated_url, body)


def test_a_clock_that_runs_as_it_should_moves_nothing(migrated_url):
    async def body(r):
        wall = Clock(Stepping(), r.database)
        late = SystemRuntime().now_ms() + 60_000
        await put_off(r, late)
        await wall.look()
        await wall.begin()
        assert await due_at_ms(r) == late

    scenario(migrated_url, body)


def test_a_clock_that_was_set_back_while_nobody_ran_is_noticed_at_the_start(migrated_url):
    async def body(r):
        runtime = Stepping()
        await put_off(r, runtime.now_ms() + 2 * HOUR_MS)
        await Clock(runtime, r.database).begin()
        assert await due_at_ms(r) <= runtime.now_ms()

    scenario(migrated_url, body)
