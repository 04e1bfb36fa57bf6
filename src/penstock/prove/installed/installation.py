"""A fresh installation on loopback: one home with devnet beside it, and the real program as a child, started, asked, commanded and ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import psycopg
from psycopg import sql

from penstock.commands import Commands
from penstock.config import Settings
from penstock.process import command
from penstock.wiring import Product

PATIENCE_S: Final = 90.0
"""Until a program that was started answers; the machine may be busy."""
ANSWER_S: Final = 20.0
END_S: Final = 30.0


class ProgramFailed(Exception):
    """What should run does not; the text has the end of its log."""


@dataclass(frozen=True, slots=True)
class Devnet:
    """The networks of an installation; `settings` make a gateway use them. Without an address there are none."""

    http: aiohttp.ClientSession
    url: str
    settings: Mapping[str, str]

    async def control(self, chain: str, do: str, **arguments: Any) -> dict[str, Any]:
        """A knob, or the networks' own truth. Raises ProgramFailed."""
        async with self.http.post(f"{self.url}/control", json={"network": chain, "do": do, **arguments}) as response:
            if response.status != 200:
                raise ProgramFailed(f"devnet refused {do}: {await response.text()}")
            found: dict[str, Any] = await response.json()
            return found


@dataclass(slots=True)
class Installation:
    """One home, its networks, and the program that is running on it now, or is not."""

    settings: Settings
    environment: dict[str, str]
    port: int
    log: Path
    devnet: Devnet
    http: aiohttp.ClientSession
    entry: tuple[str, ...]
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Where the gateway answers while it lives."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self.process is not None and self.process.returncode is None

    async def ready(self) -> None:
        """Until it has looked at every network that is on. Raises ProgramFailed."""
        await answers(self.http, f"{self.url}/readyz", self.process, self.log)

    @contextlib.asynccontextmanager
    async def product(self) -> AsyncIterator[Product]:
        """The wired rooms beside whatever runs, signing nothing."""
        async with command(self.settings) as product:
            yield product

    @contextlib.asynccontextmanager
    async def commands(self) -> AsyncIterator[Commands]:
        """The operator's commands, beside whatever runs."""
        async with self.product() as product:
            yield Commands(product)

    async def control(self, chain: str, do: str, **arguments: Any) -> dict[str, Any]:
        """A knob of devnet, or its truth. Raises ProgramFailed."""
        return await self.devnet.control(chain, do, **arguments)


def environment_of(folder: Path, port: int) -> dict[str, str]:
    """What the programs of a home below the folder are told; nothing of the caller's own gateway or database."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PG"))},
        "PENSTOCK_HOME": str(folder / "home"),
        "PENSTOCK_SERVER__LISTEN": f"127.0.0.1:{port}",
        "PENSTOCK_WEBHOOKS__ALLOW_PRIVATE_TARGETS": "true",
        "PENSTOCK_LIMITS__REQUESTS_PER_SECOND": "0",
    }


@contextlib.asynccontextmanager
async def devnet(http: aiohttp.ClientSession, folder: Path, chains: Sequence[str], **of_each: object) -> AsyncIterator[Devnet]:
    """These networks as a program of their own, none where there is no chain; `of_each` are settings that every network gets. Raises
    ProgramFailed.
    """
    if not chains:
        yield Devnet(http, "", {})
        return
    port, log = free_port(), folder / "devnet.log"
    url, only = f"http://127.0.0.1:{port}", [word for chain in chains for word in ("--only", chain)]
    process = await child(environment_of(folder, port), log, "-m", "penstock", "devnet", "--listen", f"127.0.0.1:{port}", *only)
    try:
        overview = await answers(http, f"{url}/", process, log)
        settings = {}
        for network in overview["networks"]:
            for key, value in {**network["settings"], **of_each}.items():
                text = ",".join(value) if isinstance(value, list) else str(value).lower() if isinstance(value, bool) else str(value)
                settings[f"PENSTOCK_NETWORKS__{network['network']}__{key.upper()}"] = text
        yield Devnet(http, url, settings)
    finally:
        await kill(process)


async def child(environment: Mapping[str, str], log: Path, *words: str) -> asyncio.subprocess.Process:
    """Python on these words; a lane that is killed leaves none behind where the system can see to that."""
    setpriv = shutil.which("setpriv")
    first = [setpriv, "--pdeathsig", "KILL", sys.executable] if setpriv else [sys.executable]
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *first, *words, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


async def end(process: asyncio.subprocess.Process | None) -> None:
    """SIGTERM, as an operator would; SIGKILL to what stays."""
    if process is not None and process.returncode is None:
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                await process.wait()
    await kill(process)


async def kill(process: asyncio.subprocess.Process | None) -> None:
    """SIGKILL, nothing said before."""
    if process is not None and process.returncode is None:
        process.kill()
        await process.wait()


async def answers(http: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process | None, log: Path) -> dict[str, Any]:
    """Ask until it answers 200. Raises ProgramFailed."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and (process is None or process.returncode is None):
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with http.get(url, timeout=aiohttp.ClientTimeout(total=ANSWER_S)) as response:
                if response.status == 200:
                    found: dict[str, Any] = await response.json(content_type=None)
                    return found
        await asyncio.sleep(0.05)
    raise ProgramFailed(f"{url} did not answer:\n{log.read_text('utf-8', 'replace')[-2000:] if log.exists() else ''}")


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def own_database(server: str, name: str) -> Iterator[str]:
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
