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
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import structlog

from penstock.catalog import Catalog
from penstock.commands import Commands
from penstock.core.errors import Refused
from penstock.core.money import Token, parse_units
from penstock.core.wire import compact
from penstock.devnet.box import BoxNetwork
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control
from penstock.prove.lane import Breach, Budget, Found, Tried
from penstock.prove.merchant import V1, Merchant
from penstock.prove.simulated.house import House
from penstock.prove.simulated.networks import PLACES as NETWORKS
from penstock.prove.simulated.networks import Recipient
from penstock.prove.simulated.reach import call_asgi
from penstock.prove.simulated.virtual import START_MS, Crash, Journal, VirtualLoop
from penstock.runtime import SystemRuntime
from penstock.webhooks.deliver import Reply
from penstock.wiring import Product

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
    recipient: Recipient
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
        self.seed = seed
        self.counts: Counter[str] = Counter()
        self.source = random.Random(f"rollback {seed}")
        self.place = PLACES[seed % len(PLACES)]
        self.what = self.source.choice(DRAWN)
        self.loop = VirtualLoop()
        (self.network,) = make_networks(Catalog.load(), [self.place.chain], now_ms=self.now_ms, seed=seed)
        self.house = House(folder, [self.network], _Receiver(), loop=self.loop, source=self.source, journal=Journal())
        self.database = folder / "penstock.db"
        self.copy = Copy(folder / "copy.db")
        self.wishes: list[Wish] = []
        self.merchant = Merchant("", "", "")

    def now_ms(self) -> int:
        """The clock of everybody."""
        return START_MS + int(self.loop.time() * 1000)

    @property
    def symbol(self) -> str:
        """The coin that is paid."""
        return next(iter(self.place.pays))

    @property
    def value(self) -> str:
        """How much of it each time."""
        return self.place.pays[self.symbol][0]

    # ------------------------------------------------------------------------------------------------------------------ lives

    def live(self, part: Callable[[Product], Coroutine[Any, Any, None]], crash_at: Callable[[str, int], bool] | None = None) -> bool:
        """One life of the program; whether it came to its end."""
        try:
            self.house.start(crash_at=crash_at)
            self.house.run(part(self.house.product))
        except Crash:
            return False
        finally:
            self.house.die()
        return True

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
        forgotten = len(self.house.signed.lines) - self.copy.entries
        self._put_back()
        ends = {"database": self._after_database, "journal": self._after_journal, "both": self._after_both}
        ends[self.what](forgotten)

    def _take_copy(self, label: str) -> None:
        with contextlib.closing(sqlite3.connect(self.database)) as source, contextlib.closing(sqlite3.connect(self.copy.path)) as target:
            source.backup(target)
        self.copy.label, self.copy.entries, self.copy.taken = label, len(self.house.signed.lines), True

    def _put_back(self) -> None:
        if self.what in ("database", "both"):
            for suffix in ("", "-wal", "-shm"):
                self.database.with_name(self.database.name + suffix).unlink(missing_ok=True)
            self.database.write_bytes(self.copy.path.read_bytes())
        if self.what in ("journal", "both"):
            self.house.signed.cut(self.copy.entries)
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
            if self._sends() != before or len(self.house.signed.lines) != self.copy.entries:
                raise Wrong("other", "an older journal did not stop the network")
            self.counts["stopped"] += 1
            self.live(self._relearn)
        self.live(self._story_to_the_end)
        self.live(self._judge)

    def _after_both(self, forgotten: int) -> None:
        self.loop.run_until_complete(asyncio.sleep(REST_S))
        paid = {wish.name: wish.recipient.received() for wish in self.wishes}
        self.live(self._stand)
        again = [wish.name for wish in self.wishes if paid[wish.name] and wish.recipient.received() != paid[wish.name]]
        if again:
            raise Wrong("double_payment", f"{again} were paid twice after both copies were put back")
        self.counts["both_with_payments_forgotten"] += bool(forgotten)
        self.live(self._check_named)

    async def _check_named(self, product: Product) -> None:
        """What was paid and is not under way here makes the network stand."""
        orders = await product.store.find(1, [wish.name for wish in self.wishes])
        strange = [
            w.name for w in self.wishes if w.recipient.received() and (w.name not in orders or orders[w.name].state in ("accepted", "held"))
        ]
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
        self.merchant = Merchant(merchant["app_id"], merchant["app_secret"], f"m:{merchant['merchant_id']}")
        await commands.credit(self.merchant.app_id, self.symbol, "1000000", "the lane's")
        network = product.catalog.network(self.place.chain)
        if network is None:
            raise Wrong("other", "the catalogue has changed")
        hot = await product.treasury.address_of(network)
        for symbol, units in self.place.funds.items():
            self.network.fund(hot, units, self._token(product, symbol).contract)
        for number in range(ORDERS):
            token = self._token(product, self.symbol)
            recipient = self.place.recipient(self.network, f"payee {number} of {self.seed}", token, self.value)
            self.wishes.append(Wish(f"w{number}", self.loop.time() + 20 + self.source.random() * FOR_S, recipient))
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
        fields = {"merchant_order_id": wish.name, "address": wish.recipient.address, "memo": wish.recipient.memo}
        body = compact({**fields, "token_id": self._token(product, self.symbol).id, "value": self.value, "merchant_pays_fee": True})
        headers = self.merchant.headers(body, timestamp=str(self.now_ms() // 1000))
        _, raw = await call_asgi(product.app(), f"{V1}/withdraw", headers, body)
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
        due = parse_units(self.value, self._token(product, self.symbol).decimals)
        for wish in self.wishes:
            if (received := wish.recipient.received()) > due:
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
        token = self._token(product, self.symbol)
        for wish in self.wishes:
            order, received = orders.get(wish.name), wish.recipient.received()
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


def _lasting(network: BoxNetwork, name: str, token: Token, value: str) -> Recipient:
    """An invoice that outlives every rest, or an order could not be asked again."""
    del name, token
    made = control([network], {"do": "invoice", "units": int(value) * 1_000, "expiry_s": 100_000})
    asked = {"do": "settled", "payment_hash": made["payment_hash"]}
    return Recipient(made["invoice"], "", lambda: int(control([network], asked)["received"]))


PLACES: Final = (*(NETWORKS[chain] for chain in ("ETH", "TRX", "XRP", "BTC")), replace(NETWORKS["LIGHTNING"], recipient=_lasting))
"""One for each family, seed by seed."""


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
                found.append(Found(wrong.breach, str(wrong), f"python -m penstock.prove.lanes.rollback {seed}"))
            counts["plays"] += 1
    finally:
        structlog.configure(**log_before)
        clock.close()
    return Tried("rollback", dict(counts), tuple(found), took_s=clock.monotonic() - began)


if __name__ == "__main__":
    import sys

    print(dict(play(int(sys.argv[1]))))
