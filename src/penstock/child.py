"""A process of ours as a child of another: told over its pipe what it needs, ended by the end of that pipe, started again when it dies.

The parent's side is `Child`; the child's own is `told`, `say` and `until_end`. The pipe holds what no environment and no command line may show,
and its end is sure: the kernel closes it however the parent went.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import structlog

from penstock.runtime import Runtime

log = structlog.get_logger()

READY: Final = b"ready\n"
READY_S: Final = 60.0
END_S: Final = 10.0
AGAIN_S: Final = (0.1, 0.5, 2.0, 5.0)
"""How long to wait before it is started again, by how often in a row it has ended soon or did not come up."""
STEADY_S: Final = 2.0
"""Who lived that long has not ended soon."""
_TOLD_BYTES_MAX: Final = 16 * 1024 * 1024
_PIECE_BYTES: Final = 64 * 1024


class ChildFailed(Exception):
    """The process did not start; the text is its own sentence, `code` what it ended with: 2 where the settings are wrong, as for a command."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


class Child:
    """One process at a time, Python on `words`. `first` is its first line; `heard` is given what it says once it is up."""

    failed: type[ChildFailed] = ChildFailed

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        words: Sequence[str],
        environment: Mapping[str, str],
        first: Mapping[str, Any],
        *,
        heard: Callable[[bytes], None] = lambda data: None,  # noqa: ARG005
        end_s: float = END_S,
    ) -> None:
        """`end_s`: how long it may take to end before it is killed."""
        self._runtime = runtime
        self._name = name
        self._words = tuple(words)
        self._environment = dict(environment)
        self._first = json.dumps(first).encode() + b"\n"
        self._heard = heard
        self._end_s = end_s
        self._process: Process | None = None
        self._reading = False
        self._ending = asyncio.Lock()
        self._stopping = False

    async def start(self) -> None:
        """Start it and wait until it is up. Raises ChildFailed, of the kind that `failed` names."""
        await self.begin()
        await self.up()

    async def begin(self) -> None:
        """Start it, and give it what it needs to come up while we do something else. Raises as `start`."""
        words = (sys.executable, *self._words)
        process = self._process = await asyncio.create_subprocess_exec(*words, stdin=PIPE, stdout=PIPE, env=self._environment)
        if process.stdin is None or process.stdout is None:
            raise self.failed(f"the {self._name} has no pipes")
        if self._stopping:
            process.stdin.close()  # we were told to end while it came up
        with contextlib.suppress(ConnectionError, RuntimeError):  # uvloop's word for a pipe whose other end was killed already
            process.stdin.write(self._first)
            await process.stdin.drain()

    async def up(self) -> None:
        """Wait until it says that it is up, or `stop` is called. Raises as `start`."""
        process, said = self._process, b""
        if process is None or process.stdout is None:
            raise self.failed(f"the {self._name} was not started")
        self._reading = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_S):
                said = await process.stdout.readline()
        self._reading = False
        if said != READY and not self._stopping:
            await self._end(process)
            text = said.decode(errors="replace").strip() or f"the {self._name}'s process did not start; its log may say more"
            raise self.failed(text, process.returncode)

    async def keep(self) -> None:
        """Hear it out, and start it again whenever it ends, until `stop`."""
        failures, began = 0, self._runtime.monotonic()
        while True:
            code = await self._ended()
            if self._runtime.monotonic() - began > STEADY_S:
                failures = 0
            if not self._stopping:
                log.error("child.ended", child=self._name, code=code)
                await self._runtime.sleep(AGAIN_S[min(failures, len(AGAIN_S) - 1)])
            if self._stopping:
                return
            failures += 1
            try:
                await self.start()
                log.info("child.started_again", child=self._name)
            except ChildFailed as error:
                log.error("child.start.failed", child=self._name, detail=str(error))  # noqa: TRY400  its own sentence
            began = self._runtime.monotonic()

    async def stop(self) -> None:
        """Close its pipe and wait; it finishes what it is about."""
        self._stopping = True
        if self._process is not None:
            await self._end(self._process)

    async def _ended(self) -> int | None:
        if self._process is None or self._process.stdout is None:
            return None
        self._reading = True
        while data := await self._process.stdout.read(_PIECE_BYTES):
            self._heard(data)
        self._reading = False
        return await self._process.wait()

    async def _end(self, process: Process) -> None:
        """The end of its pipe tells it to end; one that does not is killed."""
        async with self._ending:  # who waits for it to come up and who stops it may be two, and what it says has room for one reader
            if process.stdin is not None:
                process.stdin.close()
            try:
                async with asyncio.timeout(self._end_s):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            if process.stdout is not None and not self._reading:
                await process.stdout.read()
            if process.stdin is not None:
                with contextlib.suppress(OSError):
                    await process.stdin.wait_closed()


def told() -> dict[str, Any]:
    """In the child, first of all: what the parent told. Raises ValueError where nobody has.

    From here on signals are the parent's business (a terminal sends them to both of us), and the end of the pipe ends us.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    line = b""
    while not line.endswith(b"\n") and len(line) < _TOLD_BYTES_MAX and (piece := os.read(0, _PIECE_BYTES)):
        line += piece
    found: dict[str, Any] = json.loads(line)
    return found


def say(line: str) -> None:
    """In the child: "ready" when it is up, or one sentence why it cannot be."""
    with contextlib.suppress(BrokenPipeError):  # nobody is there any more: so says the end of the other pipe
        os.write(sys.stdout.fileno(), (line.replace("\n", " ") + "\n").encode())


async def until_end() -> None:
    """In the child: until whoever holds the other end of the pipe is gone, however it ended."""
    reader = asyncio.StreamReader()
    handle = os.fdopen(0, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), handle)
    while await reader.read(_PIECE_BYTES):
        pass
    transport.close()
