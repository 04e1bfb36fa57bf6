"""What falls on the program while it works: kills, and a world that goes away for a while."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from penstock.core.errors import Refused
from penstock.prove.installed.ageing import age
from penstock.prove.installed.points import Point, named
from penstock.prove.installed.premises import BLOCK_MS, Premises
from penstock.prove.installed.shop import CHAINS, Shop
from penstock.prove.installed.wire import Wire
from penstock.prove.lane import Found
from penstock.signer.journal import FILE
from penstock.signer.place import folder_of
from penstock.sql import migrations

REACHED_S: Final = 15.0
"""A life in which its crash point does not come by within this is killed from outside."""
MOVES_S: Final = 40.0
GATHER_S: Final = 1.5
FALLING_S: Final = 5.0
"""A price of eight times the usual falls by an eighth a block."""
LEAVING: Final = tuple(
    named(label, "sqlite") for label in ("intake:after", "bind:after", "signer:journaled", "sign:after", "submit:after", "settle:booked")
)
"""Deaths that leave orders and attempts in different states."""
LEASE_S: Final = 9.0
"""Longer than orders and attempts are leased."""


@dataclass(slots=True)
class Scene:
    """Where blows fall."""

    place: Premises
    shop: Shop
    dice: random.Random
    wire: Wire | None
    restart_database: Callable[[], Awaitable[None]] | None

    async def revive(self) -> None:
        """As a process manager does: start it again until it stays."""
        deadline = time.monotonic() + MOVES_S
        await self.place.start()
        while not self.place.is_running and time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            await self.place.start()

    async def silence(self, began: float, ended: float) -> tuple[float, float] | None:
        """The longest time without an answer, and without an event, from `began` to the first one after `ended`; None where none came."""
        deadline = time.monotonic() + MOVES_S
        signs = (self.shop.answered, self.shop.told)
        while not all(sign and sign[-1] > ended for sign in signs):
            if time.monotonic() > deadline:
                silent = ", ".join(name for name, sign in zip(("answer", "event"), signs, strict=True) if not sign or sign[-1] <= ended)
                self.shop.found.append(Found("other", f"no {silent} within {MOVES_S:g} s after a blow"))
                return None
            if not self.place.is_running:
                await self.place.start()
            await asyncio.sleep(0.02)
        return _longest_gap(self.shop.answered, began, ended), _longest_gap(self.shop.told, began, ended)

    async def weather(self, kind: str) -> None:
        """What a crash point needs to come by."""
        if kind == "fork":
            await self.place.control("ETH", "fork", depth=2, transactions="drop")
            await self.place.control("BTC", "fork", depth=1, transactions="drop")
        elif kind == "spike":
            # Transactions gather at the old price; then no block takes them, until the price has come down again.
            await self.place.control("ETH", "block_time", block_ms=0)
            await self.place.dead_within(GATHER_S)
            await self.place.control("ETH", "spike", factor=8)
            await self.place.control("ETH", "block_time", block_ms=BLOCK_MS)
            await self.place.dead_within(FALLING_S)
        elif kind == "down":
            for chain in CHAINS:
                await self.place.control(chain, "faults", node="all", down="503")

    async def heal(self) -> None:
        """Good weather again."""
        self.place.turn_clock(0)
        self.place.signal(signal.SIGCONT)
        self.place.fill_disk(bytes_left=None)
        for chain in CHAINS:
            await self.place.control(chain, "heal")


def _longest_gap(moments: Sequence[float], began: float, ended: float) -> float:
    since = [moment for moment in moments if moment > began]
    until = [*(moment for moment in since if moment <= ended), next(moment for moment in since if moment > ended)]
    return max(later - earlier for earlier, later in itertools.pairwise([began, *until]))


class Blow(ABC):
    """One thing that goes wrong."""

    name: str
    is_sudden = False
    """Whether silence counts from its beginning; else from its end, when the world is good again."""

    @abstractmethod
    async def fall(self, scene: Scene) -> bool:
        """Do it. False where it could not be brought about; the program may be dead after it."""


@dataclass(frozen=True, slots=True)
class Calm(Blow):
    """Nothing goes wrong until so many more events have come."""

    name: str
    until_events: int

    async def fall(self, scene: Scene) -> bool:
        """Wait."""
        wanted, deadline = scene.shop.arrivals + self.until_events, time.monotonic() + MOVES_S
        while not (met := scene.shop.arrivals >= wanted) and time.monotonic() < deadline:  # noqa: ASYNC110  many tasks feed it
            await asyncio.sleep(0.02)
        return met


@dataclass(frozen=True, slots=True)
class KillAt(Blow):
    """SIGKILL by its own hand at the n-th visit of a label, in a life that was started for it."""

    point: Point
    visit: int
    again: bool = False
    """Another blow follows at once."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """The label, with how deep the recovery died where it did."""
        return self.point.label + (" (in recovery)" if self.again else "")

    @property
    def at(self) -> str:
        """As the machine is told."""
        return f"{self.point.label}:{self.visit}"

    async def fall(self, scene: Scene) -> bool:
        """Replace the running life by one that dies there."""
        scene.place.signal(signal.SIGKILL)
        await scene.place.dead_within(REACHED_S)
        await scene.place.start(self.at)
        if self.point.weather in {"fork", "spike", "down"}:
            await self._make_weather(scene)
        reached = await scene.place.dead_within(2 * REACHED_S if self.point.weather == "slow" else REACHED_S)
        if not reached:
            scene.place.signal(signal.SIGKILL)
            await scene.place.dead_within(REACHED_S)
        if self.point.weather == "down":
            await scene.heal()
        return reached

    async def _make_weather(self, scene: Scene) -> None:
        """Again and again while it lives, because no one knows when it is where the weather counts."""
        await scene.place.ready()
        deadline = time.monotonic() + REACHED_S
        while scene.place.is_running and time.monotonic() < deadline:
            await scene.weather(self.point.weather)
            await scene.place.dead_within(1.0)


@dataclass(frozen=True, slots=True)
class Kill(Blow):
    """SIGKILL from outside at a random moment."""

    name: str = "at a random moment"

    async def fall(self, scene: Scene) -> bool:
        """Some time within three seconds."""
        await asyncio.sleep(scene.dice.uniform(0, 3))
        scene.place.signal(signal.SIGKILL)
        return await scene.place.dead_within(REACHED_S)


@dataclass(frozen=True, slots=True)
class KillSigner(Blow):
    """SIGKILL to the process that holds the keys, at random moments while it signs."""

    name: str = "signer killed"
    count: int = 4

    async def fall(self, scene: Scene) -> bool:
        """Each time as soon as it is back."""
        killed = 0
        deadline = time.monotonic() + 2 * REACHED_S
        while killed < self.count and time.monotonic() < deadline:
            await asyncio.sleep(scene.dice.uniform(0.5, 2.0))
            for pid in scene.place.signers():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
        return killed >= self.count


@dataclass(frozen=True, slots=True)
class KillSignerAt(Blow):
    """The signer's process dies by its own hand with its journal written and nothing answered, each time that it has been started again."""

    visit: int
    """Odd: a moment after the journal is durable. Even: with the signatures made, before their answer."""
    count: int = 3

    @property
    def name(self) -> str:  # type: ignore[override]
        """Where."""
        return "signer killed " + ("after its journal" if self.visit % 2 else "before its answer")

    async def fall(self, scene: Scene) -> bool:
        """In a life of its own, which ends with it."""
        scene.place.signal(signal.SIGKILL)
        await scene.place.dead_within(REACHED_S)
        before = scene.place.said("child.ended")
        await scene.place.start(signer_at=f"signer:journaled:{self.visit}")
        deadline = time.monotonic() + 2 * REACHED_S
        while not (met := scene.place.said("child.ended") >= before + self.count) and time.monotonic() < deadline:  # noqa: ASYNC110  a log
            await asyncio.sleep(0.1)
        scene.place.signal(signal.SIGKILL)
        await scene.place.dead_within(REACHED_S)
        return met


@dataclass(frozen=True, slots=True)
class Upgrade(Blow):
    """The database becomes one of an older version, with orders wherever a crash has left them, and every migration since is killed."""

    last: int
    """The newest migration that the older version knew."""

    @property
    def name(self) -> str:  # type: ignore[override]
        """From where."""
        return f"upgraded from schema {self.last:04d}"

    async def fall(self, scene: Scene) -> bool:
        """Die on the road, grow older, and die before and after the commit of each migration."""
        await KillAt(scene.dice.choice(LEAVING), scene.dice.randint(1, 3)).fall(scene)
        await asyncio.to_thread(age, scene.place.settings.database_url, self.last)
        fell = True
        for number, _, _ in migrations():
            for when in ("before", "after") if number > self.last else ():
                await scene.place.start(f"migrate:{number:04d}:{when}:1")
                fell = await scene.place.dead_within(REACHED_S) and fell
        return fell


@dataclass(frozen=True, slots=True)
class RestartDatabase(Blow):
    """PostgreSQL loses everything that it had not made durable, and every connection."""

    name: str = "pg_ctl restart -m immediate"
    is_sudden = True

    async def fall(self, scene: Scene) -> bool:
        """Returns when it is up again."""
        if scene.restart_database is None:
            return False
        await scene.restart_database()
        return True


@dataclass(frozen=True, slots=True)
class LoseCommits(Blow):
    """The answers of some COMMITs are lost, with their connections."""

    name: str = "answer of COMMIT lost"
    count: int = 5
    is_sudden = True

    async def fall(self, scene: Scene) -> bool:
        """Until so many are lost."""
        if scene.wire is None:
            return False
        wanted, deadline = scene.wire.lost + self.count, time.monotonic() + REACHED_S
        scene.wire.lose(self.count)
        while not (met := scene.wire.lost >= wanted) and time.monotonic() < deadline:  # noqa: ASYNC110  many connections feed it
            await asyncio.sleep(0.02)
        return met


@dataclass(frozen=True, slots=True)
class Sleepwalk(Blow):
    """SIGSTOP past every lease of orders and attempts, and then on as if nothing had been. Nobody else may sign meanwhile."""

    name: str = "stopped past its lease"

    async def fall(self, scene: Scene) -> bool:
        """A second program on the home is refused, while the first one sleeps and when it wakes."""
        scene.place.signal(signal.SIGSTOP)
        try:
            other = await scene.place.beside("all")
            async with asyncio.timeout(REACHED_S):
                code = await other.wait()
            if code != 2:
                scene.shop.found.append(
                    Found("other", f"a second program began to sign on the home of one that was stopped (exit code {code})")
                )
            await asyncio.sleep(LEASE_S)
        finally:
            scene.place.signal(signal.SIGCONT)
        return True


@dataclass(frozen=True, slots=True)
class FullDisk(Blow):
    """No file of the program may grow: the database, or the signer's journal too."""

    name: str
    bytes_left: int
    seconds: float = 3.0

    async def fall(self, scene: Scene) -> bool:
        """For a while; then there is space. It fell where somebody was told to come again, or where the signer ended itself."""
        before = scene.shop.refusals.total() + scene.place.said("child.ended")
        scene.place.fill_disk(bytes_left=self.bytes_left)
        await asyncio.sleep(self.seconds)
        scene.place.fill_disk(bytes_left=None)
        return scene.shop.refusals.total() + scene.place.said("child.ended") > before


@dataclass(frozen=True, slots=True)
class ClockSteps(Blow):
    """The wall clock jumps and comes back."""

    name: str
    off_ms: int
    seconds: float = 4.0

    async def fall(self, scene: Scene) -> bool:
        """Both edges are steps."""
        scene.place.turn_clock(self.off_ms)
        await asyncio.sleep(self.seconds)
        scene.place.turn_clock(0)
        return True


@dataclass(frozen=True, slots=True)
class NodesDown(Blow):
    """Every node of every network is away."""

    name: str = "all nodes down"
    seconds: float = 6.0

    async def fall(self, scene: Scene) -> bool:
        """For a while."""
        await scene.weather("down")
        await asyncio.sleep(self.seconds)
        await scene.heal()
        return True


@dataclass(frozen=True, slots=True)
class EmptyWallet(Blow):
    """More is asked for than the hot address has; later it has it."""

    name: str = "hot wallet empty"

    async def fall(self, scene: Scene) -> bool:
        """Orders are held for liquidity, and go when coins arrive."""
        for _ in range(3):
            await scene.shop.order("BTC", "BTC", "15")
        deadline, held = time.monotonic() + REACHED_S, False
        async with scene.place.commands() as commands:
            while not held and time.monotonic() < deadline:
                rows = await commands.list_orders(state="held", app_id="", chain="BTC", limit=100)
                held = any(row["hold_reason"].startswith("liquidity") for row in rows)
                await asyncio.sleep(0.1)
        await scene.shop.fund("BTC", "BTC", 60)
        return held


@dataclass(frozen=True, slots=True)
class LoseJournal(Blow):
    """The signer's journal is gone for good, a person says so, and the start that teaches it again dies in the middle, twice."""

    name: str = "signer's journal lost"

    async def fall(self, scene: Scene) -> bool:
        """Before and after the tables forget what the journal knew."""
        scene.place.signal(signal.SIGKILL)
        await scene.place.dead_within(REACHED_S)
        (folder_of(scene.place.settings) / FILE).unlink()
        await scene.place.start("recovery.relearn:before:1")
        fell = await self._allow(scene) and await scene.place.dead_within(REACHED_S)
        await scene.place.start("recovery.relearn:after:1")
        return await scene.place.dead_within(REACHED_S) and fell

    async def _allow(self, scene: Scene) -> bool:
        """As soon as networks wait for it; refused before."""
        deadline = time.monotonic() + 2 * REACHED_S
        while time.monotonic() < deadline:
            await asyncio.sleep(0.2)
            with contextlib.suppress(Refused):
                async with scene.place.commands() as commands:
                    await commands.relearn("the disk of the signer is gone")
                return True
        return False
