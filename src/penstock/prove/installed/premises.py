"""What a crash lane does to an installation: lives that end where it says, a clock that steps, a disk that fills up, one more beside it."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from penstock.config import load
from penstock.prove.installed.installation import PATIENCE_S, Installation, ProgramFailed, child, devnet, environment_of, free_port, kill
from penstock.setup import initialise

BLOCK_MS: Final = 250
ENTRY: Final = ("-m", "penstock.prove.installed.crashing")
"""The program on a machine that can be told to kill it."""


@dataclass(slots=True)
class Premises(Installation):
    """An installation whose program is killed and lives again; `settings` lead to the database itself, past every wire."""

    lives: int = 0
    bystanders: list[asyncio.subprocess.Process] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """Where all of it is."""
        return self.log.parent

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
        """The next life, which ends by itself at `at` (LABEL:N); its signer's lives end at `signer_at`. One that still lives is ended first: it
        would keep the home from the next one and answer in its place.
        """
        self.signal(signal.SIGKILL)
        await self._ended_within(PATIENCE_S)
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

    def said(self, event: str) -> int:
        """How often an event stands in the log."""
        return self.log.read_text("utf-8", "replace").count(event)

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
        """The process that holds the keys now."""
        return self._children(b"signer")

    def answerers(self) -> list[int]:
        """Processes that answer callers beside the program."""
        return self._children(b"penstock.answerer")

    def _children(self, word: bytes) -> list[int]:
        """Those of the program that were started with this word."""
        if self.process is None or self.process.returncode is not None:
            return []
        try:
            pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text("ascii").split()
            return [int(pid) for pid in pids if word in Path(f"/proc/{pid}/cmdline").read_bytes()]
        except OSError:
            return []  # gone a moment ago

    async def dead_within(self, seconds: float) -> bool:
        """Wait for its end; False when it is still there, or has ended in another way than by SIGKILL."""
        ended = await self._ended_within(seconds)
        return ended and (self.process is None or self.process.returncode == -signal.SIGKILL)

    async def _ended_within(self, seconds: float) -> bool:
        if self.process is None:
            return True
        try:
            async with asyncio.timeout(seconds):
                await self.process.wait()
        except TimeoutError:
            return False
        return True

    async def stop(self) -> int:
        """As an operator would; the exit code. Raises ProgramFailed when it does not end."""
        if self.process is None:
            return 0
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        if not await self._ended_within(PATIENCE_S):
            self.signal(signal.SIGKILL)
            await self.process.wait()
            raise ProgramFailed("SIGTERM did not end it")
        return self.process.returncode or 0


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
        boxes = await stack.enter_async_context(devnet(http, folder, chains, block_ms=BLOCK_MS))
        port = free_port()
        environment = environment_of(folder, port) | {**boxes.settings, **settings}
        await initialise(load(environment=environment), key_file=True, asked=None)
        for file in (folder / "home").glob("penstock.db*"):
            file.unlink()  # a schema that is not there yet is made by the first life
        if database_url:
            environment["PENSTOCK_DATABASE__URL"] = database_url
        direct = load(environment=environment)
        if wire_url:
            environment["PENSTOCK_DATABASE__URL"] = wire_url
        made = Premises(direct, environment, port, folder / "serve.log", boxes, http, ENTRY)
        made.turn_clock(0)
        stack.push_async_callback(_end_all, made)
        yield made


async def _end_all(made: Premises) -> None:
    for process in (made.process, *made.bystanders):
        await kill(process)
