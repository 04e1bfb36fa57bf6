"""The real `serve` on a machine that kills it: `python -m penstock.prove.installed.crashing --at bind:after:3 serve`. With --signer-at it is the
signer's process that dies, life after life, each time at that visit. `archive` runs that command instead.

The product has no switch for this. It runs here as it does under `penstock serve`, given a machine whose crash points are SIGKILL to its own
process and whose clock is off by as many milliseconds as a file says.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import uvloop

from penstock import logs
from penstock.commands import Commands
from penstock.config import load
from penstock.process import opened, serve
from penstock.runtime import SystemRuntime
from penstock.signer import __main__ as signer
from penstock.signer.child import WORDS

T = TypeVar("T")

FLIGHT: Final = "flight"
"""Labels that begin so are no crash points of the product: they name a task, and the machine dies some milliseconds after one began, while
bytes are on their way."""
FLIGHT_MS_MAX: Final = 8


class Mortal(SystemRuntime):
    """The real machine, until the n-th visit of one label; after that there is no process."""

    def __init__(self, label: str, visit: int, clock: Path | None = None, *, falls_asleep: bool = False) -> None:
        super().__init__()
        self._label = label
        self._visit = visit
        self._clock = clock
        self._falls_asleep = falls_asleep
        self._visits: Counter[str] = Counter()
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """The wall clock as far off as the file says at this moment; where there is no file, it is right."""
        if self._clock is None:
            return super().now_ms()
        return super().now_ms() + int(self._clock.read_text("ascii") or 0)

    def crash_point(self, label: str) -> None:
        """Die here, if this is where."""
        if self._is_due(label):
            self._die()

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> asyncio.Task[T]:
        """As on every machine; a task may be the one after whose beginning this one dies."""
        task = super().spawn(work, name=name)
        if self._is_due(f"{FLIGHT}:{name}"):
            asyncio.get_running_loop().call_later(self.random_below(FLIGHT_MS_MAX) / 1000, self._die)
        return task

    def _is_due(self, label: str) -> bool:
        if label != self._label:
            return False
        with self._lock:
            self._visits[label] += 1
            return self._visits[label] == self._visit

    def _die(self) -> None:
        """As from outside: nothing is flushed, closed or said. Or a sleep, out of which somebody wakes it as if nothing had been."""
        if self._falls_asleep:
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        os.kill(os.getpid(), signal.SIGKILL)
        threading.Event().wait()  # the signal may come a moment later, and not one line more may run


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m penstock.prove.installed.crashing")
    parser.add_argument("--at", default="", metavar="LABEL:N", help="die at the n-th visit of this label")
    parser.add_argument("--clock", type=Path, help="a file with the milliseconds by which the wall clock is off")
    parser.add_argument("--asleep", action="store_true", help="do not die, but stop until somebody says SIGCONT")
    parser.add_argument("--signer-at", default="", metavar="LABEL:N", help="its signer dies at the n-th visit of this label")
    parser.add_argument("what", choices=["serve", "signer", "archive"])
    parser.add_argument("--before", type=int, default=0, metavar="MS", help="for archive")
    parser.add_argument("--role", default="all", choices=["all", "api", "worker"])
    given = parser.parse_args()
    label, _, visit = given.at.rpartition(":")
    machine = Mortal(label, int(visit or 0), given.clock, falls_asleep=given.asleep)
    if given.what == "signer":
        sys.exit(signer.main(machine))
    os.umask(0o077)
    logs.configure(logging.INFO)
    if given.what == "archive":
        asyncio.run(_archive(machine, given.before))
        return
    words = ("-m", "penstock.prove.installed.crashing", "--at", given.signer_at, "signer") if given.signer_at else WORDS
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(load(), given.role, machine, words))


async def _archive(machine: Mortal, before_ms: int) -> None:
    async with opened(load(), signing=False, machine=machine) as product:
        await Commands(product).archive(before_ms, None)


if __name__ == "__main__":
    main()
