"""Merchants that note every call they make: several clients each, over the real API, with nobody to tell them what is true.

Every amount is a common part and a power of two that no other order of the same purse has, so a balance says which orders it is less by.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from aiohttp import web

from penstock.catalog import Catalog
from penstock.commands import Commands
from penstock.core.errors import Refused
from penstock.core.money import LEDGER_DECIMALS, Token, parse_units, plain
from penstock.core.order import WireStatus
from penstock.core.wire import compact
from penstock.db import DatabaseUnavailable
from penstock.prove.histories.history import CONFLICT, OK, SHORT, UNKNOWN, Call, History
from penstock.prove.histories.models import Wish
from penstock.prove.histories.serial import NEVER
from penstock.prove.installed.premises import Premises
from penstock.prove.lane import Found
from penstock.prove.merchant import V1, Merchant, nobody

CLIENTS: Final = 3
ANSWER_S: Final = 8.0
AWAY_S: Final = 0.1
"""After a connection that nobody took."""
IDS_MAX: Final = 100
NOT_NOW: Final = frozenset({11004, 224066})
"""Answers after which an order may be there all the same: too many requests, or a commit of unknown outcome."""


@dataclass(frozen=True, slots=True)
class Good:
    """What is paid: so many times 2^`orders` base units of a token, and one bit more for each order."""

    chain: str
    symbol: str
    times: int
    orders: int


GOODS: Final = (Good("ETH", "ETH", 2_000, 40), Good("XRP", "XRP", 12, 20), Good("ETH", "USDT", 3, 20))
CHAINS: Final = tuple(dict.fromkeys(good.chain for good in GOODS))
FUNDS: Final[Mapping[str, int]] = {"ETH": 1_000_000, "XRP": 10_000_000, "USDT": 10_000_000}
"""Whole coins that the faucets put on the hot addresses."""


class _NotSent(Exception):
    """Nobody took the connection: the call never was."""


class Purse:
    """One coin of one merchant: what the next order is, and the credit that all of them need, or less."""

    def __init__(self, good: Good, catalog: Catalog, *, is_tight: bool) -> None:
        token, network = catalog.by_symbol(good.symbol, good.chain), catalog.network(good.chain)
        if token is None or network is None:
            raise ValueError(f"{good.symbol} on {good.chain} is not in the catalogue")
        self.good = good
        self.token: Token = token
        self.family = network.family
        self.left = iter(range(good.orders))
        self.credit_units = (2 if is_tight else 2 * good.orders) * (good.times << good.orders) + (1 << good.orders)

    @property
    def credit(self) -> str:
        """In whole coins, for the operator."""
        return plain(self.credit_units, self.token.decimals)

    def next_value(self) -> str | None:
        """An amount that no order of this purse had, None when there are no more."""
        number = next(self.left, None)
        return None if number is None else plain((self.good.times << self.good.orders) + (1 << number), self.token.decimals)


class Customer:
    """One merchant. What it saw is in `history`, what is wrong in itself in `found`."""

    def __init__(self, place: Premises, name: str, dice: random.Random, history: History) -> None:
        self.place = place
        self.name = name
        self.dice = dice
        self.history = history
        self.found: list[Found] = []
        self.wishes: list[Wish] = []
        self.order_ids: dict[str, str] = {}
        self.purses: list[Purse] = []
        self.is_open = True
        self._account = ""
        self._merchant = Merchant("", "", "")

    async def settle_in(self, commands: Commands, catalog: Catalog, hook: str, account: str, *, is_tight: bool) -> None:
        """Become a merchant with declared funding."""
        made = await commands.add_merchant(self.name, f"{hook}/{self.name}")
        self._merchant = Merchant(made["app_id"], made["app_secret"], f"m:{made['merchant_id']}")
        self._account = account
        for good in GOODS:
            purse = Purse(good, catalog, is_tight=is_tight)
            self.purses.append(purse)
            await commands.credit(made["app_id"], good.symbol, purse.credit, "a lane of penstock prove")
            self.history.credits[self.name, purse.token.coin.id] = parse_units(purse.credit, LEDGER_DECIMALS)

    # ------------------------------------------------------------------------------------------------------------- calls

    async def trade(self, pause_s: float) -> None:
        """One client, until the customer closes or has ordered all that it can."""
        while self.is_open and self.purses:
            try:
                await self._something()
            except _NotSent:
                await asyncio.sleep(AWAY_S)
            await asyncio.sleep(self.dice.uniform(0, 2 * pause_s))

    async def _something(self) -> None:
        roll = self.dice.random()
        if roll < 0.30 or not self.wishes:
            await self._order()
        elif roll < 0.36:
            await self._create(self.dice.choice(self.wishes[-20:]))
        elif roll < 0.40:
            await self._create_another(self.dice.choice(self.wishes[-20:]))
        elif roll < 0.70:
            await self.read_balances()
        elif roll < 0.97:
            recent = [wish.merchant_order_id for wish in self.wishes[-20:]] + [f"{self.name}-nothing"]
            await self.query(self.dice.sample(sorted(set(recent)), self.dice.randint(1, min(5, len(set(recent))))))
        else:
            await self._cancel(self.dice.choice(self.wishes[-6:]))

    async def _order(self) -> None:
        """A new one; sometimes asked for twice at once, or with two contents at once; sometimes until there is an answer."""
        wish = self._wish(f"{self.name}-{len(self.wishes)}")
        if wish is None:
            return
        self.wishes.append(wish)
        roll = self.dice.random()
        if roll < 0.1:
            await asyncio.gather(self._create(wish), self._create(wish))
        elif roll < 0.2:
            await asyncio.gather(self._create(wish), self._create_another(wish))
        else:
            code = await self._create(wish)
            while code == UNKNOWN and self.is_open and roll < 0.6:
                await asyncio.sleep(AWAY_S)
                code = await self._create(wish)

    def _wish(self, merchant_order_id: str) -> Wish | None:
        purse = self.dice.choice(self.purses)
        value = purse.next_value()
        if value is None:
            self.purses.remove(purse)
            return None
        token, is_internal = purse.token, self.dice.random() < 0.4
        return Wish(
            merchant_order_id=merchant_order_id,
            address=self._account if is_internal else self._nobody(purse),
            token_id=token.id,
            coin_id=token.coin.id,
            chain=token.chain,
            value=value,
            units=parse_units(value, LEDGER_DECIMALS),
            is_internal=is_internal,
        )

    def _nobody(self, purse: Purse) -> str:
        """An address that was never paid."""
        return nobody(self.dice, purse.family, int(self.place.environment[f"PENSTOCK_NETWORKS__{purse.token.chain}__CHAIN_ID"]))

    async def _create_another(self, wish: Wish) -> None:
        """Another content under an id that was used."""
        other = self._wish(wish.merchant_order_id) if self.purses else None
        if other is not None:
            await self._create(other)

    async def _create(self, wish: Wish) -> int:
        """The code: UNKNOWN where it may have become an order and nobody said so."""
        began = time.monotonic()
        code, data = await self._ask("/withdraw", wish.body)
        if code not in {UNKNOWN, OK, CONFLICT, SHORT, *NOT_NOW}:
            self.found.append(Found("other", f"{wish.merchant_order_id} was refused with {code}: {str(data)[:200]}"))
        if code in NOT_NOW or code == UNKNOWN:
            self._note("create", wish.merchant_order_id, began, NEVER, UNKNOWN, None, wish)
            return UNKNOWN
        if code == OK:
            self.order_ids[wish.merchant_order_id] = data["order_id"]
        self._note("create", wish.merchant_order_id, began, time.monotonic(), code, data, wish)
        return code

    async def query(self, ids: Sequence[str]) -> Mapping[str, WireStatus | None]:
        """What bill/info shows of each of at most 100 ids; empty where it did not answer."""
        began = time.monotonic()
        code, data = await self._ask("/bill/info", compact({"merchant_order_ids": list(ids)}))
        if code != OK:
            return {}
        ended = time.monotonic()
        told = {element["order_detail"]["merchant_order_id"]: element for element in data}
        if len(told) != len(data) or not told.keys() <= set(ids):
            self.found.append(Found("other", f"{ids} were asked for and {list(told)} were shown"))
        calls = [Call("query", self.name, name, began, ended, OK, told.get(name)) for name in ids]
        self.history.calls += calls
        return {call.about: call.shows for call in calls}

    async def read_balances(self) -> bool:
        """Of every coin, in one call. Whether it answered."""
        began = time.monotonic()
        code, data = await self._ask("/assets", b"{}")
        if code == OK:
            for row in data["list"]:
                self._note("balance", row["coin_id"], began, time.monotonic(), OK, parse_units(row["value"], LEDGER_DECIMALS))
        return code == OK

    async def _cancel(self, wish: Wish) -> None:
        """The operator's command: the API has none."""
        order_id = self.order_ids.get(wish.merchant_order_id)
        if order_id is None:
            return
        began, code, ended = time.monotonic(), OK, NEVER
        try:
            async with self.place.commands() as commands:
                await commands.cancel_order(order_id, "a lane of penstock prove")
                ended = time.monotonic()
        except Refused:
            return
        except DatabaseUnavailable:
            code = UNKNOWN
        self._note("cancel", wish.merchant_order_id, began, ended, code, None)

    async def receive(self, request: web.Request) -> web.Response:
        """A webhook; now and then say that it did not come."""
        raw = await request.read()
        if not self._merchant.made(request.headers, raw):
            self.found.append(Found("other", f"an event of {self.name} is wrongly signed"))
            return web.Response(status=400)
        body = json.loads(raw)
        self._note("event", body["merchant_order_id"], 0.0, time.monotonic(), OK, body)
        return web.Response(status=503) if self.dice.random() < 0.1 else web.Response(text="success")

    def _note(self, kind: Any, about: str, began: float, ended: float, code: int, said: Any, wish: Wish | None = None) -> None:
        self.history.calls.append(Call(kind, self.name, about, began, ended, code, said, wish))

    async def _ask(self, path: str, body: bytes) -> tuple[int, Any]:
        """Code and `data`, or `msg`; UNKNOWN where no whole answer came. Raises _NotSent."""
        try:
            async with self.place.http.post(
                self.place.url + V1 + path, data=body, headers=self._merchant.headers(body), timeout=aiohttp.ClientTimeout(total=ANSWER_S)
            ) as response:
                raw, headers = await response.read(), response.headers
        except aiohttp.ClientConnectorError as error:
            raise _NotSent from error
        except (aiohttp.ClientError, OSError, TimeoutError):
            return UNKNOWN, None
        if not self._merchant.made(headers, raw):
            if response.status < 500 and b"11004" not in raw:
                self.found.append(Found("other", f"the answer to {path} is not signed: {raw[:200]!r}"))
            return UNKNOWN, None
        answer = json.loads(raw)
        return int(answer["code"]), answer["data"] if answer["code"] == OK else answer["msg"]

    # --------------------------------------------------------------------------------------------------------------- end

    async def finish(self, deadline: float) -> list[str]:
        """Query every id until what is there has ended; whose end did not come in time."""
        ids = [wish.merchant_order_id for wish in self.wishes]
        noted = len(self.history.calls)
        while True:
            del self.history.calls[noted:]
            states: dict[str, WireStatus | None] = {}
            for first in range(0, len(ids), IDS_MAX):
                states |= await self.query(ids[first : first + IDS_MAX])
            left = [name for name in ids if states.get(name, WireStatus.PENDING) in (WireStatus.PENDING, WireStatus.PROCESSING)]
            if not left or time.monotonic() > deadline:
                break
            await asyncio.sleep(0.3)
        await self.read_balances()
        return left
