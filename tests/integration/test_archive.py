"""What is over moves into files: everything is answered as before, nothing is in neither place, and nothing else can be removed."""

import asyncio
import gzip
import json

import pytest

from penstock.core.errors import Refused
from penstock.db import Conflict, open_database
from penstock.ledger import archive, archive_file
from penstock.ledger.audit import audit
from penstock.ledger.book import balances, totals
from penstock.orders import archiver
from penstock.orders.archiver import Archiver
from penstock.orders.store import OrderStore
from penstock.orders.timeline import Timelines
from penstock.runtime import SystemRuntime
from penstock.webhooks.outbox import Outbox
from tests.fixtures.rooms import Rooms
from tests.integration.test_audit import GAS, a_day, terms_of
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


def scenario(url, tmp_path, body, *, looked=True):
    async def run():
        runtime = Clock()
        database = open_database(runtime, url)
        try:
            r = Rooms(database, runtime)
            road = await a_day(r)
            place = Place(r, road, tmp_path / "archive")
            await place.deliver()
            runtime.at_ms += 2 * DAY_MS
            if looked:
                road.rail.final, road.rail.used = 110, 2
                road.rail.funds = {"USDT": 991 * 10**6, "ETH": 10**18 - 2 * GAS}
                await road.treasury.refresh()
            await r.credit("m:1", "7")  # the newest batch of a chain stays
            await auditor(r, road).turn()
            runtime.at_ms += 90 * DAY_MS
            assert await place.findings() == []
            await body(r, place)
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
