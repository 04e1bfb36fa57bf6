"""Backups put back (test plan, A7): a database, a signer's journal, or both are replaced by an older copy, at any commit and on every family.

An older database must find in the journal what it has forgotten. An older journal must stop the network until a person has decided, and
so must both, as soon as the chain shows what neither remembers. Merchants whose order is gone ask for it again, as merchants do.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from penstock.commands import Commands
from penstock.config import NetworkSettings, Settings
from penstock.core import wire_signature
from penstock.core.errors import Refused
from penstock.core.money import Token, parse_units
from penstock.core.wire import compact
from penstock.db import SqliteDatabase
from penstock.devnet.boxes import make_networks
from penstock.ids import IdSource
from penstock.prove.house import SEAL, MemoryJournal
from penstock.prove.lane import Breach, Budget, Found, Tried
from penstock.prove.payees import PLACES
from penstock.prove.reach import BoxPost, call_asgi
from penstock.prove.virtual import START_MS, Crash, Journal, VirtualLoop, VirtualRuntime
from penstock.runtime import SystemRuntime
from penstock.signer.local import LocalSigner
from penstock.signer.policy import allowed_networks, load_catalog
from penstock.signer.seed import create_seed
from penstock.vault import Vault
from penstock.webhooks.deliver import Reply
from penstock.wiring import Product, World

ORDERS: Final = 8
FOR_S: Final = 40.0
"""Virtual seconds within which merchants ask for the first time."""
END_S: Final = 6_000.0
"""Virtual seconds after which whatever has not ended never will: an attempt on TRON may have to expire twice."""
STAND_S: Final = 60.0
REST_S: Final = 3_600.0
"""How long one waits before a start with nothing but old copies (docs/backup.md): until the chain shows all that was given to it."""
DRAWN: Final = ("database", "database", "database", "journal", "both")
COMMITS: Final = tuple(f"{label}:after" for label in ("intake", "bind", "sign", "sent", "bump", "settle", "webhook.record"))
"""Those that say something of an order; looking for work is most of the others."""
STARTS_THAT_DIE: Final = 10
PLAYS: Final = 20
"""Of size 1."""


class Wrong(Exception):
    """Something that must never happen did."""

    def __init__(self, breach: Breach, text: str) -> None:
        super().__init__(text)
        self.breach = breach


@dataclass(slots=True)
class Wish:
    """What a merchant wants."""

    name: str
    at_s: float
    address: str
    received: Callable[[], int]
    answered: bool = False


@dataclass(slots=True)
class Copy:
    """A backup: the database at one commit, and how long the journal was then."""

    path: Path
    label: str = ""
    entries: int = 0
    taken: bool = False


class Play:
    """One seed: a house on one network whose past is put back once."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.loop = VirtualLoop()
        self.counts: Counter[str] = Counter()
        self.source = random.Random(f"rollback {self.seed}")
        self.place = PLACES[self.seed % len(PLACES)]
        self.what = self.source.choice(DRAWN)
        self.history = Journal()
        (self.network,) = make_networks(load_catalog(Settings(home=self.folder)), [self.place.chain], now_ms=self.now_ms, seed=self.seed)
        self.post = BoxPost([self.network])
        wanted = dict(self.network.settings)
        form = wanted.pop("rpc_url", "{url}")
        nodes = tuple(form.format(url=url) for url in self.post.urls(self.place.chain))
        self.settings = Settings(home=self.folder, networks={self.place.chain: NetworkSettings(rpc_urls=nodes, **wanted)})
        runtime = VirtualRuntime(self.loop, self.source, self.history)
        self.vault = Vault.create(self.folder, runtime, passphrase=None, key_file=True)
        self.keys = create_seed(self.folder, self.vault, runtime)
        self.journal = MemoryJournal()
        self.database = self.folder / "penstock.db"
        self.copy = Copy(self.folder / "copy.db")
        self.wishes: list[Wish] = []
        self.app_id = self.app_secret = ""

    def now_ms(self) -> int:
        """The clock of everybody."""
        return START_MS + int(self.loop.time() * 1000)

    # ------------------------------------------------------------------------------------------------------------------ lives

    def live(self, part: Callable[[Product], Any], crash_at: Callable[[str, int], bool] | None = None) -> bool:
        """One life of the program; whether it came to its end."""
        runtime = VirtualRuntime(self.loop, self.source, self.history)
        if crash_at is not None:
            runtime.crash_at = crash_at
        opened: list[SqliteDatabase] = []
        task = runtime.spawn(self._run(runtime, opened, part), name="life")
        try:
            self.loop.run_until_complete(task)
        except Crash:
            return False
        finally:
            runtime.bury()
            for database in opened:
                database._close()
        return True

    async def _run(self, runtime: VirtualRuntime, opened: list[SqliteDatabase], part: Callable[[Product], Any]) -> None:
        database = SqliteDatabase(runtime, self.database)
        opened.append(database)
        await database.migrate()
        ids = await IdSource.lease(runtime, database, "rollback")
        allowed = allowed_networks(self.settings, load_catalog(self.settings), every=True)
        signer = LocalSigner(self.keys, self.journal, runtime, allowed, SEAL)
        world = World(runtime, self.post, _Receiver(), _no_prices)
        product = Product(self.settings, world, database, ids, self.vault, signer, SEAL)
        await product.connect()
        await product.start()
        await part(product)

    def play(self) -> None:
        """Live until the copy is put back, then until everything has ended. Raises Wrong."""
        self.live(self._set_up)
        take, put_back = self.source.randrange(1, 60), self.source.randrange(1, 60)
        passed = Counter[str]()

        def at_commit(label: str, visit: int) -> bool:
            del visit
            if label not in COMMITS:
                return False
            passed["commits"] += 1
            if not self.copy.taken and passed["commits"] >= take:
                self._take_copy(label)
            return self.copy.taken and passed["commits"] >= take + put_back

        self.live(self._story, at_commit)
        if not self.copy.taken:
            self._take_copy("the end")
        self.counts["commits_back"] += max(0, passed["commits"] - take)
        forgotten = len(self.journal.lines) - self.copy.entries
        self._put_back()
        ends = {"database": self._after_database, "journal": self._after_journal, "both": self._after_both}
        ends[self.what](forgotten)

    def _take_copy(self, label: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as source, contextlib.closing(sqlite3.connect(self.copy.path)) as target:
            source.backup(target)
        self.copy.label, self.copy.entries, self.copy.taken = label, len(self.journal.lines), True

    def _put_back(self) -> None:
        if self.what in ("database", "both"):
            for suffix in ("", "-wal", "-shm"):
                self.database.with_name(self.database.name + suffix).unlink(missing_ok=True)
            self.database.write_bytes(self.copy.path.read_bytes())
        if self.what in ("journal", "both"):
            del self.journal.lines[self.copy.entries :]
        self.counts[f"{self.what}_put_back"] += 1

    # ------------------------------------------------------------------------------------------------------------- what follows

    def _after_database(self, forgotten: int) -> None:
        self.counts["forgotten_entries"] += forgotten
        for _ in range(self.source.randrange(STARTS_THAT_DIE)):
            self.counts["starts_that_died"] += not self.live(self._stand, self._in_recovery)
        self.live(self._story_to_the_end)
        self.live(self._judge)

    def _after_journal(self, forgotten: int) -> None:
        if forgotten:
            before = self._sends()
            self.live(self._stand)
            if self._sends() != before or len(self.journal.lines) != self.copy.entries:
                raise Wrong("other", "an older journal did not stop the network")
            self.counts["stopped"] += 1
            self.live(self._relearn)
        self.live(self._story_to_the_end)
        self.live(self._judge)

    def _after_both(self, forgotten: int) -> None:
        self.loop.run_until_complete(asyncio.sleep(REST_S))
        paid = {wish.name: wish.received() for wish in self.wishes}
        self.live(self._stand)
        again = [wish.name for wish in self.wishes if paid[wish.name] and wish.received() != paid[wish.name]]
        if again:
            raise Wrong("double_payment", f"{again} were paid twice after both copies were put back")
        self.counts["both_with_payments_forgotten"] += bool(forgotten)
        self.live(self._check_named)

    async def _check_named(self, product: Product) -> None:
        """What was paid and is not under way here makes the network stand."""
        orders = await product.store.find(1, [wish.name for wish in self.wishes])
        strange = [w.name for w in self.wishes if w.received() and (w.name not in orders or orders[w.name].state in ("accepted", "held"))]
        lanes = await product.database.read(lambda tx: tx.all("SELECT halted FROM lane WHERE halted <> ''"))
        if strange and not lanes:
            raise Wrong("other", f"{strange} were paid by an attempt that nobody remembers, and the network does not stand")

    def _in_recovery(self, label: str, visit: int) -> bool:
        """A start dies at one of the commits of putting things back."""
        del visit
        return label.startswith("recovery.") and self.source.random() < 0.2

    async def _stand(self, product: Product) -> None:
        """The network is watched for a while; nobody decides anything."""
        await asyncio.sleep(STAND_S)
        self._check_alive(product)

    async def _relearn(self, product: Product) -> None:
        await asyncio.sleep(30)
        try:
            await Commands(product).relearn("the signer's disk is lost, and this is its newest backup")
        except Refused as refused:
            raise Wrong("other", "an older journal did not stop the network") from refused
        await asyncio.sleep(60)

    def _sends(self) -> int:
        with contextlib.closing(sqlite3.connect(self.database)) as database:
            return int(database.execute("SELECT COALESCE(SUM(sends), 0) FROM version").fetchone()[0])

    # -------------------------------------------------------------------------------------------------------------- merchants

    async def _set_up(self, product: Product) -> None:
        commands = Commands(product)
        merchant = await commands.add_merchant("shop", "https://shop.example/webhook")
        self.app_id, self.app_secret = merchant["app_id"], merchant["app_secret"]
        await commands.credit(self.app_id, self.place.symbol, "1000000", "the lane's")
        network = product.catalog.network(self.place.chain)
        if network is None:
            raise Wrong("other", "the catalogue has changed")
        hot = await product.treasury.address_of(network)
        for symbol, units in self.place.funds.items():
            self.network.fund(hot, units, self._token(product, symbol).contract)
        for number in range(ORDERS):
            token = self._token(product, self.place.symbol)
            address, received = self.place.recipient(self.network, 1_000 * self.seed + number, token, self.place.value)
            self.wishes.append(Wish(f"w{number}", self.loop.time() + 20 + self.source.random() * FOR_S, address, received))
        await asyncio.sleep(20)

    def _token(self, product: Product, symbol: str) -> Token:
        token = product.catalog.by_symbol(symbol, self.place.chain)
        if token is None:
            raise Wrong("other", "the catalogue has changed")
        return token

    async def _story(self, product: Product) -> None:
        await self._ask_all(product)
        await asyncio.sleep(max(0.0, 4 * FOR_S - self.loop.time()))

    async def _ask_all(self, product: Product) -> None:
        """Every merchant asks for what it has no answer to."""
        asking = [product.runtime.spawn(self._ask(product, wish), name=wish.name) for wish in self.wishes if not wish.answered]
        for task in asking:
            await task

    async def _ask(self, product: Product, wish: Wish) -> None:
        await asyncio.sleep(max(0.0, wish.at_s - self.loop.time()))
        while not wish.answered:
            code = await self._withdraw(product, wish)
            wish.answered = code not in (224066, 11004)  # no estimate yet, or busy
            await asyncio.sleep(0 if wish.answered else 2)

    async def _withdraw(self, product: Product, wish: Wish) -> int:
        fields = {"merchant_order_id": wish.name, "address": wish.address, "token_id": self._token(product, self.place.symbol).id}
        body = compact({**fields, "value": self.place.value, "merchant_pays_fee": True})
        timestamp = str(self.now_ms() // 1000)
        sign = wire_signature.sign(self.app_id, self.app_secret, timestamp, body)
        headers = {"Appid": self.app_id, "Timestamp": timestamp, "Sign": sign}
        _, raw = await call_asgi(product.app(), "/ccpayment/v1/withdraw", headers, body)
        return int(json.loads(raw)["code"])

    async def _story_to_the_end(self, product: Product) -> None:
        """Merchants ask again for what is gone, an operator looks at what stands, and everything ends."""
        end = self.loop.time() + END_S
        known = await product.store.find(1, [wish.name for wish in self.wishes])
        for wish in self.wishes:
            wish.answered = wish.answered and wish.name in known
        self.counts["orders_gone"] += sum(not wish.answered for wish in self.wishes)
        await self._ask_all(product)
        while unfinished := await self._unfinished(product):
            self._check_alive(product)
            self._check_paid(product)
            if self.loop.time() > end:
                raise Wrong("lost_order", f"not everything ended: {unfinished}")
            await self._operate(product)
            await asyncio.sleep(5)

    async def _operate(self, product: Product) -> None:
        """What a person does who reads what the house says: strays are let go on, and what they paid is said of the orders asked again."""
        lanes = await product.database.read(lambda tx: tx.all("SELECT chain, halted FROM lane WHERE halted <> ''"))
        for lane in lanes:
            if not lane["halted"].startswith("recovery: "):
                raise Wrong("other", f"the lane stands for another reason than the restore: {lane['halted']}")
            await Commands(product).resume(lane["chain"], "the restored database does not know them; the merchants ask again")
            self.counts["resumed"] += 1
        rows = await product.database.read(
            lambda tx: tx.all(
                "SELECT orders.id, attempt.state, attempt.txid, (SELECT COUNT(*) FROM entry WHERE ref_kind = 'attempt' "
                "AND ref_id = CAST(attempt.id AS TEXT) AND posting_kind = 'final') AS paid FROM orders "
                "JOIN spent_key ON spent_key.key = CAST(orders.merchant_id AS TEXT) || '/' || orders.merchant_order_id "
                "JOIN attempt ON attempt.id = spent_key.attempt_id WHERE orders.state = 'quarantined'"
            )
        )
        for row in rows:
            if row["paid"]:
                await product.decider.paid(row["id"], row["txid"], "the attempt of before the restore has paid it")
                self.counts["decided_paid"] += 1
            elif row["state"] in ("final", "dead"):
                await product.decider.failed(row["id"], "the attempt of before the restore is over and has not paid it", proved=True)
                self.counts["decided_failed"] += 1

    async def _unfinished(self, product: Product) -> str:
        rows = await product.database.read(
            lambda tx: tx.all(
                "SELECT merchant_order_id AS name, state, hold_reason AS why FROM orders WHERE state NOT IN ('succeeded', 'failed')"
                " UNION ALL SELECT CAST(id AS TEXT), state, seen FROM attempt WHERE state NOT IN ('final', 'dead') "
                "UNION ALL SELECT chain, 'held', reason FROM recovery_hold UNION ALL SELECT chain, 'halted', halted FROM lane WHERE halted <> ''"
            )
        )
        return "; ".join(f"{row['name']} is {row['state']} {row['why']}" for row in rows)

    def _check_paid(self, product: Product) -> None:
        due = parse_units(self.place.value, self._token(product, self.place.symbol).decimals)
        for wish in self.wishes:
            if (received := wish.received()) > due:
                raise Wrong("double_payment", f"{wish.name} was to get {due} and got {received}")

    def _check_alive(self, product: Product) -> None:
        if product.broken is not None:
            raise Wrong("other", f"a loop ended: {product.broken!r}")

    # ------------------------------------------------------------------------------------------------------------- the verdict

    async def _judge(self, product: Product) -> None:
        """Each recipient has what one order promised, at most once; books and chain agree to the base unit."""
        await asyncio.sleep(120)
        self._check_paid(product)
        report = await Commands(product).audit()
        if report["breaches"]:
            raise Wrong("ledger_imbalance", f"the audit found {report['breaches']}")
        orders = await product.store.find(1, [wish.name for wish in self.wishes])
        token = self._token(product, self.place.symbol)
        for wish in self.wishes:
            order, received = orders.get(wish.name), wish.received()
            if order is None:
                self.counts["refused_when_asked_again"] += 1  # an invoice is paid once, whoever asks
                continue
            due = order.net // token.scale
            if received != (due if order.state == "succeeded" else 0):
                raise Wrong("lost_order", f"{wish.name} is {order.state} and its recipient has {received} of {due}")
        rows = [row for row in await Commands(product).treasury_rows() if row["chain"] == self.place.chain]
        differ = [row for row in rows if row["on_chain"] != row["in_books"]]
        if differ:
            raise Wrong("ledger_imbalance", f"chain and books differ: {differ}")
        self.counts["orders"] += len(orders)


class _Receiver:
    """The merchant's webhook receiver."""

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """It says success."""
        del url, headers, body
        return Reply(200, "success")


async def _no_prices(url: str, *, bytes_max: int, timeout_s: int) -> bytes:
    raise ValueError(f"{url} is not asked here ({bytes_max}, {timeout_s})")


def play(seed: int, folder: Path | None = None) -> Counter[str]:
    """One seed; what was counted. Raises Wrong."""
    with tempfile.TemporaryDirectory(prefix="penstock-rollback-", dir=folder) as name:
        game = Play(seed, Path(name))
        with contextlib.closing(game.loop):
            game.play()
        game.counts[f"plays_{game.place.chain}"] += 1
        return game.counts


def run(budget: Budget) -> Tried:
    """Seeds from the budget's on, every family in turn, until they or the seconds are over."""
    clock = SystemRuntime()
    began = clock.monotonic()
    counts: Counter[str] = Counter(plays=0)
    found: list[Found] = []
    log_before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    try:
        for seed in range(budget.seed, budget.seed + PLAYS * budget.size):
            if clock.monotonic() - began > budget.seconds:
                break
            budget.say(f"rollback seed {seed}")
            try:
                counts.update(play(seed, budget.folder))
            except Wrong as wrong:
                found.append(Found(wrong.breach, str(wrong), f"python -m penstock.prove.rollback {seed}"))
            counts["plays"] += 1
    finally:
        structlog.configure(**log_before)
        clock.close()
    return Tried("rollback", dict(counts), tuple(found), took_s=clock.monotonic() - began)


if __name__ == "__main__":
    import sys

    print(dict(play(int(sys.argv[1]))))
