"""The servers that other tests rely on are what they say they are."""

import asyncio
import json
import time
import urllib.request
from urllib.parse import urlsplit

import psycopg
import pytest

from penstock.db import open_database
from penstock.runtime import SystemRuntime
from tests.fixtures.nodes import anvil_node
from tests.fixtures.processes import free_port


def rpc(url, method, *params):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)["result"]


def test_each_test_gets_an_empty_database(database_url):
    if database_url.startswith("sqlite:"):
        assert database_url.startswith("sqlite:////")
        return
    with psycopg.connect(database_url) as db:
        assert db.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)
        db.execute("CREATE TABLE left_behind (x int)")


@pytest.mark.parametrize("again", [1, 2])
def test_a_migrated_database_is_up_to_date_and_empty(migrated_url, again):
    async def job():
        database = open_database(runtime, migrated_url)
        pending = await database.pending_migrations()
        orders = await database.read(lambda tx: tx.all("SELECT * FROM orders"))
        await database.close()
        return pending, orders

    runtime = SystemRuntime()
    assert asyncio.run(job()) == ([], [])
    runtime.close()


@pytest.mark.parametrize("again", [1, 2])
def test_nothing_is_left_behind_in_postgresql(postgres_database, again):
    with psycopg.connect(postgres_database) as db:
        assert db.execute("SELECT to_regclass('left_behind')").fetchone() == (None,)
        db.execute("CREATE TABLE left_behind (x int)")


def test_postgresql_is_safe_and_on_loopback(postgres_url):
    with psycopg.connect(postgres_url) as db:
        settings = dict(db.execute("SELECT name, setting FROM pg_settings").fetchall())
    assert settings["fsync"] == settings["synchronous_commit"] == settings["full_page_writes"] == "on"
    assert urlsplit(postgres_url).hostname == "127.0.0.1"


def test_postgresql_asks_for_the_password(postgres_url):
    parts = urlsplit(postgres_url)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(f"postgresql://{parts.username}:wrong@{parts.hostname}:{parts.port}/postgres")


def test_anvil_mines_each_transaction_on_chain_31337(anvil):
    assert int(rpc(anvil, "eth_chainId"), 16) == 31337
    sender, recipient = rpc(anvil, "eth_accounts")[:2]
    txid = rpc(anvil, "eth_sendTransaction", {"from": sender, "to": recipient, "value": "0x1"})
    while (receipt := rpc(anvil, "eth_getTransactionReceipt", txid)) is None:  # mined at once, but not before the answer
        time.sleep(0.01)
    assert receipt["status"] == "0x1"


@pytest.mark.parametrize("anvil", [{"chain_id": 31338, "block_time_s": 1}], indirect=True)
def test_anvil_takes_a_chain_id_and_a_block_time(anvil):
    assert int(rpc(anvil, "eth_chainId"), 16) == 31338


def test_anvil_is_gone_after_its_test():
    with anvil_node("--no-mining") as node:
        assert rpc(node.url, "eth_blockNumber") == "0x0"
    assert node.process.returncode is not None


def test_free_ports_differ():
    assert len({free_port() for _ in range(20)}) > 1
