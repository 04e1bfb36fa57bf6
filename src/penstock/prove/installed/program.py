"""What a lane that comes from outside needs of an installation: merchants, signed and raw requests, one more process, a look at the books."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp

from penstock.config import load
from penstock.core.wire import compact
from penstock.db import Tx, open_database
from penstock.prove.installed.installation import Installation, ProgramFailed, answers, child, devnet, end, environment_of, free_port, kill
from penstock.prove.merchant import V1, Merchant
from penstock.runtime import SystemRuntime

T = TypeVar("T")

ENTRY: Final = ("-m", "penstock")
ANSWER_S: Final = 30.0
"""An answer that takes longer is a hang."""

Answer = tuple[int, dict[str, str], bytes]
"""Status, headers in lower case, body."""


@dataclass(slots=True)
class Program(Installation):
    """An installation that callers come to from outside, and those of them who sign."""

    merchants: list[Merchant] = field(default_factory=list)

    # ---------------------------------------------------------------------------------------------------------- its life

    async def start(self, *words: str) -> None:
        """`penstock serve`, until it answers. Raises ProgramFailed."""
        self.process = await child(self.environment, self.log, *self.entry, *(words or ("serve",)))
        await answers(self.http, f"{self.url}/healthz", self.process, self.log)

    async def run(self, *words: str, **environment: str) -> tuple[int, bytes]:
        """A command of its own process: exit code, and what it printed."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, *self.entry, *words, env={**self.environment, **environment},
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        return process.returncode or 0, said

    async def kill(self) -> None:
        """SIGKILL, nothing said before."""
        process, self.process = self.process, None
        await kill(process)

    async def stop(self) -> None:
        """SIGTERM, as an operator would."""
        process, self.process = self.process, None
        await end(process)

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
        process = await child(self.environment, log, *self.entry, "serve", *words, "--listen", f"127.0.0.1:{port}")
        try:
            await answers(self.http, f"http://127.0.0.1:{port}/healthz", process, log)
            yield f"http://127.0.0.1:{port}"
        finally:
            await end(process)

    # ----------------------------------------------------------------------------------------------------------- people

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
        boxes = await stack.enter_async_context(devnet(http, folder, chains))
        port = free_port()
        environment = environment_of(folder, port) | {
            **boxes.settings,
            **({"PENSTOCK_DATABASE__URL": database_url} if database_url else {}),
            **(settings or {}),
        }
        found = load(environment=environment)
        made = Program(found, environment, port, folder / "serve.log", boxes, http, tuple(entry))
        code, said = await made.run("init", *([] if found.passphrase else ["--key-file"]))
        if code != 0:
            raise ProgramFailed(said.decode("utf-8", "replace"))
        stack.push_async_callback(made.stop)
        if start:
            await made.start()
        yield made


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
