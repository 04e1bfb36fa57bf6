"""The audit beside the work: a long pass is read by another process, and what that process fails to say is read here."""

import asyncio
import contextlib
import json
import os
import signal
import time
from functools import partial
from pathlib import Path

import psycopg
import pytest
import uvloop
from structlog.testing import capture_logs

from penstock.child import ChildFailed
from penstock.commands import Commands
from penstock.config import bare_environment, load
from penstock.ledger import beside as beside_
from penstock.ledger.audit import look_again
from penstock.ledger.beside import Beside, beside
from penstock.ledger.checkpoint import Checkpoint
from penstock.orders import auditor, readiness
from penstock.orders.auditor import Auditor, NotTheBooks
from penstock.process import command
from penstock.prove.lanes.tamper import as_an_intruder
from penstock.setup import initialise
from tests.fixtures.rooms import rooms
from tests.integration.test_audit import TAMPERS, a_day, found, terms_of, usdt
from tests.integration.test_auditor import touch

ONLY_WHOLE = {"a merchant's id stands for another order", "an order is gone", "a lane is halted"}
"""What no pass over new entries sees, wherever it is read (test_auditor)."""

HIDES = {"a payment is linked to another order"}
"""What comes last, because others are found by what it takes away."""


@pytest.fixture(autouse=True)
def short_slices(monkeypatch):
    monkeypatch.setattr(auditor, "SLICE_ENTRIES", 4)
    monkeypatch.setattr(auditor, "LONG_SLICE_ENTRIES", 4)


def scenario(url, body, loop=asyncio.new_event_loop):
    async def run():
        async with rooms(url) as r:
            await body(r, await a_day(r))

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


class Watched:
    """An auditor whose passes are read beside; what its processes were asked and how they ended."""

    def __init__(self, r, road, url, *, before=None):
        self.asked = []
        self.processes = []
        self._url = url
        self._before = before
        self._runtime = r.runtime
        self.auditor = Auditor(
            runtime=r.runtime, database=r.database, catalog=road.catalog, terms=lambda: terms_of(road), beside=self._opened
        )

    @contextlib.asynccontextmanager
    async def _opened(self):
        process = Beside(self._runtime, self._url, bare_environment())
        self.processes.append(process)

        async def look(terms, entries_max):
            self.asked.append(entries_max)
            if self._before is not None:
                await self._before(process)
            return await process.look(terms, entries_max)

        try:
            yield look
        finally:
            await process.stop()

    async def turn(self):
        return await self.auditor.turn()


async def ended_at(r):
    return (await r.database.read(lambda tx: tx.one("SELECT ended_at_ms FROM audit_run")))["ended_at_ms"]


async def raise_a_balance(r):
    await touch(r, "UPDATE balance SET available = :available WHERE holder = 'u:1000001'", available=10**30)


def test_every_kind_of_breach_is_found_by_the_process_as_it_is_here(migrated_url):
    async def body(r, road):
        await r.database.write("guards", as_an_intruder)
        seen = set()
        async with beside(r.runtime, migrated_url, bare_environment()) as look:
            for name, sql, values, _ in sorted(TAMPERS, key=lambda one: one[0] in HIDES):
                if name in ONLY_WHOLE:
                    continue
                await touch(r, sql, **values)  # one upon the other
                terms = terms_of(road)
                there, after = await look(terms, None)
                here, wanted = await r.database.read(lambda tx, terms=terms: look_again(tx, terms))
                assert (there.findings, there.counts, there.whole) == (here.findings, here.counts, True), name
                assert (after.heads, after.house, after.holders, after.moved) == (wanted.heads, wanted.house, wanted.holders, wanted.moved)
                seen |= found(there)
        assert seen >= set().union(*(expected for name, _, _, expected in TAMPERS if name not in ONLY_WHOLE))

    scenario(migrated_url, body)


def test_a_long_pass_is_read_beside_and_leaves_what_a_pass_here_leaves(migrated_url):
    async def body(r, road):
        wanted = (await r.database.read(lambda tx: look_again(tx, terms_of(road))))[1]
        await raise_a_balance(r)
        watched = Watched(r, road, migrated_url)
        with capture_logs() as logs:
            report = await watched.turn()
        assert (report.whole, found(report)) == (True, {("I3", "stop")})
        assert [line["event"] for line in logs] == ["audit.stop"]
        assert len(watched.asked) > 1
        assert [process._process.returncode for process in watched.processes] == [0]
        kept = await r.database.read(Checkpoint.load)
        assert (kept.heads, kept.house) == (wanted.heads, wanted.house)
        # What little is new after that is read here.
        asked = len(watched.asked)
        await r.credit("m:1", "3")
        assert (await watched.turn()).counts["entries"] == 1
        assert len(watched.asked) == asked

    scenario(migrated_url, body)


def test_much_that_is_under_way_is_read_beside_though_little_is_new(migrated_url):
    async def body(r, road):
        watched = Watched(r, road, migrated_url)
        await watched.turn()
        for name in ("a", "b", "c", "d"):
            await r.submit_all([usdt(r, road, name)])
        watched.asked.clear()
        report = await watched.turn()
        assert (report.whole, report.findings) == (True, [])
        assert watched.asked[-1] is None
        assert report.counts["orders"] == 5  # those, and the one that waits since before

    scenario(migrated_url, body)


async def _stopped_and_killed(process):
    """It has taken the question, and dies before it has answered."""
    if process._process is None:
        await process.start()
    pid = process._process.pid
    os.kill(pid, signal.SIGSTOP)
    asyncio.get_running_loop().call_later(0.05, os.kill, pid, signal.SIGKILL)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_process_that_is_killed_in_a_pass_is_not_missed(migrated_url, loop):
    async def body(r, road):
        await raise_a_balance(r)
        watched = Watched(r, road, migrated_url)
        first = True

        async def before(process):
            nonlocal first
            if first:
                first = False
                await _stopped_and_killed(process)

        watched._before = before
        with capture_logs() as logs:
            report = await watched.turn()
        assert (report.whole, found(report)) == (True, {("I3", "stop")})
        assert [line["event"] for line in logs].count("audit.beside.failed") == len(watched.asked)
        assert await ended_at(r) > 0
        assert watched.processes[0]._process.returncode == -signal.SIGKILL

    scenario(migrated_url, body, loop)


SAYS = {
    "no length": "out(b'gar'); sys.exit()",
    "a length that is none": "out(b'\\xff' * 64)",
    "no JSON": "answer(b'all is well')",
    "JSON of something else": "answer(b'[]')",
    "a finding of a level that there is none of": "answer(json.dumps({**SOUND, 'findings': [dict(invariant='I1', level='fine', text='')]}).encode())",
    "nothing": "",
    "that it cannot start": "EARLY",
}
ALL_SILENT = "import json, struct, sys\nout = lambda data: (sys.stdout.buffer.write(data), sys.stdout.buffer.flush())\n"


def _program(says, sound=None):
    """A child that takes questions and says that."""
    if says == "EARLY":
        return "print('there is no room for me', flush=True)"
    sound = sound or {"findings": [], "counts": {"entries": 0}, "whole": True, "heads": {}, "moved": {}, "house": [], "holders": []}
    return (
        f"{ALL_SILENT}SOUND = json.loads({json.dumps(json.dumps(sound))})\n"
        "answer = lambda body: out(struct.pack('>I', len(body)) + body)\n"
        f"sys.stdin.readline(); out(b'ready\\n')\nfor line in sys.stdin:\n    {says or 'pass'}\n"
    )


@pytest.mark.parametrize("says", SAYS)
def test_a_process_that_says_nonsense_is_not_believed(migrated_url, monkeypatch, says):
    monkeypatch.setattr(beside_, "WORDS", ("-c", _program(SAYS[says])))
    monkeypatch.setattr(beside_, "ANSWER_S", 0.3)

    async def body(r, road):
        await raise_a_balance(r)
        with capture_logs() as logs:
            report = await Watched(r, road, migrated_url).turn()
        assert (report.whole, found(report)) == (True, {("I3", "stop")})
        assert "audit.beside.failed" in [line["event"] for line in logs]

    scenario(migrated_url, body)


@pytest.mark.parametrize("whole", [True, False])
def test_a_process_that_says_sound_without_having_looked_is_not_believed(migrated_url, monkeypatch, whole):
    async def body(r, road):
        await raise_a_balance(r)
        monkeypatch.setattr(beside_, "WORDS", ("-c", _program(f"answer(json.dumps({{**SOUND, 'whole': {whole}}}).encode())")))
        with capture_logs() as logs:
            report = await Watched(r, road, migrated_url).turn()
        assert (report.whole, found(report)) == (True, {("I3", "stop")})
        assert {"the audit was to read everything, and has not"} == {line["detail"] for line in logs if "detail" in line}

    scenario(migrated_url, body)


def test_a_process_that_has_read_other_books_is_not_believed(migrated_url, monkeypatch):
    """As one that was led to a standby that has gone its own way."""

    async def body(r, road):
        await raise_a_balance(r)
        (name, number), *_ = (await r.database.read(auditor.facts.ends)).items()
        head = {name: [number, "f" * 64]}
        sound = {"findings": [], "counts": {"entries": 0}, "whole": True, "heads": head, "moved": head, "house": [], "holders": []}
        monkeypatch.setattr(beside_, "WORDS", ("-c", _program("answer(json.dumps(SOUND).encode())", sound)))
        with capture_logs() as logs:
            report = await Watched(r, road, migrated_url).turn()
        assert (report.whole, found(report)) == (True, {("I3", "stop")})
        assert "the audit has read batches that are not in the books" in {line.get("detail") for line in logs}

    scenario(migrated_url, body)


def test_a_pass_here_that_has_not_looked_is_no_pass_either(migrated_url, monkeypatch):
    async def body(r, road):
        monkeypatch.setattr(auditor, "SLICE_ENTRIES", 2_000)
        blind = partial(look_again, entries_max=None)
        monkeypatch.setattr(auditor, "look_again", lambda tx, terms, _: (blind(tx, terms)[0], Checkpoint({}, {})))
        with pytest.raises(NotTheBooks):
            await Watched(r, road, migrated_url).turn()
        assert await ended_at(r) == 0
        warnings = []
        room = readiness.Readiness(runtime=r.runtime, database=r.database, board=road.board, prices=None, treasury=None)
        await room._audited([], warnings)
        assert warnings == ["the books were not audited yet: does a worker run?"]

    scenario(migrated_url, body)


def test_it_is_told_no_secret_that_it_does_not_need_and_ends_with_its_pipe(migrated_url, monkeypatch):
    monkeypatch.setenv("PENSTOCK_PASSPHRASE", "a passphrase that nobody may see")
    monkeypatch.setenv("PENSTOCK_NETWORKS__ETH__RPC_URLS", "https://node.example/a-key")

    async def body(r, road):
        process = Beside(r.runtime, migrated_url, bare_environment())
        await process.look(terms_of(road), None)
        pid = process._process.pid
        shown = Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()
        assert b"penstock.ledger.beside" in shown
        assert not [word for word in (b"PENSTOCK_", b"a passphrase", migrated_url.encode()) if word in shown]
        process._process.stdin.close()  # as the kernel does for a parent that is gone
        assert await process._process.wait() == 0
        with pytest.raises(ChildFailed):
            await process.look(terms_of(road), None)
        await process.stop()

    scenario(migrated_url, body)


def test_a_reading_goes_no_further_once_nobody_waits_for_it(migrated_url):
    async def body(r, road):
        questions = beside_._Questions()

        def job(tx):
            while_asked = beside_._WhileAsked(tx, questions)
            assert look_again(while_asked, terms_of(road))[0].whole
            questions.eof_received()
            with pytest.raises(beside_._Over):
                look_again(while_asked, terms_of(road))

        await r.database.read(job)

    scenario(migrated_url, body)


def test_it_ends_with_its_pipe_in_the_middle_of_a_reading(postgres_migrated):
    async def body(r, road):
        process = Beside(r.runtime, postgres_migrated, bare_environment())
        with psycopg.connect(postgres_migrated) as locked, psycopg.connect(postgres_migrated, autocommit=True) as admin:
            locked.execute("LOCK TABLE entry IN ACCESS EXCLUSIVE MODE")
            looking = asyncio.ensure_future(process.look(terms_of(road), None))
            deadline = time.monotonic() + 60
            while not admin.execute("SELECT 1 FROM pg_locks WHERE NOT granted").fetchall():
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            process._process.stdin.close()
            await asyncio.sleep(0)
        assert await process._process.wait() == 0
        with contextlib.suppress(ChildFailed):  # the answer may have been ready before the end was seen
            await looking
        await process.stop()

    scenario(postgres_migrated, body)


def test_the_gateway_of_a_home_has_long_passes_read_beside(tmp_path, monkeypatch):
    monkeypatch.setattr(auditor, "SLICE_ENTRIES", 0)
    monkeypatch.setattr(beside_, "WORDS", ("-c", "print('it was started', flush=True)"))

    async def run():
        settings = load(environment={"PENSTOCK_HOME": str(tmp_path / "home")})
        await initialise(settings, key_file=True, asked=None)
        async with command(settings) as product:
            made = await Commands(product).add_merchant("shop", "")
            await Commands(product).credit(made["app_id"], "USDT", "100", "to begin with")
            with capture_logs() as logs:
                report = await product.auditor.turn()
            assert (report.whole, report.counts["entries"]) == (True, 1)
            assert "it was started" in {line.get("detail") for line in logs}

    asyncio.run(run())
