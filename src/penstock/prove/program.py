"""The real program on loopback for lanes that come from outside: devnet, a home, `penstock serve` as a child, a merchant that signs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import psycopg
from psycopg import sql

from penstock.commands import Commands
from penstock.config import Settings, load
from penstock.core import wire_signature
from penstock.core.wire import compact
from penstock.db import Tx, open_database
from penstock.process import command
from penstock.runtime import SystemRuntime

T = TypeVar("T")

V1: Final = "/ccpayment/v1"
ENTRY: Final = ("-m", "penstock")
PATIENCE_S: Final = 90.0
"""Until a program that was started answers; the machine may be busy."""
ANSWER_S: Final = 30.0
"""An answer that takes longer is a hang."""

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers in lower case, body."""


class ProgramFailed(Exception):
    """What should run does not; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Merchant:
    """One merchant's credentials, and what they make."""

    app_id: str
    secret: str
    holder: str

    def headers(self, body: bytes, *, timestamp: str = "") -> dict[str, str]:
        """Appid, Timestamp and Sign over the exact bytes (spec, section 2)."""
        stamp = timestamp or str(int(time.time()))
        return {"Appid": self.app_id, "Timestamp": stamp, "Sign": wire_signature.sign(self.app_id, self.secret, stamp, body)}

    def made(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Whether these bytes were signed with our secret. `headers` are in lower case."""
        expected = wire_signature.sign(self.app_id, self.secret, headers.get("timestamp", ""), body)
        return headers.get("appid") == self.app_id and headers.get("sign") == expected


@dataclass(slots=True)
class Program:
    """One home and the `serve` that runs on it."""

    settings: Settings
    environment: dict[str, str]
    port: int
    log: Path
    devnet_url: str
    http: aiohttp.ClientSession
    entry: tuple[str, ...] = ENTRY
    process: asyncio.subprocess.Process | None = None
    merchants: list[Merchant] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the merchant API answers."""
        return f"http://127.0.0.1:{self.port}"

    # ---------------------------------------------------------------------------------------------------------- its life

    async def start(self, *words: str) -> None:
        """`penstock serve`, until it answers. Raises ProgramFailed."""
        self.process = await _child(self.environment, self.log, *self.entry, *(words or ("serve",)))
        await _until(self.http, f"{self.url}/healthz", self.process, self.log)

    async def run(self, *words: str, **environment: str) -> tuple[int, bytes]:
        """A command of its own process: exit code, and what it printed."""
        child = await asyncio.create_subprocess_exec(
            sys.executable, *self.entry, *words, env={**self.environment, **environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await child.communicate()
        return child.returncode or 0, said

    async def kill(self) -> None:
        """SIGKILL, nothing said before."""
        process, self.process = self.process, None
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    async def stop(self) -> None:
        """SIGTERM, as an operator would."""
        process, self.process = self.process, None
        await _end(process)

    async def ready(self) -> None:
        """Until it has quotes of every network that is on. Raises ProgramFailed."""
        await _until(self.http, f"{self.url}/readyz", self.process, self.log)

    def resident_bytes(self) -> int:
        """Memory that the process holds; 0 where the system does not say."""
        if self.process is None:
            return 0
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        except OSError:
            return 0
        return pages * os.sysconf("SC_PAGESIZE")

    @contextlib.asynccontextmanager
    async def beside(self, *words: str) -> AsyncIterator[str]:
        """One more `penstock serve` on the same home and database; gives its URL. Raises ProgramFailed."""
        port = free_port()
        log = self.log.with_name(f"serve-{port}.log")
        child = await _child(self.environment, log, *self.entry, "serve", *words, "--listen", f"127.0.0.1:{port}")
        try:
            await _until(self.http, f"http://127.0.0.1:{port}/healthz", child, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            await _end(child)

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.returncode is None

    # ----------------------------------------------------------------------------------------------------------- people

    @contextlib.asynccontextmanager
    async def commands(self) -> AsyncIterator[Commands]:
        """The operator's commands, beside whatever runs."""
        async with command(self.settings) as product:
            yield Commands(product)

    async def merchant(self, name: str, webhook_url: str = "", **credits_by_coin: str) -> Merchant:
        """One more, with declared funding."""
        async with self.commands() as commands:
            made = await commands.add_merchant(name, webhook_url)
            for coin, amount in credits_by_coin.items():
                await commands.credit(made["app_id"], coin, amount, "a lane of penstock prove")
        merchant = Merchant(made["app_id"], made["app_secret"], f"m:{made['merchant_id']}")
        self.merchants.append(merchant)
        return merchant

    async def account(self, email: str) -> str:
        """An internal account's id."""
        async with self.commands() as commands:
            return str((await commands.add_account(email, "Ada"))["c_id"])

    async def control(self, chain: str, **wanted: Any) -> dict[str, Any]:
        """A knob of devnet. Raises ProgramFailed."""
        async with self.http.post(f"{self.devnet_url}/control", json={"network": chain, **wanted}) as response:
            if response.status != 200:
                raise ProgramFailed(f"devnet refused {wanted}: {await response.text()}")
            found: dict[str, Any] = await response.json()
            return found

    # --------------------------------------------------------------------------------------------------------- requests

    async def post(self, path: str, body: bytes, headers: Mapping[str, str], *, url: str = "") -> Answer:
        """One request as it is, to this process or the one at `url`. Raises TimeoutError, aiohttp.ClientError."""
        async with self.http.post(
            (url or self.url) + path, data=body, headers=headers, timeout=aiohttp.ClientTimeout(total=ANSWER_S), allow_redirects=False
        ) as response:
            return response.status, {name.lower(): value for name, value in response.headers.items()}, await response.read()

    async def ask(self, merchant: Merchant, path: str, fields: Mapping[str, Any] | bytes, *, url: str = "") -> dict[str, Any]:
        """One signed call; an answer that is not signed has the key "unsigned"."""
        body = fields if isinstance(fields, bytes) else compact(dict(fields))
        status, headers, raw = await self.post(V1 + path, body, merchant.headers(body), url=url)
        answer: dict[str, Any] = json.loads(raw)
        return {**answer, "status": status} | ({} if merchant.made(headers, raw) else {"unsigned": True})

    # ------------------------------------------------------------------------------------------------------------ books

    async def look(self, job: Callable[[Tx], T]) -> T:
        """Read the database from outside."""
        runtime = SystemRuntime()
        database = open_database(runtime, self.settings.database_url)
        try:
            return await database.read(job)
        finally:
            await database.close()
            runtime.close()

    async def books(self) -> dict[str, int]:
        """Everything that a request could have an effect on: how many orders, keys, entries, events, calls, and each balance."""
        return await self.look(_books)

    async def breaches(self) -> list[str]:
        """What the audit finds wrong."""
        async with self.commands() as commands:
            report = await commands.audit()
        return [f"{breach['invariant']}: {breach['text']}" for breach in report["breaches"]]


def _books(tx: Tx) -> dict[str, int]:
    found: dict[str, int] = {}
    for table in ("order_key", "single_use", "entry", "posting", "resend_call"):
        # How many rows there are in all.
        found[table] = int(tx.all(f"SELECT COUNT(*) AS count FROM {table}")[0]["count"])
    for table in ("orders", "outbox"):
        # How many rows there are of each merchant.
        for row in tx.all(f"SELECT merchant_id, COUNT(*) AS count FROM {table} GROUP BY merchant_id LIMIT 10000"):
            found[f"{table} m:{row['merchant_id']}"] = int(row["count"])
    # What each holder has.
    for row in tx.all("SELECT holder, coin_id, available, reserved FROM balance LIMIT 100000"):
        found[f"available {row['holder']} {row['coin_id']}"] = row["available"]
        found[f"reserved {row['holder']} {row['coin_id']}"] = row["reserved"]
    return found


@contextlib.asynccontextmanager
async def program(
    folder: Path,
    *,
    chains: Sequence[str] = (),
    database_url: str = "",
    settings: Mapping[str, str] | None = None,
    start: bool = True,
    entry: Sequence[str] = ENTRY,
) -> AsyncIterator[Program]:
    """A fresh installation below `folder`, with these networks of devnet. `settings` are PENSTOCK_ variables. Raises ProgramFailed."""
    folder.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        # No pause between connections: a lane opens thousands.
        http = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False, connector=aiohttp.TCPConnector(limit=0)))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PENSTOCK_")}
        devnet_url, networks = "", dict[str, str]()
        if chains:
            devnet_url, networks = await _devnet(stack, http, environment, folder, chains)
        port = free_port()
        environment |= {
            "PENSTOCK_HOME": str(folder / "home"),
            "PENSTOCK_SERVER__LISTEN": f"127.0.0.1:{port}",
            "PENSTOCK_WEBHOOKS__ALLOW_PRIVATE_TARGETS": "true",
            "PENSTOCK_LIMITS__REQUESTS_PER_SECOND": "0",
            **networks,
            **({"PENSTOCK_DATABASE__URL": database_url} if database_url else {}),
            **(settings or {}),
        }
        found = load(environment=environment)
        made = Program(found, environment, port, folder / "serve.log", devnet_url, http, tuple(entry))
        code, said = await made.run("init", *([] if found.passphrase else ["--key-file"]))
        if code != 0:
            raise ProgramFailed(said.decode("utf-8", "replace"))
        stack.push_async_callback(made.stop)
        if start:
            await made.start()
        yield made


async def _devnet(
    stack: contextlib.AsyncExitStack, http: aiohttp.ClientSession, environment: dict[str, str], folder: Path, chains: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Where it answers, and the settings that make a gateway use it."""
    port, log = free_port(), folder / "devnet.log"
    only = [word for chain in chains for word in ("--only", chain)]
    child = await _child(environment, log, *ENTRY, "devnet", "--listen", f"127.0.0.1:{port}", *only)
    stack.push_async_callback(_end, child)
    url = f"http://127.0.0.1:{port}"
    overview = await _until(http, f"{url}/", child, log)
    settings = {}
    for network in overview["networks"]:
        for key, value in network["settings"].items():
            text = ",".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)
            settings[f"PENSTOCK_NETWORKS__{network['network']}__{key.upper()}"] = text
    return url, settings


async def _child(environment: Mapping[str, str], log: Path, *words: str) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, *words, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output
        )


async def _end(child: asyncio.subprocess.Process | None) -> None:
    if child is None:
        return
    if child.returncode is None:
        child.terminate()
    try:
        async with asyncio.timeout(ANSWER_S):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


async def _until(http: aiohttp.ClientSession, url: str, child: asyncio.subprocess.Process | None, log: Path) -> dict[str, Any]:
    """Ask until it answers 200. Raises ProgramFailed."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and (child is None or child.returncode is None):
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with http.get(url, timeout=aiohttp.ClientTimeout(total=5)) as response:
                if response.status == 200:
                    found: dict[str, Any] = await response.json(content_type=None)
                    return found
        await asyncio.sleep(0.05)
    text = log.read_text("utf-8", "replace")[-2000:] if log.exists() else ""
    raise ProgramFailed(f"{url} did not answer:\n{text}")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def files(wanted: int) -> Iterator[int]:
    """As many descriptors for this process as are wanted, or as there may be; how many there are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    given = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (given, hard))
    try:
        yield given
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def wait_for(probe: Callable[[], bool], seconds: float) -> bool:
    """Whether it became true in time."""
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.02)
    return True


@contextlib.contextmanager
def own_database(server: str, name: str) -> Any:
    """The URL of an empty PostgreSQL database on the server, dropped at the end; its user may create databases."""
    base, _, query = server.partition("?")
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(drop)
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
    try:
        yield f"{base.rpartition('/')[0]}/{name}" + (f"?{query}" if query else "")
    finally:
        with psycopg.connect(server, autocommit=True) as admin:
            admin.execute(drop)
