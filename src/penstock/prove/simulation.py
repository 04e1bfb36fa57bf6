"""One seed, one history: the whole product in bad weather, killed at chosen commits, and an auditor at the end.

The rooms are the real ones as `wiring` builds them; SQLite is real; only clock, randomness, threads and sockets are simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from penstock.commands import Commands
from penstock.config import NetworkSettings, PolicySettings, Settings
from penstock.core.seal import OrderSeal
from penstock.core.snowflake import from_wire
from penstock.db import CommitUnknown, Database, SqliteDatabase, Tx
from penstock.http.app import App
from penstock.ids import IdSource
from penstock.prove.strangers import DENIED, RICH, USDT_MAX, Strangers, Tricked, sifted_logs
from penstock.prove.virtual import Crash, VirtualLoop, VirtualRuntime
from penstock.prove.world import CHAIN, SimulatedWorld, Wish
from penstock.signer.journal import Numbered, chained
from penstock.signer.local import LocalSigner
from penstock.signer.policy import allowed_networks
from penstock.signer.seed import Seed, create_seed
from penstock.vault import Vault
from penstock.wiring import Product, World

T = TypeVar("T")

WISHES: Final = 10
CRASHES_MAX: Final = 6
END_S: Final = 600.0
CONFIRMATIONS: Final = 5
"""Deeper than any fork of the weather: a fork beyond finality is another network's problem."""

SEAL: Final = OrderSeal(b"the seal key of simulated houses")


NODE_KEY: Final = "key-of-an-account-with-a-node-provider"


class Violation(Exception):
    """Something that must never happen did; the text says what, and the seed replays it."""


@dataclass(slots=True)
class MemoryJournal:
    """The signer's journal on a disk that survives every crash."""

    lines: list[Mapping[str, Any]] = field(default_factory=list)

    def entries(self) -> Iterator[Mapping[str, Any]]:
        """Everything, oldest first."""
        return iter(self.lines)

    def page(self, after: int) -> list[Numbered]:
        """Numbered, each with its hash."""
        return chained(self.lines, after)

    def append(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Durable at once."""
        self.lines += entries


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one seed was."""

    seed: int
    hash: str
    crashes: tuple[str, ...]
    visits: Counter[str]
    orders: int
    paid: int
    virtual_s: float
    trace: tuple[str, ...]


class DoubtfulDatabase(SqliteDatabase):
    """Now and then the connection breaks while COMMIT is under way: it is done, and nobody hears of it."""

    def __init__(self, runtime: VirtualRuntime, path: Path, doubt: Callable[[], bool]) -> None:
        self._doubt = doubt
        super().__init__(runtime, path)

    def _write(self, label: str, job: Callable[[Tx], T]) -> T:
        result = super()._write(label, job)
        if "migrate" not in label and self._doubt():
            raise CommitUnknown(label)
        return result


@dataclass(slots=True)
class Plan:
    """Where the program dies: at the n-th visit of one label in one life, and now and then anywhere."""

    world: SimulatedWorld
    label: str
    visit: int
    crashes: list[str] = field(default_factory=list)

    def __call__(self, label: str, visit: int) -> bool:
        """Whether to die here."""
        if len(self.crashes) >= CRASHES_MAX or not self.world.stormy or not self.world.wishes:
            return False
        planned = label == self.label and visit == self.visit and label not in self.crashes
        # Looking for work is most of what is visited and least of what can go wrong.
        if planned or ("claim" not in label and self.world.source.random() < 0.01):
            self.crashes.append(label)
            return True
        return False


def run(seed: int, *, label: str = "", visit: int = 1) -> Outcome:
    """Play one seed to its end. `label` is where the first crash is planned. Raises Violation."""
    loop = VirtualLoop()
    with tempfile.TemporaryDirectory(prefix="penstock-sim-", dir=_fast_folder()) as folder, contextlib.closing(loop):
        game = _Game(seed, loop, Path(folder), Plan(SimulatedWorld(seed, loop), label, visit))
        return game.play()


def _fast_folder() -> str | None:
    """Memory, where there is some: what survives a power cut is not what is tested here."""
    shared = Path("/dev/shm")  # noqa: S108  a folder of its own in there
    return str(shared) if shared.is_dir() else None


class _Game:
    """The lives of one seed."""

    def __init__(self, seed: int, loop: VirtualLoop, home: Path, plan: Plan) -> None:
        self._seed = seed
        self._loop = loop
        self._home = home
        self._plan = plan
        self._world = plan.world
        self._journal = MemoryJournal()
        self._visits: Counter[str] = Counter()
        self._told: list[str] = []
        self._strangers = Strangers(plan.world)
        self._settings = Settings(
            home=home,
            policy=PolicySettings(maximum={"USDT": USDT_MAX}, deny_addresses=(DENIED,)),
            networks={
                CHAIN: NetworkSettings(
                    rpc_urls=tuple(f"{url}?key={NODE_KEY}" for url in self._world.nodes.urls(CHAIN)),
                    chain_id=self._world.network.chain.spec.chain_id,
                    confirmations=CONFIRMATIONS,
                )
            },
        )
        first = VirtualRuntime(loop, self._world.source, self._world.journal)
        self._vault = Vault.create(home, first, passphrase=None, key_file=True)
        self._keys: Seed = create_seed(home, self._vault, first)

    def play(self) -> Outcome:
        """Live, die and live again until everything is finished; then audit."""
        try:
            with sifted_logs(lambda: [self._world.app_secret, NODE_KEY]) as told_secrets:
                while not self._live(self._story):
                    pass
                self._live(self._judge)
            self._judge_what_was_seen(told_secrets)
        except (Violation, Tricked) as violation:
            told = [line for line in self._world.journal.lines if ".claim:" not in line]
            trace = "\n".join(told[-200:])
            raise Violation(f"seed {self._seed}: {violation}\nreplay: make sim PYTEST='--seed {self._seed}'\n{trace}") from violation
        journal = self._world.journal
        paid = sum(1 for wish in self._world.wishes if wish.answer is not None and wish.answer["code"] == 10000)
        return Outcome(
            self._seed,
            journal.hash,
            tuple(self._plan.crashes),
            self._visits,
            len(self._world.wishes),
            paid,
            self._loop.time(),
            tuple(journal.lines),
        )

    def _judge_what_was_seen(self, told_secrets: Sequence[str]) -> None:
        for event in (*self._told, *(f"a secret was logged with {event}" for event in told_secrets)):
            raise Violation(event)

    def _live(self, part: Any) -> bool:
        """One life of the program; False when it ended in a crash."""
        runtime = VirtualRuntime(self._loop, self._world.source, self._world.journal)
        runtime.crash_at = self._plan
        databases: list[Database] = []
        task = runtime.spawn(self._run(runtime, databases, part), name="life")
        try:
            self._loop.run_until_complete(task)
        except (Crash, CommitUnknown):
            return False  # a start that meets a broken connection ends, and whoever watches the process starts it again
        else:
            return True
        finally:
            runtime.bury()
            for database in databases:
                database._close()
            self._visits += runtime.visits

    async def _run(self, runtime: VirtualRuntime, databases: list[Database], part: Any) -> None:
        database = DoubtfulDatabase(runtime, self._home / "penstock.db", self._doubt)
        databases.append(database)
        await database.migrate()
        ids = await IdSource.lease(runtime, database, "simulation")
        catalog = self._world.catalog.with_network(CHAIN, chain_id=self._world.network.chain.spec.chain_id)
        allowed = allowed_networks(self._settings, catalog, every=True)
        signer = LocalSigner(self._keys, self._journal, runtime, allowed, SEAL)
        world = World(runtime, self._world.rpc, self._world, _no_prices)
        product = Product(self._settings, world, database, ids, self._vault, signer, SEAL)
        await product.connect()
        for rail in product.rails.values():
            setattr(rail, "submit", self._witnessed(rail.submit, database))  # noqa: B010  no other name for it: a rail stays what it is
        await part(runtime, product)

    def _doubt(self) -> bool:
        """Whether a commit is not heard of."""
        return self._world.stormy and bool(self._world.wishes) and self._world.source.random() < 0.003

    def _witnessed(self, submit: Callable[[bytes], Any], database: Database) -> Callable[[bytes], Any]:
        """What nodes are given is durable before (invariant I8)."""

        async def submit_seen(raw: bytes) -> Any:
            if database._read(lambda tx: tx.one("SELECT id FROM version WHERE raw = :raw", raw=raw.hex())) is None:
                self._told.append("a node was given bytes that are not stored")
            return await submit(raw)

        return submit_seen

    async def _story(self, runtime: VirtualRuntime, product: Product) -> None:
        """The merchant asks for what it wants until every wish is answered and finished."""
        await self._set_up(product)
        await product.start()
        app = product.app()
        weather = runtime.spawn(self._world.weather(), name="weather")
        clients = [runtime.spawn(self._client(app, wish), name=wish.name) for wish in self._world.wishes if wish.answer is None]
        strangers = runtime.spawn(self._strangers.visit(app, product), name="strangers")
        for client in [*clients, strangers]:
            await client
        await weather
        while not await self._finished(product):
            if product.broken is not None:
                raise Violation(f"a loop ended: {product.broken!r}")
            if self._loop.time() > END_S or await self._stands(product):
                raise Violation("not everything finished in good weather: " + await self._unfinished(product))
            await asyncio.sleep(1)
        await product.stop()

    async def _set_up(self, product: Product) -> None:
        """Once: merchant, account, funding, coins on chain, and the wishes."""
        commands, world = Commands(product), self._world
        if not await product.directory.list_merchants():
            merchant = await commands.add_merchant("shop", "https://shop.example/webhook")
            world.app_id, world.app_secret = merchant["app_id"], merchant["app_secret"]
        if not await product.directory.list_accounts():
            await commands.add_account("ada@example.com", "Ada")
            await self._invite(commands)
        if not world.wishes:
            for coin, amount in (("USDT", "500"), ("ETH", "2")):
                await commands.credit(world.app_id, coin, amount, "simulation")
            await self._fund(product)
            self._wish(product, str((await product.directory.list_accounts())[0].id))

    async def _invite(self, commands: Commands) -> None:
        """Merchants beside the one that is served, and an account that all can pay."""
        strangers = self._strangers
        for name in ("stall", "closed"):
            merchant = await commands.add_merchant(name, "")
            keys = merchant["app_id"], merchant["app_secret"]
            if name == "stall":
                strangers.other = keys
            else:
                strangers.disabled = keys
                await commands.set_merchant(keys[0], webhook_url=None, disabled=True, ip_allow=None)
        strangers.account = (await commands.list_accounts())[0]["c_id"]
        await commands.credit(self._world.app_id, "USDC", RICH, "simulation")

    async def _fund(self, product: Product) -> None:
        network = product.catalog.network(CHAIN)
        token = product.catalog.by_symbol("USDT", CHAIN)
        if network is None or token is None or token.contract is None:
            raise Violation("the catalogue has changed")
        self._world.fund(await product.treasury.address_of(network), token.contract)

    def _wish(self, product: Product, account: str) -> None:
        source = self._world.source
        usdt, ether = product.catalog.by_symbol("USDT", CHAIN), product.catalog.by_symbol("ETH", CHAIN)
        if usdt is None or ether is None:
            raise Violation("the catalogue has changed")
        for number in range(WISHES):
            kind = source.choice(("internal", "token", "token", "token", "native", "greedy"))
            address = account if kind == "internal" else f"0x{self._seed + 1:016x}{number:024x}"
            token = ether if kind == "native" else usdt
            value = "100000" if kind == "greedy" else "0.01" if kind == "native" else str(source.randint(5, 60))
            wish = Wish(f"w{number}", source.random() * 60, address, token.id, value, source.random() < 0.5)
            self._world.wishes.append(wish)

    async def _client(self, app: App, wish: Wish) -> None:
        """Ask, and ask again with the same id until there is an answer; sometimes once more after it."""
        await asyncio.sleep(max(0.0, wish.at_s - self._loop.time()))
        while True:
            answer = await self._world.ask(app, wish)
            if answer["code"] not in (224066, 11004):
                break
            if self._loop.time() > END_S:
                raise Violation(f"{wish.name} is answered {answer} for ever")
            await asyncio.sleep(2)
        wish.answer = answer
        if self._world.source.random() < 0.3:
            again = await self._world.ask(app, wish)
            if answer["code"] == 10000 and again != answer:
                raise Violation(f"{wish.name} was answered differently when it was repeated")

    async def _finished(self, product: Product) -> bool:
        rows = await product.database.read(
            lambda tx: tx.one(
                "SELECT (SELECT COUNT(*) FROM orders WHERE state NOT IN ('succeeded', 'failed')) "
                "+ (SELECT COUNT(*) FROM attempt WHERE state NOT IN ('final', 'dead')) "
                "+ (SELECT COUNT(*) FROM outbox WHERE state = 'due') AS n"
            )
        )
        return rows is not None and rows["n"] == 0

    async def _stands(self, product: Product) -> bool:
        """Whether the lane waits for a person, who never comes here."""
        return bool(await product.database.read(lambda tx: tx.all("SELECT id FROM lane WHERE halted <> ''")))

    async def _unfinished(self, product: Product) -> str:
        rows = await product.database.read(
            lambda tx: tx.all("SELECT merchant_order_id, state, hold_reason FROM orders WHERE state NOT IN ('succeeded', 'failed')")
        )
        lanes = await product.database.read(lambda tx: tx.all("SELECT chain, next_slot, halted FROM lane"))
        attempts = await product.database.read(
            lambda tx: tx.all("SELECT slot, state, seen FROM attempt WHERE state NOT IN ('final', 'dead')")
        )
        return f"{rows} {attempts} {lanes}"

    async def _judge(self, runtime: VirtualRuntime, product: Product) -> None:  # noqa: ARG002
        """Books, payments and events, each against what the world knows."""
        await asyncio.sleep(2 * CONFIRMATIONS)  # until the last coins are final
        await product.treasury.refresh()
        report = await Commands(product).audit()
        if report["breaches"]:
            raise Violation(f"the audit found {report['breaches']}")
        await self._judge_payments(product)
        rows = [row for row in await Commands(product).treasury_rows() if row["chain"] == CHAIN]
        for row in rows:
            if row["on_chain"] != row["in_books"]:
                raise Violation(f"the chain has {row['on_chain']} {row['crypto']} and the books say {row['in_books']}")
        if self._world.forged:
            raise Violation(f"{self._world.forged} answers or events carried a wrong signature")

    async def _judge_payments(self, product: Product) -> None:
        orders = await product.store.find(1, [wish.name for wish in self._world.wishes])
        for wish in self._world.wishes:
            accepted = wish.answer is not None and wish.answer["code"] == 10000
            order = orders.get(wish.name)
            if accepted != (order is not None):
                raise Violation(f"{wish.name} was answered {wish.answer} and its order is {order}")
            received = 0 if wish.is_internal else self._world.received(wish.address, wish.token_id)
            if order is None:
                if received:
                    raise Violation(f"{wish.name} was refused and {received} arrived")
                continue
            if wish.answer is not None and from_wire(wish.answer["data"]["order_id"]) != order.id:
                raise Violation(f"{wish.name} has an order of another id than it was told")
            token = product.catalog.token(wish.token_id)
            expected = 0 if token is None or wish.is_internal or order.state != "succeeded" else order.net // token.scale
            if received != expected:
                raise Violation(f"{wish.name} is {order.state}, {expected} should have arrived and {received} did")
            bodies = set(self._world.events.get(wish.name, []))
            if len(bodies) != 1:
                raise Violation(f"{wish.name} has {len(bodies)} different events")


async def _no_prices(url: str, *, bytes_max: int, timeout_s: int) -> bytes:
    raise ValueError(f"{url} is not asked in a simulation ({bytes_max}, {timeout_s})")
