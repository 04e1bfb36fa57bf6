"""The wall clock steps: what waits is done when it should, on both databases."""

import asyncio

from penstock.orders.clock import Clock
from penstock.runtime import SystemRuntime
from penstock.webhooks.deliver import SCHEDULE_S, Deliverer
from penstock.webhooks.outbox import HELPING, LEASE_MS
from tests.fixtures.chain import Road
from tests.fixtures.rooms import rooms
from tests.integration.test_road import usdt

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


class Stepping(SystemRuntime):
    """A wall clock that is off by as much as the test says."""

    off_ms = 0

    def now_ms(self):
        return super().now_ms() + self.off_ms


def clock(runtime, r):
    """As `Product` makes it, with the schedule that nobody has configured."""
    deliverer = Deliverer(database=r.database, runtime=runtime, merchants=None, targets=None)
    return Clock(runtime, r.database, event_ms=deliverer.longest_ms, lease_ms=LEASE_MS)


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
        wall = clock(runtime, r)
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
        wall = clock(runtime, r)
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
        wall = clock(Stepping(), r)
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
        await clock(runtime, r).begin()
        assert await due_at_ms(r) <= runtime.now_ms()

    scenario(migrated_url, body)


async def put_events_off(r, *rows):
    """Events of nobody in particular: when each is due, and who has it until when."""
    now_ms = r.runtime.now_ms()
    ids = r.next_ids(len(rows))
    await r.database.write(
        "test",
        lambda tx: tx.insert(
            "outbox(id {INT}, order_id {INT}, merchant_id {INT}, body TEXT, state TEXT, sends {INT}, result TEXT, created_at_ms {INT}, "
            "due_at_ms {INT}, lease TEXT, lease_until_ms {INT})",
            [
                {"id": i, "order_id": i, "merchant_id": 1, "body": "{}", "state": "due", "sends": 1, "result": "", "created_at_ms": now_ms}
                | {"due_at_ms": due_at_ms, "lease": lease, "lease_until_ms": until_ms}
                for i, (due_at_ms, lease, until_ms) in zip(ids, rows, strict=True)
            ],
        ),
    )


async def events(r):
    rows = await r.database.read(lambda tx: tx.all("SELECT due_at_ms, lease, lease_until_ms FROM outbox ORDER BY id"))
    return [tuple(row.values()) for row in rows]


def test_an_event_that_a_clock_far_ahead_put_off_is_sent_after_the_next_start(migrated_url):
    async def body(r):
        runtime = Stepping()
        now_ms = runtime.now_ms()
        longest = (now_ms + max(SCHEDULE_S) * 1000, "", 0)
        await put_events_off(r, (now_ms + 300 * DAY_MS, "", 0), longest)
        await clock(runtime, r).begin()
        (due_at_ms, *_), other = await events(r)
        assert due_at_ms <= runtime.now_ms()
        assert other == longest  # the last steps of a schedule are a day, and that is no clock

    scenario(migrated_url, body)


def test_a_lease_that_a_clock_ahead_has_given_ends_at_the_next_start_and_one_of_now_is_kept(migrated_url):
    async def body(r):
        runtime = Stepping()
        now_ms = runtime.now_ms()
        # Of one that delivers beside a worker: taking the seat does not end it.
        ahead, kept = now_ms + 2 * HOUR_MS, (now_ms + LEASE_MS, HELPING + "2", now_ms + LEASE_MS)
        await put_events_off(r, (ahead, HELPING + "1", ahead), kept)
        await clock(runtime, r).begin()
        (due_at_ms, lease, until_ms), other = await events(r)
        assert due_at_ms <= runtime.now_ms()
        assert (lease, until_ms) == ("", 0)
        assert other == kept

    scenario(migrated_url, body)


def test_a_delivery_with_a_longer_schedule_waits_as_long_as_it_says(migrated_url):
    async def body(r):
        patient = Deliverer(database=r.database, runtime=r.runtime, merchants=None, targets=None, schedule=(60, 7 * 86_400))
        late = (r.runtime.now_ms() + 7 * DAY_MS, "", 0)
        await put_events_off(r, late)
        await Clock(r.runtime, r.database, event_ms=patient.longest_ms, lease_ms=LEASE_MS).begin()
        assert await events(r) == [late]

    scenario(migrated_url, body)
