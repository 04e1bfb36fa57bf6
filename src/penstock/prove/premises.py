"""The real programs that a crash lane kills: devnet with every family, one home, and the `serve` on it, life after life."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from penstock.commands import Commands
from penstock.config import Settings, load
from penstock.process import command
from penstock.setup import initialise
from penstock.wiring import Product

PATIENCE_S: Final = 90.0
BLOCK_MS: Final = 250
ENTRY: Final = ("-m", "penstock.prove.crashing")
"""The program on a machine that can be told to kill it."""


class PremisesFailed(Exception):
    """What should run does not; the text has the end of its log."""


@dataclass(slots=True)
class Premises:
    """One home, its networks, and the program that is running on it now, or is not."""

    folder: Path
    environment: dict[str, str]
    settings: Settings
    port: int
    devnet_url: str
    http: aiohttp.ClientSession
    process: asyncio.subprocess.Process | None = None
    entry: tuple[str, ...] = ENTRY
    lives: int = 0
    bystanders: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Where the gateway answers while it lives."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def clock(self) -> Path:
        """By how many milliseconds the gateway's wall clock is off."""
        return self.folder / "clock"

    def turn_clock(self, off_ms: int) -> None:
        """Step the gateway's wall clock; it notices at its next look."""
        turned = self.clock.with_suffix(".new")
        turned.write_text(str(off_ms), "ascii")
        turned.replace(self.clock)

    async def start(self, at: str = "", *, signer_at: str = "") -> None:
        """The next life, which ends by itself at `at` (LABEL:N); its signer's lives end at `signer_at`."""
        self.lives += 1
        words = [*self.entry, "--clock", str(self.clock), *(["--at", at] if at else [])]
        words += [*(["--signer-at", signer_at] if signer_at else []), "serve"]
        self.process = await child(self.environment, self.log, *words)

    async def beside(self, role: str) -> asyncio.subprocess.Process:
        """A second gateway on the same home and another port; None of it is asked anything."""
        other = self.environment | {"PENSTOCK_SERVER__LISTEN": f"127.0.0.1:{free_port()}"}
        process = await child(other, self.log, "-m", "penstock", "serve", "--role", role)
        self.bystanders.append(process)
        return process

    @property
    def log(self) -> Path:
        """What every life said."""
        return self.folder / "serve.log"

    def said(self, event: str) -> int:
        """How often an event stands in the log."""
        return self.log.read_text("utf-8", "replace").count(event)

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.returncode is None

    def signal(self, number: signal.Signals) -> None:
        """Kill, stop or continue what runs."""
        if self.process is not None and self.process.returncode is None:
            self.process.send_signal(number)

    def fill_disk(self, *, bytes_left: int | None) -> None:
        """No file of the running programs may grow beyond what the journal has now and so much more; None: there is space again."""
        if self.process is None or self.process.returncode is not None:
            return
        limit = resource.RLIM_INFINITY
        if bytes_left is not None:
            journals = [file.stat().st_size for file in self.folder.rglob("signer.journal")]
            limit = max(journals, default=0) + bytes_left
        for pid in (self.process.pid, *self.signers()):  # what the program starts from now on has the same limit
            with contextlib.suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    def signers(self) -> list[int]:
        """The process that holds the keys now: the program's only child."""
        if self.process is None or self.process.returncode is not None:
            return []
        try:
            text = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii")
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    async def dead_within(self, seconds: float) -> bool:
        """Wait for its end; False when it is still there."""
        if self.process is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self.process.wait()
        except TimeoutError:
            return False
        return True

    async def ready(self) -> None:
        """Until it has looked at every network. Raises PremisesFailed."""
        await answers(self.http, f"{self.url}/readyz", self.process, self.log)

    async def stop(self) -> int:
        """As an operator would; the exit code. Raises PremisesFailed when it does not end."""
        if self.process is None:
            return 0
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if not await self.dead_within(PATIENCE_S):
            self.signal(signal.SIGKILL)
            await self.process.wait()
            raise PremisesFailed("SIGTERM did not end it")
        return self.process.returncode or 0

    @contextlib.asynccontextmanager
    async def product(self) -> AsyncIterator[Product]:
        """The wired rooms beside whatever runs, signing nothing; on the database itself, past every wire."""
        async with command(self.settings) as product:
            yield product

    @contextlib.asynccontextmanager
    async def commands(self) -> AsyncIterator[Commands]:
        """The operator's commands."""
        async with self.product() as product:
            yield Commands(product)

    async def control(self, chain: str, do: str, **arguments: Any) -> dict[str, Any]:
        """A knob of devnet, or its truth. Raises PremisesFailed."""
        async with self.http.post(f"{self.devnet_url}/control", json={"network": chain, "do": do, **arguments}) as response:
            if response.status != 200:
                raise PremisesFailed(f"devnet refused {do}: {await response.text()}")
            found: dict[str, Any] = await response.json()
            return found


@contextlib.asynccontextmanager
async def premises(
    folder: Path, *, chains: Sequence[str], database_url: str = "", wire_url: str = "", **settings: str
) -> AsyncIterator[Premises]:
    """A fresh installation whose database is empty yet: the first life makes its schema. `settings` are PENSTOCK_ variables.

    The gateway reaches its database by `wire_url` where there is one, commands always by `database_url`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        http = await stack.enter_async_context(
            aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=20), connector=aiohttp.TCPConnector(limit=0))
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PENSTOCK_", "PG"))}
        devnet_url, networks = await _devnet(stack, http, environment, folder, chains)
        port = free_port()
        environment |= {
            "PENSTOCK_HOME": str(folder / "home"),
            "PENSTOCK_SERVER__LISTEN": f"127.0.0.1:{port}",
            "PENSTOCK_WEBHOOKS__ALLOW_PRIVATE_TARGETS": "true",
            "PENSTOCK_LIMITS__REQUESTS_PER_SECOND": "0",
            **networks,
            **settings,
        }
        await initialise(load(environment=environment), key_file=True, asked=None)
        for file in (folder / "home").glob("penstock.db*"):
            file.unlink()  # a schema that is not there yet is made by the first life
        if database_url:
            environment["PENSTOCK_DATABASE__URL"] = database_url
        direct = load(environment=environment)
        if wire_url:
            environment["PENSTOCK_DATABASE__URL"] = wire_url
        made = Premises(folder, environment, direct, port, devnet_url, http)
        made.turn_clock(0)
        stack.push_async_callback(_end_all, made)
        yield made


async def _end_all(made: Premises) -> None:
    for process in (made.process, *made.bystanders):
        await _end(process)


async def _devnet(
    stack: contextlib.AsyncExitStack, http: aiohttp.ClientSession, environment: dict[str, str], folder: Path, chains: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """Where it answers, and the settings that make a gateway use it."""
    port, log = free_port(), folder / "devnet.log"
    only = [word for chain in chains for word in ("--only", chain)]
    process = await child(environment, log, "-m", "penstock", "devnet", "--listen", f"127.0.0.1:{port}", *only)
    stack.push_async_callback(_end, process)
    url = f"http://127.0.0.1:{port}"
    overview = await answers(http, f"{url}/", process, log)
    settings = {}
    for network in overview["networks"]:
        for key, value in {**network["settings"], "block_ms": BLOCK_MS}.items():
            text = ",".join(value) if isinstance(value, list) else str(value)
            settings[f"PENSTOCK_NETWORKS__{network['network']}__{key.upper()}"] = text
    return url, settings


async def child(environment: Mapping[str, str], log: Path, *words: str) -> asyncio.subprocess.Process:
    """Python on these words; a lane that is killed leaves none behind where the system can see to that."""
    setpriv = shutil.which("setpriv")
    first = [setpriv, "--pdeathsig", "KILL", sys.executable] if setpriv else [sys.executable]
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *first, *words, env=environment, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )


async def _end(process: asyncio.subprocess.Process | None) -> None:
    if process is not None and process.returncode is None:
        process.kill()
        await process.wait()


async def answers(http: aiohttp.ClientSession, url: str, process: asyncio.subprocess.Process | None, log: Path) -> dict[str, Any]:
    """Ask until it answers 200. Raises PremisesFailed."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and (process is None or process.returncode is None):
        with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
            async with http.get(url) as response:
                if response.status == 200:
                    found: dict[str, Any] = await response.json(content_type=None)
                    return found
        await asyncio.sleep(0.05)
    raise PremisesFailed(f"{url} did not answer:\n{_last_words(log)}")


def _last_words(log: Path) -> str:
    return log.read_text("utf-8", "replace")[-2000:] if log.exists() else ""


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
