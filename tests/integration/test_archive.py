"""What is over moves into files: everything is answered as before, nothing is in neither place, and nothing else can be removed."""

import asyncio
import contextlib
import gzip
import json

import pytest
from msgspec import structs

from penstock.core.errors import Refused
from penstock.core.event import Final
from penstock.core.intent import Intent, JournalEntry
from penstock.db import Conflict, open_database
from penstock.ledger import archive, archive_file
from penstock.ledger.audit import audit, recompute
from penstock.ledger.book import balances, totals
from penstock.orders import adopt, archiver, retention
from penstock.orders.archiver import Archiver
from penstock.orders.store import OrderStore
from penstock.orders.timeline import Timelines
from penstock.prove.lanes.tamper import as_an_intruder
from penstock.runtime import SystemRuntime
from penstock.webhooks.outbox import Outbox
from tests.fixtures.rooms import USDT, Rooms, units
from tests.integration.test_audit import GAS, Undo, a_day, terms_of, told
from tests.integration.test_auditor import made as auditor

START_MS = 1_790_000_000_000
DAY_MS = 86_400_000
EMPTIED = ("entry", "posting", "order_history", "version", "version_order", "outbox", "webhook_send")


class Clock(SystemRuntime):
    """Stands where the test puts it, and dies where it says."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ms = START_MS
        self.points: list[str] = []
        self.dies_at = 0

    def now_ms(self) -> int:
        return self.at_ms

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)

    def crash_point(self, label: str) -> None:
        self.points.append(label)
        if len(self.points) == self.dies_at:
            raise Died(label)


class Died(BaseException):
    """The process is gone."""


class Place:
    """A house that has lived for a day, three months ago."""

    def __init__(self, r, road, folder):
        self.r, self.road, self.folder = r, road, folder
        self.before_ms = START_MS + DAY_MS

    async def archive(self, **changes):
        made = Archiver(
            runtime=self.r.runtime,
            database=self.r.database,
            next_ids=self.r.next_ids,
            terms=lambda: terms_of(self.road),
            folder=changes.get("folder", self.folder),
        )
        return await made.run(changes.get("before_ms", self.before_ms))

    async def dies(self, at):
        """A run that is killed at its n-th point; False where it has no such point."""
        self.r.runtime.points, self.r.runtime.dies_at = [], at
        try:
            await self.archive()
        except Died:
            return True
        finally:
            self.r.runtime.dies_at = 0
        return False

    async def deliver(self):
        def job(tx):
            for event in tx.all("SELECT id FROM outbox WHERE state = 'due'"):
                tx.run("INSERT INTO webhook_send VALUES (:id, 1, :at, 5, 200, 'success')", id=event["id"], at=START_MS)
            tx.run("UPDATE outbox SET state = 'delivered', sends = 1, result = 'success', due_at_ms = NULL WHERE state = 'due'")

        await self.r.database.write("deliver", job)

    async def count(self, table, where="true"):
        return (await self.r.database.read(lambda tx: tx.one(f"SELECT COUNT(*) AS n FROM {table} WHERE {where}")))["n"]

    async def counts(self):
        return {table: await self.count(table) for table in (*EMPTIED, "batch", "orders", "order_key", "attempt", "attempt_resource")}

    async def findings(self, *, files=False):
        report = await audit(self.r.database, {}, terms_of(self.road), archives=self.folder if files else None)
        return [(f.invariant, f.text) for f in report.findings]

    async def everything(self):
        """Each row of the emptied tables by its key, and the same rows as recorded files have them."""

        def job(tx):
            here = {table: {key_of(table, row): row for row in tx.all(f"SELECT * FROM {table}")} for table in (*EMPTIED, "batch")}
            return here, archive.listed(tx)

        here, recorded = await self.r.database.read(job)
        filed = {table: {} for table in here}
        for one in recorded:
            for line in archive_file.lines_of(self.folder / one.file, one.sha256):
                for table, row in rows_of(line):
                    filed[table][key_of(table, row)] = row
        return here, filed

    @staticmethod
    def nothing_is_lost(before, after):
        for table, rows in before[0].items():
            for key, row in rows.items():
                assert row in (after[0][table].get(key), after[1][table].get(key)), (table, row)

    async def answers(self):
        """Everything that somebody may ask and that an archive must not change."""
        names = ["inside", "paid", "failed", "waiting"]
        found = await OrderStore(self.r.runtime, self.r.database).find(1, names)
        told = {holder: await balances(self.r.database, holder) for holder in ("m:1", "u:1000001")}
        house = [await totals(self.r.database, prefix) for prefix in ("house:", "treasury:", "payout_in_transit:", "m:", "u:")]
        return [found[name] for name in names], told, [{key: n for key, n in sums.items() if n} for sums in house]

    def lines(self):
        files = sorted(self.folder.glob("*.gz"))
        return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


KEYS = {
    "posting": ("entry_id", "line"), "version_order": ("version_id", "order_id"), "webhook_send": ("outbox_id", "number"),
}  # fmt: skip


def key_of(table, row):
    return tuple(row[name] for name in KEYS.get(table, ("id",)))


def rows_of(line):
    """The rows of the tables that a line of a file has."""
    ((kind, said),) = line.items()
    if kind == "event":
        yield from [("outbox", said["row"]), *(("webhook_send", row) for row in said["sends"])]
    for entry in (*said.get("entries", ()), *said.get("decisions", ())):
        yield "entry", {name: value for name, value in entry.items() if name != "lines"}
        yield from (("posting", row) for row in entry["lines"])
    for step in said.get("history", ()):
        yield "order_history", {**step}
    for version in said.get("versions", ()):
        yield "version", {name: value for name, value in version.items() if name != "orders"}
        yield from (("version_order", row) for row in version["orders"])
    if kind == "batch":
        yield "batch", said["row"]


async def a_past(r, folder, *, looked=True):
    road = await a_day(r)
    place = Place(r, road, folder)
    await place.deliver()
    r.runtime.at_ms += 2 * DAY_MS
    if looked:
        road.rail.final, road.rail.used = 110, 2
        road.rail.funds = {"USDT": 991 * 10**6, "ETH": 10**18 - 2 * GAS}
        await road.treasury.refresh()
    await r.credit("m:1", "7")  # the newest batch of a chain stays
    await auditor(r, road).turn()
    r.runtime.at_ms += 90 * DAY_MS
    return place


def scenario(url, tmp_path, body, *, looked=True):
    async def run():
        runtime = Clock()
        database = open_database(runtime, url)
        try:
            place = await a_past(Rooms(database, runtime), tmp_path / "archive", looked=looked)
            assert await place.findings() == []
            await body(place.r, place)
        finally:
            await database.close()
            runtime.close()

    asyncio.run(run())


def test_after_an_archive_everything_is_answered_as_before(migrated_url, tmp_path):
    async def body(r, place):
        before, counts = await place.answers(), await place.counts()
        (done,) = await place.archive()
        assert (done["orders"], done["attempts"], done["events"], done["changed_meanwhile"]) == (3, 2, 3, 0)
        assert await place.answers() == before
        after = await place.counts()
        assert {name: after[name] for name in ("orders", "order_key", "attempt", "attempt_resource")} == {
            name: counts[name] for name in ("orders", "order_key", "attempt", "attempt_resource")
        }
        # What an order that waits needs is here as well as in the file, and what is newer.
        assert {name: after[name] for name in EMPTIED} == {
            "entry": 2, "posting": 4, "order_history": 0, "version": 0, "version_order": 0, "outbox": 0, "webhook_send": 0,
        }  # fmt: skip
        assert after["batch"] == 2
        assert await place.findings() == []
        assert await place.archive() == []  # and nothing is left to do

    scenario(migrated_url, tmp_path, body)


@pytest.mark.slow
def test_wherever_a_run_is_killed_the_next_one_ends_it_and_nothing_is_lost_or_doubled(migrated_url, tmp_path, monkeypatch):
    """A kill at each commit and each step with the file, again and again, until a run has come through."""

    monkeypatch.setattr(archiver, "_PAGE", 1)

    async def body(r, place):
        before, told = await place.answers(), await place.everything()
        visited, at, was = [], 1, told
        while await place.dies(at):
            visited.append(r.runtime.points[-1])
            now = await place.everything()
            place.nothing_is_lost(told, now)
            assert await place.answers() == before, visited[-1]
            assert await place.findings() == [], visited[-1]
            # Where this life has left a trace the next one dies at its first step, else it comes one step further.
            at, was = (1, now) if now != was else (at + 1, was)
        assert {"archive.file:written", "archive.file:named", "archive.record:before", "archive.record:after"} <= set(visited)
        assert {"archive.remove:before", "archive.remove:after", "archive.sweep:after", "archive.end:before"} <= set(visited)
        assert await place.archive() == []
        place.nothing_is_lost(told, await place.everything())
        assert await place.answers() == before
        assert await place.findings(files=True) == []
        assert await place.count("archive") == 1  # however many files were begun
        assert await place.count("version") == 0

    scenario(migrated_url, tmp_path, body)


def test_an_order_that_waited_goes_with_a_later_archive_and_the_chains_go_on(migrated_url, tmp_path):
    async def body(r, place):
        road = place.road
        await place.archive()
        await road.board.refresh()
        road.rail.final = 115
        await road.treasury.refresh()
        await road.make_orders_due()
        await road.send()
        road.rail.answer = lambda versions: Final(versions[-1].txid, 120, GAS)
        await road.follow()
        await place.deliver()
        r.runtime.at_ms += 1000
        await r.credit("m:1", "3")
        assert (await auditor(r, road).turn()).findings == []
        road.rail.final, road.rail.used = 130, 3
        road.rail.funds = {"USDT": 982 * 10**6, "ETH": 10**18 - 3 * GAS}
        await road.treasury.refresh()
        r.runtime.at_ms += 60 * DAY_MS
        assert (await auditor(r, road).turn()).findings == []
        before = await place.answers()
        done = await place.archive(before_ms=r.runtime.now_ms() - 31 * DAY_MS)
        # Its entries are in both files: in the batches of the first, and as its own in the last. The months between were empty.
        assert [(one["orders"], one["attempts"]) for one in done] == [(0, 0), (1, 1)]
        assert await place.count("archive", "number = 3") == 1
        assert await place.answers() == before
        assert await place.findings(files=True) == []
        waited = next(line["order"] for line in place.lines() if line.get("order", {}).get("row", {}).get("merchant_order_id") == "waiting")
        assert [entry["posting_kind"] for entry in waited["entries"]] == ["reserve", "settle"]
        assert await place.count("entry", "ref_kind IN ('order', 'attempt')") == 0
        await r.credit("m:1", "1")  # by the same committer, whose newest batch has stayed
        assert (await auditor(r, road).turn()).findings == []
        assert await place.findings(files=True) == []

    scenario(migrated_url, tmp_path, body)


def test_a_repeat_of_an_archived_order_gets_it_as_before_and_moves_nothing(migrated_url, tmp_path):
    async def body(r, place):
        draft = r.draft("paid", "10", recipient="")
        (was,) = [order for order in (await place.answers())[0] if order.merchant_order_id == "paid"]
        await place.archive()
        before = await place.answers()
        draft.fingerprint = (
            await r.database.read(lambda tx: tx.one("SELECT fingerprint FROM order_key WHERE merchant_order_id = 'paid'"))
        )["fingerprint"]
        assert await r.submit_all([draft]) == [was]
        assert await place.answers() == before

    scenario(migrated_url, tmp_path, body)


def test_order_show_names_the_file_and_a_resend_is_refused_by_name(migrated_url, tmp_path):
    async def body(r, place):
        (done,) = await place.archive()
        timelines = Timelines(r.database, place.road.catalog)
        shown = await timelines.of("paid")
        assert shown["archived"] == done["file"].rsplit("/", 1)[1]
        assert [state["state"] for state in shown["states"]] == ["accepted", "succeeded"]
        assert "archived" not in await timelines.of("waiting")
        outbox = Outbox(r.database, r.runtime, r.next_ids)
        assert not await outbox.resend_order((await place.road.order("paid"))["id"])
        with pytest.raises(Refused, match=f"11003 NotFound: Events from before timestamp {place.before_ms // 1000} are archived"):
            await outbox.resend(1, START_MS, START_MS + 1000, False, "All Type")
        assert await outbox.resend(1, place.before_ms, place.before_ms + 1000, False, "All Type") == 0

    scenario(migrated_url, tmp_path, body)


def test_an_event_that_is_sent_again_while_it_is_removed_stays_for_the_next_archive(migrated_url, tmp_path):
    def sent_again(tx, name, at_ms):
        event = tx.one("SELECT outbox.id FROM outbox JOIN orders ON orders.id = order_id WHERE merchant_order_id = :name", name=name)["id"]
        tx.run("INSERT INTO webhook_send VALUES (:id, 2, :at, 5, 200, 'success')", id=event, at=at_ms)
        tx.run("UPDATE outbox SET state = 'delivered', sends = 2, due_at_ms = NULL, ended_at_ms = :at WHERE id = :id", id=event, at=at_ms)

    async def body(r, place):
        outbox = Outbox(r.database, r.runtime, r.next_ids)
        at = 1
        while not await place.count("archive"):
            assert await place.dies(at)
            at += 1
        for name in ("paid", "failed"):
            assert await outbox.resend_order((await place.road.order(name))["id"])
        await r.database.write("deliver", lambda tx: sent_again(tx, "failed", r.runtime.at_ms))
        (done,) = await place.archive()
        assert done["changed_meanwhile"] == 2
        assert [finding for finding in await place.findings(files=True) if finding[0] != "I16"] == []  # one of them waits for a worker
        await r.database.write("deliver", lambda tx: sent_again(tx, "paid", r.runtime.at_ms))
        r.runtime.at_ms += 31 * DAY_MS
        again = [one for one in await place.archive(before_ms=r.runtime.at_ms - 30 * DAY_MS) if one["events"]]
        assert [(one["orders"], one["events"], one["changed_meanwhile"]) for one in again] == [(0, 2, 0)]
        assert sum(len(line["event"]["sends"]) == 2 for line in place.lines() if "event" in line) == 2
        assert await place.count("outbox") == 0
        assert await place.findings(files=True) == []

    scenario(migrated_url, tmp_path, body)


def test_only_what_a_recorded_archive_has_can_be_deleted(migrated_url, tmp_path):
    async def body(r, place):
        for archived in (False, True):
            if archived:
                await place.archive()
            for table in ("posting", "entry", "batch", "archive", "archive_head", "order_history"):
                where = {
                    "posting": "entry_id IN (SELECT id FROM entry WHERE batch_id = (SELECT MAX(id) FROM batch))",
                    "entry": "batch_id = (SELECT MAX(id) FROM batch)",
                    "batch": "id = (SELECT MAX(id) FROM batch)",
                }.get(table, "true")
                if not await place.count(table, where):
                    assert archived == (table == "order_history")
                    continue
                with pytest.raises(Conflict, match=f"{table} is append-only"):
                    await r.database.write("stray", lambda tx, table=table, where=where: tx.run(f"DELETE FROM {table} WHERE {where}"))
        with pytest.raises(Conflict, match="archive is append-only"):
            await r.database.write("stray", lambda tx: tx.run("UPDATE archive SET file = 'another'"))
        assert await place.findings(files=True) == []

    scenario(migrated_url, tmp_path, body)


def an_amount_is_edited(text):
    return text.replace(f'"amount":"{units("100")}"', f'"amount":"{units("99")}"')


EDITS = {
    "an amount": an_amount_is_edited,
    "a line is gone": lambda text: "\n".join(line for line in text.splitlines() if '{"event"' not in line) + "\n",
    "its end is gone": lambda text: text[: len(text) // 2],
    "nothing but the packing": lambda text: text,
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_archive_that_was_edited_is_found(migrated_url, tmp_path, edit):
    async def body(r, place):
        (done,) = await place.archive()
        assert await place.findings(files=True) == []
        (file,) = place.folder.glob("*.gz")
        text = gzip.decompress(file.read_bytes()).decode()
        changed = EDITS[edit](text)
        assert changed != text or edit == "nothing but the packing"
        file.write_bytes(gzip.compress(changed.encode(), 1))
        found = await place.findings(files=True)
        assert any(invariant == "I15" and f"archive {done['archive']}: {file}" in text for invariant, text in found), found
        file.unlink()
        assert any("is not there" in text for _, text in await place.findings(files=True))
        assert await place.findings() == []

    scenario(migrated_url, tmp_path, body)


TAMPERS = {
    "an archived order": ("UPDATE orders SET txid = '0xbad' WHERE merchant_order_id = 'paid'", {}),
    "an archived attempt": ("UPDATE attempt SET outflow = :outflow WHERE archive IS NOT NULL", {"outflow": 1}),
    "the sums": ("UPDATE archive_total SET amount = :amount WHERE account = 'house:fee_income'", {"amount": 1}),
    "an order hides in an archive": ("UPDATE orders SET archive = 1 WHERE merchant_order_id = 'waiting'", {}),
    "an order is taken out of its archive": ("UPDATE orders SET archive = NULL WHERE merchant_order_id = 'paid'", {}),
    "its repeat's mark": ("UPDATE order_key SET fingerprint = 'x' WHERE merchant_order_id = 'inside'", {}),
    "the file's name": ("UPDATE archive SET file = 'archive-000001-0.jsonl.gz'", {}),
    "the file's hash": ("UPDATE archive SET sha256 = 'x'", {}),
    "what is said of it": ("UPDATE archive SET said = '{}'", {}),
    "a head": ("UPDATE archive_head SET number = number - 1", {}),
    "the whole archive": ("DELETE FROM archive_head", {}),
    "what was kept": ("UPDATE operator_action SET reason = 'x' WHERE action = 'archive removed'", {}),
    "that it was removed": ("DELETE FROM operator_action WHERE action = 'archive removed'", {}),
}


@pytest.mark.parametrize("what", TAMPERS)
def test_what_the_database_says_of_archives_cannot_be_changed_unseen(migrated_url, tmp_path, what):
    async def body(r, place):
        await place.archive()
        await r.credit("m:1", "1")
        await auditor(r, place.road).turn()
        sql, values = TAMPERS[what]
        found = []

        def tamper(tx):
            as_an_intruder(tx)
            assert tx.run(sql, **values)
            found.extend((f.invariant, f.text) for f in recompute(tx, terms_of(place.road)).findings)
            raise Undo

        with contextlib.suppress(Undo):
            await r.database.write("tamper", tamper)
        assert any(invariant == "I15" for invariant, _ in found), found

    scenario(migrated_url, tmp_path, body)


def test_a_full_disk_leaves_the_tables_as_they_were(migrated_url, tmp_path):
    async def body(r, place):
        before = await place.counts()
        place.folder.mkdir()
        (place.folder / "archive-000001.part").symlink_to("/dev/full")
        with pytest.raises(Refused, match=r"nothing was removed; .* cannot be written: No space left on device"):
            await place.archive()
        assert await place.counts() == before
        assert await place.count("archive") == 0
        assert list(place.folder.iterdir()) == []
        assert len(await place.archive()) == 1

    scenario(migrated_url, tmp_path, body)


def test_nothing_goes_that_is_young_or_that_nobody_has_looked_at(migrated_url, tmp_path):
    async def body(r, place):
        with pytest.raises(Refused, match="younger than 30 days"):
            await place.archive(before_ms=r.runtime.now_ms() - 30 * DAY_MS + 1)
        (done,) = await place.archive()
        # No look at the treasury since their block: the next one is compared with these entries.
        assert (done["orders"], done["attempts"]) == (1, 0)
        assert await place.findings(files=True) == []
        road = place.road
        road.rail.final, road.rail.used = 110, 2
        road.rail.funds = {"USDT": 991 * 10**6, "ETH": 10**18 - 2 * GAS}
        await road.treasury.refresh()
        assert await place.findings(files=True) == []
        (done,) = await place.archive()
        assert (done["orders"], done["attempts"]) == (2, 2)
        assert await place.findings(files=True) == []

    scenario(migrated_url, tmp_path, body, looked=False)


def test_two_runs_in_one_folder_do_not_meet(migrated_url, tmp_path):
    async def body(r, place):
        with archive_file.alone(place.folder), pytest.raises(Refused, match="another archive command is at work"):
            await place.archive()
        assert len(await place.archive()) == 1

    scenario(migrated_url, tmp_path, body)


def test_books_that_are_not_right_are_not_archived(migrated_url, tmp_path):
    async def body(r, place):
        await r.database.write("intrude", as_an_intruder)
        await r.database.write("touch", lambda tx: tx.run("UPDATE entry SET note = 'x' WHERE posting_kind = 'credit' AND note = 'test'"))
        with pytest.raises(Refused, match=r"books that are not right: batch .* does not hold the rows it was sealed over"):
            await place.archive()
        assert await place.count("archive") == 0
        assert list(place.folder.iterdir()) == []

    scenario(migrated_url, tmp_path, body)


def test_orders_are_taken_while_an_archive_is_made(migrated_url, tmp_path, monkeypatch):
    monkeypatch.setattr(archiver, "_PAGE", 1)

    async def body(r, place):
        other = Rooms(r.database, r.runtime, worker=2)

        async def customers():
            for number in range(20):
                (order,) = await other.submit_all([other.draft(f"new{number}", "1")])
                assert order.state == "succeeded"
                assert await place.findings() == []

        (done,), _ = await asyncio.gather(place.archive(), customers())
        assert done["orders"] == 3
        assert await balances(r.database, "u:1000001") == {USDT: (units("25"), 0)}
        assert await place.findings(files=True) == []

    scenario(migrated_url, tmp_path, body)


def test_orders_that_share_a_transaction_go_together_or_stay_together():
    links = {1: [10], 2: [10, 11], 3: [11], 4: [12], 5: []}
    retention._leave_entangled(links, {10: {1, 2}, 11: {2, 3, -1}, 12: {4}})
    assert set(links) == {4, 5}


def test_the_signers_journal_is_not_astonished_by_what_is_archived(migrated_url, tmp_path):
    """A start that reads the journal from its first entry adopts nothing; with the files each signed version is compared again."""

    async def body(r, place):
        rows = await r.database.read(lambda tx: tx.all("SELECT attempt_id, intent, txid FROM version ORDER BY id"))
        signed = [
            JournalEntry(number, "", "sign", 0, row["attempt_id"], Intent.from_json(row["intent"]), row["txid"])
            for number, row in enumerate(rows, 1)
        ]
        await place.archive()
        await r.database.write("compare", lambda tx: adopt.compare(tx, signed, now_ms=r.runtime.at_ms))
        assert await place.count("journal_stray") == 0

        async def differs(entries, folder):
            report = await audit(r.database, {}, terms_of(place.road), journal=told(entries), archives=folder)
            return [f.text for f in report.findings if f.invariant == "I9"]

        assert await differs(signed, None) == await differs(signed, place.folder) == []
        other = [structs.replace(signed[0], txid="0xbad"), *signed[1:]]
        assert await differs(other, None) == []
        (text,) = await differs(other, place.folder)
        assert "is transaction 0xbad in the signer's journal" in text

    scenario(migrated_url, tmp_path, body)
