"""What each part does in one round: requests sent to a running gateway, or orders driven to the end of their life."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from penstock.bench.load import Measured, Plan, names
from penstock.bench.place import Gateway, Place, counted, first_step, gateway, wal_bytes
from penstock.bench.processes import Meter, Used, answered, result_of

PARTS: Final = ("accept", "internal", "query", "settle", "batched", "batched-evm", "webhooks", "mixed", "sign")
REQUESTS: Final = ("accept", "internal", "query-1", "query-100")
"""Those that ask a gateway which sends nothing."""
LIVES: Final = ("settle", "batched", "batched-evm", "webhooks", "mixed")
"""Those in which orders are sent, confirmed, settled and told to their merchant; `batched` (Bitcoin) and `batched-evm` are `settle` where a
transaction pays many.
"""
CONNECTIONS: Final = 128
CROWD: Final = 256
"""Connections of callers who are many: each waits longer, and a commit is shared by more."""
KNOWN: Final = 1_000
"""Orders that queries ask for."""
STALLED_S: Final = 60.0
RELEASED_S: Final = 900.0
"""A start over a million orders that nobody audited reads them all before it sends anything, on whatever machine this is."""
LOOK_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the result. `ids`: how the merchants choose their order ids; `processes`: how many answer callers on one port, over so
    many `connections`.
    """

    part: str
    store: str
    merchants: int
    preloaded: int
    ids: str = "random"
    processes: int = 1
    connections: int = CONNECTIONS


@dataclass(frozen=True, slots=True)
class Sample:
    """One round: the rate, how long one request (a life: from acceptance to its webhook) took, what else was seen, and what was wrong."""

    per_second: float
    p50_ms: float | None
    p99_ms: float | None
    more: dict[str, float] = field(default_factory=dict)
    wrong: str = ""


class Round:
    """Runs rounds on one place; every order has a name of its own."""

    def __init__(self, place: Place, *, requests: int, lives: int, seed: int) -> None:
        self._place = place
        self._requests = requests
        self._lives = lives
        self._seed = seed
        self._number = 0
        self._signed = 0
        self.starts_s: list[float] = []
        """How long each whole gateway took to its first answer."""

    # ------------------------------------------------------------------------------------------------- requests

    async def remember(self) -> None:
        """Orders that queries will ask for; also warms the gateway up."""
        bodies = [self._body("internal", number, f"known-{number}") for number in range(KNOWN)]
        await self._send("/withdraw", bodies, merchants=1)

    async def requests(self, gate: Gateway, case: Case) -> Sample:
        """One round of accept, internal or query on a gateway without workers."""
        if case.part.startswith("query"):
            return await self._query(gate, case)
        before, wal = await counted(self._place), wal_bytes(self._place)
        bodies = self._bodies(case, self._requests)
        seen = await self._send("/withdraw", bodies, merchants=case.merchants, connections=case.connections, gate=gate)
        wal = wal_bytes(self._place) - wal
        stored = (await counted(self._place))[0] - before[0]
        more = {
            **seen.used.cores,
            "gateway_us": round(seen.used.cpu_s["gateway"] * 1_000_000 / self._requests, 1),
            "rss_mb": gate.memory_mb(),
            **({"wal_bytes": round(wal / stored)} if wal and stored else {}),
        }
        return Sample(seen.per_second, seen.p50_ms, seen.p99_ms, more, _wrong(case, seen, stored, self._requests))

    async def _query(self, gate: Gateway, case: Case) -> Sample:
        each = int(case.part.partition("-")[2])
        count = max(1, self._requests // 2 if each == 1 else self._requests // 20)
        bodies = [{"merchant_order_ids": [f"known-{(n * each + i) % KNOWN}" for i in range(each)]} for n in range(count)]
        seen = await self._send("/bill/info", bodies, merchants=1, gate=gate)
        more = {**seen.used.cores, "rss_mb": gate.memory_mb(), "orders_per_second": round(seen.per_second * each, 1)}
        return Sample(seen.per_second, seen.p50_ms, seen.p99_ms, more, _wrong(case, seen, count, count))

    def _bodies(self, case: Case, count: int) -> list[dict[str, Any]]:
        self._number += 1
        prefix = f"{case.part}{self._number}"
        fresh = names(count, prefix, sequential=case.ids == "sequential", seed=self._seed + self._number)
        return [self._body(case.part, number, name) for number, name in enumerate(fresh)]

    def _body(self, part: str, number: int, name: str) -> dict[str, Any]:
        inside = part in ("internal", "webhooks")
        network, accounts = self._place.network, self._place.accounts
        to = accounts[number % len(accounts)] if inside else network.recipient(number)
        return {"token_id": self._place.token_id, "address": to, "value": network.value, "merchant_order_id": name}

    async def _send(
        self, path: str, bodies: list[dict[str, Any]], *, merchants: int, connections: int = CONNECTIONS, gate: Gateway | None = None
    ) -> Measured:
        weighed = {} if gate is None else self._weighed(gate)
        plan = Plan("127.0.0.1", self._place.port, path, self._place.merchants[:merchants], bodies, connections, weighed)
        found = await result_of(os.environ, self._place.log, "penstock.bench.load", given=json.dumps(asdict(plan)).encode())
        return Measured(**{**found, "used": Used(**found["used"])})

    def _weighed(self, gate: Gateway) -> dict[str, list[int]]:
        return {"gateway": [gate.pid], "outside": [self._place.outside_pid]}

    # ---------------------------------------------------------------------------------------------------- lives

    async def life(self, case: Case) -> Sample:
        """One round of a part of LIVES: it ends when every order's webhook has come."""
        return await (self._mixed(case) if case.part == "mixed" else self._backlog(case))

    async def _mixed(self, case: Case) -> Sample:
        before, bodies = await self._came(), self._bodies(case, self._lives)
        async with self._at_work(case) as gate:
            seen = await self._send("/withdraw", bodies, merchants=case.merchants, gate=gate)
            used, memory_mb = await self._ended(gate, before)
        meanwhile = {"accepted_per_second": round(seen.per_second, 1), "accept_p99_ms": seen.p99_ms}
        return await self._lived(case, seen, before, seen.began_at_ms, meanwhile | self._cost(seen.used + used, memory_mb))

    async def _backlog(self, case: Case) -> Sample:
        before, bodies = await self._came(), self._bodies(case, self._lives)
        seen = await self._left_alone(bodies, case.merchants)
        since_ms = time.time_ns() // 1_000_000
        async with self._at_work(case) as gate:
            used, memory_mb = await self._ended(gate, before)
        began_ms = await first_step(self._place, case.part, since_ms)
        return await self._lived(case, seen, before, began_ms, self._cost(used, memory_mb))

    @asynccontextmanager
    async def _at_work(self, case: Case) -> AsyncIterator[Gateway]:
        async with gateway(self._place, "all", case.processes) as gate:
            self.starts_s.append(gate.start_s)
            if case.part != "webhooks":  # those wait for no network
                await self._released()
            yield gate

    async def _ended(self, gate: Gateway, before: int) -> tuple[Used, int]:
        """What it takes until every order's webhook has come, and the memory by then."""
        meter = Meter(load=[], **self._weighed(gate))
        await self._arrived(before + self._lives)
        return meter.read(), gate.memory_mb()

    def _cost(self, used: Used, memory_mb: int) -> dict[str, float]:
        return {**used.cores, "gateway_us": round(used.cpu_s["gateway"] * 1_000_000 / self._lives, 1), "rss_mb": memory_mb}

    async def _came(self) -> int:
        return len((await answered(self._place.outside))["came"])

    async def _left_alone(self, bodies: list[dict[str, Any]], merchants: int) -> Measured:
        """Orders accepted by a gateway that does nothing about them."""
        async with gateway(self._place, "api"):
            return await self._send("/withdraw", bodies, merchants=merchants)

    async def _released(self) -> None:
        """Until no network is held: a start sends nothing before it has audited what the round before left. Raises TimeoutError."""
        async with asyncio.timeout(RELEASED_S):
            while True:
                told = await answered(f"http://127.0.0.1:{self._place.port}/readyz")
                if not any("recovery hold" in warning for warning in told["warnings"]):
                    return
                await asyncio.sleep(LOOK_S)

    async def _arrived(self, wanted: int) -> None:
        """Until so many events have come. Raises TimeoutError when none comes any more."""
        last, at = -1, time.monotonic()
        while (found := (await answered(f"{self._place.outside}/count"))["came"]) < wanted:
            if found != last:
                last, at = found, time.monotonic()
            if time.monotonic() - at > STALLED_S:
                raise TimeoutError(f"{found} of {wanted} webhooks came, and then none for {STALLED_S:g} s")
            await asyncio.sleep(LOOK_S)

    async def _lived(self, case: Case, seen: Measured, before: int, began_ms: int, more: dict[str, float]) -> Sample:
        """From the first request of mixed, and the first thing that was done about a backlog, to the last webhook."""
        came = (await answered(self._place.outside))["came"][before:]
        lived = sorted(one for _, one in came)
        took_s = (max(at for at, _ in came) - began_ms) / 1_000
        rate = len(came) / took_s if took_s else 0.0
        waiting = (await counted(self._place))[1]
        wrong = _wrong(case, seen, len(came), self._lives) or (f"{case}: {waiting} orders are not decided" if waiting else "")
        if case.part != "mixed":
            return Sample(rate, None, None, more, wrong)  # how long an order of a backlog waits says how long the backlog is
        return Sample(rate, statistics.median(lived), lived[min(len(lived) - 1, int(0.99 * len(lived)))], more, wrong)

    # --------------------------------------------------------------------------------------------------- signing

    async def sign(self, case: Case) -> Sample:
        """The signer alone, on orders that are never sent afterwards."""
        await self._left_alone(self._bodies(case, self._lives), 1)
        place = self._place
        rate = await result_of(place.environment, place.log, "penstock.bench.signing", str(self._lives), str(self._signed))
        self._signed += self._lives
        return Sample(rate, None, None)


def _wrong(case: Case, seen: Measured, stored: int, wanted: int) -> str:
    """What is not as it must be, "" when all is well."""
    if seen.refused or seen.done != wanted or stored != wanted:
        return f"{case}: {stored} of {wanted} are there, {seen.done} were answered with success, others: {seen.codes}"
    return ""
