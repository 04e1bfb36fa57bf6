"""`bill/info` with a hot standby of PostgreSQL that streams for real: however late it is, nobody is shown less than was told before."""

import asyncio
import contextlib
import itertools
import random
import signal
from urllib.parse import urlsplit

import psycopg
import pytest

from penstock.core.errors import InvariantBroken
from penstock.core.order import TERMINAL, OrderState
from penstock.db import StandbyDatabase
from penstock.orders import replica, store
from penstock.orders.replica import Replica
from penstock.orders.store import Move, OrderStore
from tests.fixtures.databases import fresh_database, migrate, postgres_server, standby_of, with_database
from tests.fixtures.gateway import gateway_home, ready, token_id
from tests.fixtures.proxy import proxied
from tests.fixtures.rooms import rooms

TOKEN = token_id("USDT", "ETH")
TAKES_WRITES = "it is no standby: it takes writes of its own"
ANOTHER = "it is a standby of another database"
NUMBERS = itertools.count(1)
"""Of merchants, and of whoever gives their ids."""


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """A machine with more to do than this is no standby that hangs."""
    monkeypatch.setattr(replica, "ANSWER_S", 30.0)


@pytest.fixture(scope="module")
def pair():
    """A primary with the schema in it, and its standby."""
    with postgres_server() as primary:
        migrate(primary.url)
        with standby_of(primary) as standby:
            yield primary, standby


@pytest.fixture
def urls(pair):
    """Of the database on the primary and on the standby, which replays and has caught up. The tests share it; each has a merchant of its own."""
    primary, standby = pair
    replay(standby.url, "resume")
    caught_up(primary.url, standby.url)
    return primary.url, standby.url


def replay(there, what):
    with psycopg.connect(there, autocommit=True) as admin:
        admin.execute(f"SELECT pg_wal_replay_{what}()")


def caught_up(here, there):
    """Until the standby has replayed all that is written."""
    with psycopg.connect(here, autocommit=True) as one, psycopg.connect(there, autocommit=True) as other:
        (written,) = one.execute("SELECT pg_current_wal_lsn()").fetchone()
        while not other.execute("SELECT pg_last_wal_replay_lsn() >= %s", (written,)).fetchone()[0]:
            pass


class House:
    """Rooms of one merchant with a replica; `reads` counts how often the primary was asked."""

    def __init__(self, r, standby_url, merchant):
        self.rooms = r
        self.merchant = merchant
        self.standby = StandbyDatabase(r.runtime, standby_url)
        self.replica = Replica(r.database, self.standby)
        self.orders = OrderStore(r.runtime, r.database, self.replica)
        self.alone = OrderStore(r.runtime, r.database)
        self.reads = 0
        read = r.database.read

        async def counted(job):
            self.reads += 1
            return await read(job)

        r.database.read = counted

    async def shown(self, *names):
        """State and transaction of each as a caller sees it, and whether the primary had to be asked."""
        before = self.reads
        found = await self.orders.find(self.merchant, names)
        return {name: (order.wire.text, order.txid) for name, order in found.items()}, self.reads > before

    async def accept(self, *names):
        await self.rooms.credit(f"m:{self.merchant}", str(len(names)))
        await self.rooms.submit_all([self.rooms.draft(name, recipient="", merchant=self.merchant) for name in names])

    def _id(self, tx, name):
        row = tx.one("SELECT order_id FROM order_key WHERE merchant_id = :m AND merchant_order_id = :name", m=self.merchant, name=name)
        return row["order_id"]

    async def move(self, name, *states, **changes):
        def job(tx):
            order_id = self._id(tx, name)
            order = store.lock(tx, [order_id])[order_id]
            for state in states:
                more = {"decided_at_ms": 1 if state in TERMINAL else None, "hold_reason": "policy" if state is OrderState.HELD else ""}
                step = Move(order, state, "test", at_ms=1, **changes, **more)
                store.move(tx, [step], next_ids=self.rooms.next_ids())
                order = step.moved()

        await self.rooms.database.write("test", job)

    async def attempt(self, name, *, live):
        """An attempt of the order, under way or over."""

        def job(tx):
            attempt = {"id": self._id(tx, name) + 1, "order_id": self._id(tx, name)}
            if tx.one("SELECT id FROM lane WHERE id = 1") is None:
                tx.run("INSERT INTO lane (id, chain, number, address, next_slot, halted) VALUES (1, 'ETH', 0, '0x1', 1, '')")
            tx.run(
                "INSERT INTO attempt (id, lane_id, slot, token_id, state, outflow, fee_cap, txid, seen, created_at_ms, lease, lease_until_ms) "
                "VALUES (:id, 1, :id, 'token', 'sent', 1, 1, '', '', 1, '', 0) ON CONFLICT DO NOTHING",
                id=attempt["id"],
            )
            tx.run(
                "INSERT INTO attempt_order (attempt_id, order_id, live) VALUES (:id, :order_id, :live) "
                "ON CONFLICT (attempt_id, order_id) DO UPDATE SET live = :live",
                **attempt,
                live=int(live),
            )

        await self.rooms.database.write("test", job)

    async def retitle(self, name, txid):
        """Another version of its attempt has paid it, which is over with that."""
        await self.rooms.database.write(
            "test", lambda tx: tx.run("UPDATE orders SET txid = :txid WHERE id = :id", txid=txid, id=self._id(tx, name))
        )
        await self.attempt(name, live=False)


@contextlib.asynccontextmanager
async def house(urls, standby_url=""):
    number = next(NUMBERS)
    async with rooms(urls[0], worker=number) as r:
        made = House(r, standby_url or urls[1], number)
        try:
            await made.replica.look()
            yield made
        finally:
            await made.standby.close()


PAID = (OrderState.SENDING, OrderState.SUCCEEDED)


def test_an_order_that_ended_is_told_by_the_standby_and_every_other_by_the_primary(urls):
    async def scenario():
        async with house(urls) as h:
            await h.accept("ended", "open")
            await h.move("ended", *PAID, txid="0x1")
            caught_up(*urls)
            assert await h.shown("ended") == ({"ended": ("Successful", "0x1")}, False)
            assert await h.shown("open", "ended") == ({"open": ("Pending", ""), "ended": ("Successful", "0x1")}, True)
            assert await h.shown("nothing") == ({}, True)

    asyncio.run(scenario())


def test_a_standby_that_stands_still_never_takes_back_what_a_caller_was_told(urls):
    async def scenario():
        async with house(urls) as h:
            await h.accept("a", "b")
            caught_up(*urls)
            replay(urls[1], "pause")
            await h.accept("new")
            assert await h.shown("new") == ({"new": ("Pending", "")}, True)
            await h.move("a", *PAID, txid="0x1")
            await h.move("b", OrderState.FAILED)
            told = {"a": ("Successful", "0x1"), "b": ("Failed", ""), "new": ("Pending", "")}
            assert await h.shown("a", "b", "new") == (told, True)
            replay(urls[1], "resume")
            caught_up(*urls)
            assert await h.shown("a", "b") == ({name: told[name] for name in ("a", "b")}, False)

    asyncio.run(scenario())


def test_a_success_that_was_reported_before_it_was_final_is_the_primarys_until_its_attempt_is_over(urls):
    async def scenario():
        async with house(urls) as h:
            await h.accept("early")
            await h.attempt("early", live=True)
            await h.move("early", *PAID, txid="0x1")
            caught_up(*urls)
            assert await h.shown("early") == ({"early": ("Successful", "0x1")}, True)
            replay(urls[1], "pause")
            await h.retitle("early", "0x2")
            assert await h.shown("early") == ({"early": ("Successful", "0x2")}, True)
            replay(urls[1], "resume")
            caught_up(*urls)
            assert await h.shown("early") == ({"early": ("Successful", "0x2")}, False)

    asyncio.run(scenario())


NEXT = {
    "accepted": [(OrderState.SENDING, {}), (OrderState.HELD, {}), (OrderState.FAILED, {})],
    "held": [(OrderState.ACCEPTED, {})],
    "sending": [(OrderState.CONFIRMING, {"txid": "0x1"}), (OrderState.ACCEPTED, {}), (OrderState.SUCCEEDED, {"txid": "0x2"})],
    "confirming": [(OrderState.SENDING, {}), (OrderState.SUCCEEDED, {"txid": "0x3"}), (OrderState.FAILED, {})],
}


@pytest.mark.parametrize("seed", [1, 2])
def test_whatever_the_replay_does_a_caller_sees_what_the_primary_has(urls, seed):
    """A random walk of ten orders beside a replay that stops and goes on."""
    dice = random.Random(seed)
    names = [f"w{number}" for number in range(10)]
    by_standby = 0

    async def scenario():
        nonlocal by_standby
        async with house(urls) as h:
            await h.accept(*names)
            for _ in range(60):
                name = dice.choice(names)
                order = (await h.alone.find(h.merchant, [name]))[name]
                if moves := NEXT.get(order.state.value):
                    state, changes = dice.choice(moves)
                    await h.move(name, state, **changes)
                if dice.random() < 0.3:
                    replay(urls[1], dice.choice(["pause", "resume"]))
                asked = dice.sample(names, 3)
                found, primary = await h.shown(*asked)
                by_standby += not primary
                truth = await h.alone.find(h.merchant, asked)
                assert found == {n: (truth[n].wire.text, truth[n].txid) for n in asked}
            assert h.replica.fault == ""

    asyncio.run(scenario())
    assert by_standby > 0


def test_a_standby_that_stands_still_is_said_to_be_late_and_no_longer_once_it_is_not(urls):
    async def scenario():
        async with house(urls) as h:
            replay(urls[1], "pause")
            await h.accept("a")
            await h.replica.look()
            await h.replica.look()
            assert (h.replica.late[:27], h.replica.fault) == ("it lacks what was written m", "")
            replay(urls[1], "resume")
            caught_up(*urls)
            await h.replica.look()
            assert h.replica.late == ""

    asyncio.run(scenario())


def test_a_standby_that_hangs_is_asked_no_more_until_it_answers_again(urls, monkeypatch):
    async def scenario(through, wire):
        async with house(urls, through) as h:
            await h.accept("a")
            await h.move("a", OrderState.FAILED)
            caught_up(*urls)
            assert await h.shown("a") == ({"a": ("Failed", "")}, False)
            wire.flows.clear()
            monkeypatch.setattr(replica, "ANSWER_S", 0.2)
            assert await h.shown("a") == ({"a": ("Failed", "")}, True)
            monkeypatch.setattr(replica, "ANSWER_S", 30.0)
            assert h.replica.fault == "it does not answer (TimeoutError)"
            wire.flows.set()
            assert await h.shown("a") == ({"a": ("Failed", "")}, True)
            await h.replica.look()
            assert await h.shown("a") == ({"a": ("Failed", "")}, False)

    with proxied(urls[1]) as (through, wire):
        asyncio.run(scenario(through, wire))


def test_an_answer_that_comes_after_the_end_leaves_no_connection_open(urls):
    async def scenario(through, wire):
        async with house(urls, through) as h:
            late = asyncio.ensure_future(h.standby.read(lambda tx: tx.all("SELECT 1 AS one")))
            wire.flows.clear()
            for _ in range(3):
                await asyncio.sleep(0)
            await h.standby.close()
            wire.flows.set()
            assert await late == [{"one": 1}]
            assert [connection for connection in h.standby._connections if not connection.closed] == []

    with proxied(urls[1]) as (through, wire):
        asyncio.run(scenario(through, wire))


def test_what_one_caller_asks_that_it_refuses_keeps_it_in_use_for_the_others(urls):
    async def scenario():
        async with house(urls) as h:
            await h.accept("a")
            await h.move("a", OrderState.FAILED)
            caught_up(*urls)
            with pytest.raises(psycopg.Error):
                await h.shown("\0")
            assert await h.shown("a") == ({"a": ("Failed", "")}, False)

    asyncio.run(scenario())


def test_what_is_no_standby_of_this_database_is_never_asked(urls):
    async def fault(url):
        async with house(urls, url) as h:
            await h.accept("a")
            assert await h.shown("a") == ({"a": ("Pending", "")}, True)
            return h.replica.fault

    assert asyncio.run(fault(urls[0])) == TAKES_WRITES
    assert asyncio.run(fault(with_database(urls[1], "template1"))) == ANOTHER


@pytest.mark.parametrize("there", [{"wal_bytes": 101}, {"timeline": 2}])
def test_a_standby_of_a_past_that_was_put_back_is_never_asked(there):
    here = {"system": 1, "number": 5, "timeline": 1, "wal_bytes": 100, "is_standby": False}
    assert replica._stranger(here, {**here, "is_standby": True}) == ""
    assert "another past" in replica._stranger(here, {**here, "is_standby": True, **there})


def test_a_standby_is_not_written_to(urls):
    async def scenario():
        async with house(urls) as h:
            with pytest.raises(InvariantBroken):
                await h.standby.write("test", lambda tx: tx.run("DELETE FROM orders"))

    asyncio.run(scenario())


def test_serve_goes_on_when_its_standby_is_killed_and_says_so(pair, request):
    """The last one here: nothing is left of the standby."""
    primary, standby = pair
    replay(standby.url, "resume")
    with fresh_database(primary.url, "template0") as url:
        there = with_database(standby.url, urlsplit(url).path.removeprefix("/"))
        with gateway_home("sqlite", request, PENSTOCK_DATABASE__URL=url, PENSTOCK_DATABASE__REPLICA_URL=there) as gateway:
            gateway.start()
            gateway.wait(lambda: not any("replica" in warning for warning in ready(gateway)["warnings"]) or None)
            merchant = gateway.merchant(USDT="5")
            account, _ = gateway.account()
            merchant.accepted(merchant_order_id="inside", address=account, token_id=TOKEN, value="1", merchant_pays_fee=True)
            [told] = merchant.info("inside")
            assert told["order_detail"]["status"] == "Successful"
            standby.process.send_signal(signal.SIGKILL)
            standby.process.wait()
            gateway.wait(lambda: any("replica" in warning for warning in ready(gateway)["warnings"]) or None)
            assert merchant.info("inside") == [told]
