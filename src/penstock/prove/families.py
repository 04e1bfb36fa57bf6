"""One seed, one history of the whole product on one network of another family than the EVM's: bad weather, crashes, and an auditor.

The rooms, the rail and the signer are the real ones. In the end everything must have finished and everybody have exactly what was promised;
where the world did what only a person can judge (a token that lies), what stands still for that person may.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from penstock.commands import Commands
from penstock.config import NetworkSettings, Settings
from penstock.core import wire_signature
from penstock.core.money import CoinAmount, Token
from penstock.core.order import OrderState
from penstock.core.wire import compact
from penstock.db import CommitUnknown, Database
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control
from penstock.http.app import App
from penstock.ids import IdSource
from penstock.prove.places import PLACES, Place, Recipient
from penstock.prove.reach import BoxPost
from penstock.prove.simulation import SEAL, DoubtfulDatabase, MemoryJournal, Violation, _fast_folder, _no_prices
from penstock.prove.strangers import sifted_logs
from penstock.prove.virtual import START_MS, Crash, Journal, VirtualLoop, VirtualRuntime
from penstock.prove.world import call_asgi
from penstock.signer.local import LocalSigner
from penstock.signer.policy import allowed_networks, load_catalog
from penstock.signer.seed import create_seed
from penstock.vault import Vault
from penstock.webhooks.deliver import Reply, TargetFailed
from penstock.wiring import Product, World

WISHES: Final = 6
CRASHES_MAX: Final = 3
SHORT_STORM_S: Final = 120.0
"""Two seeds of three; the third has time for what expires."""
END_S: Final = 1_500.0
"""After the storm everything must have finished within this: a payment on TRON may have to expire twice."""
ODD: Final = ("false", "nothing", "silent", "short", "twice", "paused")
"""What a token may do to its holders: return false and pay, return false and not pay, pay without an event, pay less than it says, ..."""


def run(seed: int, chain: str) -> tuple[str, ...]:
    """Play one seed on one network; the trace of it. Raises Violation."""
    loop = VirtualLoop()
    with tempfile.TemporaryDirectory(prefix="penstock-sim-", dir=_fast_folder()) as folder, contextlib.closing(loop):
        town = Town(seed, PLACES[chain], loop, Path(folder))
        try:
            with sifted_logs(lambda: [town.secret]) as told:
                town.play()
            _judge_logs(told)
        except Violation as violation:
            trace = "\n".join([line for line in town.journal.lines if ".claim:" not in line][-200:])
            raise Violation(f"seed {seed} on {chain}: {violation}\n{trace}") from violation
        return tuple(town.journal.lines)


def _judge_logs(told: Sequence[str]) -> None:
    for event in told:
        raise Violation(f"a secret was logged with {event}")


class Town:
    """One network, one merchant with its wishes, and the lives of the program."""

    def __init__(self, seed: int, place: Place, loop: VirtualLoop, home: Path) -> None:
        self.place = place
        self.journal = Journal()
        self.secret = self._app_id = ""
        self._loop = loop
        self._home = home
        self.source = random.Random(f"{place.chain} {seed}")
        runtime = VirtualRuntime(loop, self.source, self.journal)
        vault = Vault.create(home, runtime, passphrase=None, key_file=True)
        self._vault, self._seed = vault, create_seed(home, vault, runtime)
        self._signed = MemoryJournal()
        plain = Settings(home=home)
        (self.network,) = make_networks(load_catalog(plain), [place.chain], now_ms=self.now_ms, seed=seed)
        self._post = BoxPost([self.network], pause=lambda: asyncio.sleep(self.source.random() * 0.05))
        self.settings = Settings(home=home, networks={place.chain: self._node_settings()})
        self._recipients: list[tuple[str, float, str, Recipient]] = []
        self._events: dict[str, set[bytes]] = {}
        self._answers: dict[str, dict[str, Any]] = {}
        self._crashes = 0
        self._odd = False
        self._tokens_lie = seed % 2 == 0
        self._began_s = 0.0
        self._storm_s = place.storm_s if seed % 3 == 0 else min(place.storm_s, SHORT_STORM_S)

    def _node_settings(self) -> NetworkSettings:
        wanted = {**self.network.settings, **self.place.settings}
        form = wanted.pop("rpc_url", "{url}")
        return NetworkSettings(rpc_urls=tuple(form.format(url=url) for url in self._post.urls(self.place.chain)), **wanted)

    def now_ms(self) -> int:
        """The clock that everything shares."""
        return START_MS + int(self._loop.time() * 1000)

    @property
    def stormy(self) -> bool:
        """Whether anything goes wrong now."""
        return bool(self._recipients) and self._loop.time() < self._began_s + self._storm_s

    # Lives

    def play(self) -> None:
        """Live, die and live again until everything is finished; then audit."""
        while not self._live(self._story):
            pass
        self._live(self._judge)

    def _live(self, part: Any) -> bool:
        runtime = VirtualRuntime(self._loop, self.source, self.journal)
        runtime.crash_at = self._dies
        databases: list[Database] = []
        task = runtime.spawn(self._run(runtime, databases, part), name="life")
        try:
            self._loop.run_until_complete(task)
        except (Crash, CommitUnknown):
            return False
        else:
            return True
        finally:
            runtime.bury()
            for database in databases:
                database._close()

    def _dies(self, label: str, visit: int) -> bool:
        del visit
        if self._crashes < CRASHES_MAX and self.stormy and "claim" not in label and self.source.random() < 0.01:
            self._crashes += 1
            return True
        return False

    async def _run(self, runtime: VirtualRuntime, databases: list[Database], part: Any) -> None:
        database = DoubtfulDatabase(runtime, self._home / "penstock.db", lambda: self.stormy and self.source.random() < 0.002)
        databases.append(database)
        await database.migrate()
        ids = await IdSource.lease(runtime, database, "town")
        allowed = allowed_networks(self.settings, load_catalog(self.settings), every=True)
        signer = LocalSigner(self._seed, self._signed, runtime, allowed, SEAL)
        product = Product(self.settings, World(runtime, self._post, self, _no_prices), database, ids, self._vault, signer, SEAL)
        await product.connect()
        await part(runtime, product)

    async def _story(self, runtime: VirtualRuntime, product: Product) -> None:
        await product.start()
        if not self._recipients:
            await self._set_up(product)
        app = product.app()
        tasks = [runtime.spawn(self._weather(product), name="weather"), runtime.spawn(self._watch_status(app), name="status")]
        tasks += [runtime.spawn(self._client(app, product, *wish), name=wish[0]) for wish in self._recipients]
        for task in tasks:
            await task
        await self._finish(product)
        await product.stop()

    async def _set_up(self, product: Product) -> None:
        """Merchant, funding, recipients."""
        commands, place = Commands(product), self.place
        merchant = await commands.add_merchant("shop", "https://shop.example/webhook")
        self._app_id, self.secret = merchant["app_id"], merchant["app_secret"]
        await commands.credit(self._app_id, place.symbol, "1000000", "simulation")
        network = product.catalog.network(place.chain)
        if network is None:
            raise Violation("the catalogue has changed")
        hot = await product.treasury.address_of(network)
        for symbol, units in place.funds.items():
            self.network.fund(hot, units, self._token(product, symbol).contract)
            await asyncio.sleep(10)
        await product.treasury.refresh()
        token = self._token(product, place.symbol)
        self._began_s = self._loop.time()
        for number in range(WISHES):
            value = self.source.choice(place.values)
            recipient = place.recipient(self.network, number, token, value)
            self._recipients.append((f"w{number}", self._began_s + self.source.random() * 30, value, recipient))

    def _token(self, product: Product, symbol: str) -> Token:
        token = product.catalog.by_symbol(symbol, self.place.chain)
        if token is None:
            raise Violation("the catalogue has changed")
        return token

    # Weather

    async def _weather(self, product: Product) -> None:
        while self.stormy:
            await asyncio.sleep(self.source.random() * 4)
            node = self.source.choice(self.network.nodes)
            node.faults = type(node.faults)()
            what = self.source.choice(self._kinds())
            self.journal.note(self.now_ms(), f"weather: {what}")
            await self._strike(what, node.faults, product)
        for node in self.network.nodes:
            node.faults = type(node.faults)()
        self._calm()

    def _calm(self) -> None:
        self.network.spike(1)
        if self.place.chain == "XRP":
            control([self.network], {"do": "load", "factor": 1})
        if self.place.chain == "LIGHTNING":
            calm: tuple[dict[str, Any], ...] = ({"do": "receiver", "online": 1}, {"do": "route", "latency_ms": 10})
            for command in (*calm, *({"do": what, "count": 0} for what in ("fail", "hold", "partial"))):
                control([self.network], command)
            self._release()
        if self.place.chain == "TRX":
            control([self.network], {"do": "stall", "on": 0})

    def _kinds(self) -> tuple[str, ...]:
        losses = ("drop", "blind", "forget") if self.place.lossy else ()
        forks = ("fork",) if self.place.reorgs else ()
        return ("break", "slow", "twice", "down", "lag", "calm", *forks, *(["spike"] * self.place.spikes), *losses, *self.place.troubles)

    async def _strike(self, what: str, faults: Any, product: Product) -> None:
        chance, network = self.source, self.network
        match what:
            case "drop":
                faults.drop = chance.randint(1, 3)
            case "break":
                faults.break_after, faults.breakage = chance.randint(1, 3), chance.choice(("500", "503", "reset", "timeout"))
            case "slow":
                faults.delay_ms = chance.choice((100, 2_000, 60_000))
            case "twice":
                faults.duplicate = chance.randint(1, 3)
            case "down":
                faults.down = chance.choice(("500", "503", "reset", "timeout"))
            case "lag":
                faults.lag = chance.randint(1, 3)
            case "blind":
                self._others_see()
                faults.blind = True
            case "fork":
                with contextlib.suppress(ValueError):  # deeper than this network can be undone
                    network.fork(chance.choice(self.place.reorgs), chance.choice(("keep", "drop", "reorder")))
            case "spike":
                network.spike(chance.randint(2, 6))
            case "forget":
                for row in await product.database.read(lambda tx: tx.all("SELECT txid FROM version WHERE sends > 0 ORDER BY id")):
                    network.forget(row["txid"])
            case _:
                await self._strike_here(what)

    def _others_see(self) -> None:
        """The other nodes may be down, so that a blind one's word is all that is heard; where every one is blind, the hot address looks
        empty, and the lane is stopped for a person.
        """
        for node in self.network.nodes:
            node.faults.blind = False

    async def _strike_here(self, what: str) -> None:
        """What only some networks know."""
        chance, network = self.source, [self.network]
        match what:
            case "dark":  # the only node that answers has lost sight of transactions, for longer than one lives
                first, *others = self.network.nodes
                first.faults = type(first.faults)(blind=True)
                for node in others:
                    node.faults = type(node.faults)(down="reset")
                await asyncio.sleep(chance.choice((20.0, 60.0, 700.0 if self.place.chain == "TRX" else 90.0)))
            case "stall":
                control(network, {"do": "stall", "on": 1})
                await asyncio.sleep(chance.random() * 60)
                control(network, {"do": "stall", "on": 0})
            case "token" if self._tokens_lie and chance.random() < 0.4:
                self._odd = True
                contract = next(iter(self.network.status()["tokens"].values()))["contract"]
                control(network, {"do": "behave", "contract": contract, "behaviour": chance.choice(ODD)})
                await asyncio.sleep(chance.random() * 30)
                control(network, {"do": "behave", "contract": contract, "behaviour": "usual"})
            case "hold" | "partial":
                control(network, {"do": what, "count": chance.randint(1, 3)})
                await asyncio.sleep(chance.random() * 60)
                self._release()
            case "fail":
                control(network, {"do": "fail", "count": 1, "reason": chance.choice(("TIMEOUT", "NO_ROUTE", "ERROR"))})
            case "load":
                control(network, {"do": "load", "factor": chance.randint(1, 40)})
            case "latency":
                control(network, {"do": "route", "latency_ms": chance.choice((10, 5_000, 40_000)), "parts": chance.randint(1, 4)})
            case "offline":
                control(network, {"do": "receiver", "online": chance.randint(0, 1)})
            case _:
                pass

    def _release(self) -> None:
        """What recipients held back they take now; a part whose fellows came back is sent back."""
        world: Any = getattr(self.network, "world", None)
        for payment_hash, payment in list(world.payments.items()) if world is not None else ():
            in_flight = sum(htlc.payment_hash == payment_hash for channel in world.channels for htlc in channel.htlcs)
            whole = in_flight == len(payment.parts)
            control([self.network], {"do": "release", "payment_hash": payment_hash, "how": "settle" if whole else "fail"})

    # The merchant

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """Its receiver."""
        del url, headers
        self._events.setdefault(json.loads(body)["merchant_order_id"], set()).add(body)
        if self.stormy and self.source.random() < 0.2:
            raise TargetFailed("the answer was lost")
        return Reply(200, "success")

    async def _ask(self, app: App, path: str, **fields: Any) -> dict[str, Any]:
        body, timestamp = compact(fields), str(self.now_ms() // 1000)
        sign = wire_signature.sign(self._app_id, self.secret, timestamp, body)
        _, raw = await call_asgi(app, f"/ccpayment/v1{path}", {"Appid": self._app_id, "Timestamp": timestamp, "Sign": sign}, body)
        answer: dict[str, Any] = json.loads(raw)
        return answer

    async def _client(self, app: App, product: Product, name: str, at_s: float, value: str, recipient: Recipient) -> None:
        """Ask until there is an answer."""
        if name in self._answers:
            return
        token = self._token(product, self.place.symbol)
        fields = {"merchant_order_id": name, "address": recipient.address, "token_id": token.id, "value": value, "merchant_pays_fee": True}
        if recipient.memo:
            fields["memo"] = recipient.memo
        await asyncio.sleep(max(0.0, at_s - self._loop.time()))
        while (answer := await self._ask(app, "/withdraw", **fields))["code"] in (224066, 11004):
            if self._loop.time() > self._began_s + self._storm_s + END_S:
                raise Violation(f"{name} is answered {answer} for ever")
            await asyncio.sleep(2)
        self._answers[name] = answer

    async def _watch_status(self, app: App) -> None:
        """What is shown of an order only ever rises."""
        rank, shown = {"Pending": 0, "Processing": 1, "Successful": 2, "Failed": 2}, dict[str, int]()
        while self.stormy:
            answer = await self._ask(app, "/bill/info", merchant_order_ids=[name for name, *_ in self._recipients])
            for bill in answer["data"] or ():
                detail = bill["order_detail"]
                if rank[detail["status"]] < shown.get(detail["merchant_order_id"], 0):
                    raise Violation(f"{detail['merchant_order_id']} went back to {detail['status']}")
                shown[detail["merchant_order_id"]] = rank[detail["status"]]
            await asyncio.sleep(3)

    # The end

    async def _finish(self, product: Product) -> None:
        until = self._loop.time() + END_S
        while rows := await self._open(product):
            self._release()
            if product.broken is not None:
                raise Violation(f"a loop ended: {product.broken!r}")
            halted = await product.database.read(lambda tx: tx.all("SELECT chain, halted FROM lane WHERE halted <> ''"))
            if halted and not self._odd:
                raise Violation(f"a lane stands: {halted}")
            if self._odd and all(row["state"] in ("held", "quarantined") for row in rows):
                return
            if self._loop.time() > until:
                attempts = await product.database.read(lambda tx: tx.all("SELECT slot, state, seen FROM attempt ORDER BY slot"))
                raise Violation(f"not everything finished in good weather: {rows} {attempts}")
            await asyncio.sleep(2)

    async def _open(self, product: Product) -> list[dict[str, Any]]:
        return await product.database.read(
            lambda tx: tx.all(
                "SELECT merchant_order_id, state FROM orders WHERE state NOT IN ('succeeded', 'failed') UNION ALL "
                "SELECT CAST(id AS TEXT), state FROM attempt WHERE state NOT IN ('final', 'dead') "
                "AND id NOT IN (SELECT attempt_id FROM attempt_order JOIN orders ON orders.id = order_id WHERE orders.state = 'quarantined') "
                "UNION ALL SELECT CAST(order_id AS TEXT), state FROM outbox WHERE state = 'due'"
            )
        )

    async def _judge(self, runtime: VirtualRuntime, product: Product) -> None:
        del runtime
        for _ in range(3):
            await asyncio.sleep(15)
            self._release()
            with contextlib.suppress(Exception):
                await product.treasury.refresh()
        report = await Commands(product).audit()
        if report["breaches"]:
            raise Violation(f"the audit found {report['breaches']}")
        orders = await product.store.find(1, list(self._answers))
        for name, _, _, recipient in self._recipients:
            order, received = orders.get(name), recipient.received()
            if (order is not None) != (self._answers[name]["code"] == 10000):
                raise Violation(f"{name} was answered {self._answers[name]} and its order is {order}")
            if order is None or order.state is OrderState.QUARANTINED:
                continue
            token = self._token(product, self.place.symbol)
            expected = CoinAmount(token.coin, order.net).to_token(token).units if order.state is OrderState.SUCCEEDED else 0
            if received != expected:
                raise Violation(f"{name} is {order.state}, {expected} should have arrived and {received} did")
            if order.decided_at_ms is not None and len(self._events.get(name, ())) != 1:
                raise Violation(f"{name} has {len(self._events.get(name, ()))} different events")
        if not self._odd:
            await self._judge_treasury(product)

    async def _judge_treasury(self, product: Product) -> None:
        for row in await Commands(product).treasury_rows():
            if row["chain"] == self.place.chain and row["on_chain"] != row["in_books"]:
                raise Violation(f"the chain has {row['on_chain']} {row['crypto']} and the books say {row['in_books']}")
