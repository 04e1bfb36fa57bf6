"""Where a benchmark happens: a home with merchants and money on one store, the network outside of it, and what its books say afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import psycopg
from embit import bech32

from penstock.bench.outside import bitcoin, evm
from penstock.bench.preload import preload_orders
from penstock.bench.processes import answered, family, free_port, program, rss_mb, shared
from penstock.commands import Commands
from penstock.config import Settings, load
from penstock.db import Row, open_database
from penstock.process import command
from penstock.runtime import SystemRuntime
from penstock.setup import initialise
from penstock.wiring import Product

BLOCK_MS: Final = 200
ACCOUNTS: Final = 200
OPENED_S: Final = 60.0
"""Until a house can use its tokens."""
_BOUND: Final = "SELECT MIN(at_ms) AS at_ms FROM order_history WHERE after = 'sending' AND at_ms >= :since_ms"
_SENT: Final = "SELECT MIN(at_ms) AS at_ms FROM webhook_send WHERE at_ms >= :since_ms"


@dataclass(frozen=True, slots=True)
class Network:
    """What a house pays on: `settings` are the product's own, `recipient` says who gets the order of a number, `value` how much. Where
    it `opens` its tokens, the hot address allows a contract to pay them to many.
    """

    chain: str
    symbol: str
    family: str
    settings: Mapping[str, Any]
    credit: str
    value: str
    recipient: Callable[[int], str]
    opens: bool = False


EVM: Final = Network(
    "ETH",
    "USDT",
    "evm",
    {"chain_id": evm.CHAIN_ID, "confirmations": 1, "block_ms": BLOCK_MS, "in_flight_max": 2_000},
    credit="1000000000",
    value="25",
    recipient=lambda _: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
)
"""A transaction for each order."""
EVM_MANY: Final = replace(
    EVM,
    settings={**EVM.settings, "batch_max": 100},
    recipient=lambda number: "0x" + (number + 10**6).to_bytes(20, "big").hex(),
    opens=True,
)
"""A transaction for up to a hundred of them."""
BITCOIN: Final = Network(
    "BTC",
    "BTC",
    "bitcoin",
    {"chain_id": bitcoin.CHAIN_ID, "confirmations": 1, "block_ms": BLOCK_MS, "batch_window_s": 0},
    credit="100000",
    value="0.01",
    recipient=lambda number: bech32.encode("bcrt", 0, number.to_bytes(20, "big")),
)
"""A transaction for as many orders as the catalogue says."""


@dataclass(frozen=True, slots=True)
class Place:
    """A funded house on one store. `merchants` are (app id, secret); the first is the busy one."""

    store: str
    network: Network
    settings: Settings
    environment: dict[str, str]
    merchants: list[tuple[str, str]]
    accounts: list[str]
    token_id: str
    outside: str
    outside_pid: int
    preloaded: int = 0

    @property
    def log(self) -> Path:
        """What its processes say."""
        return self.settings.home.with_suffix(".log")

    @property
    def port(self) -> int:
        """Where its gateway listens."""
        return int(self.settings.server.listen.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running gateway: the process that was started, and how long it took to its first answer."""

    pid: int
    start_s: float

    def memory_mb(self) -> int:
        """The most that the largest of its processes has held."""
        return max(rss_mb(pid) for pid in family(self.pid))


@contextlib.asynccontextmanager
async def opened_place(
    store: str, url: str, home: Path, *, merchants: int, preload: int, say: Callable[[str], None], network: Network = EVM
) -> AsyncIterator[Place]:
    """A home with keys, merchants, money, accounts and that many settled orders, and a network of its own."""
    port = free_port()
    await asyncio.to_thread(home.mkdir, mode=0o700)
    async with program(os.environ, home.with_suffix(".log"), "penstock.bench.outside", str(port), network.family, str(BLOCK_MS)) as child:
        url_outside = f"http://127.0.0.1:{port}"
        await answered(f"{url_outside}/count", child)
        place = await _built(store, network, url, home, outside=(url_outside, child.pid), merchants=merchants)
        if preload:
            await _preload(place, preload, say)
        async with _house(place.settings) as product:
            # Only now: what was preloaded has no receiver, so its events are parked and nobody sends them.
            for app_id, _ in place.merchants:
                await Commands(product).set_merchant(app_id, webhook_url=f"{url_outside}/webhook", disabled=None, ip_allow=None)
        if network.opens:
            await _opened(place)
        yield replace(place, preloaded=preload)


async def _opened(place: Place) -> None:
    """Its hot address allows what it must allow, as an operator has it do that. Raises TimeoutError."""
    async with asyncio.timeout(OPENED_S), gateway(place, "all"), _house(place.settings) as product:
        opened: list[Any] = []  # nothing yet while there is no hot address
        while not opened or (await _asked(place, "SELECT COUNT(*) AS n FROM attempt WHERE state <> 'final'"))["n"]:
            opened = opened or await Commands(product).open_tokens(place.network.chain)
            await asyncio.sleep(OPENED_S / 100)


@contextlib.asynccontextmanager
async def _house(settings: Settings) -> AsyncIterator[Product]:
    """The product as a command has it, for longer than the lease of a worker number lasts."""
    async with command(settings) as product:
        keeping = product.runtime.spawn(product.ids.keep(), name="ids")
        try:
            yield product
        finally:
            keeping.cancel()


async def _built(store: str, network: Network, url: str, home: Path, *, outside: tuple[str, int], merchants: int) -> Place:
    outside_url, outside_pid = outside
    lines = [
        f'[server]\nlisten = "127.0.0.1:{free_port()}"',
        "[limits]\nrequests_per_second = 0",
        "[webhooks]\nallow_private_targets = true",
        f"[networks.{network.chain}]",
        *(f"{key} = {json.dumps(value)}" for key, value in {"rpc_urls": [outside_url], **network.settings}.items()),
    ]
    (home / "penstock.toml").write_text("\n".join(lines) + "\n", "utf-8")
    environment = {**os.environ, "PENSTOCK_HOME": str(home), **({"PENSTOCK_DATABASE__URL": url} if url else {})}
    settings = load(environment=environment)
    await initialise(settings, key_file=True, asked=None)
    async with _house(settings) as product:
        commands = Commands(product)
        made = [await commands.add_merchant(f"merchant {number}", "") for number in range(merchants)]
        for merchant in made:
            await commands.credit(merchant["app_id"], network.symbol, network.credit, "benchmark")
        people = [await commands.add_account(f"person{number}@example.com", f"Person {number}") for number in range(ACCOUNTS)]
        token = product.catalog.by_symbol(network.symbol, network.chain)
        if token is None:
            raise LookupError(f"the catalogue has no {network.symbol} on {network.chain} any more")
    credentials = [(merchant["app_id"], merchant["app_secret"]) for merchant in made]
    accounts = [person["c_id"] for person in people]
    return Place(store, network, settings, environment, credentials, accounts, token.id, outside_url, outside_pid)


async def _preload(place: Place, orders: int, say: Callable[[str], None]) -> None:
    async with _house(place.settings) as product:
        await preload_orders(product, place.accounts, place.token_id, orders, lambda line: say(f"{place.store}: {line}"))


@contextlib.asynccontextmanager
async def gateway(place: Place, role: str, processes: int = 1) -> AsyncIterator[Gateway]:
    """The product over a place, in so many processes by its own setting."""
    began = time.monotonic()
    url = f"http://127.0.0.1:{place.port}/readyz"
    environment = place.environment | {"PENSTOCK_SERVER__PROCESSES": str(processes)}
    async with program(environment, place.log, "penstock.bench.gateway", role) as child:
        await answered(url, child)
        start_s = round(time.monotonic() - began, 2)
        await shared(place.port, processes)
        for _ in range(20 * (processes - 1)):
            await answered(url)  # each on a connection of its own, so that every process is asked
        yield Gateway(child.pid, start_s)


async def counted(place: Place) -> tuple[int, int]:
    """Rows of orders in the database itself: all of them, and those that are not decided."""
    row = await _asked(place, "SELECT COUNT(*) AS n, COUNT(decided_at_ms) AS decided FROM orders")
    return int(row["n"]), int(row["n"] - row["decided"])


async def first_step(place: Place, part: str, since_ms: int) -> int:
    """When the first thing was done about a backlog since then, Unix milliseconds: an order bound, or an event sent."""
    return int((await _asked(place, _SENT if part == "webhooks" else _BOUND, since_ms=since_ms))["at_ms"])


async def _asked(place: Place, sql: str, **parameters: Any) -> Row:
    runtime = SystemRuntime()
    database = open_database(runtime, place.settings.database_url)
    try:
        return await database.read(lambda tx: tx.all(sql, **parameters)[0])
    finally:
        await database.close()
        runtime.close()


def wal_bytes(place: Place) -> int:
    """How much the server has ever written to its log; 0 for SQLite, which begins its own anew all the time."""
    if place.store != "postgresql":
        return 0
    with psycopg.connect(place.settings.database_url) as database:
        row = database.execute("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')").fetchone()
    return int(row[0]) if row else 0


async def audited(place: Place) -> list[str]:
    """What the audit finds wrong after it all, and whether the network was paid exactly what the orders say."""
    async with _house(place.settings) as product:
        report: dict[str, Any] = await Commands(product).audit()
        rows = await product.database.read(
            lambda tx: tx.all(
                "SELECT net FROM orders WHERE state = 'succeeded' AND recipient = '' AND chain = :chain", chain=place.network.chain
            )
        )
        token = product.catalog.token(place.token_id)
    found = [str(breach) for breach in report["breaches"]]
    told = await answered(place.outside)
    owed = sum(row["net"] for row in rows) // (token.scale if token is not None else 1)
    if int(told["units"]) != owed or told["transfers"] != len(rows):
        found.append(f"the network saw {told['transfers']} transfers of {told['units']} units, the orders say {len(rows)} of {owed}")
    return found
