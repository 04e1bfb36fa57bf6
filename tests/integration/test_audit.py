"""The audit on books that somebody has touched: each breach is named under its own invariant and level (failure model, section 4)."""

import asyncio

from msgspec import structs

from penstock.core.event import FailedOnChain, Final
from penstock.core.intent import Intent, JournalEntry
from penstock.ledger import guards
from penstock.ledger.audit import NAMED_MAX, Terms, audit, recompute
from penstock.ledger.signed import Said
from penstock.prove.lanes.tamper import as_an_intruder
from tests.fixtures.chain import Road
from tests.fixtures.rooms import USDT, rooms, units
from tests.integration.test_road import usdt

GAS = 21_000 * 10**9


async def a_day(r):
    """One order of each kind: inside, waiting, paid, failed; and what the treasury showed before."""
    road = Road(r)
    road.rail.funds = {"USDT": 1_000 * 10**6, "ETH": 10**18}
    await road.board.refresh()
    await road.treasury.refresh()
    await r.credit("m:1", "100")
    paid, failed = usdt(r, road, "paid"), usdt(r, road, "failed")
    await r.submit_all([r.draft("inside", "5"), paid, failed])
    await road.send()

    def seen(versions):
        is_paid = versions[0].intent.payments[0].order_id == paid.wish.id
        return Final(versions[-1].txid, 101, GAS) if is_paid else FailedOnChain(versions[-1].txid, 101, GAS, "reverted")

    road.rail.answer = seen
    await road.follow()
    r.renew_intake()
    await r.submit_all([usdt(r, road, "waiting")])
    return road


def terms_of(road):
    return Terms({USDT: "USDT"}, {token.id: token for token in road.catalog.tokens()})


def of_rows(report):
    """Findings without what an intruder had to take away first."""
    return [finding for finding in report.findings if finding.mark != guards.TRIGGERS]


def found(report):
    return {(finding.invariant, finding.level) for finding in of_rows(report)}


class Undo(Exception):
    """Takes back what was touched, with the report about it."""


async def report_on(r, terms, tamper, journal=None):
    """What the audit says of the books as they are after `tamper`, which is rolled back again."""
    said = Said(journal or told())
    await said.hear()

    def job(tx):
        tamper(tx)
        report = recompute(tx, terms, said if journal else None)
        said.close(report)
        raise Undo(report)

    try:
        await r.database.write("tamper", job)
    except Undo as undone:
        return undone.args[0]


def sign(intent, txid):
    return JournalEntry(1, "", "sign", 0, intent.attempt_id, intent, txid)


def told(*readings):
    """A journal of which each reading to the end finds so much more."""
    pages = iter([page for reading in readings for page in (reading, [])])

    async def entries(after):
        return next(pages, [])

    return entries


def scenario(url, body):
    async def run():
        async with rooms(url) as r:
            road = await a_day(r)
            terms = terms_of(road)
            assert (await audit(r.database, {}, terms)).findings == []
            await body(r, terms)
            assert (await audit(r.database, {}, terms)).findings == []

    asyncio.run(run())


def order(name):
    return f"(SELECT id FROM orders WHERE merchant_order_id = '{name}')"


def attempt(name):
    return f"(SELECT attempt_id FROM attempt_order WHERE order_id = {order(name)})"


TAMPERS = [
    (
        "a posting is changed",
        "UPDATE posting SET amount = :amount WHERE line = 1 AND entry_id = (SELECT id FROM entry WHERE posting_kind = 'credit')",
        {"amount": 1},
        {("I1", "stop"), ("I15", "alert"), ("I2", "stop"), ("I3", "stop")},
    ),
    (
        "an entry is gone",
        "DELETE FROM entry WHERE posting_kind = 'credit'",
        {},
        {("I1", "stop"), ("I15", "alert"), ("I2", "stop"), ("I3", "stop")},
    ),
    (
        "a balance is raised",
        "UPDATE balance SET available = :available WHERE holder = 'u:1000001'",
        {"available": 10**30},
        {("I3", "stop")},
    ),
    ("a balance is gone", "DELETE FROM balance WHERE holder = 'm:1'", {}, {("I3", "stop"), ("I4", "alert")}),
    (
        "a reserve is changed",
        f"UPDATE orders SET reserve = :reserve WHERE id = {order('waiting')}",
        {"reserve": 1},
        {("I15", "alert"), ("I4", "alert"), ("I5", "stop")},
    ),
    (
        "an order is called paid",
        f"UPDATE orders SET state = 'succeeded', decided_at_ms = 1 WHERE id = {order('waiting')}",
        {},
        {("I12", "alert"), ("I14", "alert"), ("I4", "alert"), ("I5", "stop"), ("I6", "stop")},
    ),
    (
        "a paid order is called failed",
        f"UPDATE orders SET state = 'failed' WHERE id = {order('paid')}",
        {},
        {("I14", "alert"), ("I15", "alert"), ("I5", "stop"), ("I6", "stop")},
    ),
    ("an order is gone", f"DELETE FROM orders WHERE id = {order('inside')}", {}, {("I5", "stop"), ("I12", "alert")}),
    (
        "a payment is linked to another order",
        f"UPDATE attempt_order SET order_id = {order('failed')} WHERE attempt_id = {attempt('paid')}",
        {},
        {("I13", "stop"), ("I6", "stop")},
    ),
    (
        "bytes went out that are not stored",
        f"UPDATE version SET raw = NULL, txid = NULL WHERE attempt_id = {attempt('paid')}",
        {},
        {("I13", "stop"), ("I8", "stop")},
    ),
    (
        "an attempt is still alive in the links",
        f"UPDATE attempt_order SET live = 1 WHERE order_id = {order('paid')}",
        {},
        {("I10", "stop"), ("I6", "stop")},
    ),
    ("an event is gone", f"DELETE FROM outbox WHERE order_id = {order('paid')}", {}, {("I12", "alert"), ("I15", "alert")}),
    (
        "less is paid than promised",
        f"UPDATE orders SET net = :net WHERE id = {order('waiting')}",
        {"net": 1},
        {("I13", "stop"), ("I15", "alert")},
    ),
    (
        "gas went over its cap",
        "UPDATE attempt SET gas_paid = :gas_paid WHERE state = 'final'",
        {"gas_paid": 10**17},
        {("I10", "stop"), ("I13", "stop"), ("I15", "alert")},
    ),
    ("a note is rewritten", "UPDATE entry SET note = 'nothing to see' WHERE posting_kind = 'credit'", {}, {("I15", "alert")}),
    ("a batch is sealed anew", "UPDATE batch SET hash = 'x' WHERE number = 2", {}, {("I15", "alert")}),
    ("a batch is gone", "DELETE FROM batch WHERE number = 2", {}, {("I15", "alert"), ("I2", "stop"), ("I3", "stop")}),
    ("a version says another slot", "UPDATE version SET intent = REPLACE(intent, '\"slot\":0', '\"slot\":7')", {}, {("I7", "stop")}),
    (
        "another recipient is written over an order that waits",
        f"UPDATE orders SET destination = '0x0000000000000000000000000000000000000bad' WHERE id = {order('waiting')}",
        {},
        {("I15", "alert")},
    ),
    (
        "another recipient was paid than the order names",
        f"UPDATE orders SET destination = '0x0000000000000000000000000000000000000bad' WHERE id = {order('paid')}",
        {},
        {("I13", "stop"), ("I15", "alert")},
    ),
    (
        "less was delivered than promised",
        "UPDATE version_order SET amount = :amount",
        {"amount": 1},
        {("I13", "stop")},
    ),
    (
        "another transaction is said to have paid",
        f"UPDATE attempt SET txid = '0xbad' WHERE id = {attempt('paid')}",
        {},
        {("I6", "stop"), ("I13", "stop"), ("I15", "alert")},
    ),
    (
        "a step is taken out",
        f"DELETE FROM order_history WHERE order_id = {order('paid')} AND after = 'sending'",
        {},
        {("I5", "stop"), ("I15", "alert")},
    ),
    ("a reason is rewritten", f"UPDATE order_history SET reason = 'fine' WHERE order_id = {order('failed')}", {}, {("I15", "alert")}),
    ("the wire status falls back", f"UPDATE orders SET wire = 1 WHERE id = {order('paid')}", {}, {("I14", "alert"), ("I15", "alert")}),
    ("an event says something else", f"UPDATE outbox SET body = '{{}}' WHERE order_id = {order('paid')}", {}, {("I15", "alert")}),
    (
        "an event is called delivered",
        f"UPDATE outbox SET state = 'delivered', due_at_ms = NULL WHERE order_id = {order('paid')}",
        {},
        {("I12", "alert")},
    ),
    (
        "a merchant's id stands for another order",
        f"UPDATE order_key SET order_id = {order('paid')} WHERE order_id = {order('inside')}",
        {},
        {("I5", "stop")},
    ),
    (
        "the chain shows a unit less",
        "UPDATE treasury_seen SET observed = :observed WHERE observed = :was",
        {"observed": 10**9 - 1, "was": 10**9},
        {("I10", "stop")},
    ),
    ("a lane is halted", "UPDATE lane SET halted = 'a key leaked'", {}, {("I16", "alert")}),
]


def test_the_audit_names_the_invariant_that_is_broken(migrated_url):
    async def body(r, terms):
        reports = {name: await report_on(r, terms, lambda tx, t=t: [as_an_intruder(tx), tx.run(t[0], **t[1])]) for name, *t in TAMPERS}
        assert {name: found(report) for name, report in reports.items()} == {name: expected for name, _, _, expected in TAMPERS}
        assert all(finding.text for report in reports.values() for finding in report.findings)

    scenario(migrated_url, body)


def test_a_guard_of_the_database_that_is_gone_or_does_nothing_is_an_alert_by_name(migrated_url):
    """Nobody noticed a trigger that was dropped until a row was edited, nor a seat that was deleted until a worker was started."""

    async def body(r, terms):
        on = " ON entry" if r.database.dialect == "postgresql" else ""
        blunt = "BEFORE UPDATE ON entry" + (" FOR EACH ROW WHEN (false) EXECUTE FUNCTION append_only()" if on else " BEGIN SELECT 1; END")
        ways = {
            "append_only_entry_delete": [f"DROP TRIGGER append_only_entry_delete{on}"],
            "append_only_entry_update": [f"DROP TRIGGER append_only_entry_update{on}", f"CREATE TRIGGER append_only_entry_update {blunt}"],
            "the table seat": ["DELETE FROM seat"],
        }
        if on:
            ways |= {
                "append_only_batch_truncate": ["ALTER TABLE batch DISABLE TRIGGER append_only_batch_truncate"],
                "append_only_posting_update": [
                    "CREATE OR REPLACE FUNCTION append_only() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'"
                ],
            }
        clean = await report_on(r, terms, lambda tx: None)  # noqa: ARG005
        for name, statements in ways.items():
            report = await report_on(r, terms, lambda tx, statements=statements: [tx.run(sql) for sql in statements])
            (finding,) = [f for f in report.findings if f not in clean.findings]
            assert name in finding.text
            assert finding.level == "alert"

    scenario(migrated_url, body)


def test_declared_funding_that_was_never_seen_is_a_warning_with_its_amount(migrated_url):
    async def run():
        async with rooms(migrated_url) as r:
            await r.credit("m:1", "12.5")
            report = await r.audit()
            assert report.breaches == []
            assert [(f.invariant, f.text) for f in report.warnings] == [
                ("I11", "12.5 USDT of declared funding has not been seen on chain"),
            ]

    asyncio.run(run())


def test_more_breaches_than_anybody_reads_are_counted(migrated_url):
    def tamper(tx):
        for n in range(NAMED_MAX + 5):
            tx.run(
                "INSERT INTO balance (id, holder, coin_id, available, reserved, version) VALUES (:id, :holder, 'c', :available, :reserved, 0)",
                id=n, holder=f"m:{n + 10}", available=1, reserved=0,
            )  # fmt: skip

    async def body(r, terms):
        texts = [finding.text for finding in (await report_on(r, terms, tamper)).breaches if finding.invariant == "I3"]
        assert len(texts) == NAMED_MAX + 1
        assert texts[-1] == "and 5 more"

    scenario(migrated_url, body)


def test_it_says_what_it_has_counted_and_what_the_house_owns(migrated_url):
    async def run():
        async with rooms(migrated_url) as r:
            road = await a_day(r)
            report = await audit(r.database, {USDT: "USDT", road.catalog.native("ETH").coin.id: "ETH"})
            assert report.counts["orders"] == 4
            assert report.balances["house:fee_income"] == {"USDT": "1"}
            assert report.balances["house:funding"] == {"USDT": "900", "ETH": "1"}
            assert report.balances["house:network_cost"] == {"ETH": "-0.000042"}
            assert report.balances[f"treasury:{road.catalog.by_symbol('USDT', 'ETH').id}"] == {"USDT": "-991"}
            assert units(report.balances[f"payout_in_transit:{road.catalog.by_symbol('USDT', 'ETH').id}"]["USDT"]) == 0

    asyncio.run(run())


def test_the_signers_journal_and_the_attempt_table_are_compared_digest_by_digest(migrated_url):
    async def body(r, terms):
        rows = await r.database.read(lambda tx: tx.all("SELECT txid, intent FROM version ORDER BY id"))
        journal = [sign(Intent.from_json(v["intent"]), v["txid"]) for v in rows]

        async def said(*pages):
            report = await audit(r.database, {}, terms, journal=told(*pages))
            return [f.text for f in report.breaches if f.invariant == "I9"]

        first, last = journal
        assert await said(journal) == []
        assert "has bytes that the signer's journal does not know" in (await said([last]))[0]
        stranger = structs.replace(first, intent=structs.replace(first.intent, attempt_id=5))
        assert "was signed and the books do not know it" in (await said([*journal, stranger]))[0]
        assert "is transaction 0x5 in the signer's journal" in (await said([structs.replace(first, txid="0x5"), last]))[0]
        assert (
            "is another intent in the books"
            in (await said([structs.replace(first, intent=structs.replace(first.intent, fee_cap=5)), last]))[0]
        )
        # What was signed while the tables were read is in the journal by the time that they have been.
        assert await said([first], [last]) == []
        kill = f"UPDATE attempt SET state = 'dead' WHERE id = {first.intent.attempt_id}"
        report = await report_on(r, terms, lambda tx: tx.run(kill), told(journal))
        assert any("is dead and the signer's journal has no proof of it" in f.text for f in report.breaches)
        death = JournalEntry(3, "3", "death", 0, first.intent.attempt_id, text="proof")
        report = await report_on(r, terms, lambda tx: tx.run(kill), told([*journal, death]))
        assert not any("no proof of it" in f.text for f in report.breaches)

    scenario(migrated_url, body)
