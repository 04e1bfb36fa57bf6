"""`penstock archive` as an operator runs it: killed with SIGKILL in the midst of it, run again, and asked about afterwards."""

import asyncio
import itertools
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from penstock.core.snowflake import compose
from penstock.db import open_database
from tests.fixtures.gateway import Make
from tests.fixtures.rooms import Rooms
from tests.integration.test_archive import DAY_MS, Clock, a_past

DEATHS = ("archive.file:named:1", "archive.record:after:1", "archive.remove:after:2", "archive.end:before:1")
"""One of each kind; every step of the way is died at in tests/integration/test_archive.py."""


async def a_day_long_ago(url: str, began_ms: int) -> None:
    runtime = Clock()
    runtime.at_ms = began_ms
    database = open_database(runtime, url)
    try:
        r = Rooms(database, runtime)
        r._ids = (compose(began_ms + n // 4096, 1, n % 4096) for n in itertools.count())
        await a_past(r, None)
    finally:
        await database.close()
        runtime.close()


@pytest.mark.slow
def test_a_command_that_is_killed_anywhere_is_ended_by_the_next_one(new_gateway: Make) -> None:
    home = new_gateway()
    began_ms = (int(time.time() * 1000) // DAY_MS - 90) * DAY_MS
    asyncio.run(a_day_long_ago(home.database_url or f"sqlite:///{home.home / 'penstock.db'}", began_ms))
    before = {name: home.order(name) for name in ("paid", "failed")}
    accounts = home.command("audit")["balances"]
    for death in DEATHS:
        words = [sys.executable, "-m", "penstock.prove.installed.crashing", "--at", death, "archive", "--before", str(began_ms + DAY_MS)]
        died = subprocess.run(words, env=home.env, cwd=home.home.parent, check=False, capture_output=True, timeout=60)
        assert died.returncode == -signal.SIGKILL, (death, died)
        report = home.command("audit")
        assert (report["breaches"], report["balances"]) == ([], accounts), death
    day = f"{datetime.fromtimestamp(began_ms / 1000 + 86_400, UTC):%Y-%m-%d}"
    (done,) = home.command("archive", "--before", day)["archives"]
    assert done["archive"] == 1  # what the last of them had begun
    assert home.command("archive", "--before", day) == {"archives": []}
    folder = home.home / "archive"
    (file,) = folder.glob("*.gz")  # named by its content, however often it was begun
    assert list(folder.iterdir()) == [file]
    chain = home.command("audit", "--verify-chain", "--archives", str(folder))
    assert chain["ok"] and chain["counts"]["archived_lines"] > 5
    for name, was in before.items():
        now = home.order(name)
        assert now["archived"] == file.name
        assert {key: now[key] for key in ("order_id", "state", "txid", "value")} == {
            key: was[key] for key in ("order_id", "state", "txid", "value")
        }
    done = home.run("webhook", "resend", "paid")
    assert done.code == 1 and f"it is archived in {file.name}" in done.err
    done = home.run("archive", "--before", f"{datetime.now(UTC):%Y-%m-%d}")
    assert done.code == 1 and "younger than 30 days" in done.err
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    broken = home.run("audit", "--verify-chain", "--archives", str(folder), "--json")
    assert broken.code == 1 and "is not the file that was written" in broken.json["first_break"]
