"""Builds rooms and pumps from Settings, starts and stops them."""

from __future__ import annotations

import asyncio
import contextlib
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import structlog

from penstock import directory
from penstock.catalog import Catalog
from penstock.config import NetworkSettings, Settings, SettingWrong
from penstock.core.intent import Signer
from penstock.core.money import LEDGER_DECIMALS, Network, parse_units, plain
from penstock.core.seal import OrderSeal
from penstock.db import CommitUnknown, Database, DatabaseUnavailable, Tx
from penstock.directory import Directory
from penstock.http.app import App, build_app
from penstock.http.ports import Limits, Ports
from penstock.ids import IdSource
from penstock.ledger.book import Balances, Book
from penstock.ledger.rules import Terms
from penstock.networks import RAILS, Site
from penstock.orders import attempts, auditor, board, clock, replica, treasury
from penstock.orders.accept import Accept, Policy
from penstock.orders.auditor import Auditor
from penstock.orders.board import Board
from penstock.orders.decide import Decider
from penstock.orders.follow import Follower
from penstock.orders.intake import Intake
from penstock.orders.readiness import Readiness
from penstock.orders.recovery import TURN_S, Recovery
from penstock.orders.replica import Replica
from penstock.orders.seat import Seat, SeatLost
from penstock.orders.send import Sender
from penstock.orders.settle import Settler
from penstock.orders.stages import Stages
from penstock.orders.store import OrderStore
from penstock.orders.timeline import Timelines
from penstock.orders.treasury import Treasury
from penstock.pump import Pump, begun, every
from penstock.rails.base import Clocked, Rail
from penstock.rails.post import Post
from penstock.rates import HttpSource, Prices, static_prices
from penstock.runtime import Runtime
from penstock.signer.families import KEYED, LANES
from penstock.signer.policy import fee_max_of, load_catalog, of_coins
from penstock.vault import Vault
from penstock.webhooks.deliver import Deliverer, Targets
from penstock.webhooks.outbox import LEASE_MS, Outbox
from penstock.webhooks.targets import check_url

log = structlog.get_logger()

PRICES_REFRESH_S: Final = 30.0
INTAKES: Final = MappingProxyType({"sqlite": ("intake",), "postgresql": ("intake", "intake2")})
"""Committers of orders. SQLite has one writer; on PostgreSQL one batch is written while the one before waits for the disk."""


@dataclass(frozen=True, slots=True)
class World:
    """Everything outside the process. A simulation gives its own."""

    runtime: Runtime
    rpc: Post
    targets: Targets
    fetch: Callable[..., Any]
    beside: auditor.Reader | None = None
    """What reads a long audit; without it the gateway does."""


class Product:
    """The wired rooms of one process."""

    _beside: asyncio.Task[Any] | None = None

    def __init__(
        self,
        settings: Settings,
        world: World,
        database: Database,
        ids: IdSource,
        vault: Vault,
        signer: Signer,
        seal: OrderSeal,
        past: Replica | None = None,
    ) -> None:
        self.settings = settings
        self.runtime = world.runtime
        self.database = database
        self.ids = ids
        self.catalog = load_catalog(settings)
        self.prices, self._price_source = load_prices(settings, self.catalog)
        self.signer = signer
        self._world = world
        self._next_ids = ids.next
        self.seat = Seat(world.runtime, database, f"{platform.node()}:{settings.home}", ids.next)
        private = settings.webhooks.allow_private_targets
        self.directory = Directory(database, world.runtime, vault, check_url=lambda url: check_url(url, allow_private=private))
        self.rails: dict[str, Rail] = {}
        self.board = Board(world.runtime, self.catalog, self.rails, self.prices)
        self.outbox = Outbox(database, world.runtime, self._next_ids)
        self.intake = Intake(world.runtime, database, [*map(self.book, INTAKES[database.dialect])], self.outbox, self._next_ids)
        self._minimum = of_coins(self.catalog, settings.policy.minimum, "policy.minimum")
        kinds: dict[str, Any] = {"catalog": self.catalog, "next_ids": self._next_ids}
        policy = _policy(settings, self.catalog, self._minimum)
        self.accept = Accept(**kinds, board=self.board, accounts=self.directory, intake=self.intake, policy=policy, seal=seal)
        self._replica = past
        self.store = OrderStore(world.runtime, database, past)
        self.timelines = Timelines(database, self.catalog)
        stored: dict[str, Any] = {"runtime": world.runtime, "database": database}
        common = kinds | stored
        road: dict[str, Any] = {"board": self.board, "held": self._held}
        self.settler = Settler(**common, book=self.book("settle"), outbox=self.outbox, rate_text=self.board.rate_text)
        self.stages = Stages(**stored, **road, signer=signer, next_ids=self._next_ids)
        self.sender = Sender(
            **common,
            **road,
            signer=signer,
            stages=self.stages,
            in_flight_max=lambda chain: self._network(chain).in_flight_max,
            hot_addresses=self._hot_addresses,
            refuse=self.settler.refuse,
        )
        self.follower = Follower(**common, **road, stages=self.stages, settler=self.settler, report_depth=self._report_depth)
        self.treasury = Treasury(**common, rails=self.rails, signer=signer, book=self.book("treasury"), hot_addresses=self._hot_addresses)
        self.decider = Decider(**common, board=self.board, signer=signer, settler=self.settler)
        self.recovery = Recovery(**common, rails=self.rails, signer=signer, settler=self.settler, treasury=self.treasury)
        self.readiness = Readiness(**stored, board=self.board, prices=self.prices, treasury=self.treasury, replica=past)
        self.readiness.waits_for = lambda: self.seat.waits_for
        self.auditor = Auditor(**stored, catalog=self.catalog, terms=self.audit_terms, beside=world.beside)
        self.deliverer = Deliverer(
            database=database,
            runtime=world.runtime,
            merchants=self.directory,
            targets=world.targets,
            schedule=settings.webhooks.schedule or None,
        )
        self._deliver = Pump("deliver", self.deliverer, world.runtime, limit=200)
        self.deliverer.finished = self._deliver.wake
        self._pumps = [self._deliver]
        self._tasks: list[asyncio.Task[Any]] = []
        self._waiting: asyncio.Task[Any] | None = None
        self._stopping = False
        self.broken: BaseException | None = None
        self.on_broken: Callable[[], None] = lambda: None

    def book(self, room: str) -> Book:
        """A committer of its own for each room of each process, so that no chain has two writers."""
        return Book(self._next_ids, lambda: f"{self.ids.worker}/{room}")

    def audit_terms(self) -> Terms:
        """What the audit has to be told beside the database."""
        symbols = {coin.id: coin.symbol for coin in self.catalog.coins()}
        return Terms(symbols, {token.id: token for token in self.catalog.tokens()}, self.runtime.now_ms())

    def has_address(self, chain: str) -> bool:
        """Whether this house can hold coins on the network."""
        network = self.catalog.network(chain)
        return network is not None and (network.family in KEYED or bool(self._network(chain).node_id))

    def _network(self, chain: str) -> NetworkSettings:
        return self.settings.networks.get(chain, NetworkSettings())

    def _hot_addresses(self, chain: str) -> int:
        return self._network(chain).hot_addresses

    def _report_depth(self, chain: str) -> int | None:
        network = self.catalog.network(chain)
        if network is None or not network.param("reports_at_depth", default=False):
            return None
        return network.confirmations

    def _held(self, chain: str) -> str:
        return self.recovery.held(chain)

    async def connect(self) -> None:
        """Make the rails of every network that is on."""
        for chain, wanted in self.settings.networks.items():
            if not wanted.rpc_urls:
                continue
            network = self.catalog.network(chain)
            if network is None or network.family not in RAILS:
                raise SettingWrong(f"networks.{chain}: there is no rail for it; `penstock catalog` shows what exists")
            if not self.has_address(chain):
                raise SettingWrong(f"networks.{chain}.node_id: the identity of the node that pays is missing (66 hex digits)")
            contracts = tuple(token.contract for token in self.catalog.tokens_on(chain) if token.contract)
            own = self._own_addresses(network)
            fee_max = fee_max_of(self.settings, self.catalog, network)
            site = Site(network, wanted.rpc_urls, self._world.rpc, self.runtime, own, contracts, fee_max)
            self.rails[chain] = RAILS[network.family](site)

    def _own_addresses(self, network: Network) -> tuple[str, ...]:
        """Every address that is ours there, those in use first. Raises SettingWrong for more than there can be, or than this home knows."""
        name, wanted, most = f"networks.{network.chain}.hot_addresses", self._hot_addresses(network.chain), LANES[network.family]
        if wanted > most:
            why = "1: there one transaction holds no other up" if most == 1 else str(most)
            raise SettingWrong(f"{name} is {wanted}, and on this network it is at most {why}")
        own = self.signer.addresses(network.chain)
        if wanted > len(own):
            raise SettingWrong(f"{name} is {wanted}, and this home has {len(own)}: `penstock init` makes what is missing")
        return tuple(own)

    def app(self, *, calls: bool = True, process: int | None = None) -> App:
        """The merchant API of this process, or only its health and metrics; `process`: which one of those on this port it is."""
        ports = Ports(
            merchants=self.directory,
            accounts=self.directory,
            withdrawals=self.accept,
            orders=self.store,
            balances=Balances(self.database, self.catalog.coin),
            prices=self.board,
            networks=self.board,
            resends=self.outbox,
            catalogue=self.catalog,
            readiness=self.readiness,
        )
        limits = Limits(
            requests_per_second=self.settings.limits.requests_per_second,
            trusted_proxies=self.settings.limits.trusted_proxies,
            minimum={symbol: plain(parse_units(text, LEDGER_DECIMALS), LEDGER_DECIMALS) for symbol, text in self._minimum.items() if text},
        )
        return build_app(ports, limits, self.runtime, calls=calls, process=process)

    async def start(self, role: str = "all") -> None:
        """Look once at the networks, then start the tasks and pumps of a role. A worker that finds the seat taken delivers what others
        decide, and goes on by itself when the seat falls free; whoever else is to work waits for the seat in here.
        """
        self._keep(self.ids.keep)  # first: nodes that do not answer may take longer than a lease
        if role == "api":
            await self._look()
            self._keep_looking()
            self._keep_answering()
        elif role == "worker" and not await begun("look at the seat", self.seat.take_if_free, self.runtime):
            self.keep_delivering()
            await self._look()
            self._keep_looking()
            self._waiting = self._keep(self._work_in_turn)
        else:
            await self._begun("take the seat", self.seat.take)
            await self._work()
            self._keep_looking()
            if role == "all":
                self._keep_answering()
            self._keep_working()
            self.keep_delivering()

    def keep_delivering(self) -> None:
        """Deliver what others decide: its rows have leases of their own, so this needs no seat."""
        self._keep(self._deliver.run)

    async def _work_in_turn(self) -> None:
        """Behind another worker, until it is gone."""
        await self._begun("take the seat", self.seat.take)
        await self._work()
        self._keep_working()

    async def _look(self) -> None:
        for chain, rail in self.rails.items():
            if isinstance(rail, Clocked):
                rail.begin_after(await self.treasury.newest_block(chain))
        await self.refresh_prices()
        await self.board.refresh()

    def _keep_answering(self) -> None:
        self._keep(self.intake.run)
        if self._replica is not None:
            self._every(replica.LOOK_S, self._replica.look)

    def _keep_looking(self) -> None:
        self._every(directory.REFRESH_S, self.directory.refresh)
        self._every(board.REFRESH_S, self.board.refresh)
        self._every(min(PRICES_REFRESH_S, self.settings.prices.age_max_s / 4), self.refresh_prices)

    async def _work(self) -> None:
        """What is done once, after the seat was taken and before anything is sent."""
        self._keep(self.seat.keep)
        # The seat says that nobody else works here.
        await self._begun("take over", lambda: self.database.write("take_over", self._take_over))
        self.deliverer.holds_seat = True
        wall = clock.Clock(self.runtime, self.database, event_ms=self.deliverer.longest_ms, lease_ms=LEASE_MS)
        await self._begun("look at the clock", wall.begin)
        self._every(clock.LOOK_S, wall.look)
        await self._look()
        self.treasury.comparable = self.recovery.comparable
        self.recovery.audited = lambda: self.auditor.caught_up
        # Before the chain is asked what it shows: what is missing here may be in the journal.
        await self._begun("compare with the signer's journal", self.recovery.compare)
        await self._begun("look at the treasury", self.treasury.refresh)
        await self.auditor.first()

    def _keep_working(self) -> None:
        self.readiness.signer = self.signer
        self._every(treasury.LOOK_S, self.treasury.refresh)
        self._every(TURN_S, self.recovery.turn)
        self._keep(self._audit_again)
        deliver = self._deliver
        send = Pump("send", self.sender, self.runtime, limit=200)
        follow = Pump("follow", self.follower, self.runtime, limit=200)
        self._pumps += [send, follow]
        self.sender.under_way.finished, self.follower.under_way.finished = send.wake, follow.wake

        def committed(external: bool) -> None:  # noqa: FBT001  the hook's only word
            deliver.wake()
            if external:
                send.wake()

        self.intake.committed = committed
        self.outbox.queued = deliver.wake
        self.treasury.refilled = send.wake

        def released() -> None:
            send.wake()
            follow.wake()

        self.recovery.released = released

        def decided() -> None:
            self.sender.look_again()
            send.wake()
            deliver.wake()

        self.settler.decided = decided
        self._keep(send.run)
        self._keep(follow.run)

    def _take_over(self, tx: Tx) -> None:
        now_ms = self.runtime.now_ms()
        attempts.take_over(tx, now_ms)
        self.outbox.take_over(tx, now_ms)
        self.auditor.take_over(tx)

    async def _audit_again(self) -> None:
        """The first pass was made before the pumps began, or its first slice."""
        if self.auditor.caught_up:
            await self.runtime.sleep(auditor.PASS_S)
        await every(auditor.PASS_S, self.auditor.turn, self.runtime)

    async def _begun(self, step: str, work: Callable[[], Awaitable[object]]) -> None:
        await begun(step, work, self.runtime)

    def _every(self, seconds: float, turn: Callable[[], Any]) -> None:
        self._keep(lambda: every(seconds, turn, self.runtime))

    def _keep(self, loop: Callable[[], Any]) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self.runtime.spawn(loop(), name=getattr(loop, "__qualname__", "loop"))
        task.add_done_callback(self._loop_ended)
        self._tasks.append(task)
        return task

    def keep_beside(self, work: Callable[[], Awaitable[None]]) -> None:
        """What may end by itself, and ends the product where it fails."""
        self._beside = self._keep(work)

    def _loop_ended(self, task: asyncio.Task[Any]) -> None:
        has_worked = task in (self._waiting, self._beside) and not task.cancelled() and task.exception() is None
        if not self._stopping and not task.cancelled() and not has_worked:
            self.broken = task.exception() or RuntimeError("a loop ended by itself")
            log.error("loop.ended", loop=task.get_name(), error=type(self.broken).__name__, detail=str(self.broken)[:200])
            self.on_broken()

    async def stop(self) -> None:
        """Answer every accepted request, finish running batches, end the rest."""
        self._stopping = True
        self.intake.stop()
        if self._waiting is not None:  # or its turn could come meanwhile, with pumps that nobody stops
            self._waiting.cancel()
            await asyncio.wait([self._waiting])
        for pump in self._pumps:
            await pump.stop()
        for room in (self.sender.under_way, self.follower.under_way):
            with contextlib.suppress(Exception):  # it was logged, and what it left is taken up at the next start
                await room.settled()
        await self.deliverer.settled()
        for task in self._tasks:
            if "Intake" not in task.get_name():
                task.cancel()
        for task in self._tasks:
            with contextlib.suppress(BaseException):
                await task
        with contextlib.suppress(SeatLost, DatabaseUnavailable, CommitUnknown):  # then the next one waits a little
            await self.seat.release()

    @contextlib.asynccontextmanager
    async def taking_orders(self) -> AsyncIterator[None]:
        """A committer for one command."""
        await self.refresh_prices()
        task = self.runtime.spawn(self.intake.run(), name="Intake.run")
        try:
            yield
        finally:
            self.intake.stop()
            await task

    async def refresh_prices(self) -> None:
        """Ask the HTTP source once, where there is one."""
        if self._price_source is not None:
            await self._price_source.refresh(self.prices, self._world.fetch, now_ms=self.runtime.now_ms())


def _policy(settings: Settings, catalog: Catalog, minimum: Mapping[str, str]) -> Policy:
    wanted = settings.policy
    return Policy(
        minimum=minimum,
        maximum=of_coins(catalog, wanted.maximum, "policy.maximum"),
        deny_addresses=frozenset(wanted.deny_addresses) | frozenset(address.lower() for address in wanted.deny_addresses),
        withdrawals=wanted.withdrawals,
    )


def load_prices(settings: Settings, catalog: Catalog) -> tuple[Prices, HttpSource | None]:
    """The price table and its source. Raises BadPrice or SettingWrong."""
    wanted = settings.prices
    prices = Prices(age_max_ms=wanted.age_max_s * 1000)
    if not wanted.url:
        prices.use_static(static_prices(Path(wanted.file) if wanted.file else None))
        return prices, None
    try:
        return prices, HttpSource(wanted.url, of_coins(catalog, wanted.ids, "prices.ids"), wanted.pointer, wanted.at_pointer)
    except ValueError as error:
        raise SettingWrong(f"[prices]: {error}") from error
