"""What is done for every order and every minute looks rows up, however many there are: on SQLite, which has no statistics to plan by."""

import contextlib
import re
import sqlite3
from collections import defaultdict

import pytest

from penstock.catalog import Catalog
from penstock.db import base
from penstock.devnet.boxes import make_networks
from penstock.sql import translate
from tests.fixtures.house import house_on

USDT = Catalog.load().by_symbol("USDT", "ETH")
GROWING = (
    "attempt", "attempt_order", "attempt_resource", "batch", "entry", "order_history", "order_key", "orders", "outbox", "posting",
    "single_use", "version", "version_order", "webhook_send",
)  # fmt: skip
"""Tables that have rows for each order, for ever or until the archive."""
MINUTES = 5
WHOLE = "SELECT COUNT(*) AS n FROM entry"
"""Counted once in a pass of the audit that is longer than a slice."""


@pytest.fixture
def house(tmp_path):
    def made(now_ms):
        (network,) = make_networks(Catalog.load(), ["ETH"], now_ms=now_ms, seed=1)
        return network

    with house_on(tmp_path, made) as built:
        built.run(built.set_up({"USDT": "100"}))
        hot = built.run(built.hot())
        built.network.chain.fund(hot, 10**18)
        built.network.fund(hot, 100_000_000, USDT.contract)
        built.wait(90)
        yield built


def steps(path, statements):
    """What SQLite would do for each, and the names of indexes that have a part of their rows alone."""
    with contextlib.closing(sqlite3.connect(path)) as sqlite:
        partial = {name for (name,) in sqlite.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'")}
        plans = [(text, sqlite.execute(f"EXPLAIN QUERY PLAN {text}", defaultdict(str)).fetchall()) for text in statements]
    return [(text, step) for text, plan in plans for *_, step in plan], partial


def test_neither_an_order_nor_a_minute_reads_a_table_from_end_to_end(house, monkeypatch):
    said = set()

    def translated(sql, dialect):
        said.add(text := translate(sql, dialect))
        return text

    monkeypatch.setattr(base, "translate", translated)
    assert house.run(house.withdraw("one", "USDT", "5", "0x" + "12" * 20))["code"] == 10000
    assert house.run(house.withdraw("one", "USDT", "5", "0x" + "12" * 20))["code"] == 10000
    assert house.run(house.withdraw("more", "USDT", "500", "0x" + "12" * 20))["code"] != 10000
    house.wait(60 * MINUTES)
    assert len(house.run(house.ask("/bill/info", merchant_order_ids=["one", "two"]))["data"]) == 1
    monkeypatch.undo()
    assert house.run(house.order("one"))["state"] == "succeeded"

    found, partial = steps(house.product.settings.database_url.removeprefix("sqlite:///"), said - {WHOLE})
    scans = [(step, text) for text, step in found if re.match(rf"SCAN ({'|'.join(GROWING)})\b", step)]
    assert len(found) > 100
    assert [scan for scan in scans if scan[0].rpartition(" ")[2] not in partial] == []
    keys = [step for _, step in found if re.match(r"SEARCH order_key\b", step)]
    assert keys
    assert all("(merchant_id=? AND merchant_order_id=?)" in step for step in keys)
