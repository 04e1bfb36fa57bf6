"""The signer as a child of `serve`: started with the passphrase over its pipe, ended by the end of that pipe, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from penstock.core.party import Secret
from penstock.runtime import Runtime

log = structlog.get_logger()

WORDS: Final = ("-m", "penstock.signer", "--child")
"""What Python is told to run."""
READY_S: Final = 60.0
END_S: Final = 10.0
AGAIN_S: Final = (0.1, 0.5, 2.0, 5.0)
"""How long to wait before the child is started again, by how often it has not come up since it last did."""


class SignerFailed(Exception):
    """The signer's process cannot start; the text is its own sentence."""


class SignerChild:
    """One child at a time. `environment` holds no passphrase; `words` are the signer's, or those of a lane that wraps it."""

    def __init__(
        self, runtime: Runtime, home: Path, environment: Mapping[str, str], passphrase: Secret | None, words: Sequence[str] = WORDS
    ) -> None:
        self._runtime = runtime
        self._home = home
        self._environment = dict(environment) | {"PENSTOCK_HOME": str(home)}
        self._passphrase = passphrase
        self._words = tuple(words)
        self._process: Process | None = None
        self._stopping = False

    async def start(self) -> None:
        """Start it and wait until it listens. Raises SignerFailed."""
        await self.begin()
        await self.up()

    async def begin(self) -> None:
        """Start it, and give it what it needs to come up while we do something else. Raises SignerFailed."""
        words = (sys.executable, *self._words)
        process = self._process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, env=self._environment)
        if process.stdin is None or process.stdout is None:
            raise SignerFailed("the signer has no pipes")
        if self._stopping:
            process.stdin.close()  # we were told to end while it came up
        first = {"passphrase": None if self._passphrase is None else self._passphrase.reveal()}
        with contextlib.suppress(ConnectionError):
            process.stdin.write(json.dumps(first).encode() + b"\n")
            await process.stdin.drain()

    async def up(self) -> None:
        """Wait until it listens. Raises SignerFailed."""
        process, said = self._process, b""
        if process is None or process.stdout is None:
            raise SignerFailed("the signer was not started")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                said = await process.stdout.readline()
        if said != b"ready\n":
            await _end(process)
            raise SignerFailed(said.decode(errors="replace").strip() or "the signer's process did not start; its log may say more")

    async def keep(self) -> None:
        """Start it again whenever it ends, until `stop`. Orders wait meanwhile."""
        failures = 0
        while True:
            code = await self._process.wait() if self._process is not None else None
            if not self._stopping:
                log.error("signer.ended", code=code)
                await self._runtime.sleep(AGAIN_S[min(failures, len(AGAIN_S) - 1)])
            if self._stopping:
                return
            try:
                await self.start()
                failures = 0
                log.info("signer.started_again")
            except SignerFailed as error:
                failures += 1
                log.error("signer.start.failed", detail=str(error))  # noqa: TRY400  its own sentence

    async def stop(self) -> None:
        """Close its pipe and wait; it finishes what it is about to record."""
        self._stopping = True
        if self._process is not None:
            await _end(self._process)


async def _end(process: Process) -> None:
    """The end of its pipe tells it to end; one that does not is killed."""
    if process.stdin is not None:
        process.stdin.close()
    try:
        async with asyncio.timeout(END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
    if process.stdout is not None:
        await process.stdout.read()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            await process.stdin.wait_closed()
