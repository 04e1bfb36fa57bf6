"""Tamper evidence: what is deleted, edited, reordered, cut off or exchanged in the past is found, and nothing is found where nothing was done."""

import asyncio
import re

from penstock.ledger import chain
from penstock.ledger.audit import audit, recompute
from penstock.orders import attempts
from penstock.prove.lane import Budget
from penstock.prove.lanes.tamper import LEAST, as_an_intruder, run
from tests.fixtures.rooms import Rooms, rooms
from tests.integration.test_audit import a_day, of_rows, terms_of
from tests.integration.test_auditor import made, touch


class Undo(Exception):
    """Takes back what was touched, with what was found."""


def scenario(url, body):
    """A day of two committers, two passes, and two things that a person did."""

    async def run_it():
        async with rooms(url) as r:
            road = await a_day(r)
            other = Rooms(r.database, r.runtime, worker=2)
            for amount in ("1", "2", "3"):
                await other.credit("m:2", amount)
            await made(r, road).turn()
            for reason in ("first look", "second look"):
                await touch(r, "UPDATE lane SET halted = 'somebody wants to look'")
                await r.database.write(
                    "resume",
                    lambda tx, why=reason: attempts.resume_lane(tx, "ETH", why, action_id=r.next_ids()[0], now_ms=r.runtime.now_ms()),
                )
            await other.credit("m:2", "4")
            await made(r, road).turn()
            await body(r, road)

    asyncio.run(run_it())


async def texts_after(r, road, *statements, head=""):
    """What breaks of the chain are named after these statements, which are taken back again."""

    def job(tx):
        as_an_intruder(tx)
        for sql in statements:
            tx.run(sql)
        raise Undo([f.text for f in of_rows(recompute(tx, terms_of(road), wanted_head=head)) if f.invariant == "I15"])

    try:
        await r.database.write("tamper", job)
    except Undo as undone:
        return undone.args[0]


NEW = "committer = 'test-2' AND number >= 4"
CUT = (
    f"DELETE FROM posting WHERE entry_id IN (SELECT entry.id FROM entry JOIN batch ON batch.id = entry.batch_id WHERE {NEW})",
    f"DELETE FROM entry WHERE batch_id IN (SELECT id FROM batch WHERE {NEW})",
    f"DELETE FROM batch WHERE {NEW}",
)
RENAME = [
    f"UPDATE {table} SET committer = '{to}' WHERE committer = '{name}'"
    for name, to in (("test-1", "x"), ("test-2", "test-1"), ("x", "test-2"))
    for table in ("batch",)
]
BREAKS = {
    "a link is taken out": (["DELETE FROM batch WHERE committer = 'test-2' AND number = 2"], "batch 3 of test-2 does not follow batch 1"),
    "a note is edited": (
        ["UPDATE entry SET note = 'x' WHERE batch_id = (SELECT id FROM batch WHERE committer = 'test-2' AND number = 2)"],
        "batch 2 of test-2 does not hold the rows it was sealed over",
    ),
    "two links change places": (
        [
            "UPDATE batch SET number = 99 WHERE committer = 'test-2' AND number = 2",
            "UPDATE batch SET number = 2 WHERE committer = 'test-2' AND number = 3",
            "UPDATE batch SET number = 3 WHERE committer = 'test-2' AND number = 99",
        ],
        "batch 2 of test-2 does not follow batch 1",
    ),
    "the end is cut off": (CUT, "checkpoint 2 has seen another batch 4 of test-2"),
    "two chains are exchanged": (RENAME, "checkpoint 1 has seen another batch {n} of test-1"),
    "a checkpoint is taken out": (["DELETE FROM audit_checkpoint WHERE number = 1"], "checkpoint 2 does not follow checkpoint 0"),
    "the last checkpoint is cut off": (
        ["DELETE FROM audit_checkpoint WHERE number = 2"],
        "the last pass has read to other heads than the last checkpoint names: one of them was changed or cut off",
    ),
    "a checkpoint is edited": (["UPDATE audit_checkpoint SET at_ms = 1 WHERE number = 1"], "checkpoint 1 is not what it was when it was written"),
    "a reason is edited": (
        ["UPDATE operator_action SET reason = 'x' WHERE number = 1"],
        "operator action 1 is not what it was when it was written",
    ),
    "an action is taken out": (["DELETE FROM operator_action WHERE number = 1"], "operator action 2 does not follow action 0"),
    "the last action is cut off": (
        ["DELETE FROM operator_action WHERE number = 2"],
        "operator action 2 is another one than the last checkpoint has seen",
    ),
    "an action stands outside": (
        ["INSERT INTO operator_action (id, at_ms, action, subject, reason) SELECT 7, at_ms + 1, action, subject, reason FROM operator_action WHERE number = 2"],
        "operator action with id 7 stands outside of the chain",
    ),
}  # fmt: skip


def test_the_first_break_is_named(migrated_url):
    async def body(r, road):
        assert await texts_after(r, road) == []
        for name, (statements, expected) in BREAKS.items():
            texts = await texts_after(r, road, *statements)
            assert texts, name
            assert (name, re.sub(r"batch \d+ of test-1", "batch {n} of test-1", texts[0])) == (name, expected)

    scenario(migrated_url, body)


def test_a_history_that_was_made_anew_does_not_have_the_head_that_was_written_down(migrated_url):
    """Whoever has the whole database can make every hash anew, or put an old copy in its place. A head elsewhere tells."""

    async def body(r, road):
        head = await r.database.read(chain.head)
        assert await texts_after(r, road, head=head) == []
        await r.credit("m:1", "1")
        await made(r, road).turn()
        assert await texts_after(r, road, head=head) == []  # an older head is still there
        newest = await r.database.read(chain.head)
        old_copy = [
            "DELETE FROM audit_checkpoint WHERE number = 3",
            "DELETE FROM audit_head",
            """INSERT INTO audit_head (committer, number, hash) SELECT committer, number, hash FROM batch AS b
            WHERE number = (SELECT MAX(number) FROM batch WHERE batch.committer = b.committer)""",
        ]
        texts = await texts_after(r, road, *old_copy, head=newest)
        assert any(text.startswith(f"no checkpoint has the hash {newest}") for text in texts)

    scenario(migrated_url, body)


def test_two_people_at_once_make_one_chain(migrated_url):
    async def body(r, road):
        def job(tx, number):
            chain.record_action(tx, 1_000 + number, action="note", subject="s", reason=str(number), at_ms=5)

        await asyncio.gather(*(r.database.write("note", lambda tx, n=n: job(tx, n)) for n in range(20)))
        rows = await r.database.read(lambda tx: tx.all("SELECT number FROM operator_action ORDER BY number"))
        assert [row["number"] for row in rows] == list(range(1, 23))
        assert (await audit(r.database, {}, terms_of(road))).findings == []

    scenario(migrated_url, body)


def test_a_thousand_tamperings_are_found_and_nothing_is_found_where_nothing_was_done(tmp_path, postgres_database):
    tried = run(Budget(seconds=10, seed=3, folder=tmp_path, postgresql=postgres_database))
    assert tried.found == ()
    assert tried.counts["tamperings"] + tried.counts["refused_or_nothing"] >= 2 * LEAST
    assert tried.counts["had_to_be_found"] > LEAST
    assert {row["table"] for row in tried.table} >= {"posting", "orders", "operator_action"}


def test_the_lane_says_what_the_audit_does_not_see(tmp_path, monkeypatch):
    monkeypatch.setattr("penstock.ledger.rules.check_order", lambda *_: None)
    assert run(Budget(seconds=0, seed=3, folder=tmp_path)).found != ()
