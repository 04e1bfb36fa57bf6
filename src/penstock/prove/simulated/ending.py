"""How a history ends: in good weather everything finishes in its time, and everybody has what was promised, no more and no less."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.commands import Commands
from penstock.core.money import Token
from penstock.core.order import OrderState
from penstock.core.snowflake import from_wire
from penstock.prove.simulated.auditor import Alarm, Violation
from penstock.prove.simulated.house import House
from penstock.prove.simulated.networks import Site
from penstock.prove.simulated.people import People, Wish
from penstock.prove.simulated.weather import Weather, release
from penstock.rails.base import NodeUnreachable
from penstock.rails.lightning.rail import NOT_KNOWN
from penstock.wiring import Product

GRACE_S: Final = 600.0
"""After the storm everything must finish within finality and this."""
LAPSE_S: Final[Mapping[str, float]] = {"tron": 1_200.0, "lightning": 1_300.0}
"""What a family needs besides: a transaction of TRON expires only after its time, and Lightning is believed only after silence."""
DOWN_S: Final = 130.0
"""No node is down for longer than this by itself."""
SCHEDULE: Final = (5, 10, 20, 30, 60, 60, 60, 60, 60, 60, 60, 60)
"""Seconds between the sends of an event in a simulation."""


@dataclass(slots=True)
class Ending:
    """The judge of one seed. `wishes` are by merchant id and name; `quarantined` are those that a person has to judge, and why."""

    house: House
    sites: Sequence[Site]
    weather: Weather
    people: People
    alarm: Alarm
    wishes: dict[tuple[int, str], Wish] = field(default_factory=dict)
    quarantined: dict[str, str] = field(default_factory=dict)

    async def finish(self, product: Product) -> None:
        """In good weather, with coins enough, everything ends in its time."""
        for site in self.sites:
            network = product.catalog.network(site.place.chain)
            hot = (await product.treasury.addresses(network)).values() if network is not None else ()
            for (symbol, units), address in itertools.product(site.place.funds.items(), hot):
                with contextlib.suppress(ValueError):
                    site.network.fund(address, units, token_of(product, symbol, site.place.chain).contract)
        limit_s = GRACE_S + max(site.finality_s + LAPSE_S.get(site.place.family, 0.0) for site in self.sites)
        until_s = self.house.loop.time() + limit_s
        while rows := await self.open(product):
            await self._ask_for_parked(product)
            for site in self.sites:
                release(site)
            if product.broken is not None:
                self.alarm(f"a loop ended: {product.broken!r}")
            if self.house.loop.time() > until_s:
                self.alarm(f"not everything finished in good weather: {rows} {await self._attempts(product)}")
            await asyncio.sleep(2)

    async def _ask_for_parked(self, product: Product) -> None:
        """What was parked after its whole schedule a person sends again; nothing may be parked sooner."""
        parked = await product.database.read(lambda tx: tx.all("SELECT order_id, tries, result FROM outbox WHERE state = 'parked'"))
        for row in parked:
            if row["tries"] <= len(SCHEDULE):
                self.alarm(f"I12: the event of order {row['order_id']} was parked after {row['tries']} sends: {row['result']}")
            await product.outbox.resend_order(row["order_id"])

    async def open(self, product: Product) -> list[dict[str, Any]]:
        """Every order, attempt and event that is under way and no person's business."""
        rows = await product.database.read(
            lambda tx: tx.all(
                "SELECT merchant_order_id, chain, state, hold_reason, (SELECT MAX(reason) FROM order_history WHERE order_id = orders.id AND "
                "after = 'quarantined') AS why FROM orders WHERE state NOT IN ('succeeded', 'failed') UNION ALL "
                "SELECT CAST(attempt.id AS TEXT), chain, state, '', '' FROM attempt JOIN lane ON lane.id = lane_id "
                "WHERE state NOT IN ('final', 'dead') AND attempt.id NOT IN "
                "(SELECT attempt_id FROM attempt_order JOIN orders ON orders.id = order_id WHERE orders.state = 'quarantined') "
                "UNION ALL SELECT CAST(order_id AS TEXT), '', state, '', '' FROM outbox WHERE state <> 'delivered'"
            )
        )
        return [row for row in rows if not self._excused(row)]

    def _excused(self, row: Mapping[str, Any]) -> bool:
        """Whether a person may have to judge it: only where the weather did what no proof can undo, or a call to a Lightning node was lost."""
        if row["state"] == "quarantined" and row["why"] == NOT_KNOWN:
            return True
        return row["chain"] in self.weather.spoiled and row["state"] in ("quarantined", "held")

    async def _attempts(self, product: Product) -> str:
        attempts = await product.database.read(
            lambda tx: tx.all(
                "SELECT chain, slot, state, seen FROM attempt JOIN lane ON lane.id = lane_id WHERE state NOT IN ('final', 'dead')"
            )
        )
        lanes = await product.database.read(lambda tx: tx.all("SELECT chain, next_slot, halted FROM lane"))
        return f"{attempts} {lanes} {product.board.faults} {product.treasury.faults}"

    @property
    def settles_s(self) -> float:
        """Until the last coins are final and the last node is back."""
        return max(DOWN_S, *(site.finality_s for site in self.sites))

    async def judge(self, product: Product) -> None:
        """Books, payments and events, each against what the world knows, once everything has settled."""
        for _ in range(3):
            await asyncio.sleep(10)
            with contextlib.suppress(NodeUnreachable):
                await product.treasury.refresh()
        report = await Commands(product).audit()
        if report["breaches"]:
            self.alarm(f"the audit found {report['breaches']}")
        for wish in self.people.wishes:
            await self._judge_wish(product, wish)
        self._judge_sums()
        for row in await Commands(product).treasury_rows():
            if row["chain"] in {site.place.chain for site in self.sites} - self.weather.spoiled and row["on_chain"] != row["in_books"]:
                self.alarm(f"{row['chain']} has {row['on_chain']} {row['crypto']} and the books say {row['in_books']}")
        for lane in await product.database.read(lambda tx: tx.all("SELECT chain, halted FROM lane WHERE halted <> ''")):
            if lane["chain"] not in self.weather.spoiled:
                self.alarm(f"a lane stands: {lane}")

    async def _judge_wish(self, product: Product, wish: Wish) -> None:
        merchant_id = next(key[0] for key, one in self.wishes.items() if one is wish)
        order = (await product.store.find(merchant_id, [wish.name])).get(wish.name)
        if wish.accepted != (order is not None):
            self.alarm(f"{wish.name} was answered {wish.answer} and its order is {order}")
        if order is None or wish.answer is None:
            return
        if from_wire(wish.answer["data"]["order_id"]) != order.id:
            self.alarm(f"{wish.name} has an order of another id than it was told")
        if order.state is OrderState.QUARANTINED:
            self.quarantined[wish.name] = order.hold_reason or order.fail_reason or "quarantined"
        if order.decided_at_ms is None:
            return
        key = wish.merchant, wish.name
        if len(self.people.events.get(key, ())) != 1 or len(self.people.ids[key]) != 1:
            self.alarm(f"{wish.name} is {order.state} and has {len(self.people.events.get(key, ()))} different events")

    def _judge_sums(self) -> None:
        """Nobody has more or less than what succeeded promises him, all his orders together."""
        database: Any = self.house.product.database
        rows = database._read(lambda tx: tx.all("SELECT merchant_id, merchant_order_id, state, net FROM orders"))
        found = {(row["merchant_id"], row["merchant_order_id"]): row for row in rows}
        promised: Counter[tuple[str, str]] = Counter()
        open_: set[tuple[str, str]] = set()
        for key, wish in self.wishes.items():
            row, recipient = found.get(key), (wish.recipient.address, wish.token.id)
            if row is not None and row["state"] == "succeeded":
                promised[recipient] += wish.units(row["net"])
            elif row is not None and row["state"] != "failed":
                open_.add(recipient)
        for wish in self.people.wishes:
            recipient = wish.recipient.address, wish.token.id
            if wish.site is None or recipient in open_ or wish.kind in ("wrong", "untagged"):
                continue
            if (received := wish.recipient.received()) != promised[recipient]:
                self.alarm(f"{wish.name}: its recipient was promised {promised[recipient]} and has {received}")


def token_of(product: Product, symbol: str, chain: str) -> Token:
    """By its symbol. Raises Violation."""
    token = product.catalog.by_symbol(symbol, chain)
    if token is None:
        raise Violation("the catalogue has changed")
    return token
