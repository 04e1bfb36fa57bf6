"""A merchant that never gives up: asks for payouts on every family, repeats each id until it is answered, keeps every webhook, and judges."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

import aiohttp
from aiohttp import web

from penstock.catalog import Catalog
from penstock.core.money import Token, parse_units
from penstock.core.wire import compact
from penstock.db import Tx
from penstock.prove.installed.premises import Premises
from penstock.prove.lane import Found
from penstock.prove.merchant import V1, Merchant, nobody

AT_ONCE: Final = 24
"""Wishes that may be open at a time: load enough for every step to be busy, small enough for two cores."""
ANSWER_S: Final = 5.0

GOODS: Final[Sequence[tuple[str, str, str]]] = (
    ("", "USDT", "2"),
    ("ETH", "USDT", "3"),
    ("BTC", "BTC", "0.0004"),
    ("TRX", "USDT", "4"),
    ("ETH", "ETH", "0.002"),
    ("XRP", "XRP", "12"),
    ("LIGHTNING", "SATS", "2100"),
)
"""Chain, coin and amount, one after the other; without a chain it stays in the house."""
SEVERAL: Final[Mapping[str, str]] = MappingProxyType({f"PENSTOCK_NETWORKS__{chain}__HOT_ADDRESSES": "3" for chain in ("ETH", "TRX", "XRP")})
"""Settings of a house that pays from several addresses wherever it can."""
CHAINS: Final = tuple(dict.fromkeys(chain for chain, _, _ in GOODS if chain))
CREDITS: Final[Mapping[str, str]] = MappingProxyType(
    {"USDT": "1000000", "ETH": "1000", "BTC": "100", "XRP": "1000000", "SATS": "100000000"}
)
FUNDS: Final[Mapping[str, int]] = MappingProxyType(
    {"ETH": 1_000, "BTC": 20, "SATS": 50_000_000, "TRX": 1_000_000, "XRP": 1_000_000, "USDT": 1_000_000}
)
"""Whole coins that the faucets put on the hot addresses."""


@dataclass(slots=True)
class Wish:
    """One order as the merchant wants it, and what became of it."""

    name: str
    token: Token
    fields: dict[str, Any]
    is_internal: bool
    payment_hash: str = ""
    asked: int = 0
    answer: dict[str, Any] | None = None
    events: dict[str, bytes] = field(default_factory=dict)
    """Bodies by event id."""
    statuses: set[str] = field(default_factory=set)


class Shop:
    """The merchant of one home: load, webhook receiver and judge."""

    def __init__(self, place: Premises, seed: int) -> None:
        self.place = place
        self.urls: Sequence[str] = (place.url,)
        """Processes that take orders; each time it asks any of them."""
        self.dice = random.Random(seed)
        self.wishes: dict[str, Wish] = {}
        self.found: list[Found] = []
        self.refusals: Counter[int] = Counter()
        self.arrivals = 0
        self.answered: list[float] = []
        self.told: list[float] = []
        """When answers, and events never seen before, came: the signs of progress."""
        self._catalog = Catalog.load()
        self._numbers = itertools.count()
        self._goods = itertools.cycle(self.dice.sample(GOODS, len(GOODS)))
        self._hot: dict[str, list[str]] = {}
        self._merchant = Merchant("", "", "")
        self._account = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_open = False
        self._runner: web.AppRunner | None = None

    # ------------------------------------------------------------------------------------------------------------- opening

    async def settle_in(self) -> None:
        """Once, beside the first life: receiver, merchant, account, declared funding, coins on the hot addresses."""
        application = web.Application()
        application.router.add_post("/hook", self._receive)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        async with self.place.commands() as commands:
            made = await commands.add_merchant("shop", f"http://127.0.0.1:{self._runner.addresses[0][1]}/hook")
            self._merchant = Merchant(made["app_id"], made["app_secret"], f"m:{made['merchant_id']}")
            self._account = str((await commands.add_account("ada@example.com", "Ada"))["c_id"])
            for coin, amount in CREDITS.items():
                await commands.credit(self._merchant.app_id, coin, amount, "a lane of penstock prove")
            self._hot = {row["chain"]: list(row["addresses"]) for row in await commands.treasury_rows()}
        for chain in CHAINS:
            await self.place.control(chain, "block_time", block_ms=self._block_ms(chain))
            for token in self._catalog.tokens_on(chain):
                if token.coin.symbol in FUNDS:
                    await self.fund(chain, token.coin.symbol, FUNDS[token.coin.symbol])

    def _block_ms(self, chain: str) -> int:
        return int(self.place.environment.get(f"PENSTOCK_NETWORKS__{chain}__BLOCK_MS", "250"))

    async def fund(self, chain: str, symbol: str, whole: int) -> None:
        """So many whole coins more on each hot address."""
        token = self._token(chain, symbol)
        units = str(whole * 10**token.decimals)
        for address in self._hot[chain]:
            if token.contract is None:
                await self.place.control(chain, "fund", address=address, units=units)
            else:
                await self.place.control(chain, "fund_token", contract=token.contract, address=address, units=units)

    async def close(self) -> None:
        """End what is under way."""
        self._is_open = False
        for task in self._tasks:
            task.cancel()
        if self._runner is not None:
            await self._runner.cleanup()

    # ---------------------------------------------------------------------------------------------------------------- load

    async def trade(self) -> None:
        """New wishes as fast as old ones come true, until `last_orders`."""
        self._is_open = True
        while self._is_open:
            if len(self.unfinished()) < AT_ONCE:
                await self.order(*next(self._goods))
            await asyncio.sleep(0.03)

    async def order(self, chain: str, symbol: str, value: str) -> None:
        """One more wish, and somebody who asks for it."""
        wish = await self._wish(chain, symbol, value)
        self.wishes[wish.name] = wish
        task = asyncio.create_task(self._client(wish))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def last_orders(self) -> None:
        """No wish is made any more; those that there are still come true."""
        self._is_open = False

    async def ask_again(self) -> None:
        """Every id once more, as merchants do who are not sure: each is answered with the order that it was answered with before."""
        await asyncio.gather(*(self._asked(wish) for wish in self.wishes.values()))

    def unfinished(self) -> list[Wish]:
        """Wishes without an answer or an event."""
        return [wish for wish in self.wishes.values() if wish.answer is None or not wish.events]

    async def _wish(self, chain: str, symbol: str, value: str) -> Wish:
        token = self._token(chain or "ETH", symbol)
        name, payment_hash = f"{chain or 'inside'}-{next(self._numbers)}", ""
        if not chain:
            address = self._account
        elif chain == "LIGHTNING":
            asked = await self.place.control(chain, "invoice", units=str(int(value) * 10**token.decimals), expiry_s=86_400)
            address, payment_hash = asked["invoice"], asked["payment_hash"]
        else:
            address = self._nobody(chain)
        fields = {"merchant_order_id": name, "address": address, "token_id": token.id, "value": value}
        return Wish(name, token, fields | {"merchant_pays_fee": self.dice.random() < 0.5 or bool(payment_hash)}, not chain, payment_hash)

    def _token(self, chain: str, symbol: str) -> Token:
        token = self._catalog.by_symbol(symbol, chain)
        if token is None:
            raise AssertionError(f"{symbol} on {chain} is not in the catalogue")
        return token

    def _nobody(self, chain: str) -> str:
        """An address that was never paid and that nobody has the key of any more."""
        network = self._catalog.network(chain)
        if network is None:
            raise AssertionError(f"{chain} is not in the catalogue")
        return nobody(self.dice, network.family, int(self.place.environment[f"PENSTOCK_NETWORKS__{chain}__CHAIN_ID"]))

    async def _client(self, wish: Wish) -> None:
        """Ask until there is an answer, and sometimes again: as if it had been lost."""
        for _ in range(2 if self.dice.random() < 0.2 else 1):
            await self._asked(wish)

    async def _asked(self, wish: Wish) -> None:
        while True:
            answer = await self._ask(wish)
            if answer is not None:
                break
            await asyncio.sleep(0.05 + 0.1 * self.dice.random())
        if wish.answer is not None and wish.answer["order_id"] != answer["order_id"]:
            self._tell("double_payment", f"{wish.name} was answered with two order ids")
        wish.answer = answer

    async def _ask(self, wish: Wish) -> dict[str, Any] | None:
        body = compact(wish.fields)
        wish.asked += 1
        try:
            async with self.place.http.post(
                f"{self.dice.choice(self.urls)}{V1}/withdraw",
                data=body,
                headers=self._merchant.headers(body),
                timeout=aiohttp.ClientTimeout(total=ANSWER_S),
            ) as response:
                raw, headers = await response.read(), dict(response.headers)
        except (aiohttp.ClientError, OSError, TimeoutError):
            return None
        answer: dict[str, Any] = json.loads(raw) if raw.startswith(b"{") else {"code": response.status}
        if answer["code"] != 10000:
            self.refusals[answer["code"]] += 1
            return None
        if not self._merchant.made(headers, raw):
            self._tell("other", f"the answer to {wish.name} carries a wrong signature")
        self.answered.append(time.monotonic())
        data: dict[str, Any] = answer["data"]
        return data

    async def _receive(self, request: web.Request) -> web.Response:
        """Keep the event; now and then say that it did not come, so that it comes again."""
        raw = await request.read()
        body, event_id = json.loads(raw), request.headers.get("Webhook-Id", "")
        wish = self.wishes.get(body.get("merchant_order_id", ""))
        if wish is None or not event_id or not self._merchant.made(request.headers, raw):
            self._tell("other", f"an event that is nobody's or wrongly signed: {body.get('merchant_order_id')}")
            return web.Response(status=400)
        self.arrivals += 1
        if not wish.events:
            self.told.append(time.monotonic())
        if wish.events.setdefault(event_id, raw) != raw:
            self._tell("other", f"event {event_id} of {wish.name} came with two bodies")
        wish.statuses.add(body["pay_status"])
        return web.Response(status=503) if self.dice.random() < 0.05 else web.Response(text="success")

    # --------------------------------------------------------------------------------------------------------------- judge

    def _tell(self, breach: Any, text: str) -> None:
        self.found.append(Found(breach, text))

    async def finished_within(self, seconds: float) -> bool:
        """Until every wish has its event and the house has nothing under way. Then nothing is left to do but to judge."""
        deadline = time.monotonic() + seconds
        while self.unfinished():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.1)
        async with self.place.product() as product:
            while await product.database.read(_under_way):
                if time.monotonic() > deadline:
                    return False
                await asyncio.sleep(0.2)
        return True

    async def judge(self) -> None:
        """Each order by the networks' own truth, events by what came, books by the audit and by the chains."""
        for wish in self.wishes.values():
            await self._judge_one(wish)
        async with self.place.commands() as commands:
            report = await commands.audit()
            self.found += [Found("ledger_imbalance", f"audit: {one['invariant']} {one['text']}") for one in report["breaches"]]
            shown = await commands.show_account(self._account)
            paid = sum(int(wish.fields["value"]) for wish in self.wishes.values() if wish.is_internal)
            have = [one["available"] for one in shown["balances"] if one["crypto"] == "USDT"]
            if (have or ["0"]) != [str(paid)]:
                self._tell("ledger_imbalance", f"the account has {have} USDT and was paid {paid}")
            listed = await commands.list_orders(state="", app_id=self._merchant.app_id, chain="", limit=1000)
            known = {row["merchant_order_id"] for row in listed}
            if len(listed) < 1000 and known != set(self.wishes):
                self._tell("lost_order", f"the house knows {len(known)} orders and the merchant made {len(self.wishes)}")

    async def books_equal_chains(self, seconds: float) -> bool:
        """Until what the books say of each coin on a network is what the network says; the last coins become final."""
        deadline = time.monotonic() + seconds
        while True:
            async with self.place.commands() as commands:
                rows = [row for row in await commands.treasury_rows() if row["chain"] in CHAINS]
            apart = [row for row in rows if row["on_chain"] != row["in_books"]]
            if not apart:
                return True
            if time.monotonic() > deadline:
                for row in apart:
                    self._tell(
                        "ledger_imbalance", f"{row['crypto']} on {row['chain']}: {row['on_chain']} there, {row['in_books']} in the books"
                    )
                return False
            await asyncio.sleep(0.3)

    async def _judge_one(self, wish: Wish) -> None:
        received, due = await self._received(wish), 0
        if wish.answer is None:
            self._tell("lost_order", f"{wish.name} was asked for {wish.asked} times and never answered")
        elif wish.statuses == {"success"}:
            due = 1 if wish.payment_hash else parse_units(wish.answer["net_receivable"], wish.token.decimals)
        if not wish.events:
            self._tell("lost_event", f"{wish.name} has no event")
        elif len(wish.events) > 1 or len(wish.statuses) > 1:
            self._tell("other", f"{wish.name} has {len(wish.events)} events, {wish.statuses}")
        elif wish.statuses == {"failed"}:
            self._tell("other", f"{wish.name} failed, and nothing here should make an order fail")
        if not wish.is_internal and received > due:
            self._tell("double_payment", f"{wish.name}: {due} was due and {received} arrived")
        if not wish.is_internal and received < due:
            self._tell("lost_order", f"{wish.name}: {due} was due and {received} arrived")

    async def _received(self, wish: Wish) -> int:
        """Base units by the network's truth; of an invoice, how often it was paid."""
        if wish.is_internal:
            return 0
        if wish.payment_hash:
            return int((await self.place.control(wish.token.chain, "settled", payment_hash=wish.payment_hash))["times"])
        contract = {"contract": wish.token.contract} if wish.token.contract else {}
        held = await self.place.control(wish.token.chain, "holding", address=wish.fields["address"], **contract)
        return int(held["units"])


def _under_way(tx: Tx) -> int:
    # What somebody still has to do something about.
    row = tx.one(
        "SELECT (SELECT COUNT(*) FROM orders WHERE state NOT IN ('succeeded', 'failed')) "
        "+ (SELECT COUNT(*) FROM attempt WHERE state NOT IN ('final', 'dead')) + (SELECT COUNT(*) FROM outbox WHERE state = 'due') AS n"
    )
    return int(row["n"]) if row is not None else 0
