"""Outbox and delivery on both databases and a virtual clock: at least once, never lost, dead endpoints hold up nobody."""

import asyncio
import hashlib
import itertools
import json
import random
from collections import Counter, defaultdict

import pytest
from structlog.testing import capture_logs

from penstock.core.errors import Problem, Refused
from penstock.core.party import Merchant, Secret
from penstock.core.snowflake import compose, wire_id
from penstock.db import CommitUnknown, DatabaseUnavailable, open_database
from penstock.prove.simulated.virtual import Crash, Journal, VirtualLoop, VirtualRuntime
from penstock.pump import Pump
from penstock.webhooks import outbox as statements
from penstock.webhooks.deliver import SCHEDULE_S, Deliverer, Reply, TargetFailed
from penstock.webhooks.outbox import CALLS_A_DAY, LEASE_MS, NO_URL, Outbox, Outcome

HOUR_MS = 3_600_000


class Sink:
    """The world's receivers: `answers[url]` is a Reply, an exception, seconds of silence, or a function of the headers."""

    def __init__(self, runtime):
        self.runtime = runtime
        self.answers = defaultdict(lambda: Reply(200, "success"))
        self.got = []
        self.now = Counter()
        self.most = Counter()

    async def post(self, url, headers, body):
        self.got.append((url, headers, body, self.runtime.now_ms()))
        self.now[url] += 1
        self.most[url] = max(self.most[url], self.now[url])
        try:
            await self.runtime.sleep(0.02)
            answer = self.answers[url]
            if callable(answer):
                answer = answer(headers)
            if isinstance(answer, int | float):
                await self.runtime.sleep(answer)
                raise TargetFailed("no answer within 20 s")
            if isinstance(answer, Exception):
                raise answer
            return answer
        finally:
            self.now[url] -= 1


class World:
    """One database, and lives of the program on it, one after the other."""

    def __init__(self, loop, url):
        self.loop = loop
        self.source = random.Random(7)
        self.ids = (compose(1_790_000_000_000 + n // 4096, 1, n % 4096) for n in itertools.count())
        self.url = url
        self.merchants = {}
        self.runtime = VirtualRuntime(loop, self.source, Journal())
        self.sink = Sink(self.runtime)
        self.boot()

    def boot(self):
        """Another life: everything that was in memory is gone."""
        self.runtime = VirtualRuntime(self.loop, self.source, Journal())
        self.sink.runtime = self.runtime
        self.database = open_database(self.runtime, self.url)
        self.outbox = Outbox(self.database, self.runtime, lambda n: list(itertools.islice(self.ids, n)))
        self.deliverer = Deliverer(database=self.database, runtime=self.runtime, merchants=self, targets=self.sink)
        self.deliverer.holds_seat = True
        self.pump = Pump("deliver", self.deliverer, self.runtime, limit=200)
        self.outbox.queued = self.deliverer.finished = self.pump.wake

    def start(self):
        self.runtime.spawn(self.pump.run(), name="pump")

    async def stop(self):
        await self.pump.stop()
        await self.deliverer.settled()

    async def merchant(self, merchant_id):
        return self.merchants.get(merchant_id)

    async def add_merchant(self, number, url=None):
        url = f"https://m{number}.example/" if url is None else url
        self.merchants[number] = Merchant(number, f"M{number}", f"{number:033d}", (Secret("s" * 64),), url)
        await self.database.write(
            "merchant",
            lambda tx: tx.run(
                "INSERT INTO merchant (id, name, app_id, webhook_url, disabled, ip_allow, created_at_ms, changed_at_ms) "
                "VALUES (:n, :name, :name, :url, 0, '[]', 0, 0)",
                n=number,
                name=f"M{number}",
                url=url,
            ),
        )
        return number

    async def enqueue(self, merchant_id, count=1, *, at_ms=None):
        now_ms = self.runtime.now_ms() if at_ms is None else at_ms
        rows = [
            {"id": i, "order_id": next(self.ids), "merchant_id": merchant_id, "body": json.dumps({"é": i}), "created_at_ms": now_ms}
            for i in itertools.islice(self.ids, count)
        ]
        await self.database.write("enqueue", lambda tx: self.outbox.enqueue(tx, rows))
        self.pump.wake()
        return rows

    async def rows(self):
        return {row["id"]: row for row in await self.database.read(lambda tx: tx.all("SELECT * FROM outbox ORDER BY id"))}

    async def log(self):
        return await self.database.read(lambda tx: tx.all("SELECT * FROM webhook_send ORDER BY outbox_id, number"))

    async def send_when_due(self):
        """Without the pump's polls: sleep until the next event is due, and send all that are."""
        rows = (await self.rows()).values()
        await self.runtime.sleep(
            max(0, min(row["due_at_ms"] for row in rows if row["due_at_ms"] is not None) - self.runtime.now_ms()) / 1000
        )
        while events := await self.deliverer.claim(200):
            await self.deliverer.handle(events)
            await self.deliverer.settled()

    async def states(self):
        return Counter(row["state"] for row in (await self.rows()).values())


def scenario(url, *bodies):
    """Each body is one life; a Crash ends it and the next begins."""
    loop = VirtualLoop()
    world = None
    try:
        for body in bodies:
            if world is None:
                world = World(loop, url)
            else:
                world.boot()
            try:
                loop.run_until_complete(body(world))
            except Crash:
                pass
            finally:
                world.runtime.bury()
                world.database._close()
    finally:
        loop.close()


# --------------------------------------------------------------------------------------------------------------- the outbox


def test_without_a_url_an_event_is_parked_at_once_and_others_are_due(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        await w.add_merchant(2, url="")
        (a,), (b,), (house,) = [await w.enqueue(n) for n in (1, 2, 0)]
        rows = await w.rows()
        assert (rows[a["id"]]["state"], rows[a["id"]]["due_at_ms"]) == ("due", a["created_at_ms"])
        for parked in (b, house):
            row = rows[parked["id"]]
            assert (row["state"], row["result"], row["due_at_ms"], row["ended_at_ms"]) == ("parked", NO_URL, None, parked["created_at_ms"])

    scenario(migrated_url, body)


def test_many_events_in_one_statement(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        made = await w.enqueue(1, 2_000)
        rows = await w.rows()
        assert [rows[row["id"]]["body"] for row in made] == [row["body"] for row in made]
        await w.database.write("none", lambda tx: w.outbox.enqueue(tx, []))

    scenario(migrated_url, body)


def test_merchants_that_wait_are_listed_longest_wait_first(migrated_url):
    async def body(w):
        now_ms = w.runtime.now_ms()
        for number, at_ms in ((3, now_ms - 5), (1, now_ms - 1), (2, now_ms - 9), (7, now_ms + 50), (900, now_ms)):
            await w.add_merchant(number)
            await w.enqueue(number, 3, at_ms=at_ms)
        found = await w.database.read(lambda tx: statements.due_merchants(tx, now_ms=now_ms))
        assert found == [2, 3, 1, 900]
        await w.database.write("done", lambda tx: tx.run("UPDATE outbox SET state = 'parked', due_at_ms = NULL"))
        assert await w.database.read(lambda tx: statements.due_merchants(tx, now_ms=now_ms)) == []

    scenario(migrated_url, body)


def test_an_event_is_claimed_once_and_again_when_the_lease_is_over(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        made = [row["id"] for row in await w.enqueue(1, 3)]
        now_ms = w.runtime.now_ms()

        async def claim(at_ms, count=9, lease="a"):
            events = await w.database.write(
                "claim", lambda tx: statements.claim(tx, [(1, count), (2, 5)], most=200, lease=lease, now_ms=at_ms)
            )
            return [event.id for event in events]

        assert await claim(now_ms, 2) == made[:2]
        assert await claim(now_ms) == made[2:]
        assert await claim(now_ms + LEASE_MS - 1) == []
        assert await claim(now_ms + LEASE_MS) == made

    scenario(migrated_url, body)


def test_each_merchant_gives_its_oldest_up_to_its_share_in_the_order_of_the_shares(migrated_url):
    async def body(w):
        now_ms = w.runtime.now_ms()
        made = {}
        for number in (1, 2, 3, 4):
            await w.add_merchant(number)
            made[number] = [(await w.enqueue(number, at_ms=now_ms - age))[0]["id"] for age in (2, 9, 0, 5, -1)]
        events = await w.database.write(
            "claim", lambda tx: statements.claim(tx, [(3, 2), (1, 9), (2, 1), (77, 4)], most=200, lease="a", now_ms=now_ms)
        )
        assert [(event.merchant_id, event.id) for event in events] == [
            *((3, made[3][place]) for place in (1, 3)),
            *((1, made[1][place]) for place in (0, 1, 2, 3)),
            (2, made[2][1]),
        ]
        assert await w.database.write("claim", lambda tx: statements.claim(tx, [], most=200, lease="a", now_ms=now_ms)) == []

    scenario(migrated_url, body)


def test_a_claim_takes_no_more_than_there_is_room_for_from_those_who_wait_longest(migrated_url):
    async def body(w):
        now_ms = w.runtime.now_ms()
        for number in (1, 2, 3):
            await w.add_merchant(number)
            await w.enqueue(number, 2, at_ms=now_ms)
        shares = [(2, 4), (3, 4), (1, 4)]
        for merchants in ([2, 2, 3], [3, 1, 1], []):
            events = await w.database.write("claim", lambda tx: statements.claim(tx, shares, most=3, lease="a", now_ms=now_ms))
            assert [event.merchant_id for event in events] == merchants

    scenario(migrated_url, body)


def test_events_of_many_merchants_are_claimed_up_to_the_limit_though_each_might_send_more(migrated_url):
    async def body(w):
        for number in range(1, 11):
            await w.add_merchant(number)
            await w.enqueue(number)
        found = await w.deliverer.claim(9)
        assert len(found) == 9
        assert len({event.merchant_id for event in found}) == 9

    scenario(migrated_url, body)


def test_after_a_takeover_the_first_holder_changes_and_logs_nothing(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1)
        now_ms = w.runtime.now_ms()

        async def claim(at_ms, lease):
            (event,) = await w.database.write("claim", lambda tx: statements.claim(tx, [(1, 9)], most=200, lease=lease, now_ms=at_ms))
            return event

        async def record(event, state, result, due_at_ms=None):
            done = Outcome(event, state, result, due_at_ms, sent=True, at_ms=now_ms, took_ms=5, status=200)
            return await w.database.write("record", lambda tx: statements.record(tx, [done], now_ms=now_ms))

        zombie = await claim(now_ms, "zombie")
        owner = await claim(now_ms + LEASE_MS, "owner")
        assert await record(zombie, "parked", "too late") == 0
        assert await w.log() == []
        assert await record(owner, "delivered", "success") == 1
        assert await record(owner, "delivered", "success") == 0
        assert [row["number"] for row in await w.log()] == [1]
        (row,) = (await w.rows()).values()
        assert (row["state"], row["sends"], row["tries"], row["ended_at_ms"], row["lease"]) == ("delivered", 1, 1, now_ms, "")

    scenario(migrated_url, body)


# -------------------------------------------------------------------------------------------------------------- deliveries


def test_an_event_is_posted_signed_with_its_own_bytes_and_delivered(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        (event,) = await w.enqueue(1)
        w.start()
        await w.runtime.sleep(1)
        await w.stop()
        (url, headers, sent, at_ms), *more = w.sink.got
        assert more == []
        assert (url, sent) == ("https://m1.example/", event["body"].encode())
        text = f"{1:033d}" + "s" * 64 + headers["Timestamp"]
        assert headers["Sign"] == hashlib.sha256(text.encode() + sent).hexdigest()
        assert int(headers["Timestamp"]) == at_ms // 1000
        assert headers["Webhook-Id"] == wire_id(event["id"])
        assert (await w.rows())[event["id"]]["state"] == "delivered"
        (line,) = await w.outbox.sends(event["order_id"])
        assert (line["number"], line["status"], line["result"]) == (1, 200, "success")
        assert 20 <= line["took_ms"] <= 30

    scenario(migrated_url, body)


def test_the_schedule_is_kept_to_the_last_send_and_then_the_event_is_parked_with_its_reason(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        w.sink.answers["https://m1.example/"] = Reply(500, "success")
        events = await w.enqueue(1, 10)
        with capture_logs() as logs:
            while (await w.states())["due"]:
                await w.send_when_due()
        begin = events[0]["created_at_ms"]
        for event in events:
            mine = [(at, headers) for _, headers, sent, at in w.sink.got if sent == event["body"].encode()]
            times = [at for at, _ in mine]
            assert len(times) == 16
            assert times[6] - begin < 30 * 60_000 < times[7] - begin
            assert times[15] - begin < 96 * HOUR_MS
            for wait, (a, b) in zip(SCHEDULE_S, itertools.pairwise(times), strict=True):
                assert 0.9 * wait * 1000 <= b - a <= wait * 1000 + 1_000
            assert len({headers["Webhook-Id"] for _, headers in mine}) == 1
            assert len({headers["Sign"] for _, headers in mine}) == 16
            assert [int(headers["Timestamp"]) for _, headers in mine] == [at // 1000 for at in times]
            row = (await w.rows())[event["id"]]
            assert (row["state"], row["sends"], row["result"]) == ("parked", 16, "status 500")
            assert [line["number"] for line in await w.outbox.sends(event["order_id"])] == list(range(1, 17))
        assert [line["event"] for line in logs if line["log_level"] == "error"] == ["webhook.parked"] * 10

    scenario(migrated_url, body)


def test_every_way_to_fail_is_logged_and_the_next_send_can_succeed(migrated_url):
    async def body(w):
        failures = [Reply(200, "unsuccessful"), Reply(302, ""), Reply(410, "success"), TargetFailed("its name does not resolve"), 10_000.0]
        await w.add_merchant(1)
        answers = iter([*failures, Reply(200, "success")])
        w.sink.answers["https://m1.example/"] = lambda _: next(answers)
        (event,) = await w.enqueue(1)
        while (await w.states())["due"]:
            await w.send_when_due()
        lines = await w.outbox.sends(event["order_id"])
        assert [(line["status"], line["result"]) for line in lines] == [
            (200, "status 200 without success in the body"),
            (302, "status 302"),
            (410, "status 410"),
            (0, "its name does not resolve"),
            (0, "no answer within 22 s"),
            (200, "success"),
        ]
        assert lines[4]["took_ms"] == pytest.approx(22_000, abs=5)

    scenario(migrated_url, body)


def test_a_url_taken_away_parks_and_one_given_again_delivers_after_a_resend(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        (event,) = await w.enqueue(1)
        w.merchants[1] = Merchant(1, "M1", "app", (Secret("s"),), "")
        w.start()
        await w.runtime.sleep(1)
        row = (await w.rows())[event["id"]]
        assert (row["state"], row["result"], row["sends"]) == ("parked", NO_URL, 0)
        assert await w.log() == []
        w.merchants[1] = Merchant(1, "M1", "app", (Secret("s"),), "https://m1.example/")
        assert await w.outbox.resend_order(event["order_id"])
        await w.runtime.sleep(1)
        assert (await w.rows())[event["id"]]["state"] == "delivered"
        await w.stop()

    scenario(migrated_url, body)


def test_a_merchant_without_a_secret_that_opens_is_not_sent_anything_unsigned(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        w.merchants[1] = Merchant(1, "M1", "app", (), "https://m1.example/")
        await w.enqueue(1)
        w.start()
        await w.runtime.sleep(1)
        await w.stop()
        assert w.sink.got == []
        assert [row["result"] for row in (await w.rows()).values()] == ["the merchant has no secret that can be opened"]

    scenario(migrated_url, body)


# ------------------------------------------------------------------------------------------------------- faults and restarts


@pytest.mark.parametrize(
    "label", ["deliver.claim:before", "deliver.claim:after", "webhook:sent", "webhook.record:before", "webhook.record:after"]
)
@pytest.mark.parametrize("visit", [1, 2])
def test_a_crash_anywhere_loses_no_event_and_repeats_keep_their_id(migrated_url, label, visit):
    made = {}

    async def first(w):
        for number in range(1, 6):
            await w.add_merchant(number)
            for row in await w.enqueue(number, 4):
                made[row["id"]] = row
        w.runtime.crash_at = lambda at, n: at == label and n == visit
        w.start()
        await w.runtime.sleep(600)
        pytest.fail("no crash")

    async def second(w):
        w.start()
        await w.runtime.sleep(2 * LEASE_MS / 1000)
        await w.stop()
        assert await w.states() == {"delivered": 20}
        arrived = defaultdict(set)
        for _, headers, sent, _ in w.sink.got:
            arrived[sent].add(headers["Webhook-Id"])
        assert arrived == {row["body"].encode(): {wire_id(i)} for i, row in made.items()}

    scenario(migrated_url, first, second)


def test_results_wait_for_a_database_that_is_away_and_are_stored_once(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1, 2)
        honest = w.database.write
        faults = iter([DatabaseUnavailable("away")] * 5 + [CommitUnknown("lost"), CommitUnknown("applied")])

        async def write(label, job):
            if label == "webhook.record" and (fault := next(faults, None)) is not None:
                if str(fault) == "applied":
                    await honest(label, job)
                raise fault
            return await honest(label, job)

        w.database.write = write
        w.start()
        await w.runtime.sleep(LEASE_MS / 1000 * 2)
        await w.stop()
        assert await w.states() == {"delivered": 2}
        assert len(w.sink.got) == 2
        assert len(await w.log()) == 2

    scenario(migrated_url, body)


def test_results_that_could_not_be_stored_in_time_are_sent_again(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1)
        honest, away = w.database.write, True

        async def write(label, job):
            if away:
                raise DatabaseUnavailable("away")
            return await honest(label, job)

        w.start()
        await w.runtime.sleep(0.01)
        w.database.write = write
        await w.runtime.sleep(LEASE_MS / 1000 * 3)
        away = False
        await w.runtime.sleep(30)
        await w.stop()
        assert await w.states() == {"delivered": 1}
        assert len(w.sink.got) == 2

    scenario(migrated_url, body)


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), RuntimeError("a bug with 0123456789 in its text")])
def test_a_merchant_that_cannot_be_looked_up_postpones_and_never_leaks_room(migrated_url, error):
    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1, 6)
        honest, fails = w.merchant, iter([True] * 20)

        async def merchant(merchant_id):
            if next(fails, False):
                raise error
            return await honest(merchant_id)

        w.merchant = merchant
        w.start()
        with capture_logs() as logs:
            await w.runtime.sleep(120)
        await w.stop()
        assert await w.states() == {"delivered": 6}
        assert all(line["number"] == 1 for line in await w.log())
        assert "0123456789" not in str(logs)

    scenario(migrated_url, body)


def test_a_failure_in_the_transport_that_nobody_foresaw_is_postponed(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1)
        answers = iter([KeyError("surprise"), Reply(200, "success")])
        w.sink.answers["https://m1.example/"] = lambda _: next(answers)
        w.start()
        await w.runtime.sleep(20)
        await w.stop()
        assert await w.states() == {"delivered": 1}

    scenario(migrated_url, body)


def test_a_stop_waits_for_sends_under_way_and_stores_their_results(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        w.sink.answers["https://m1.example/"] = 15
        await w.enqueue(1)
        w.start()
        await w.runtime.sleep(1)
        await w.stop()
        assert [row["sends"] for row in (await w.rows()).values()] == [1]

    scenario(migrated_url, body)


def test_two_workers_share_the_work_without_sending_twice(migrated_url):
    async def body(w):
        for number in range(1, 9):
            await w.add_merchant(number)
            await w.enqueue(number, 25)
        second = Deliverer(database=w.database, runtime=w.runtime, merchants=w, targets=w.sink)
        pump = Pump("second", second, w.runtime, limit=200)
        second.finished = pump.wake
        w.start()
        w.runtime.spawn(pump.run(), name="second")
        await w.runtime.sleep(30)
        await w.stop()
        await pump.stop()
        assert await w.states() == {"delivered": 200}
        assert len(w.sink.got) == 200

    scenario(migrated_url, body)


# ------------------------------------------------------------------------------------------------------------- concurrency


def test_a_thousand_dead_endpoints_beside_ten_healthy_ones(migrated_url):
    """Test plan, F2: healthy p99 within 5 s, at most 2 at once to a dead one."""

    async def body(w):
        dead, healthy = range(1, 1_001), range(1_001, 1_011)
        for number in itertools.chain(dead, healthy):
            await w.add_merchant(number)
        for number in dead:
            w.sink.answers[f"https://m{number}.example/"] = 20.0
            await w.enqueue(number, 5)
        w.start()
        made = {}
        for _ in range(60):
            for number in healthy:
                for row in await w.enqueue(number, 2):
                    made[row["body"].encode()] = w.runtime.now_ms()
            await w.runtime.sleep(1)
        await w.runtime.sleep(5)
        arrived = {}
        for _, _, sent, at_ms in w.sink.got:
            arrived.setdefault(sent, at_ms)
        waits = sorted(arrived[sent] - at_ms for sent, at_ms in made.items())
        assert len(waits) == 1_200
        assert waits[len(waits) * 99 // 100] <= 5_000
        assert max(w.sink.most[f"https://m{number}.example/"] for number in dead) <= 2
        await w.stop()

    scenario(migrated_url, body)


def test_a_busy_healthy_endpoint_gets_up_to_64_at_once_and_is_not_held_up_by_the_poll(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1, 3_000)
        w.start()
        begin = w.runtime.monotonic()
        while (await w.states())["due"]:
            await w.runtime.sleep(0.05)
        assert w.runtime.monotonic() - begin < 5
        assert 32 < w.sink.most["https://m1.example/"] <= 64
        assert len(w.sink.got) == 3_000
        await w.stop()

    scenario(migrated_url, body)


def test_a_send_that_ends_wakes_the_pump_only_where_an_event_waits_for_its_room(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        woken = []
        w.deliverer.finished = lambda: woken.append(w.runtime.monotonic())
        for events, claimed, wakes in ((1, 1, False), (3, 2, True)):
            await w.enqueue(1, events)
            found = await w.deliverer.claim(200)
            assert len(found) == claimed
            woken.clear()
            await w.deliverer.handle(found)
            await w.deliverer.settled()
            assert bool(woken) is wakes
        assert len(await w.deliverer.claim(200)) == 1

    scenario(migrated_url, body)


def test_room_that_comes_while_a_claim_looks_is_not_missed(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1)
        first = await w.deliverer.claim(200)
        woken = []
        w.deliverer.finished = lambda: woken.append(1)
        look = w.database.read

        async def slow(job):
            seen = await look(job)
            await w.deliverer.handle(first)
            await w.deliverer.settled()
            return seen

        w.database.read = slow
        await w.deliverer.claim(200)
        assert woken

    scenario(migrated_url, body)


# ------------------------------------------------------------------------------------------------------------------ resends


def test_a_resend_begins_the_schedule_anew_and_the_log_goes_on(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        (event,) = await w.enqueue(1)
        w.start()
        await w.runtime.sleep(1)
        w.sink.answers["https://m1.example/"] = Reply(500, "")
        assert await w.outbox.resend_order(event["order_id"])
        await w.runtime.sleep(35)
        row = (await w.rows())[event["id"]]
        assert (row["state"], row["sends"], row["tries"]) == ("due", 3, 2)
        assert [line["number"] for line in await w.log()] == [1, 2, 3]
        assert not await w.outbox.resend_order(12345)
        await w.stop()

    scenario(migrated_url, body)


def test_an_event_that_is_being_sent_is_left_to_that_send(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        w.sink.answers["https://m1.example/"] = 15.0
        (event,) = await w.enqueue(1)
        w.start()
        await w.runtime.sleep(5)
        assert await w.outbox.resend_order(event["order_id"])
        begin = event["created_at_ms"]
        await w.database.write("failed before", lambda tx: tx.run("UPDATE outbox SET tries = 1"))
        assert await w.outbox.resend(1, begin, begin + HOUR_MS, failed_only=False, transaction_type="All Type") == 0
        await w.runtime.sleep(5)
        assert len(w.sink.got) == 1
        await w.stop()

    scenario(migrated_url, body)


@pytest.mark.parametrize(
    ("failed_only", "kind", "names"),
    [
        (True, "All Type", {"parked", "failing"}),
        (False, "API Withdrawal", {"parked", "failing", "delivered"}),
        (True, "Refund", set()),
        (False, "Direct Deposit", set()),
    ],
)
def test_a_resend_takes_this_merchants_events_of_the_span(migrated_url, failed_only, kind, names):
    async def body(w):
        await w.add_merchant(1)
        await w.add_merchant(2)
        start = w.runtime.now_ms()
        states = {
            "parked": "state = 'parked', due_at_ms = NULL, tries = 16, sends = 16",
            "failing": "tries = 3, sends = 3, due_at_ms = due_at_ms + 999999",
            "delivered": "state = 'delivered', due_at_ms = NULL, tries = 1, sends = 1",
            "waiting": "tries = 0",
        }
        made = {}
        for merchant, when, inside in ((1, start, True), (1, start - 1, False), (1, start + HOUR_MS, False), (2, start, False)):
            for name, change in states.items():
                (row,) = await w.enqueue(merchant, at_ms=when)
                made[row["id"]] = name if inside else None
                await w.database.write(
                    "set", lambda tx, change=change, i=row["id"]: tx.run(f"UPDATE outbox SET {change} WHERE id = :i", i=i)
                )
        before = await w.rows()
        count = await w.outbox.resend(1, start, start + HOUR_MS, failed_only=failed_only, transaction_type=kind)
        after = await w.rows()
        assert {made[i] for i in after if after[i] != before[i]} == names
        assert count == len(names)
        for i, name in made.items():
            if name in names:
                assert (after[i]["state"], after[i]["tries"], after[i]["sends"]) == ("due", 0, before[i]["sends"])
                assert after[i]["due_at_ms"] <= w.runtime.now_ms()

    scenario(migrated_url, body)


def test_a_large_resend_goes_in_batches_and_counts_all(migrated_url, monkeypatch):
    monkeypatch.setattr(statements, "RESEND_BATCH", 7)

    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1, 50)
        await w.database.write("park", lambda tx: tx.run("UPDATE outbox SET state = 'parked', due_at_ms = NULL"))
        now_ms = w.runtime.now_ms()
        assert await w.outbox.resend(1, now_ms - 10_000, now_ms + 1, failed_only=True, transaction_type="All Type") == 50
        assert await w.states() == {"due": 50}

    scenario(migrated_url, body)


def refused(call):
    async def run():
        with pytest.raises(Refused) as caught:
            await call
        return caught.value

    return run()


def test_resends_are_one_a_minute_and_25_a_day_for_each_merchant(migrated_url):
    async def body(w):
        for number in (1, 2):
            await w.add_merchant(number)

        def resend(merchant=1):
            return w.outbox.resend(merchant, 0, HOUR_MS, failed_only=True, transaction_type="All Type")

        await resend()
        begin = w.runtime.now_ms()
        again = await refused(resend())
        assert again.problem is Problem.REQUEST_DAILY_LIMIT
        assert again.msg == "webhook/resend takes one call a minute; try again in 60 seconds."
        assert again.retry_after_s == 60
        await resend(2)
        for _ in range(CALLS_A_DAY - 1):
            await w.runtime.sleep(61)
            await resend()
        await w.runtime.sleep(61)
        full = await refused(resend())
        assert "25 calls a day; the next is possible in" in full.msg
        assert begin + 24 * HOUR_MS <= w.runtime.now_ms() + full.retry_after_s * 1000 <= begin + 24 * HOUR_MS + 2_000
        await w.runtime.sleep(full.retry_after_s)
        await resend()
        assert len(await w.database.read(lambda tx: tx.all("SELECT * FROM resend_call WHERE merchant_id = 1"))) == CALLS_A_DAY

    scenario(migrated_url, body)


def test_of_many_resends_at_once_one_is_taken(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        calls = [w.outbox.resend(1, 0, HOUR_MS, failed_only=True, transaction_type="All Type") for _ in range(20)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert Counter(type(answer) for answer in answers) == {int: 1, Refused: 19}

    scenario(migrated_url, body)


def test_a_span_over_an_hour_and_an_unknown_type_are_refused_and_cost_no_call(migrated_url):
    async def body(w):
        await w.add_merchant(1)
        long = await refused(w.outbox.resend(1, 0, HOUR_MS + 1, failed_only=True, transaction_type="All Type"))
        assert long.problem is Problem.QUERY_DURATION_TOO_MAX
        odd = await refused(w.outbox.resend(1, 0, 1, failed_only=True, transaction_type="Invocie"))
        assert odd.problem is Problem.INVALID_ARGUMENT
        assert await w.outbox.resend(1, 0, HOUR_MS, failed_only=True, transaction_type="All Type") == 0

    scenario(migrated_url, body)


def test_a_process_that_knows_it_is_alone_takes_over_at_once(migrated_url):
    async def first(w):
        await w.add_merchant(1)
        await w.enqueue(1, 2)
        w.runtime.crash_at = lambda at, _: at == "deliver.claim:after"
        w.start()
        await w.runtime.sleep(60)

    async def second(w):
        await w.database.write("take over", lambda tx: w.outbox.take_over(tx, w.runtime.now_ms()))
        w.start()
        await w.runtime.sleep(1)
        await w.stop()
        assert await w.states() == {"delivered": 2}

    scenario(migrated_url, first, second)


@pytest.mark.parametrize(("sender_had_the_seat", "sent_again"), [(False, 0), (True, 2)])
def test_whoever_takes_the_seat_sends_again_what_its_predecessor_was_sending_and_nobody_else(migrated_url, sender_had_the_seat, sent_again):
    async def body(w):
        await w.add_merchant(1)
        await w.enqueue(1, 2)
        w.sink.answers["https://m1.example/"] = 5.0
        w.deliverer.holds_seat = sender_had_the_seat
        w.start()
        await w.runtime.sleep(1)
        successor = Deliverer(database=w.database, runtime=w.runtime, merchants=w, targets=w.sink)
        await w.database.write("take over", lambda tx: w.outbox.take_over(tx, w.runtime.now_ms()))
        await successor.handle(await successor.claim(200))
        await w.runtime.sleep(1)
        assert len(w.sink.got) == 2 + sent_again
        await successor.settled()
        await w.stop()

    scenario(migrated_url, body)
