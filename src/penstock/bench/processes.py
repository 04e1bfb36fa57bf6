"""Children of a benchmark: started, waited for, asked over HTTP, weighed by proc(5), ended. Where there is no /proc they weigh nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

PATIENCE_S: Final = 120.0
"""A home with a million orders that nobody audited yet reads a slice of them before it answers, on whatever machine this is."""


@contextlib.asynccontextmanager
async def program(environment: Mapping[str, str], log: Path, module: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A Python program of ours as a child whose words go to `log`, ended by SIGTERM. Raises ChildProcessError when it was gone before."""
    with log.open("ab") as words:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, env=dict(environment), stdin=asyncio.subprocess.DEVNULL, stdout=words, stderr=words
        )
    gone: int | None = None
    try:
        yield child
    finally:
        gone = child.returncode
        if gone is None:
            child.terminate()
        await child.wait()
        if gone is not None:
            raise ChildProcessError(f"{module} ended by itself with {gone}; {_last_words(log)}")


async def result_of(environment: Mapping[str, str], log: Path, module: str, *arguments: str, given: bytes = b"") -> Any:
    """What a program of ours prints as JSON before it ends. Raises ChildProcessError."""
    with log.open("ab") as words:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments, env=dict(environment), stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=words,
        )  # fmt: skip
        out, _ = await child.communicate(given)
    if child.returncode != 0:
        raise ChildProcessError(f"{module} failed; {_last_words(log)}")
    return json.loads(out)


def _last_words(log: Path) -> str:
    return f"its last words: {log.read_text('utf-8', 'replace')[-800:]}"


async def answered(url: str, child: asyncio.subprocess.Process | None = None) -> Any:
    """Ask until it answers 200; what it says. Raises TimeoutError, also when the child that should answer is gone."""
    async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession(trust_env=False) as http:
        while True:
            if child is not None and child.returncode is not None:
                raise TimeoutError(f"nobody answers at {url}")
            with contextlib.suppress(aiohttp.ClientError, OSError):
                async with http.get(url) as response:
                    if response.status == 200:
                        return await response.json(content_type=None)
            await asyncio.sleep(0.02)


def free_port() -> int:
    """A port on loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def shared(port: int, processes: int) -> None:
    """Wait until so many sockets listen on the port. Raises TimeoutError."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if processes == 1 or _listening(port) >= processes:
                return
            await asyncio.sleep(0.05)


def _listening(port: int) -> int:
    """How many sockets listen on a port of this machine (proc(5), net/tcp: state 0A)."""
    lines = (line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:])
    return sum(fields[3] == "0A" and int(fields[1].partition(":")[2], 16) == port for fields in lines)


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process and its children have used (proc(5), stat: utime and stime)."""
    return sum(_of_stat(Path(f"/proc/{one}/stat")) for one in family(pid))


def machine_cpu_s() -> float:
    """Seconds in which a core of this machine was busy, whoever used it (proc(5), /proc/stat)."""
    try:
        user, nice, system, _, _, irq, soft, *_ = (
            int(word) for word in Path("/proc/stat").read_text("ascii").split("\n", 1)[0].split()[1:]
        )
    except (OSError, ValueError):
        return 0.0
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> int:
    """The most memory that a process has held, without its children (proc(5), status: VmHWM)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) // 1024
    return 0


def _of_stat(file: Path) -> float:
    try:
        fields = file.read_text("ascii").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and its children, and theirs."""
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
        return [pid, *(one for child in children for one in family(int(child)))]
    return [pid]


@dataclass(frozen=True, slots=True)
class Used:
    """Seconds of CPU by who used them, in so many seconds."""

    took_s: float
    cpu_s: dict[str, float]

    @property
    def cores(self) -> dict[str, float]:
        """How many cores each of them kept busy."""
        return {f"{name}_cores": round(seconds / self.took_s, 2) for name, seconds in self.cpu_s.items()}

    def __add__(self, later: Used) -> Used:
        return Used(self.took_s + later.took_s, {name: seconds + later.cpu_s[name] for name, seconds in self.cpu_s.items()})


class Meter:
    """What is used from now on, by these processes and by `others`, which are all the rest of the machine (the database is among those)."""

    def __init__(self, **pids: Sequence[int]) -> None:
        self._pids = pids
        self._began = time.monotonic()
        self._before = self._so_far()

    def _so_far(self) -> dict[str, float]:
        of_each = {name: sum(cpu_s(pid) for pid in pids) for name, pids in self._pids.items()}
        return of_each | {"others": machine_cpu_s() - sum(of_each.values())}

    def read(self) -> Used:
        """What was used until now."""
        now = self._so_far()
        return Used(time.monotonic() - self._began, {name: max(0.0, seconds - self._before[name]) for name, seconds in now.items()})
