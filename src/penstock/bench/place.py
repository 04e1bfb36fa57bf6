"""Where a benchmark happens: a home with merchants and money on one store, and the processes around it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from penstock.bench.load import Measured, Plan
from penstock.commands import Commands
from penstock.config import Settings, load
from penstock.core.withdrawal import WithdrawRequest
from penstock.process import command, initialise
from penstock.runtime import SystemRuntime
from penstock.wiring import Product

CHAIN: Final = "ETH"
SYMBOL: Final = "USDT"
ADDRESS: Final = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"
MERCHANTS: Final = 1_000
ACCOUNTS: Final = 200
PATIENCE_S: Final = 60.0
AT_ONCE: Final = 500


@dataclass(frozen=True, slots=True)
class Place:
    """A funded house on one store. `merchants` are (app id, secret); the first is the busy one."""

    store: str
    settings: Settings
    environment: dict[str, str]
    merchants: list[tuple[str, str]]
    accounts: list[str]
    token_id: str

    @property
    def port(self) -> int:
        """Where its gateway listens."""
        return int(self.settings.server.listen.rpartition(":")[2])


@dataclass(frozen=True, slots=True)
class Run:
    """One measurement: what the generator saw, orders that are really in the database, and what the gateway used."""

    seen: Measured
    stored: int
    gateway_cpu_s: float
    gateway_rss_mb: int


@contextlib.asynccontextmanager
async def program(environment: Mapping[str, str], module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program of ours as a child, ended by SIGTERM."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, env=dict(environment), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


@contextlib.asynccontextmanager
async def devnet() -> AsyncIterator[dict[str, Any]]:
    """A network in a box; its settings for `[networks.ETH]`."""
    port = free_port()
    async with program(os.environ, "penstock", "devnet", "--only", CHAIN, "--listen", f"127.0.0.1:{port}"):
        overview = await answered(f"http://127.0.0.1:{port}/")
        yield next(network["settings"] for network in overview["networks"] if network["network"] == CHAIN)


async def build(store: str, url: str, home: Path, network: Mapping[str, Any], *, merchants: int) -> Place:
    """Make a home with keys, merchants, money and accounts."""
    home.mkdir(mode=0o700, parents=True)
    lines = [
        f'[server]\nlisten = "127.0.0.1:{free_port()}"',
        "[limits]\nrequests_per_second = 0",
        f"[networks.{CHAIN}]",
        *(f"{key} = {json.dumps(value)}" for key, value in network.items()),
    ]
    (home / "penstock.toml").write_text("\n".join(lines) + "\n", "utf-8")
    environment = {**os.environ, "PENSTOCK_HOME": str(home), **({"PENSTOCK_DATABASE__URL": url} if url else {})}
    settings = load(environment=environment)
    await initialise(settings, key_file=True, asked=None)
    async with command(settings) as product:
        commands = Commands(product)
        made = [await commands.add_merchant(f"merchant {number}", "") for number in range(merchants)]
        for merchant in made:
            await commands.credit(merchant["app_id"], SYMBOL, "1000000000", "benchmark")
        people = [await commands.add_account(f"person{number}@example.com", f"Person {number}") for number in range(ACCOUNTS)]
        token = product.catalog.by_symbol(SYMBOL, CHAIN)
        if token is None:
            raise RuntimeError("the catalogue has changed")
    credentials = [(merchant["app_id"], merchant["app_secret"]) for merchant in made]
    return Place(store, settings, environment, credentials, [person["c_id"] for person in people], token.id)


async def preload(place: Place, orders: int) -> None:
    """That many settled orders before the clock starts, by the product's own road without HTTP."""
    async with command(place.settings) as product, product.taking_orders():
        merchants = [merchant for merchant in await product.directory.list_merchants() if merchant.app_id]
        for start in range(0, orders, AT_ONCE):
            await asyncio.gather(*(_one(product, place, merchants, number) for number in range(start, min(orders, start + AT_ONCE))))


async def _one(product: Product, place: Place, merchants: Sequence[Any], number: int) -> None:
    recipient = place.accounts[number % len(place.accounts)]
    request = WithdrawRequest(f"preloaded-{number}", recipient, place.token_id, "1", "", False, False)
    await product.accept.withdraw(merchants[1 + number % (len(merchants) - 1)], request)


@contextlib.asynccontextmanager
async def gateway(place: Place, role: str) -> AsyncIterator[int]:
    """The product over a place; yields its process id."""
    async with program(place.environment, "penstock.bench.gateway", role) as child:
        await answered(f"http://127.0.0.1:{place.port}/readyz")
        yield child.pid


async def send(place: Place, pid: int, path: str, bodies: list[dict[str, Any]], *, merchants: int, connections: int) -> Run:
    """One round of load on a running gateway."""
    before, cpu = await orders_in(place), _cpu_s(pid)
    plan = Plan("127.0.0.1", place.port, path, place.merchants[:merchants], bodies, connections)
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "penstock.bench.load", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await child.communicate(json.dumps(asdict(plan)).encode())
    if child.returncode != 0:
        raise RuntimeError("the load generator failed; its own words are above")
    return Run(Measured(**json.loads(out)), await orders_in(place) - before, _cpu_s(pid) - cpu, _rss_mb(pid))


async def orders_in(place: Place) -> int:
    """Rows of orders in the database itself."""
    async with command(place.settings) as product:
        row = await product.database.read(lambda tx: tx.one("SELECT COUNT(*) AS n FROM orders"))
    return int(row["n"]) if row is not None else 0


async def audited(place: Place) -> list[str]:
    """What the audit finds wrong after it all."""
    async with command(place.settings) as product:
        report: dict[str, Any] = await Commands(product).audit()
    return [str(breach) for breach in report["breaches"]]


async def answered(url: str) -> dict[str, Any]:
    """Ask until it answers 200. Raises TimeoutError."""
    runtime = SystemRuntime()
    async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession(trust_env=False) as http:
        while True:
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with http.get(url) as response:
                    if response.status == 200:
                        found: dict[str, Any] = await response.json()
                        return found
            await runtime.sleep(0.05)


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used (proc(5), stat: utime and stime)."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _rss_mb(pid: int) -> int:
    """The most memory that it has held (proc(5), status: VmHWM)."""
    line = next(line for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) // 1024
