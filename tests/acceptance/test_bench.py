"""`penstock bench`: that it measures what it says. Nothing here asks how fast anything is."""

import asyncio
import contextlib
import io
import json
import subprocess
import sys

import pytest
from rich.console import Console

from penstock.bench import place, preload, result, run
from penstock.bench.baseline import own_database
from penstock.bench.load import Measured
from penstock.bench.parts import Case, Sample, _wrong
from penstock.bench.processes import Used
from penstock.core.order import OrderState
from penstock.core.withdrawal import WithdrawRequest
from penstock.process import command
from tests.fixtures.databases import postgres_programs

CASE = Case("accept", "postgresql", 1, 0)


@pytest.mark.slow
def test_a_quick_run_counts_its_orders_on_both_databases_and_compares_them(tmp_path, postgres_url):
    report = tmp_path / "bench.html"
    only = [
        word for part in ("accept", "query", "settle", "batched", "batched-evm", "webhooks", "mixed", "sign") for word in ("--only", part)
    ]
    words = [
        "bench",
        "--quick",
        "--json",
        "--report",
        report,
        *only,
        "--postgresql",
        postgres_url,
        "--pgbench",
        postgres_programs() / "pgbench",
    ]
    done = subprocess.run([sys.executable, "-m", "penstock", *words], check=False, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["ok"] and not found["wrong"]
    parts = {(row["part"], row["store"]) for row in found["results"]}
    assert parts == {
        (part, store)
        for part in ("accept", "query-1", "query-100", "settle", "batched", "batched-evm", "webhooks", "mixed", "sign")
        for store in ("sqlite", "postgresql")
    }
    for row in found["results"]:
        assert row["per_second"] > 0
        if not row["part"].startswith("query"):
            assert row["ratio"] == pytest.approx(row["per_second"] / row["baseline_per_second"], rel=0.01, abs=0.01)
    assert {(base["clients"], base["accounts"]) for base in found["baselines"]} == set(run.BASELINES)
    assert {(start["store"], start["network"]) for start in found["starts"]} == {
        (store, chain) for store in ("sqlite", "postgresql") for chain in ("ETH", "BTC")
    }
    assert "mixed postgresql" in report.read_text()


def seen(**changes):
    values = {"done": 10, "refused": 0, "began_at_ms": 0, "p50_ms": 1.0, "p99_ms": 2.0, "used": Used(1.0, {"load": 0.1}), "codes": {}}
    return Measured(**{**values, **changes})


def test_success_without_a_stored_order_is_no_success():
    assert not _wrong(CASE, seen(), 10, 10)
    assert "9 of 10 are there" in _wrong(CASE, seen(), 9, 10)
    assert "11 of 10 are there" in _wrong(CASE, seen(), 11, 10)
    assert "12000" in _wrong(CASE, seen(done=9, refused=1, codes={"12000": 1}), 10, 10)


def test_what_was_wrong_stands_at_the_end_and_the_median_of_a_cases_own_rounds_counts(tmp_path):
    state = run.Bench(run.QUICK, say=lambda _: None, pgbench=None, baseline_url="", folder=tmp_path)
    state.baselines.append({(64, 1): 1.0})  # of other cases, before
    for rate, base, wrong in ((100.0, 20.0, ""), (900.0, 30.0, ""), (300.0, 25.0, "an order is missing")):
        state.keep(CASE, Sample(rate, 1.0, 2.0, {"rss_mb": 100}, wrong))
        state.baselines.append({(64, 1): base})
    state.baselines.append({(64, 1): 1_000.0})
    (row,) = run._results(state.samples, state.baselines)
    assert (row["per_second"], row["baseline_per_second"], row["ratio"]) == (300.0, 25.0, 12.0)
    values = {"machine": "m", "at": "t", "ok": not state.wrong, "wrong": state.wrong, "results": [row], "baselines": [], "starts": []}
    assert result.verdict(values) == "Something is wrong: an order is missing"


def test_a_table_and_a_page_show_each_case_with_what_it_is_held_against(tmp_path):
    state = run.Bench(run.QUICK, say=lambda _: None, pgbench=None, baseline_url="", folder=tmp_path)
    state.keep(CASE, Sample(4321.0, 12.5, 40.25, {"gateway_cores": 0.91, "wal_bytes": 1946}))
    state.keep(Case("query-100", "sqlite", 1, 1_000_000), Sample(500.0, 1.0, 2.0))
    state.baselines.append({(64, 1): 1234.5})
    values = {"version": "0", "took_s": 1, "size": {"rounds": 1}, "machine": "m", "at": "t", "ok": True, "wrong": [], "baselines": []}
    values |= {"results": run._results(state.samples, state.baselines)}
    values |= {"starts": [{"store": "sqlite", "network": "ETH", "preloaded": 0, "first_answer_s": 0.8}]}
    console = Console(width=250, record=True, file=io.StringIO())
    console.print(result.on_terminal(values))
    table = console.export_text()
    assert "4,321" in table and "3.5" in table and "1,946" in table and "0.8 s" in table and result.COUNTED in table
    page = result.page(values)
    assert "accept postgresql (1 merchant)" in page and "query-100 sqlite (1 merchant, 1,000,000 before)" in page


@pytest.mark.parametrize(
    ("asked", "requests", "lives", "rounds", "preloads"),
    [
        ({}, 20_000, 10_000, 5, (0, 1_000_000)),
        ({"orders": 1_000, "rounds": 2, "preload": 0}, 1_000, 500, 2, (0,)),
        ({"quick": True, "preload": 500}, 200, 60, 1, (0, 500)),
    ],
)
def test_how_much_is_measured_is_what_was_asked_for(asked, requests, lives, rounds, preloads):
    size = run.sized(**{"quick": False, "orders": None, "rounds": None, "preload": None, **asked})
    assert (size.requests, size.lives, size.rounds, size.preloads) == (requests, lives, rounds, preloads)


def test_a_part_that_there_is_not_is_named():
    assert run.chosen([]) == ["accept", "internal", "query", "settle", "batched", "batched-evm", "webhooks", "mixed", "sign"]
    with pytest.raises(ValueError, match="no part is called fast; there are accept, internal"):
        run.chosen(["fast"])


@pytest.mark.slow
@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_orders_that_were_there_before_are_settled_ones_which_the_audit_and_a_repeat_know(store, tmp_path, request, monkeypatch):
    """More than one transaction of them, over merchants and accounts, each with its event."""
    monkeypatch.setattr(preload, "BATCH_MAX", 150)
    orders = 501

    async def scenario(url):
        async with place.opened_place(store, url, tmp_path / "home", merchants=3, preload=orders, say=lambda _: None) as house:
            assert await place.counted(house) == (orders, 0)
            assert await place.audited(house) == []
            async with command(house.settings) as product, product.taking_orders():
                for number in (7, orders - 1):
                    again = WithdrawRequest(
                        f"preloaded-{number}", house.accounts[number % place.ACCOUNTS], house.token_id, 10**18, "", False, False
                    )
                    merchant = await product.directory.by_app_id(house.merchants[number % 3 if number >= place.ACCOUNTS else 0][0])
                    order = await product.accept.withdraw(merchant, again)
                    (stored,) = (await product.store.find(merchant.id, [f"preloaded-{number}"])).values()
                    assert (stored, stored.state) == (order, OrderState.SUCCEEDED)
            assert await place.counted(house) == (orders, 0)

    with contextlib.ExitStack() as stack:
        url = stack.enter_context(own_database(request.getfixturevalue("postgres_url"))) if store == "postgresql" else ""
        asyncio.run(scenario(url))
