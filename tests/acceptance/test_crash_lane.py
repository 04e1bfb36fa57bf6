"""The crash lane as `penstock prove` runs it, at its shortest, on both databases; and that the product itself has no way to be told to die."""

import ast
import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import penstock
from penstock.prove.installed import plan, points
from penstock.prove.installed.blows import KillAt
from penstock.prove.lane import Budget
from penstock.prove.lanes import crash
from tests.fixtures.databases import fresh_database, postgres_server
from tests.fixtures.gateway import Make, token_id, unique
from tests.fixtures.immediate import restarter

SECONDS = 60


def tell(request: pytest.FixtureRequest, folder: Path, url: str = "", restart=None) -> None:
    seed = request.config.getoption("--seed") or request.config.getoption("--first-seed")
    databases = ("postgresql",) if url else ("sqlite",)
    tried = asyncio.run(crash.run(Budget(SECONDS, seed, folder, 1, url), restart=restart, databases=databases))
    assert tried.found == (), "\n".join(f"{found.breach}: {found.text} ({found.replay})" for found in tried.found)
    assert tried.counts["orders"] > 10 and tried.counts["blows"] >= 2 and tried.counts["unfinished_stories"] == 0, tried


@pytest.mark.slow
def test_however_often_the_program_is_killed_on_sqlite_each_order_is_paid_once(request, tmp_path):
    tell(request, tmp_path)


@pytest.mark.slow
def test_however_often_the_program_is_killed_on_postgresql_each_order_is_paid_once(request, tmp_path):
    with postgres_server() as server, restarter(server) as restart:
        tell(request, tmp_path, server.url, restart)


@pytest.mark.parametrize("database", crash.DATABASES)
def test_consecutive_seeds_come_by_every_label(database):
    every = {point.label for point in points.points(database)}
    seen = {point.label for seed in range(100, 100 + len(every) // 3 + 1) for point in points.chosen(database, seed, 3)}
    assert seen == every


@pytest.mark.parametrize("database", crash.DATABASES)
def test_a_schema_is_made_once_and_first_however_many_rounds_there_are(database):
    """From the second round on its labels were waited for in vain, the life in which they never came was left behind, and each one after it
    was refused the home, which counted as a kill: at the size of `penstock prove` nothing was killed at all. (A run of ten minutes.)
    """
    blows = plan.plan(database, 5, 10, restarts=True)
    schema = [point.label for point in points.points(database) if point.weather == "migration"]
    assert [blow.point.label for blow in blows[: len(schema)]] == schema
    others = [blow for blow in blows[len(schema) :] if isinstance(blow, KillAt)]
    assert not [blow for blow in others if blow.point.label in schema]
    assert {blow.point.label for blow in others} == {point.label for point in points.points(database)} - set(schema)


@pytest.mark.parametrize("depth", [1, 2, 4, 10])
@pytest.mark.parametrize("database", crash.DATABASES)
def test_a_recovery_that_dies_again_and_again_comes_each_time_a_step_further(database, depth):
    """Bytes that are put back once are not put back again: a later kill there would never fall."""
    order = ("recovery.journal", "recovery.restore", "recovery.release")
    for seed in range(20):
        first, *chain = points.recovery(database, random.Random(seed), depth)
        assert first.label == "signer:journaled" and len(chain) == depth
        steps = [order.index(name) for point in chain if (name := point.label.partition(":")[0]) in order]
        assert steps == sorted(set(steps))


def test_every_label_of_the_lane_is_one_that_the_product_has():
    """A label that nothing visits would be a kill that never falls."""
    text = "\n".join(path.read_text() for path in product_files())
    for point in points.points("sqlite"):
        name, _, when = point.label.rpartition(":")
        if name.startswith("migrate"):
            continue
        if name == "flight":
            assert f'name="{when}"' in text, point
        else:
            assert f'crash_point("{point.label}")' in text or f'write("{name}"' in text or f'write(\n            "{name}"' in text, point


def product_files() -> Iterator[Path]:
    """What runs in production: nothing that proves, shows or measures."""
    root = Path(penstock.__file__).parent
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in {"prove", "demo", "bench"}:
            yield path


def test_the_product_has_no_words_to_kill_itself():
    """Crash points act through an injected machine alone: nothing in the product can end its own process at once."""
    deadly = {("os", "kill"), ("os", "_exit"), ("os", "abort"), ("os", "killpg"), ("signal", "raise_signal"), ("ctypes", "string_at")}
    for path in product_files():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert (node.value.id, node.attr) not in deadly, f"{path}:{node.lineno}"
    [crash_point] = [
        node
        for node in ast.walk(ast.parse((Path(penstock.__file__).parent / "runtime.py").read_text()))
        if isinstance(node, ast.ClassDef) and node.name == "SystemRuntime"
        for node in node.body
        if isinstance(node, ast.FunctionDef) and node.name == "crash_point"
    ]
    assert len(crash_point.body) == 1 and isinstance(crash_point.body[0], ast.Expr), "the real machine does nothing at a crash point"


def test_no_variable_and_no_setting_makes_serve_die(new_gateway: Make):
    gateway = new_gateway()
    for section in ("CRASH", "PROVE", "RUNTIME"):
        done = gateway.run("migrate", **{f"PENSTOCK_{section}__AT": "migrate:look:before:1"})
        assert done.code == 2 and "there is no section" in done.err, done
    merchant = gateway.merchant(USDT="10")
    c_id, _ = gateway.account()
    gateway.start(CRASH="intake:before:1", CRASH_AT="intake:before:1", PENSTOCK_CRASH="intake:before:1", PENSTOCK_AT="intake:before:1")
    assert merchant.accepted(merchant_order_id=unique("alive"), address=c_id, token_id=token_id("USDT", "ETH"), value="1")["order_id"]


@pytest.mark.parametrize("setting", ["fsync", "full_page_writes"])
def test_a_server_that_forgets_what_it_committed_is_refused(commands_of, setting):
    with postgres_server(**{setting: "off"}) as server:
        refused(commands_of(server.url), setting)


@pytest.mark.parametrize("value", ["off", "local"])
def test_a_database_that_answers_before_it_is_durable_is_refused(commands_of, postgres_url, value):
    with fresh_database(postgres_url, "template0") as url:
        with psycopg.connect(url, autocommit=True) as admin:
            name = admin.info.dbname
            admin.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = {value}')
        refused(commands_of(url), "synchronous_commit")


def refused(done, setting: str) -> None:
    assert done.code == 2 and f"PostgreSQL runs with {setting}=" in done.err, done


@pytest.fixture
def commands_of(bare_home):
    """`serve` on a home whose database is elsewhere."""
    return lambda url: bare_home.run("serve", "--database", url)
