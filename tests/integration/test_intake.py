"""The entrance on both databases: repeats, races for one balance, refusals that leave nothing behind."""

import asyncio
import shutil
import threading
from collections import Counter

from penstock.core.errors import Problem, Refused
from penstock.core.money import Coin
from penstock.core.order import Order
from penstock.ledger.book import Balances, balances, totals
from penstock.orders import intake
from penstock.prove.lanes.tamper import as_an_intruder
from tests.fixtures.rooms import USDT, rooms, units


def codes(answers):
    return Counter(a.problem.name if isinstance(a, Refused) else type(a).__name__ for a in answers)


def test_a_thousand_concurrent_repeats_of_one_id_make_one_order(migrated_url):
    async def scenario():
        async with rooms(migrated_url, worker=1) as one, rooms(migrated_url, worker=2) as two:
            await one.credit("m:1", "1000")
            first, second = await asyncio.gather(
                one.submit_all([one.draft("same") for _ in range(500)]), two.submit_all([two.draft("same") for _ in range(500)])
            )
            assert {a.id for a in (*first, *second)} == {first[0].id}
            assert await balances(one.database, "m:1") == {USDT: (units("999"), 0)}
            assert await balances(one.database, "u:1000001") == {USDT: (units("1"), 0)}
            assert (await one.audit()).breaches == []

    asyncio.run(scenario())


def test_one_id_with_a_thousand_different_bodies_makes_one_order(migrated_url):
    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "1000000")
            answers = await r.submit_all([r.draft("same", str(n)) for n in range(1, 1001)])
            assert codes(answers) == {"Order": 1, "ORDER_DUPLICATE": 999}
            assert (await r.audit()).breaches == []

    asyncio.run(scenario())


def test_a_thousand_withdrawals_against_a_balance_that_covers_one(migrated_url):
    async def scenario():
        async with rooms(migrated_url, worker=1) as one, rooms(migrated_url, worker=2) as two:
            await one.credit("m:1", "1")
            first, second = await asyncio.gather(
                one.submit_all([one.draft(f"a{n}", recipient="") for n in range(500)]),
                two.submit_all([two.draft(f"b{n}", recipient="") for n in range(500)]),
            )
            assert codes([*first, *second]) == {"Order": 1, "BALANCE_INSUFFICIENT": 999}
            assert await balances(one.database, "m:1") == {USDT: (0, units("1"))}
            assert (await one.audit()).breaches == []

    asyncio.run(scenario())


def test_who_comes_when_too_many_wait_is_told_so_at_once_and_may_come_back(migrated_url, monkeypatch):
    monkeypatch.setattr(intake, "QUEUE_MAX", 10)

    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "1000")
            first = await r.submit_all([r.draft(f"a{n}") for n in range(50)])
            assert codes(first) == {"Order": 10, "RATE_LIMIT": 40}
            assert {a.retry_after_s for a in first if isinstance(a, Refused)} == {1}
            again = [answer for n in range(0, 50, 10) for answer in await r.submit_all([r.draft(f"a{k}") for k in range(n, n + 10)])]
            assert codes(again) == {"Order": 50}
            assert {a.id for a in first if isinstance(a, Order)} == {a.id for a in again[:10]}
            assert await balances(r.database, "m:1") == {USDT: (units("950"), 0)}

    asyncio.run(scenario())


def test_who_comes_while_a_batch_waits_for_its_turn_to_write_goes_along(sqlite_template, tmp_path):
    # One writer: on PostgreSQL a batch begins at once.
    shutil.copyfile(sqlite_template, tmp_path / "penstock.sqlite3")

    async def scenario():
        async with rooms(f"sqlite:///{tmp_path / 'penstock.sqlite3'}") as r:
            await r.credit("m:1", "10", book=r.others)
            go_on = threading.Event()
            writing = asyncio.create_task(r.database.write("other", lambda _: go_on.wait(30)))
            committer = asyncio.create_task(r.intake.run())
            early = asyncio.create_task(r.intake.submit(r.draft("early")))
            await r.database.read(lambda tx: tx.one("SELECT 1 AS alive"))  # by now its batch is made and waits
            late = [asyncio.create_task(r.intake.submit(r.draft(f"late{n}"))) for n in range(3)]
            await asyncio.sleep(0)
            go_on.set()
            assert codes(await asyncio.gather(writing, early, *late)) == {"bool": 1, "Order": 4}
            r.intake.stop()
            await committer
            batches = await r.database.read(lambda tx: tx.all("SELECT number FROM batch WHERE committer = 'test-1'"))
            assert [row["number"] for row in batches] == [1]
            assert (await r.audit()).breaches == []

    asyncio.run(scenario())


def test_a_stored_order_wins_over_a_refusal_and_a_refusal_leaves_nothing(migrated_url):
    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "5")
            stored = (await r.submit_all([r.draft("stored")]))[0]

        async with rooms(migrated_url, worker=3) as r:
            stale = r.draft("stored")
            stale.wish = Refused(Problem.SERVICE_ERROR, "the price is stale")
            unknown = r.draft("unknown")
            unknown.wish = Refused(Problem.SERVICE_ERROR, "the price is stale")
            too_much = r.draft("too much", "6")
            answers = await r.submit_all([stale, unknown, too_much, r.draft("other", merchant=2)])
            assert answers[0] == stored
            assert codes(answers) == {"Order": 1, "SERVICE_ERROR": 1, "BALANCE_INSUFFICIENT": 2}

        async with rooms(migrated_url, worker=4) as r:
            answers = await r.submit_all([r.draft("too much", "3"), r.draft("unknown", "0.5")])
            assert all(isinstance(a, Order) for a in answers)
            report = await r.audit()
            assert report.breaches == []
            assert report.counts["orders"] == 3

    asyncio.run(scenario())


def test_two_merchants_may_use_the_same_id(migrated_url):
    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "1")
            await r.credit("m:2", "1")
            one, two = await r.submit_all([r.draft("same", merchant=1), r.draft("same", merchant=2)])
            assert one.id != two.id

    asyncio.run(scenario())


def test_an_overdraft_in_a_batch_is_refused_alone_and_money_received_in_it_can_be_spent(migrated_url):
    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "3")
            answers = await r.submit_all(
                [
                    r.draft("too much", "4"),
                    r.draft("in", "3", recipient="u:1000001"),
                    r.draft("out", "3", recipient="u:1000002", merchant=0, payer="u:1000001"),
                ]
            )
            assert codes(answers) == {"Order": 2, "BALANCE_INSUFFICIENT": 1}
            assert await balances(r.database, "u:1000002") == {USDT: (units("3"), 0)}
            report = await r.audit()
            assert report.breaches == []
            assert [w.invariant for w in report.warnings] == ["I11"]

    asyncio.run(scenario())


def test_the_audit_names_an_edited_balance_posting_and_order(migrated_url):
    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "10")
            await r.submit_all([r.draft("in"), r.draft("out", recipient="")])
            assert (await r.audit()).breaches == []
            await r.database.write("intrude", as_an_intruder)
            await r.database.write(
                "tamper", lambda tx: tx.run("UPDATE balance SET available = :available WHERE holder = 'm:1'", available=0)
            )
            assert {f.invariant for f in (await r.audit()).breaches} == {"I3"}
            await r.database.write("tamper", lambda tx: tx.run("UPDATE posting SET amount = :amount WHERE line = 0", amount=1))
            report = await r.audit()
            assert {"I1", "I3"} <= {f.invariant for f in report.breaches}
            assert "I15" in {f.invariant for f in report.warnings}
            await r.database.write("tamper", lambda tx: tx.run("DELETE FROM entry WHERE posting_kind = 'reserve'"))
            assert "I5" in {f.invariant for f in (await r.audit()).breaches}

    asyncio.run(scenario())


def test_a_key_whose_order_is_gone_is_never_answered_as_accepted(migrated_url):
    async def scenario():
        async with rooms(migrated_url, worker=1) as r:
            await r.credit("m:1", "5")
            await r.submit_all([r.draft("archived")])
            await r.database.write("archive", lambda tx: tx.run("DELETE FROM orders"))
        async with rooms(migrated_url, worker=2) as r:
            answers = await r.submit_all([r.draft("archived"), r.draft("other")])
            assert codes(answers) == {"SERVICE_ERROR": 1, "Order": 1}

    asyncio.run(scenario())


def test_after_a_refusal_other_bodies_of_the_same_id_are_judged_in_the_order_they_came(migrated_url):
    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "5")
            answers = await r.submit_all([r.draft("same", value) for value in ("9", "9", "3", "2", "9")])
            assert [type(a) for a in answers[:3]] == [Refused, Refused, Order]
            assert [a.problem for a in answers if isinstance(a, Refused)] == [
                Problem.BALANCE_INSUFFICIENT,
                Problem.BALANCE_INSUFFICIENT,
                Problem.ORDER_DUPLICATE,
                Problem.BALANCE_INSUFFICIENT,
            ]
            assert answers[2].value == units("3")

    asyncio.run(scenario())


def test_what_the_api_shows_of_balances_and_the_house_of_its_own_accounts_is_what_was_booked(migrated_url):
    async def scenario():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "5")
            await r.submit_all([r.draft("a", "2", recipient=""), r.draft("b", "1")])
            shown = Balances(r.database, {USDT: Coin(USDT, "USDT", "Tether USD", 6)}.get)
            assert {coin: amount.units for coin, amount in (await shown.of("m:1")).items()} == {USDT: units("2")}
            assert await Balances(r.database, {}.get).of("m:1") == {}, (
                "a coin that the catalogue does not have any more has no name to be shown by"
            )
            assert await totals(r.database, "house:") == {("house:funding", USDT): -units("5")}
            assert await totals(r.database, "treasury:") == {}

    asyncio.run(scenario())
