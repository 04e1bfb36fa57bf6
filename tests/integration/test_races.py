"""Processes of their own against one database: repeats of one id, and withdrawals against a balance that covers a few (test plan, B1 to B3)."""

import asyncio
import contextlib
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

RACER = """
import asyncio, json, sys
from penstock.core import wire
from penstock.core.order import Order
from tests.fixtures.rooms import rooms

url, worker, kind, count = sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4])

async def main():
    async with rooms(url, worker=worker) as r:
        drafts = {
            "same": lambda n: r.draft("same", "3", recipient=""),
            "bodies": lambda n: r.draft("same", str(1 + n + count * worker), recipient=""),
            "drain": lambda n: r.draft(f"{worker}-{n}", "3", recipient="" if n % 2 else "u:1000001"),
        }[kind]
        mine = [drafts(n) for n in range(count)]
        print("ready", flush=True)
        sys.stdin.readline()
        answers = await r.submit_all(mine)
    told = [json.dumps(wire.withdraw_data(a)) if isinstance(a, Order) else a.problem.name for a in answers]
    print(json.dumps(told), flush=True)

asyncio.run(main())
"""


def race(url, kind, count):
    """The answers of all processes, which start as nearly together as one line to each of them allows."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(penstock.__file__).parent.parent), str(ROOT)])}
    with contextlib.ExitStack() as stack:
        racers = [
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", RACER, url, str(worker), kind, str(count)],
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env, cwd=ROOT, text=True,
                )
            )
            for worker in range(2, 2 + PROCESSES)
        ]  # fmt: skip
        for racer in racers:
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            racer.stdin.write("go\n")
            racer.stdin.flush()
        answers = []
        for racer in racers:
            out, _ = racer.communicate(timeout=60)
            assert racer.returncode == 0
            # Warnings of the intake stand on the lines before.
            answers += json.loads(out.splitlines()[-1])
    return answers


def scenario(url, funding, kind, count, check):
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
    asyncio.run(look(race(url, kind, count)))


def test_a_thousand_repeats_of_one_id_from_three_processes_make_one_order_with_one_answer(migrated_url):
    async def check(r, answers):
        assert len(answers) == 1_002
        assert len(set(answers)) == 1
        assert json.loads(answers[0])["net_receivable"] == "3"
        assert await balances(r.database, "m:1") == {USDT: (units("97"), units("3"))}

    scenario(migrated_url, "100", "same", 334, check)


def test_one_id_with_a_thousand_bodies_from_three_processes_makes_one_order(migrated_url):
    async def check(r, answers):
        told = Counter(answer if answer.isupper() else "accepted" for answer in answers)
        assert told == {"accepted": 1, "ORDER_DUPLICATE": 1_001}

    scenario(migrated_url, "1000000", "bodies", 334, check)


@pytest.mark.parametrize("covered", [1, 7])
def test_a_thousand_withdrawals_from_three_processes_reserve_what_the_balance_covers_and_no_more(migrated_url, covered):
    async def check(r, answers):
        told = Counter(answer if answer.isupper() else "accepted" for answer in answers)
        assert told == {"accepted": covered, "BALANCE_INSUFFICIENT": 1_002 - covered}
        (available, reserved) = (await balances(r.database, "m:1"))[USDT]
        received = (await balances(r.database, "u:1000001")).get(USDT, (0, 0))[0]
        assert available == units("2")
        assert reserved + received == covered * units("3")

    scenario(migrated_url, str(covered * 3 + 2), "drain", 334, check)
