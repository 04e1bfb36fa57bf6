"""The webhook room on its own: a database, merchants by their URLs, events, the real deliverer. Over any runtime and any way out."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from penstock.core.party import Merchant, Secret
from penstock.core.snowflake import compose
from penstock.db import Tx, open_database
from penstock.pump import IDLE_S, Pump
from penstock.runtime import Runtime
from penstock.webhooks.deliver import Deliverer, Targets
from penstock.webhooks.outbox import Outbox


class Office:
    """Writes events and sends them until each is delivered or parked."""

    def __init__(
        self, runtime: Runtime, path: Path, targets: Targets, schedule: Sequence[int] | None = None, *, idle_s: float = IDLE_S
    ) -> None:
        self._runtime = runtime
        self._ids = (compose(runtime.now_ms() + n // 4096, 1, n % 4096) for n in itertools.count())
        self.database = open_database(runtime, f"sqlite:///{path}")
        self.outbox = Outbox(self.database, runtime, self.ids)
        self._deliverer = Deliverer(database=self.database, runtime=runtime, merchants=self, targets=targets, schedule=schedule)
        self._pump = Pump("deliver", self._deliverer, runtime, limit=200, idle_s=idle_s)
        self.outbox.queued = self._deliverer.finished = self._pump.wake
        self._merchants: dict[int, Merchant] = {}

    def ids(self, count: int) -> list[int]:
        """Fresh ones."""
        return list(itertools.islice(self._ids, count))

    async def merchant(self, merchant_id: int) -> Merchant | None:
        """As the deliverer asks."""
        return self._merchants.get(merchant_id)

    async def open(self, urls: Sequence[str]) -> list[Merchant]:
        """The schema, and a merchant for each URL: two secrets each, as in the middle of a rotation."""
        await self.database.migrate()
        made = [
            Merchant(n, f"M{n}", f"{n:033d}", (Secret(f"new-{n:060d}"), Secret(f"old-{n:060d}")), url)
            for n, url in enumerate(urls, start=1)
        ]
        self._merchants |= {merchant.id: merchant for merchant in made}
        rows = [{"id": merchant.id, "name": merchant.name, "url": merchant.webhook_url} for merchant in made]

        def insert(tx: Tx) -> None:
            # What the outbox looks up: whether there is a URL at all.
            tx.run(
                "INSERT INTO merchant (id, name, app_id, webhook_url, disabled, ip_allow, created_at_ms, changed_at_ms) "
                "SELECT r.id, r.name, r.name, r.url, 0, '[]', 0, 0 FROM {ROWS r(id {INT}, name TEXT, url TEXT)}",
                r=rows,
            )

        await self.database.write("merchants", insert)
        self._runtime.spawn(self._pump.run(), name="pump")
        return made

    async def write(self, merchant_id: int, count: int) -> list[dict[str, Any]]:
        """So many events of one merchant."""
        now_ms = self._runtime.now_ms()
        rows = [
            {"id": a, "order_id": b, "merchant_id": merchant_id, "body": json.dumps({"n": str(a)}), "created_at_ms": now_ms}
            for a, b in (self.ids(2) for _ in range(count))
        ]
        await self.database.write("events", lambda tx: self.outbox.enqueue(tx, rows))
        self._pump.wake()
        return rows

    async def states(self) -> dict[int, str]:
        """due, delivered or parked, by event."""
        # Every event of this office.
        rows = await self.database.read(lambda tx: tx.all("SELECT id, state FROM outbox LIMIT 1000000"))
        return {row["id"]: row["state"] for row in rows}

    async def settled(self, within_s: float) -> bool:
        """Whether nothing is due any more, within so many seconds."""
        deadline = self._runtime.monotonic() + within_s
        while "due" in (await self.states()).values():
            if self._runtime.monotonic() > deadline:
                return False
            await self._runtime.sleep(0.1)
        return True

    async def sleep_through(self) -> None:
        """From one due event to the next until none is left: days of virtual time without a poll a second."""
        while True:
            # When somebody has to act next.
            row = await self.database.read(lambda tx: tx.one("SELECT MIN(due_at_ms) AS due_at_ms FROM outbox WHERE state = 'due'"))
            if row is None or row["due_at_ms"] is None:
                return
            await self._runtime.sleep(max(0.05, (row["due_at_ms"] - self._runtime.now_ms()) / 1000))
            self._pump.wake()

    async def close(self) -> None:
        """Finish what is under way."""
        await self._pump.stop()
        await self._deliverer.settled()
        await self.database.close()
