"""The whole product in one process on any list of boxes, in virtual time: real rooms, rails, signer and SQLite; it can die and live again.

A house outlives its program: home folder, keys, the signer's journal, the networks and whoever receives its webhooks stay. A life is one
process of the program, from its start to a crash or an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, TypeVar

from penstock.config import NetworkSettings, Settings
from penstock.core.seal import OrderSeal
from penstock.db import Database, SqliteDatabase
from penstock.devnet.box import BoxNetwork
from penstock.ids import IdSource
from penstock.prove.simulated.reach import BoxPost
from penstock.prove.simulated.virtual import START_MS, Crash, Journal, VirtualLoop, VirtualRuntime
from penstock.rails.post import Post
from penstock.signer.index import FILE, Index
from penstock.signer.journal import START, JournalBroken, Numbered, Place, canonical, follow
from penstock.signer.local import LocalSigner
from penstock.signer.policy import allowed_networks, load_catalog
from penstock.signer.seed import create_seed
from penstock.vault import Vault
from penstock.webhooks.deliver import Targets
from penstock.wiring import Product, World

T = TypeVar("T")

OpenDatabase = Callable[[VirtualRuntime, Path], SqliteDatabase]
"""How a life opens the one file; an auditor opens it in a way of its own."""
Never = Callable[[str, int], bool]

SEAL: Final = OrderSeal(b"the seal key of simulated houses")


@dataclass(slots=True)
class MemoryJournal:
    """The signer's journal on a disk that survives every crash."""

    lines: list[Mapping[str, Any]] = field(default_factory=list)
    read_back: list[Numbered] = field(default_factory=list)

    @property
    def end(self) -> Place:
        """Behind the last entry."""
        return self.read_back[-1][0] if self.read_back else START

    def read(self, after: Place = START, *, upto: int | None = None) -> Iterator[Numbered]:
        """As the file would. Raises JournalBroken where it has no such place."""
        if after != START and after not in [place for place, _ in self.read_back[after.number - 1 : after.number]]:
            raise JournalBroken("the journal has no such place")
        if upto is not None and upto > len(self.lines):
            raise JournalBroken("the journal has no such entry")
        return iter(self.read_back[after.number : upto])

    def append(self, entries: Sequence[Mapping[str, Any]]) -> list[Place]:
        """Durable at once."""
        before = len(self.lines)
        for entry in entries:
            text = canonical(entry)
            self.read_back.append((follow(self.end, text)[0], text))
        self.lines += entries
        return [place for place, _ in self.read_back[before:]]

    def cut(self, count: int) -> None:
        """An older copy is put back."""
        del self.lines[count:], self.read_back[count:]


class House:
    """One home on some networks, and lives of the program one after another."""

    def __init__(
        self,
        home: Path,
        networks: Sequence[BoxNetwork],
        targets: Targets,
        *,
        loop: VirtualLoop,
        source: random.Random,
        journal: Journal,
        settings: Settings | None = None,
        node_settings: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        self.loop = loop
        self.journal = journal
        self.networks = {network.name: network for network in networks}
        self.nodes = BoxPost(networks)
        self.post: Post = self.nodes
        self.fetch: Callable[..., Any] = _no_prices
        self.open_database: OpenDatabase = SqliteDatabase
        self.clock_shift_ms = 0
        self.pace = 1.0
        self.frozen_until_s: Callable[[], float] = lambda: 0.0
        self.visited: list[str] = []
        self._targets = targets
        self._source = source
        chosen = node_settings or {}
        of_networks = {network.name: self._of_nodes(network, chosen.get(network.name, {})) for network in networks}
        self.settings = replace(settings or Settings(home=home), home=home, networks=of_networks)
        first = VirtualRuntime(loop, source, journal)
        self.vault = Vault.create(home, first, passphrase=None, key_file=True)
        self.keys = create_seed(home, self.vault, first)
        self.signed = MemoryJournal()
        self._life: _Life | None = None

    def _of_nodes(self, network: BoxNetwork, chosen: Mapping[str, Any]) -> NetworkSettings:
        wanted = {**network.settings, **chosen}
        form = wanted.pop("rpc_url", "{url}")
        return NetworkSettings(rpc_urls=tuple(form.format(url=url) for url in self.nodes.urls(network.name)), **wanted)

    def now_ms(self) -> int:
        """The clock that the networks and everybody outside share."""
        return START_MS + int(self.loop.time() * 1000)

    @property
    def product(self) -> Product:
        """The rooms of the life that is. Raises LookupError where nothing lives."""
        if self._life is None or self._life.product is None:
            raise LookupError("nothing lives here")
        return self._life.product

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Virtual time goes on until this is done. Raises Crash where the program dies before."""
        task = self.loop.create_task(work)
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # a crash is nobody's to retrieve
        return self.loop.run_until_complete(task)

    def start(self, *, crash_at: Never | None = None) -> None:
        """A life of the program, up to where its pumps run. Raises Crash where it dies before."""
        self.run(self._begin(crash_at))

    async def _begin(self, crash_at: Never | None) -> None:
        runtime = VirtualRuntime(self.loop, self._source, self.journal)
        runtime.shift_ms = lambda: self.clock_shift_ms
        runtime.frozen_until_s = self.frozen_until_s
        runtime.pace = self.pace
        if crash_at is not None:
            runtime.crash_at = crash_at
        self._life = _Life(self, runtime)
        await self._life.begin()

    def die(self) -> None:
        """Power off, whatever was under way; clients of the life end with it."""
        if self._life is not None:
            self._life.runtime.kill()
            self.visited += list(self._life.runtime.visits)
            self._life.end()
        self._life = None
        while tasks := asyncio.all_tasks(self.loop):
            for task in tasks:
                task.cancel()
            with contextlib.suppress(Crash):
                self.loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


class _Life:
    """One process of the program."""

    def __init__(self, house: House, runtime: VirtualRuntime) -> None:
        self.runtime = runtime
        self.product: Product | None = None
        self._house = house
        self._database: Database | None = None
        self._index: Index | None = None

    async def begin(self) -> None:
        house, runtime = self._house, self.runtime
        self._database = database = house.open_database(runtime, house.settings.home / "penstock.db")
        await database.migrate()
        ids = await IdSource.lease(runtime, database, "house")
        allowed = allowed_networks(house.settings, load_catalog(house.settings), every=True)
        # A crash leaves it behind the journal, and a journal that is put back leaves it before: as on a disk.
        self._index = index = Index(house.settings.home / FILE, house.signed)
        signer = LocalSigner(house.keys, house.signed, runtime, allowed, SEAL, index=index)
        world = World(runtime, house.post, house._targets, house.fetch)
        self.product = Product(house.settings, world, database, ids, house.vault, signer, SEAL)
        await self.product.connect()
        await self.product.start()

    def end(self) -> None:
        self.runtime.bury()
        if self._database is not None:
            self._database._close()
        if self._index is not None:
            self._index.close()


async def _no_prices(url: str, *, bytes_max: int, timeout_s: int) -> bytes:
    raise ValueError(f"{url} is not asked here ({bytes_max}, {timeout_s})")
