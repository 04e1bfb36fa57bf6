"""What is done for every order and every minute looks rows up, however many there are: on SQLite, which has no statistics to plan by."""

import contextlib
import re
import sqlite3
from collections import defaultdict

import pytest

from penstock.db import base
from penstock.sql import translate
from tests.fixtures.house import evm_house

GROWING = (
    "attempt", "attempt_order", "attempt_resource", "batch", "entry", "order_history", "order_key", "orders", "outbox", "posting",
    "single_use", "version", "version_order", "webhook_send",
)  # fmt: skip
"""Tables that have rows for each order, for ever or until the archive."""
MINUTES = 5


@pytest.fixture
def house(tmp_path):
    with evm_house(tmp_path) as built:
        yield built


def steps(path, statements):
    """What SQLite would do for each, and the names of indexes that have a part of their rows alone."""
    with contextlib.closing(sqlite3.connect(path)) as sqlite:
        partial = {name for (name,) in sqlite.execute("SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '% WHERE %'")}
        plans = [(text, sqlite.execute(f"EXPLAIN QUERY PLAN {text}", defaultdict(str)).fetchall()) for text in statements]
    return [(text, step) for text, plan in plans for *_, step in plan], partial


def table_of(step, text):
    """What is read in a step of a plan, which says the table's other name where the statement gives it one."""
    name = step.split()[1]
    aliased = re.search(rf"\b(\w+) AS {re.escape(name)}\b", text)
    return aliased[1] if aliased else name


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

    found, partial = steps(house.product.settings.database_url.removeprefix("sqlite:///"), said)
    scans = [(step, text) for text, step in found if step.startswith("SCAN ") and table_of(step, text) in GROWING]
    assert len(found) > 100
    assert [scan for scan in scans if scan[0].rpartition(" ")[2] not in partial] == []
    keys = [step for _, step in found if re.match(r"SEARCH order_key\b", step)]
    assert {re.search(r"\((.*?)\)", step)[1] for step in keys} == {"merchant_id=? AND merchant_order_id=?", "rowid=?"}
