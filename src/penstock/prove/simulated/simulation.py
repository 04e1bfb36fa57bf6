"""One seed, one history: the whole product on any of its networks at once, in bad weather, killed and stopped, with an auditor at every commit.

The rooms, rails and the signer are the real ones as `wiring` builds them, SQLite is real; clock, randomness, threads, sockets and networks
are simulated. The seed chooses networks, pace, kinds of weather, wishes and crashes. After the storm everything must finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from penstock.commands import Commands
from penstock.config import PolicySettings, PriceSource, Settings, Webhooks
from penstock.db import CommitUnknown
from penstock.prove.simulated.auditor import Alarm, Auditor, Violation
from penstock.prove.simulated.ending import GRACE_S, SCHEDULE, Ending, token_of
from penstock.prove.simulated.house import House
from penstock.prove.simulated.networks import NODE_KEY, PLACES, Site, build
from penstock.prove.simulated.people import MERCHANTS, People, Wish
from penstock.prove.simulated.strangers import DENIED, RICH, USDT_MAX, Strangers, Tricked
from penstock.prove.simulated.virtual import START_MS, Crash, Journal, Stuck, VirtualLoop
from penstock.prove.simulated.weather import Weather
from penstock.rails.base import PostFailed
from penstock.rates import static_prices
from penstock.wiring import Product

CRASHES_MAX: Final = 6
SLOW_PACE: Final = 8.0
"""How much longer than asked everything sleeps where blocks are slow: a loaded machine, and hours for the price of minutes."""
COMPANY: Final = 12
"""So many more wishes where many orders go in one EVM transaction."""
QUIET_S: Final = 40.0
UNSEEN_S: Final = 600.0
"""So long before the machine wakes the weather is as usual again."""
SUBMITS: Final = re.compile(rb"eth_sendRawTransaction|sendrawtransaction|\"submit\"|broadcast")
HEX: Final = re.compile(rb"[0-9a-fA-F]{120,}")
INVOICE: Final = re.compile(rb"\"payment_request\":\s*\"(ln[0-9a-z]+)\"")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed was. `cells` count which states were entered in which weather of which family; `quarantined` says why, by order."""

    seed: int
    hash: str
    networks: tuple[str, ...]
    crashes: tuple[str, ...]
    visits: Counter[str]
    cells: Counter[tuple[str, str, str]]
    struck: Mapping[tuple[str, str], int]
    orders: int
    paid: int
    commits: int
    deliveries: int
    quarantined: Mapping[str, str]
    virtual_s: float
    trace: tuple[str, ...]


def run(seed: int, *, networks: Collection[str] = (), label: str = "", visit: int = 1) -> Outcome:
    """Play one seed to its end, on these networks or on those that it chooses. `label` is where the first crash is planned.

    Raises Violation, whose text tells what happened, ends in the trace and says how it is replayed.
    """
    loop = VirtualLoop()
    with tempfile.TemporaryDirectory(prefix="penstock-sim-", dir=_fast_folder()) as folder, contextlib.closing(loop):
        return _History(seed, loop, Path(folder), tuple(networks), (label, visit)).play()


def _fast_folder() -> str | None:
    """Memory, where there is some: what survives a power cut is not what is tested here."""
    shared = Path("/dev/shm")  # noqa: S108  a folder of its own in there
    return str(shared) if shared.is_dir() else None


def replay(seed: int, *, networks: Collection[str] = (), label: str = "") -> str:
    """A seed's whole history as text, one line an event, and how it ended."""
    try:
        outcome = run(seed, networks=networks, label=label)
    except Violation as violation:
        return str(violation)
    return "\n".join((*outcome.trace, f"seed {seed}: {outcome.paid} of {outcome.orders} wishes accepted, nothing wrong, {outcome.hash}"))


class _History:
    """The lives of one seed."""

    def __init__(self, seed: int, loop: VirtualLoop, home: Path, networks: tuple[str, ...], planned: tuple[str, int]) -> None:
        self._seed = seed
        self._loop = loop
        self._source = source = random.Random(f"history {seed} {networks}")
        self._planned = planned
        self._journal = Journal()
        self._alarm = Alarm()
        self._crashes: list[str] = []
        self._ready = False
        chosen = networks or tuple(sorted(source.sample(sorted(PLACES), source.choice((1, 1, 2, 3, len(PLACES))))))
        self._slow = source.random() < 0.2
        self._sites = [build(PLACES[name], source, self._now_ms, seed=seed, slow=self._slow) for name in chosen]
        self._storm_s = source.choice((3, 12, 24)) * 3_600.0 if self._slow else source.choice((100.0, 150.0, 400.0, 900.0))
        self._weather = Weather(self._sites, source, 0.0, loop.time, self._note, sent=self._sent)
        self._people = People(
            seed, source, self._now_ms, loop.time, self._note, self._weather.outside, self._alarm, storm=lambda: self._stormy
        )
        self._strangers = Strangers(self._people) if "ETH" in chosen and source.random() < 0.5 else None
        self._auditor = Auditor(self, self._alarm, self._note, doubt=self._doubts)
        self._asleep_until_s = 0.0
        self._prices = static_prices(None)
        self._house = self._build(home)
        self._ending = Ending(self._house, self._sites, self._weather, self._people, self._alarm)
        self._note(f"networks {chosen}, {'slow' if self._slow else 'fast'}, weather {sorted(self._weather.kinds)}")

    def _build(self, home: Path) -> House:
        symbols = sorted(self._prices)
        settings = Settings(
            home=home,
            policy=PolicySettings(maximum={"USDT": USDT_MAX}, deny_addresses=(DENIED,)) if self._strangers else PolicySettings(),
            webhooks=Webhooks(schedule=SCHEDULE),
            prices=PriceSource(
                url="https://prices.example/{ids}",
                ids={symbol: symbol.lower() for symbol in symbols},
                pointer="/{id}",
                age_max_s=600 if self._slow else 120,
            ),
        )
        house = House(
            home,
            [site.network for site in self._sites],
            self._people,
            loop=self._loop,
            source=self._source,
            journal=self._journal,
            settings=settings,
            node_settings={site.place.chain: site.settings for site in self._sites},
        )
        house.open_database = self._auditor.open
        house.frozen_until_s = self._frozen_until_s
        house.pace = SLOW_PACE if self._slow else 1.0
        house.fetch = self._fetch
        house.post = self._post
        return house

    def _now_ms(self) -> int:
        return START_MS + int(self._loop.time() * 1000)

    def _note(self, event: str) -> None:
        self._journal.note(self._now_ms(), event)

    def _frozen_until_s(self) -> float:
        """A machine that is suspended, or a process that the weather stops."""
        return max(self._asleep_until_s, self._weather.outside.frozen_until_s)

    @property
    def _stormy(self) -> bool:
        return self._ready and self._weather.stormy

    # Truth, for the auditor

    def received(self, merchant_id: int, name: str) -> int | None:
        """What the recipient of a wish has, from whatever order."""
        wish = self._wish_of(merchant_id, name)
        return None if wish is None or wish.site is None else wish.recipient.received()

    def promised(self, merchant_id: int, name: str, net: int) -> int:
        """In base units."""
        wish = self._wish_of(merchant_id, name)
        return 0 if wish is None else wish.units(net)

    def _wish_of(self, merchant_id: int, name: str) -> Wish | None:
        return self._ending.wishes.get((merchant_id, name))

    def weather(self, chain: str) -> Collection[str]:
        """What is wrong with a network now."""
        return sorted(self._weather.active.get(chain, ())) if self._stormy else ()

    def excuses(self, chain: str) -> bool:
        """Whether what it does there may be for a person: a token has lied."""
        return chain in self._weather.spoiled

    def family(self, chain: str) -> str:
        """Of a network; of what stays in the house "house"."""
        return PLACES[chain].family if chain in PLACES else "house"

    # What the house reaches

    async def _post(self, url: str, body: bytes, timeout_s: float, **how: Any) -> tuple[int, bytes]:
        """A node's HTTP: what is given to it must be durable (I8)."""
        await self._delay()
        self._check_durable(url, body)
        return await self._house.nodes(url, body, timeout_s, **how)

    async def _delay(self) -> None:
        await asyncio.sleep(self._source.random() * 0.05)

    def _check_durable(self, url: str, body: bytes) -> None:
        if invoice := INVOICE.search(body):
            sql, name = "SELECT id FROM orders WHERE address = :name AND id IN (SELECT order_id FROM version_order)", invoice[1].decode()
        elif (SUBMITS.search(body) or "broadcast" in url) and (found := HEX.search(body)):
            sql, name = "SELECT id FROM version WHERE raw = :name", found[0].decode().lower()
        else:
            return
        self._note(f"node {url} is given {name[:16]}..{name[-8:]}")
        database: Any = self._house.product.database
        if database._read(lambda tx: tx.one(sql, name=name)) is None:
            self._alarm("I8: a node was given bytes that are not stored")

    async def _fetch(self, url: str, *, bytes_max: int, timeout_s: int) -> bytes:
        del url, bytes_max, timeout_s
        await self._delay()
        mood = self._weather.outside.prices
        if mood == "silent":
            raise PostFailed("no prices today")
        factor = {"double": 19, "half": 6, "zero": 0}.get(mood, 10)
        return json.dumps({symbol.lower(): f"{rate.usd * factor // 10 / 10**18:.12f}" for symbol, rate in self._prices.items()}).encode()

    def _sent(self, chain: str) -> Sequence[str]:
        database: Any = self._house.product.database
        rows = database._read(
            lambda tx: tx.all(
                "SELECT version.txid FROM version JOIN attempt ON attempt.id = attempt_id JOIN lane ON lane.id = lane_id "
                "WHERE sends > 0 AND chain = :chain AND attempt.state IN ('sent', 'signed') ORDER BY version.id",
                chain=chain,
            )
        )
        return [row["txid"] for row in rows]

    # Lives

    def play(self) -> Outcome:
        """Live, die and live again until everything is finished; then audit."""
        try:
            with self._logs():
                while not self._live(self._story):
                    pass
                self._asleep_until_s = self._loop.time() + self._ending.settles_s
                self._live(self._ending.judge)
        except (Violation, Stuck) as violation:
            told = [line for line in self._journal.lines if ".claim:" not in line]
            chosen = ",".join(site.place.chain for site in self._sites)
            said = f"seed {self._seed} on {chosen}: {'everything waits and nothing is due' if isinstance(violation, Stuck) else violation}"
            raise Violation("\n".join((said, *told[-300:], said))) from violation
        finally:
            self._house.die()
        wishes = self._people.wishes
        return Outcome(
            seed=self._seed,
            hash=self._journal.hash,
            networks=tuple(site.place.chain for site in self._sites),
            crashes=tuple(self._crashes),
            visits=Counter(self._house.visited),
            cells=self._auditor.cells,
            struck=self._weather.struck,
            orders=len(wishes),
            paid=sum(wish.accepted for wish in wishes),
            commits=self._auditor.commits,
            deliveries=self._people.deliveries,
            quarantined=self._ending.quarantined,
            virtual_s=self._loop.time(),
            trace=tuple(self._journal.lines),
        )

    @contextlib.contextmanager
    def _logs(self) -> Iterator[None]:
        """What the product logs is part of the history; nothing is printed, and no secret may be in it, however talkative it is."""

        def note(_: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
            text = " ".join(f"{value}" if name == "event" else f"{name}={value}" for name, value in event.items())
            if any(secret in text for secret in (NODE_KEY, *(secret for _, secret in self._people.keys))):
                self._alarm(f"a secret was logged with {event.get('event')}")
            if level != "debug":
                self._note(f"log {text.replace(str(self._house.settings.home), 'home')[:300]}")
            raise structlog.DropEvent

        before = structlog.get_config()
        structlog.configure(processors=[note], wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
        try:
            yield
        finally:
            structlog.configure(**before)

    def _dies(self, label: str, visit: int) -> bool:
        if not self._stormy or len(self._crashes) >= CRASHES_MAX:
            return False
        left = self._planned[0] and self._planned[0] not in self._crashes
        planned = left and (label, visit) == self._planned
        # Looking for work is most of what is visited and least of what can go wrong.
        drawn = "claim" not in label and len(self._crashes) < CRASHES_MAX - bool(left)
        if planned or (drawn and self._source.random() < (0.0005 if self._slow else 0.004)):
            self._crashes.append(label)
            return True
        return False

    def _doubts(self, label: str) -> bool:
        """Whether a commit is not heard of: seldom where the house only looks for work."""
        return self._stormy and self._source.random() < (0.0003 if "claim" in label else 0.005)

    def _live(self, part: Callable[[Product], Any]) -> bool:
        """One life; False when it ended in a crash. Raises Violation."""
        try:
            self._house.start(crash_at=self._dies)
            self._house.run(part(self._house.product))
        except (Crash, CommitUnknown):
            if self._alarm.text:
                raise Violation(self._alarm.text) from None
            return False
        else:
            return True
        finally:
            self._house.die()

    async def _story(self, product: Product) -> None:
        if not self._ready:
            await self._set_up(product)
        until_s = self._weather.until_s
        app, people = product.app(), self._people
        tasks = [people.client(app, wish, until_s + GRACE_S) for wish in people.wishes if wish.answer is None]
        tasks += [people.repeat(app, wish, until_s + GRACE_S) for wish in people.wishes if wish.accepted and self._source.random() < 0.3]
        await asyncio.gather(
            self._weather.blow(),
            self._clock(),
            self._suspend(product),
            self._visit(product),
            people.look(app, pace_s=self._storm_s / 40),
            *tasks,
        )
        await self._ending.finish(product)

    async def _clock(self) -> None:
        """The machine's clock is as wrong as the weather has it."""
        while self._stormy:
            self._house.clock_shift_ms = self._weather.outside.clock_shift_ms
            await asyncio.sleep(5)
        self._house.clock_shift_ms = 0

    async def _visit(self, product: Product) -> None:
        """Forgers, guessers and the careless at the same door."""
        if self._strangers is not None:
            try:
                await self._strangers.visit(product.app(), product)
            except Tricked as tricked:
                self._alarm(str(tricked))

    async def _invite(self, commands: Commands, strangers: Strangers, account: str) -> None:
        """Merchants beside those that are served, and an account that all can pay."""
        for name in ("stall", "closed"):
            merchant = await commands.add_merchant(name, "")
            keys = merchant["app_id"], merchant["app_secret"]
            if name == "stall":
                strangers.other = keys
            else:
                strangers.disabled = keys
                await commands.set_merchant(keys[0], webhook_url=None, disabled=True, ip_allow=None)
        strangers.account = account
        await commands.credit(self._people.app_id, "USDC", RICH, "simulation")

    async def _suspend(self, product: Product) -> None:
        """While nobody wants anything and nothing is open, the machine sleeps: hours pass it by, and it wakes with everything overdue."""
        while self._stormy:
            await asyncio.sleep(QUIET_S / 4)
            waiting = [wish.at_s for wish in self._people.wishes if wish.answer is None]
            wake_s = min(waiting, default=self._weather.until_s) - QUIET_S / 2
            if wake_s > self._loop.time() + QUIET_S and not await self._ending.open(product):
                self._note(f"suspended for {wake_s - self._loop.time():.0f} s")
                self._asleep_until_s = wake_s
                self._weather.unseen_until_s = wake_s - UNSEEN_S

    async def _set_up(self, product: Product) -> None:
        """Merchants, accounts, funding, and the wishes of the seed."""
        commands = Commands(product)
        if not self._people.keys:
            for number in range(MERCHANTS):
                merchant = await commands.add_merchant(f"shop {number}", f"https://shop.example/{number}")
                self._people.keys.append((merchant["app_id"], merchant["app_secret"]))
                for symbol in sorted({symbol for site in self._sites for symbol in site.place.pays}):
                    await commands.credit(merchant["app_id"], symbol, "1000000", "simulation")
        accounts = [(await commands.add_account(f"{name}@example.com", name))["c_id"] for name in ("ada", "bo")]
        if self._strangers is not None:
            await self._invite(commands, self._strangers, accounts[0])
        for site in self._sites:
            await self._fund(product, site)
        await product.treasury.refresh()
        merchants = [row for row in await product.directory.list_merchants() if row.id]
        self._people.wish(
            self._sites, lambda symbol, chain: token_of(product, symbol, chain), accounts,
            count=6 + 4 * len(self._sites) + COMPANY * any("batch_max" in site.settings for site in self._sites), span_s=self._storm_s * 0.7,
        )  # fmt: skip
        by_app = {merchant.app_id: merchant.id for merchant in merchants}
        self._ending.wishes = {(by_app[self._people.keys[wish.merchant][0]], wish.name): wish for wish in self._people.wishes}
        for site in self._sites:
            site.network.set_block_time(site.block_ms)
        self._weather.until_s = self._loop.time() + self._storm_s
        self._ready = True

    async def _fund(self, product: Product, site: Site) -> None:
        network = product.catalog.network(site.place.chain)
        if network is None:
            raise Violation("the catalogue has changed")
        hot = (await product.treasury.addresses(network)).values()
        site.network.set_block_time(1_000)
        for native in (True, False):
            for symbol, units in site.place.funds.items():
                token = token_of(product, symbol, site.place.chain)
                for address in hot if token.is_native is native else ():
                    site.network.fund(address, units, token.contract)
            await asyncio.sleep(10)
            await product.treasury.refresh()
            if (native and site.place.family == "xrp") or (not native and "batch_max" in site.settings):
                await product.board.refresh()
                await Commands(product).open_tokens(site.place.chain)
                await asyncio.sleep(10)
