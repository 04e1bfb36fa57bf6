"""A database of an older version, with orders wherever they were, becomes today's: killed in each migration, losing nothing (A10)."""

import asyncio
import contextlib

import pytest

from penstock.core.attempt import AttemptState
from penstock.core.event import Included, Suspicious
from penstock.core.intent import SignLater, Standing
from penstock.core.order import OrderState
from penstock.db import open_database
from penstock.ledger.audit import audit
from penstock.ledger.report import Report
from penstock.prove.installed.ageing import age
from penstock.runtime import SystemRuntime
from penstock.sql import migrations
from tests.fixtures.rooms import rooms
from tests.integration.test_audit import a_day, terms_of
from tests.integration.test_road import usdt

GIVEN_FIRST = 9
TABLES = ("orders", "attempt", "version", "entry", "posting", "order_history", "outbox", "balance", "order_key")


async def a_busy_day(r):
    """Orders and attempts in every state that they have."""
    road = await a_day(r)
    road.signer.standing_now = Standing("the signer is stopped: lunch", {})
    await road.send()  # held
    road.signer.standing_now = Standing("", {})

    async def one(name, answer=None):
        order = usdt(r, road, name)
        await r.submit_all([order])
        await road.send()
        if answer is not None:
            road.rail.answer = lambda versions: answer(versions) if versions[0].intent.payments[0].order_id == order.wish.id else None
            await road.follow()

    await one("confirming", lambda versions: Included(versions[-1].txid, 101, 1, succeeded=True))
    await one("sent")
    road.rail.submit = dies
    with contextlib.suppress(ConnectionError):
        await one("signed")
    road.signer.later = SignLater("later", everything=True)
    await one("bound")
    road.rail.answer = Suspicious("a stranger")
    await r.database.write("look", lambda tx: tx.run("UPDATE attempt SET due_at_ms = NULL WHERE state <> 'sent'"))
    await road.follow()  # quarantined, and the lane stands
    await r.submit_all([usdt(r, road, "accepted")])
    return road


async def dies(raw):
    raise ConnectionError(len(raw))


class Killed(BaseException):
    """The process is gone."""


class Mortal(SystemRuntime):
    """Dies at a label, once."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label

    def crash_point(self, label: str) -> None:
        if label == self.label:
            raise Killed


async def die_at(url: str, label: str) -> bool:
    """Whether a start that migrates came by."""
    runtime = Mortal(label)
    database = open_database(runtime, url)
    try:
        await database.migrate()
    except Killed:
        return True
    finally:
        await database.close()
        runtime.close()
    return False


@pytest.mark.parametrize("last", [number for number, _, _ in migrations()][:-1])
def test_an_older_database_loses_nothing_however_often_its_upgrade_is_killed(migrated_url, last):
    def counted(tx):
        return {table: tx.one(f"SELECT COUNT(*) AS n FROM {table}")["n"] for table in TABLES}

    def states(tx):
        return sorted((row["state"], row["txid"]) for table in ("orders", "attempt") for row in tx.all(f"SELECT state, txid FROM {table}"))

    async def body():
        async with rooms(migrated_url) as r:
            road = await a_busy_day(r)
            terms = terms_of(road)
            before = await r.database.read(lambda tx: (counted(tx), states(tx)))
            breaches = [(f.invariant, f.text) for f in (await audit(r.database, {}, terms)).breaches]
        assert {state for state, _ in before[1]} >= {*OrderState, *AttemptState} - {AttemptState.DEAD}
        age(migrated_url, last)
        later = [number for number, _, _ in migrations() if number > last]
        for number in later:
            for when in ("before", "after"):
                assert await die_at(migrated_url, f"migrate:{number:04d}:{when}"), f"nothing comes by migration {number}"
        async with rooms(migrated_url) as r:
            assert await r.database.migrate() == []
            # What a program of before migration 9 left as signed may have been given to a node.
            expected = sorted(("sent" if state == "signed" and last < GIVEN_FIRST else state, txid) for state, txid in before[1])
            assert await r.database.read(lambda tx: (counted(tx), states(tx))) == (before[0], expected)
            report: Report = await audit(r.database, {}, terms)
            assert [(f.invariant, f.text) for f in report.breaches] == breaches
            assert not [f for f in report.findings if f.invariant == "I15"]

    asyncio.run(body())
