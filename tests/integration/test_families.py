"""What chain families beyond the EVM ask of the rooms: many orders in one transaction, deaths, recipients with rules, invoices, coins."""

import asyncio
import itertools
from dataclasses import replace

import pytest
from msgspec import structs

from penstock.core.errors import Refused
from penstock.core.event import Absent, Dead, FailedOnChain, Final, Pending, Suspicious
from penstock.core.intent import Resource
from penstock.core.snowflake import compose
from penstock.ledger.audit import audit
from penstock.ledger.book import balances
from penstock.orders import attempts
from penstock.orders.decide import Decider
from penstock.orders.timeline import Timelines
from penstock.rails.base import Holdings, NotEnough, Unpayable
from tests.fixtures.chain import Road, ScriptedRail
from tests.fixtures.rooms import USDT, rooms, units
from tests.integration.test_audit import terms_of
from tests.integration.test_road import usdt

HOUR_MS = 3_600_000


class Batching(ScriptedRail):
    """Pays up to three orders at once out of coins, as Bitcoin does."""

    payments_max = 3
    window_ms = 0
    coins = (Resource("a:0", 40), Resource("b:0", 40))

    async def prepare(self, payments, token, sender, fees):
        return [replace(fees, together=self.payments_max)] * len(payments)

    def bind(self, payments, token, lane, fees, *, attempt_id):
        if not lane.coins:
            raise NotEnough("no coin is free")
        weighed = [structs.replace(payment, weight=weight) for weight, payment in enumerate(payments, start=1)]
        intent = super().bind(weighed, token, lane, fees, attempt_id=attempt_id)
        return structs.replace(intent, resources=(lane.coins[0],))

    async def holdings(self, address, tokens):
        held = await super().holdings(address, tokens)
        return Holdings(held.block, held.units, coins=self.coins, steady=self.steady, clocked=self.clocked)

    steady, clocked = True, False


class Choosy(ScriptedRail):
    """Knows recipients that cannot be paid."""

    problem = Unpayable("the recipient takes no deposits")

    async def prepare(self, payments, token, sender, fees):
        return [self.problem] * len(payments)


class Limited(ScriptedRail):
    """Gives bytes for a limited time only, as Lightning does."""

    over = ""
    table = None

    async def withheld(self, raw):
        return self.over

    async def submit(self, raw):
        assert [row["state"] for row in await rows_of(self.table, "SELECT state FROM attempt")] == ["sent"], "given before it was written"
        await super().submit(raw)
        raise ConnectionError("killed before the answer was written")


def scenario(url, kind, body):
    async def run():
        async with rooms(url) as r:
            road = Road(r, rail=kind)
            road.rail.funds = {"USDT": 1_000 * 10**6, "ETH": 10**18}
            await road.board.refresh()
            await road.treasury.refresh()
            await r.credit("m:1", "100")
            await body(r, road)
            assert (await audit(r.database, {})).breaches == []

    asyncio.run(run())


async def rows_of(r, sql):
    return await r.database.read(lambda tx: tx.all(sql))


def final(versions):
    return Final(versions[-1].txid, 101, 21_000 * 10**9)


def test_orders_that_wait_together_share_a_transaction_its_coin_and_its_fee(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, name) for name in "abcd"])
        await road.send()
        attempts = await rows_of(r, "SELECT attempt_id, COUNT(*) AS n FROM attempt_order GROUP BY attempt_id ORDER BY n")
        assert [row["n"] for row in attempts] == [1, 3]
        assert [row["name"] for row in await rows_of(r, "SELECT name FROM attempt_resource ORDER BY name")] == ["a:0", "b:0"]
        road.rail.answer = final
        await road.follow()
        assert {(await road.order(name))["state"] for name in "abcd"} == {"succeeded"}
        assert len(r.events) + len(await rows_of(r, "SELECT id FROM outbox")) == 4
        assert await balances(r.database, "m:1") == {USDT: (units("60"), 0)}
        shown = await Timelines(r.database, road.catalog).of("c")
        (attempt,) = shown["attempts"]
        assert (attempt["shared_by"], attempt["gas_part"]) == (3, "0.0000105 ETH")  # weight 3 of 1 + 2 + 3

    scenario(migrated_url, Batching, body)


def test_a_transaction_that_pays_an_order_which_a_person_has_ended_is_watched_and_no_more(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b")])
        await road.send()
        road.rail.answer = Suspicious("it is in no pool and in no block")
        await road.follow()
        rooms_of = {"runtime": r.runtime, "database": r.database, "catalog": road.catalog, "next_ids": r.next_ids}
        decider = Decider(**rooms_of, board=road.board, signer=road.stages._signer, settler=road.settler)
        await decider.failed((await road.order("a"))["id"], "it cannot land any more", proved=True)
        with pytest.raises(Refused, match="pays an order that a person has ended"):
            await decider.again((await road.order("b"))["id"], "go on")
        for seen in (Absent(), Pending(stuck=True)):
            road.rail.answer = seen
            await road.follow()
        assert (len(road.rail.sent), len(await rows_of(r, "SELECT id FROM version"))) == (1, 1)
        await decider.failed((await road.order("b"))["id"], "it cannot land any more", proved=True)
        await r.database.write(
            "test", lambda tx: attempts.resume_lane(tx, "ETH", "looked", action_id=r.next_ids(1)[0], now_ms=r.runtime.now_ms())
        )
        await road.follow()
        assert [row["kind"] for row in await rows_of(r, "SELECT kind FROM version ORDER BY number")] == ["pay", "cancel"]
        road.rail.answer = lambda versions: FailedOnChain(versions[-1].txid, 101, 21_000 * 10**9, "our own cancel spent the coins")
        await road.follow()
        assert {(await road.order(name))["state"] for name in "ab"} == {"failed"}
        assert await balances(r.database, "m:1") == {USDT: (units("100"), 0)}

    scenario(migrated_url, Batching, body)


def test_a_transaction_that_is_not_full_waits_for_company_only_so_long(migrated_url):
    async def body(r, road):
        road.rail.window_ms = 10**15
        await r.submit_all([usdt(r, road, "a"), usdt(r, road, "b")])
        await road.send()
        assert await rows_of(r, "SELECT id FROM attempt") == []
        assert (await road.order("a"))["state"] == "accepted"
        assert {(await road.order(name))["due_at_ms"] for name in "ab"} == {10**15}  # the end of the window that both came in
        await r.submit_all([usdt(r, road, "c")])
        await road.make_orders_due()
        await road.send()
        assert len(await rows_of(r, "SELECT order_id FROM attempt_order")) == 3
        road.rail.window_ms = 0
        await r.submit_all([usdt(r, road, "d")])
        await road.make_orders_due()
        await road.send()
        assert (await road.order("d"))["state"] == "sending"

    scenario(migrated_url, Batching, body)


def test_an_order_that_there_are_no_coins_for_holds_no_other_with_it(migrated_url):
    async def body(r, road):
        await r.credit("m:1", "2000")
        await r.submit_all([usdt(r, road, "large", "1500"), usdt(r, road, "a"), usdt(r, road, "b")])
        await road.send()
        assert (await road.order("large"))["hold_reason"] == "liquidity"
        assert {(await road.order(name))["state"] for name in "ab"} == {"sending"}

    scenario(migrated_url, Batching, body)


def test_a_coin_belongs_to_one_attempt_for_ever_and_who_comes_too_late_is_held(migrated_url):
    async def body(r, road):
        road.rail.payments_max = 1
        await r.submit_all([usdt(r, road, name) for name in "abc"])
        await road.send()
        road.rail.answer = final
        await road.follow()
        held = await road.order("c")
        assert (held["state"], held["hold_reason"]) == ("held", "liquidity")
        road.rail.coins, road.rail.final = (*Batching.coins, Resource("c:1", 40)), 100
        await road.treasury.refresh()  # was live at the look before
        await road.treasury.refresh()
        await road.make_orders_due()
        await road.send()
        assert (await road.order("c"))["state"] == "sending"
        assert [row["name"] for row in await rows_of(r, "SELECT name FROM attempt_resource ORDER BY name")] == ["a:0", "b:0", "c:1"]

    scenario(migrated_url, Batching, body)


def test_a_batch_that_failed_on_chain_releases_each_of_its_orders(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, name) for name in "abc"])
        await road.send()
        road.rail.answer = lambda versions: FailedOnChain(versions[0].txid, 101, 7, "our own cancel used the coins")
        await road.follow()
        assert {(await road.order(name))["state"] for name in "abc"} == {"failed"}
        assert await balances(r.database, "m:1") == {USDT: (units("100"), 0)}

    scenario(migrated_url, Batching, body)


def test_a_dead_attempt_is_buried_with_the_signer_before_its_order_gets_another(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = Dead("expired at 9, absent up to solid block 20 on two nodes")
        road.signer.refuses = True  # its clock is behind
        await road.follow()
        assert (await road.order("a"))["state"] == "sending"
        road.signer.refuses = False
        await road.follow()
        again = await road.order("a")
        assert (again["state"], again["wire"]) == ("accepted", 1)
        assert [death.proof[:7] for death in road.signer.buried] == ["expired"]
        road.rail.answer = final
        await road.send()
        await road.follow()
        assert (await road.order("a"))["state"] == "succeeded"
        assert [row["state"] for row in await rows_of(r, "SELECT state FROM attempt ORDER BY slot")] == ["dead", "final"]
        assert await balances(r.database, "m:1") == {USDT: (units("90"), 0)}

    scenario(migrated_url, ScriptedRail, body)


def test_who_cannot_be_paid_now_is_held_and_who_never_can_fails_with_the_money_back(migrated_url):
    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        held = await road.order("a")
        assert (held["state"], held["hold_reason"]) == ("held", "policy")
        assert "takes no deposits" in (await Timelines(r.database, road.catalog).of("a"))["waits_for"]
        road.rail.problem = Unpayable("the invoice has expired", for_ever=True)
        await road.make_orders_due()
        await road.send()
        failed = await road.order("a")
        assert (failed["state"], failed["fail_reason"]) == ("failed", "the invoice has expired")
        assert await balances(r.database, "m:1") == {USDT: (units("100"), 0)}
        assert len(await rows_of(r, "SELECT id FROM outbox")) == 1

    scenario(migrated_url, Choosy, body)


def test_bytes_that_are_given_for_a_time_are_known_to_be_given_before_they_are(migrated_url):
    """A short invoice whose time passed while the clock was wrong, or the node away, stopped the network for a person. (Seed 20261167.)"""

    async def body(r, road):
        seen = []

        def look(versions):
            seen.append([version.given for version in versions])
            return Absent()

        road.rail.table, road.rail.answer, road.rail.over = r, look, "the node does not answer"
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        await road.follow()
        assert (road.rail.sent, seen) == ([], [[False]])
        road.rail.over = ""
        for given in (False, True):
            with pytest.raises(ConnectionError):
                await road.follow()
            assert seen[-1] == [given]
        assert len(road.rail.sent) == 2

    scenario(migrated_url, Limited, body)


def test_a_hold_that_ends_while_bytes_are_on_the_way_lets_none_out_that_are_not_written_down(migrated_url):
    """Seen as held when it was to be written, and as free when it was to be given: it went out as what nobody has."""

    async def body(r, road):
        road.rail.table, road.rail.answer, road.rail.over = r, Absent(), "the node does not answer"
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        (attempt,) = await r.database.read(loaded)
        road.rail.over, looks = "", iter(["the start has not compared everything yet"])
        road.stages._held = lambda _: next(looks, "")
        await road.stages.submit([attempt.newest])
        assert road.rail.sent == []
        with pytest.raises(ConnectionError):
            await road.stages.submit([attempt.newest])
        assert len(road.rail.sent) == 1

    scenario(migrated_url, Limited, body)


def test_what_ended_while_its_bytes_were_on_the_way_to_be_given_is_given_to_nobody(migrated_url):
    async def body(r, road):
        road.rail.table, road.rail.answer, road.rail.over = r, Absent(), "its time is over"
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        (attempt,) = await r.database.read(loaded)
        road.rail.over, road.rail.answer = "", lambda versions: FailedOnChain(versions[-1].txid, 101, 0, "never given")
        await road.follow()
        assert (await road.order("a"))["state"] == "failed"
        await road.stages.submit([attempt.newest])
        assert road.rail.sent == []
        assert await balances(r.database, "m:1") == {USDT: (units("100"), 0)}

    scenario(migrated_url, Limited, body)


def test_a_doubt_about_one_payment_alone_leaves_its_network_at_work_and_calls_for_a_person(migrated_url):
    """A call to a Lightning node that was lost stopped every other payment. (Seed 117.)"""

    async def body(r, road):
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.answer = Suspicious("nobody knows it", alone=True)
        await road.follow()
        order = await road.order("a")
        assert order["state"] == "quarantined"
        terms = replace(terms_of(road), now_ms=r.runtime.now_ms())
        assert [row["halted"] for row in await rows_of(r, "SELECT halted FROM lane")] == [""]
        assert f"order {order['id']} waits for a person" in " ".join(f.text for f in (await audit(r.database, {}, terms)).warnings)
        await r.submit_all([usdt(r, road, "b")])
        road.rail.answer = lambda versions: final(versions) if versions[-1].intent.slot else Suspicious("nobody knows it", alone=True)
        await road.send()
        await road.follow()
        assert (await road.order("b"))["state"] == "succeeded"

    scenario(migrated_url, ScriptedRail, body)


def loaded(tx):
    return attempts.load(tx, [row["id"] for row in tx.all("SELECT id FROM attempt")])


def test_an_invoice_is_used_once_whoever_asks_and_a_refusal_uses_nothing(migrated_url):
    async def body(r, road):
        def invoice(name, value="10", merchant=1):
            draft = usdt(r, road, name, value)
            draft.wish = structs.replace(draft.wish, merchant_id=merchant, payer="m:1")
            draft.merchant_id, draft.once = merchant, "lightning:00ff"
            return draft

        poor, first, other = await r.submit_all([invoice("a", "1000")]), await r.submit_all([invoice("b")]), invoice("c", merchant=2)
        assert isinstance(poor[0], Refused) and poor[0].problem.name == "BALANCE_INSUFFICIENT"
        assert not isinstance(first[0], Refused)
        (late,) = await r.submit_all([other])
        assert isinstance(late, Refused) and late.problem.name == "REPEATED_SUBMIT"
        (again,) = await r.submit_all([invoice("b")])
        assert again.id == first[0].id
        assert [row["name"] for row in await rows_of(r, "SELECT name FROM single_use")] == ["lightning:00ff"]

    scenario(migrated_url, ScriptedRail, body)


@pytest.mark.parametrize("kind", ["numbered by blocks", "numbered by our clock"])
def test_without_slots_a_look_is_compared_only_when_what_was_live_has_been_seen_again(migrated_url, kind):
    async def body(r, road):
        road.rail.clocked = kind == "numbered by our clock"
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        road.rail.funds["USDT"] -= 9 * 10**6  # it is in the block already, and our books do not know it
        road.rail.funds["ETH"] -= 21_000 * 10**9
        road.rail.final = 101
        await road.treasury.refresh()
        (lane,) = await rows_of(r, "SELECT halted FROM lane")
        assert lane["halted"] == ""
        road.rail.answer = final
        await road.follow()
        await road.treasury.refresh()
        road.rail.final = 102
        await road.treasury.refresh()
        (lane,) = await rows_of(r, "SELECT halted FROM lane")
        assert lane["halted"] == ""
        seen = await rows_of(r, "SELECT block, observed FROM treasury_seen ORDER BY token_id")
        assert {row["block"] for row in seen} == {102}
        road.rail.funds["USDT"] -= 1
        road.rail.final = 103
        await road.treasury.refresh()
        (lane,) = await rows_of(r, "SELECT halted FROM lane")
        assert "0.000001 USDT left the hot address" in lane["halted"]

    scenario(migrated_url, Batching, body)


@pytest.mark.parametrize("kind", ["numbered by blocks", "numbered by our clock"])
def test_after_the_clock_was_set_back_a_look_waits_for_what_bears_a_later_time(migrated_url, kind):
    """It was found by the crash lane: times of before and after the step were compared, and a payment of ours stopped its lane."""

    async def body(r, road):
        road.rail.clocked = kind == "numbered by our clock"
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        later = r.runtime.now_ms() + HOUR_MS
        await r.database.write("test", lambda tx: tx.run("UPDATE attempt SET created_at_ms = :later, seen_at_ms = :later", later=later))
        road.rail.funds["USDT"] -= 9 * 10**6
        road.rail.funds["ETH"] -= 21_000 * 10**9
        road.rail.final = 101
        await road.treasury.refresh()
        (lane,) = await rows_of(r, "SELECT halted FROM lane")
        assert lane["halted"] == ""

    scenario(migrated_url, Batching, body)


def test_what_ended_while_a_node_with_a_clock_alone_was_looked_at_is_no_outflow_though_the_clock_was_set_back(migrated_url):
    """Seeds 25 and 59: when it ended was told by the wall clock, which said that it was before the look."""

    async def body(r, road):
        road.rail.clocked = True
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        holdings, road.rail.answer = road.rail.holdings, lambda versions: replace(final(versions), block=102)

        async def slow(address, tokens):
            road.rail.funds["USDT"] -= 9 * 10**6
            road.rail.funds["ETH"] -= 21_000 * 10**9
            road.rail.final = 101
            held = await holdings(address, tokens)
            await road.follow()
            await r.database.write("test", lambda tx: tx.run("UPDATE attempt SET seen_at_ms = seen_at_ms - :step", step=HOUR_MS))
            return held

        road.rail.holdings = slow
        await road.treasury.refresh()
        assert (await road.order("a"))["state"] == "succeeded"
        (lane,) = await rows_of(r, "SELECT halted FROM lane")
        assert lane["halted"] == ""

    scenario(migrated_url, Batching, body)


def test_orders_accepted_while_the_clock_was_ahead_do_not_gather_until_it_gets_there(migrated_url):
    async def body(r, road):
        road.rail.window_ms = 60_000
        ahead_ms = r.runtime.now_ms() + HOUR_MS
        r._ids = (compose(ahead_ms + n // 4096, 2, n % 4096) for n in itertools.count())
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        assert (await road.order("a"))["state"] == "sending"

    scenario(migrated_url, Batching, body)


def test_amounts_on_the_move_are_not_compared(migrated_url):
    async def body(r, road):
        road.rail.steady, road.rail.final = False, 200
        road.rail.funds["USDT"] = 1
        await road.treasury.refresh()
        (lane,) = await rows_of(r, "SELECT halted FROM lane")
        assert lane["halted"] == ""

    scenario(migrated_url, Batching, body)


class Opening(ScriptedRail):
    """Cannot hold a token before it has said so on the chain."""

    async def unopened(self, address, tokens):
        return [token for token in tokens if token.coin.symbol == "USDT"]

    def open(self, token, lane, fees, *, attempt_id):
        return structs.replace(self.bind([], token, lane, fees, attempt_id=attempt_id), kind="open")


def test_a_token_is_opened_once_for_no_order_and_costs_only_gas(migrated_url):
    async def body(r, road):
        (opened,) = await road.treasury.open_tokens("ETH", road.board.estimate)
        assert opened.coin.symbol == "USDT"
        assert await road.treasury.open_tokens("ETH", road.board.estimate) == []
        road.rail.answer = final
        await road.follow()
        await road.follow()
        assert await rows_of(r, "SELECT slot, state FROM attempt") == [{"slot": 0, "state": "final"}]
        entries = await rows_of(r, "SELECT posting_kind FROM entry WHERE ref_kind = 'attempt'")
        assert [row["posting_kind"] for row in entries] == ["gas"]
        await r.submit_all([usdt(r, road, "a")])
        await road.send()
        assert [row["slot"] for row in await rows_of(r, "SELECT slot FROM attempt ORDER BY slot")] == [0, 1]

    scenario(migrated_url, Opening, body)
