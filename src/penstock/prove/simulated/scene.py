"""A house with one network, one merchant who asks and listens, and a judge at the end: what a lane plays its scenes in."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penstock.commands import Commands
from penstock.core import wire_signature
from penstock.core.wire import compact
from penstock.devnet.box import BoxNetwork
from penstock.prove.simulated.house import House
from penstock.prove.simulated.reach import call_asgi
from penstock.prove.simulated.virtual import START_MS, Journal, VirtualLoop
from penstock.webhooks.deliver import Reply


class Shop(House):
    """One network in a box and one merchant of the program that lives on it."""

    def __init__(self, home: Path, make: Callable[[Callable[[], int]], BoxNetwork], settings: Mapping[str, Any]) -> None:
        loop = VirtualLoop()
        self.network = make(lambda: START_MS + int(loop.time() * 1000))
        self.chain = self.network.name
        self.events: dict[str, set[bytes]] = {}
        self.app_id = self.app_secret = ""
        super().__init__(
            home,
            [self.network],
            _Receiver(self.events),
            loop=loop,
            source=random.Random(7),
            journal=Journal(),
            node_settings={self.chain: settings},
        )

    def wait(self, seconds: float) -> None:
        """Virtual time goes on."""
        self.run(asyncio.sleep(seconds))

    def restart(self) -> None:
        """Power off, and a new life that remembers nothing."""
        self.die()
        self.start()

    async def open(self, owed: Mapping[str, str]) -> None:
        """The merchant, and what the house owes it of each coin."""
        commands = Commands(self.product)
        merchant = await commands.add_merchant("shop", "https://shop.example/webhook")
        self.app_id, self.app_secret = merchant["app_id"], merchant["app_secret"]
        for coin, amount in owed.items():
            await commands.credit(self.app_id, coin, amount, "to try the gateway with")

    async def withdraw(self, **fields: Any) -> dict[str, Any]:
        """A signed call of the merchant API, and its answer."""
        body = compact(fields)
        timestamp = str(self.now_ms() // 1000)
        headers = {"Appid": self.app_id, "Timestamp": timestamp, "Sign": wire_signature.sign(self.app_id, self.app_secret, timestamp, body)}
        _, raw = await call_asgi(self.product.app(), "/ccpayment/v1/withdraw", headers, body)
        answer: dict[str, Any] = json.loads(raw)
        return answer

    async def order(self, name: str) -> dict[str, Any]:
        """As `penstock order show` has it. Raises LookupError."""
        found = await self.product.timelines.of(name)
        if found is None:
            raise LookupError(f"there is no order {name}")
        return found

    async def halted(self) -> str:
        """Why the lane stands, "" where it does not."""
        rows = await self.product.database.read(lambda tx: tx.all("SELECT halted FROM lane WHERE halted != '' LIMIT 1"))
        return str(rows[0]["halted"]) if rows else ""

    async def differences(self) -> list[str]:
        """What is wrong once everything has come to rest: breaches of the books, and amounts that differ from the chain's."""
        for _ in range(2):
            await self.product.treasury.refresh()
        commands = Commands(self.product)
        found = [str(breach) for breach in (await commands.audit())["breaches"]]
        rows = [row for row in await commands.treasury_rows() if row["chain"] == self.chain]
        return found + [
            f"{r['crypto']}: {r['on_chain']} on chain, {r['in_books']} in the books" for r in rows if r["on_chain"] != r["in_books"]
        ]


class _Receiver:
    """The merchant's receiver of webhooks."""

    def __init__(self, events: dict[str, set[bytes]]) -> None:
        self._events = events

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """Takes every event."""
        del url, headers
        self._events.setdefault(json.loads(body)["merchant_order_id"], set()).add(body)
        return Reply(200, "success")
