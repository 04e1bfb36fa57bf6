"""The weather of one seed: what breaks nodes, networks, receivers, clocks and processes, and when; each seed has its own few kinds of it.

Every strike is noted with the network that it hits, so that what was tried can be counted. It never breaks what no gateway could mend: a
block that is final stays, and of two nodes one has its records.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.devnet.box import BadCommand
from penstock.devnet.control import control
from penstock.prove.simulated.networks import Place, Site

COMMON: Final = ("break", "slow", "twice", "down", "lag", "wrong_chain")
"""What can happen to the nodes of every network."""
LOSSES: Final = ("drop", "blind", "forget")
BREAKAGES: Final = ("500", "503", "reset", "timeout")
ODD: Final = ("false", "nothing", "silent", "short", "twice", "paused")
"""What a token may do to its holders: return false and pay, return false and not pay, pay without an event, pay less than it says, ..."""
SINK: Final = ("sink_down", "sink_slow", "sink_500", "sink_wrong", "sink_lost", "sink_redirect")
HOUSE: Final = ("clock", "prices", "freeze")


@dataclass(slots=True)
class Outside:
    """What the weather does to everything that is no network: the receiver's mood, the clock, the price source, a process that is stopped."""

    sink: str = ""
    clock_shift_ms: int = 0
    prices: str = ""
    frozen_until_s: float = 0.0


@dataclass(slots=True)
class Weather:
    """One seed's weather over all its networks. `until_s` is when it clears up; until `unseen_until_s` nobody is there, and little happens."""

    sites: Sequence[Site]
    source: random.Random
    until_s: float
    now_s: Callable[[], float]
    note: Callable[[str], None]
    kinds: frozenset[str] = frozenset()
    outside: Outside = field(default_factory=Outside)
    active: dict[str, set[str]] = field(default_factory=dict)
    spoiled: set[str] = field(default_factory=set)
    struck: dict[tuple[str, str], int] = field(default_factory=dict)
    sent: Callable[[str], Collection[str]] = lambda chain: ()  # noqa: ARG005
    unseen_until_s: float = 0.0

    def __post_init__(self) -> None:
        self.active = {site.place.chain: set() for site in self.sites}
        every = sorted({kind for site in self.sites for kind in of_place(site.place)} | set(SINK) | set(HOUSE))
        self.kinds = frozenset(kind for kind in every if self.source.random() < 0.6)

    @property
    def stormy(self) -> bool:
        """Whether anything goes wrong now."""
        return self.now_s() < self.until_s

    async def blow(self) -> None:
        """Until it clears up; after a power cut it goes on where it was."""
        for site in self.sites:
            self._calm(site)  # what a strike would have taken back itself, had it not been cut off
        await asyncio.gather(*(self._over(site) for site in self.sites), self._around())
        self.clear()

    def clear(self) -> None:
        """Good weather from now on."""
        for site in self.sites:
            self._heal(site)
            self._calm(site)
            self.active[site.place.chain] = set()
        self.outside.sink = self.outside.prices = ""
        self.outside.clock_shift_ms = 0
        self.outside.frozen_until_s = 0.0

    # Networks

    async def _over(self, site: Site) -> None:
        kinds = [kind for kind in of_place(site.place) if kind in self.kinds]
        pace_s = max(8.0, min(2.0 * site.block_ms / 1000, 300.0))
        while self.stormy:
            await asyncio.sleep(self._unseen(self.source.random() * pace_s))
            node = self.source.choice(site.network.nodes)
            node.faults = type(node.faults)()
            active = self.active[site.place.chain]
            active.clear()
            if kinds and self.source.random() < 0.8:
                kind = self.source.choice(kinds)
                active.add(kind)
                self.struck[site.place.family, kind] = self.struck.get((site.place.family, kind), 0) + 1
                self.note(f"weather {site.place.chain}: {kind}")
                with contextlib.suppress(ValueError):  # a fork deeper than this network can be undone
                    await self._strike(site, kind, node.faults)

    def _unseen(self, pause_s: float) -> float:
        return max(pause_s, min(50 * pause_s, self.unseen_until_s - self.now_s()))

    async def _strike(self, site: Site, kind: str, faults: Any) -> None:
        chance, network = self.source, site.network
        match kind:
            case "drop":
                faults.drop = chance.randint(1, 3)
            case "break":
                faults.break_after, faults.breakage = chance.randint(1, 3), chance.choice(BREAKAGES)
            case "slow":
                faults.delay_ms = chance.choice((100, 2_000, 60_000))
            case "twice":
                faults.duplicate = chance.randint(1, 3)
            case "down":
                faults.down = chance.choice(BREAKAGES)
            case "lag":
                faults.lag = chance.randint(1, 3)
            case "wrong_chain":
                faults.chain_id = 424_242
            case "blind":
                for node in network.nodes:  # all of them at once would be a lie that nothing can see through
                    node.faults.blind = False
                faults.blind = True
            case "fork":
                network.fork(chance.randint(1, site.reorg_max), chance.choice(("keep", "drop", "reorder")))
            case "spike":
                network.spike(chance.randint(2, 8))
            case "forget":
                for txid in self.sent(site.place.chain):
                    network.forget(txid)
            case "dark":
                await self._dark(site)
            case _:
                await _STRIKES[site.place.family](self, site, kind, faults)

    async def _dark(self, site: Site) -> None:
        """The only node that answers has lost sight of transactions, for longer than one lives."""
        first, *others = site.network.nodes
        first.faults = type(first.faults)(blind=True)
        for node in others:
            node.faults = type(node.faults)(down="reset")
        await self._wait(self.source.choice((20.0, 60.0, 700.0)))
        self._heal(site)

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, min(seconds, self.until_s - self.now_s())))

    async def tron(self, site: Site, kind: str, faults: Any) -> None:
        """Blocks that are not solidified or missed, busy nodes, receipts without events, tokens that lie."""
        chance, networks = self.source, [site.network]
        match kind:
            case "stall":
                control(networks, {"do": "stall", "on": 1})
                await self._wait(chance.choice((20.0, 90.0, 1_800.0)))
                control(networks, {"do": "stall", "on": 0})
            case "miss":
                control(networks, {"do": "miss", "slots": chance.randint(1, 5)})
            case "busy":
                faults.busy_after = chance.randint(1, 3)
            case "solid":
                faults.solid_lag = chance.randint(1, 10)
            case "logless" if chance.random() < 0.1:  # a receipt without its event is for a person, whoever left it out
                self.spoiled.add(site.place.chain)
                faults.logless = True
            case "omit":
                faults.omit = True
            case "token" if chance.random() < 0.1:
                self.spoiled.add(site.place.chain)
                contract = next(iter(site.network.status()["tokens"].values()))["contract"]
                control(networks, {"do": "behave", "contract": contract, "behaviour": chance.choice(ODD)})
                await self._wait(chance.random() * 30)
                control(networks, {"do": "behave", "contract": contract, "behaviour": "usual"})
            case _:
                pass

    async def xrp(self, site: Site, kind: str, faults: Any) -> None:
        """Load, ledgers that are missing or not validated, nodes too old for the network."""
        chance, networks = self.source, [site.network]
        match kind:
            case "load":
                control(networks, {"do": "load", "factor": chance.randint(1, 40)})
            case "gap":
                faults.gap = chance.randint(1, 20)
            case "blocked":
                faults.blocked = True
            case "validation":
                before = site.network.status()["validation_lag"]
                control(networks, {"do": "validation", "ledgers": chance.randint(1, 4)})
                await self._wait(chance.random() * 60)
                control(networks, {"do": "validation", "ledgers": before})
            case _:
                pass

    async def bitcoin(self, site: Site, kind: str, faults: Any) -> None:
        """A mempool that evicts, nodes without estimates or behind."""
        chance, networks = self.source, [site.network]
        match kind:
            case "evict":
                control(networks, {"do": "mempool_min", "sat_per_kvb": chance.choice((5_000, 20_000, 60_000))})
                await self._wait(chance.random() * 60)
                control(networks, {"do": "mempool_min", "sat_per_kvb": 0})
            case "estimate":
                faults.no_estimate, faults.fee_percent_shift = bool(chance.randrange(2)), chance.choice((-60, 100, 400))
            case "syncing":
                faults.syncing, faults.lag = True, chance.randint(1, 3)
            case _:
                pass

    async def lightning(self, site: Site, kind: str, faults: Any) -> None:
        """Parts that are held or lost on the way, recipients who are away, a node that restarts or misspeaks."""
        chance, networks = self.source, [site.network]
        match kind:
            case "hold" | "partial":
                control(networks, {"do": kind, "count": chance.randint(1, 3)})
                await self._wait(chance.choice((30.0, 60.0, 3_600.0)))
                release(site)
            case "fail":
                control(networks, {"do": "fail", "count": chance.randint(1, 2), "reason": chance.choice(("TIMEOUT", "NO_ROUTE", "ERROR"))})
            case "latency":
                control(networks, {"do": "route", "latency_ms": chance.choice((10, 5_000, 40_000)), "parts": chance.randint(1, 4)})
            case "offline":
                control(networks, {"do": "receiver", "online": chance.randint(0, 1)})
            case "restart":
                control(networks, {"do": "restart", "down_ms": chance.choice((100, 20_000, 120_000))})
            case "says_failed":
                faults.says_failed = True
            case "hides_parts":
                faults.hides_parts = True
            case _:
                pass

    def _heal(self, site: Site) -> None:
        for node in site.network.nodes:
            node.faults = type(node.faults)()

    def _calm(self, site: Site) -> None:
        """The network's own troubles end too."""
        networks = [site.network]
        with contextlib.suppress(ValueError, BadCommand):
            site.network.spike(1)
        for command in _CALM.get(site.place.family, ()):
            control(networks, dict(command))
        if site.place.family == "tron":
            for token in site.network.status()["tokens"].values():
                control(networks, {"do": "behave", "contract": token["contract"], "behaviour": "usual"})
        release(site)

    # Around the house

    async def _around(self) -> None:
        kinds = [kind for kind in (*SINK, *HOUSE) if kind in self.kinds]
        while self.stormy:
            await asyncio.sleep(self._unseen(self.source.random() * 20))
            if not kinds:
                continue
            kind = self.source.choice(kinds)
            self.struck["house", kind] = self.struck.get(("house", kind), 0) + 1
            self.note(f"weather: {kind}")
            match kind:
                case "clock":
                    self.outside.clock_shift_ms = self.source.randint(-30_000, 30_000)
                case "prices":
                    self.outside.prices = self.source.choice(("", "silent", "double", "half", "zero"))
                case "freeze":
                    self.outside.frozen_until_s = self.now_s() + self.source.choice((1.0, 9.0, 40.0))
                case _:
                    self.outside.sink = "" if self.outside.sink else kind


def of_place(place: Place) -> tuple[str, ...]:
    """Every kind of weather that a network can have."""
    losses = LOSSES if place.lossy else ()
    forks = ("fork",) if place.depths else ()
    return (*COMMON, *losses, *forks, *(["spike"] * place.spikes), *place.troubles)


def release(site: Site) -> None:
    """What recipients held back they take now; a part whose fellows came back is sent back."""
    world: Any = getattr(site.network, "world", None)
    for payment_hash, payment in list(world.payments.items()) if world is not None else ():
        parts = [htlc for channel in world.channels for htlc in channel.htlcs if htlc.payment_hash == payment_hash]
        if all(htlc.due_ms is None for htlc in parts):  # none is still on its way
            whole = sum(htlc.amount_msat for htlc in parts) >= payment.order.amount_msat
            control([site.network], {"do": "release", "payment_hash": payment_hash, "how": "settle" if whole else "fail"})


_STRIKES: Final = {"tron": Weather.tron, "xrp": Weather.xrp, "bitcoin": Weather.bitcoin, "lightning": Weather.lightning}
_CALM: Final[dict[str, tuple[dict[str, Any], ...]]] = {
    "tron": ({"do": "stall", "on": 0},),
    "xrp": ({"do": "load", "factor": 1}, {"do": "validation", "ledgers": 1}),
    "bitcoin": ({"do": "mempool_min", "sat_per_kvb": 0},),
    "lightning": (
        {"do": "receiver", "online": 1},
        {"do": "route", "latency_ms": 10},
        {"do": "fail", "count": 0},
        {"do": "hold", "count": 0},
        {"do": "partial", "count": 0},
    ),
}
