"""Processes of their own against one database: repeats of one id, and withdrawals against a balance that covers a few (test plan, B1 to B3)."""

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import penstock
from penstock.ledger.book import balances
from tests.fixtures.rooms import USDT, rooms, units

ROOT = Path(__file__).parent.parent.parent
PROCESSES = 3

RACERS = """
import asyncio, json, os, sys, traceback
from pathlib import Path
from penstock.core import wire
from penstock.core.order import Order
from tests.fixtures.rooms import rooms

url, kind, count, processes, folder = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5])

async def race(worker):
    async with rooms(url, worker=worker) as r:
        drafts = {
            "same": lambda n: r.draft("same", "3", recipient=""),
            "bodies": lambda n: r.draft("same", str(1 + n + count * worker), recipient=""),
            "drain": lambda n: r.draft(f"{worker}-{n}", "3", recipient="" if n % 2 else "u:1000001"),
        }[kind]
        mine = [drafts(n) for n in range(count)]
        os.write(1, b"ready\\n")
        os.read(0, 1)
        answers = await r.submit_all(mine)
    told = [json.dumps(wire.withdraw_data(a)) if isinstance(a, Order) else a.problem.name for a in answers]
    (folder / f"{worker}.json").write_text(json.dumps(told))

racers = []
for worker in range(2, 2 + processes):
    racers.append(os.fork())
    if racers[-1] == 0:
        try:
            asyncio.run(race(worker))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os.write(1, b"failed\\n")
            os._exit(1)
sys.exit(any([os.waitpid(racer, 0)[1] for racer in racers]))
"""
"""Processes that have imported everything together, which costs more than the race."""


def race(url, kind, count, folder):
    """The answers of all processes, which start as nearly together as all of them can read the end of one pipe."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(penstock.__file__).parent.parent), str(ROOT)])}
    command = [sys.executable, "-c", RACERS, url, kind, str(count), str(PROCESSES), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=ROOT, text=True) as racers:
        ready = [racers.stdout.readline() for _ in range(PROCESSES)]
        assert ready == ["ready\n"] * PROCESSES
        racers.stdin.close()
        racers.stdout.read()  # warnings of the intake
        assert racers.wait(60) == 0
    told = sorted(folder.glob("*.json"))
    assert len(told) == PROCESSES
    return [answer for file in told for answer in json.loads(file.read_text())]


def scenario(url, folder, funding, kind, count, check):
    async def fund():
        async with rooms(url, worker=1) as r:
            await r.credit("m:1", funding)

    async def look(answers):
        async with rooms(url, worker=1) as r:
            await check(r, answers)
            report = await r.audit()
            assert report.breaches == []
            assert {warning.invariant for warning in report.warnings} <= {"I11"}

    asyncio.run(fund())
    asyncio.run(look(race(url, kind, count, folder)))


def test_a_thousand_repeats_of_one_id_from_three_processes_make_one_order_with_one_answer(migrated_url, tmp_path):
    async def check(r, answers):
        assert len(answers) == 1_002
        assert len(set(answers)) == 1
        assert json.loads(answers[0])["net_receivable"] == "3"
        assert await balances(r.database, "m:1") == {USDT: (units("97"), units("3"))}

    scenario(migrated_url, tmp_path, "100", "same", 334, check)


def test_one_id_with_a_thousand_bodies_from_three_processes_makes_one_order(migrated_url, tmp_path):
    async def check(r, answers):
        told = Counter(answer if answer.isupper() else "accepted" for answer in answers)
        assert told == {"accepted": 1, "ORDER_DUPLICATE": 1_001}

    scenario(migrated_url, tmp_path, "1000000", "bodies", 334, check)


@pytest.mark.parametrize("covered", [1, 7])
def test_a_thousand_withdrawals_from_three_processes_reserve_what_the_balance_covers_and_no_more(migrated_url, tmp_path, covered):
    async def check(r, answers):
        told = Counter(answer if answer.isupper() else "accepted" for answer in answers)
        assert told == {"accepted": covered, "BALANCE_INSUFFICIENT": 1_002 - covered}
        (available, reserved) = (await balances(r.database, "m:1"))[USDT]
        received = (await balances(r.database, "u:1000001")).get(USDT, (0, 0))[0]
        assert available == units("2")
        assert reserved + received == covered * units("3")

    scenario(migrated_url, tmp_path, str(covered * 3 + 2), "drain", 334, check)
