"""Which parts are measured, in interleaved rounds beside the baseline, and the medians of them."""

from __future__ import annotations

import asyncio
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from penstock.bench import baseline
from penstock.bench.load import names
from penstock.bench.place import ADDRESS, Place, Run, audited, build, devnet, gateway, preload, send

CONNECTIONS: Final = 128
WARM_UP: Final = 500
IDS_A_QUERY: Final = 100


@dataclass(frozen=True, slots=True)
class Size:
    """How much: requests a round, rounds, seconds of a baseline round."""

    requests: int
    rounds: int
    baseline_s: int


FULL: Final = Size(requests=20_000, rounds=5, baseline_s=5)
QUICK: Final = Size(requests=300, rounds=1, baseline_s=1)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of the result."""

    part: str
    store: str
    merchants: int
    preloaded: int
    sequential: bool = False


@dataclass(slots=True)
class Bench:
    """What was measured so far."""

    size: Size
    say: Callable[[str], None]
    runs: defaultdict[Case, list[Run]] = field(default_factory=lambda: defaultdict(list))
    baselines: defaultdict[tuple[int, int], list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: list[str] = field(default_factory=list)
    _number: int = 0

    def bodies(self, place: Place, case: Case) -> tuple[str, list[dict[str, Any]], int]:
        """Path, bodies and how many orders they make."""
        self._number += 1
        count = self.size.requests
        fresh = names(count, f"{case.part}{self._number}", sequential=case.sequential, seed=self._number)
        if case.part == "query":
            known = [f"known-{n % 1_000}" for n in range(count * IDS_A_QUERY // 20)]
            wanted = [known[n * IDS_A_QUERY : (n + 1) * IDS_A_QUERY] for n in range(count // 20)]
            return "/bill/info", [{"merchant_order_ids": ids} for ids in wanted], 0
        common = {"token_id": place.token_id, "value": "25"}
        if case.part == "internal":
            return "/withdraw", [{"merchant_order_id": i, "address": place.accounts[n % len(place.accounts)], **common} for n, i in enumerate(fresh)], count
        return "/withdraw", [{"merchant_order_id": i, "address": ADDRESS, **common} for i in fresh], count

    async def one(self, place: Place, pid: int, case: Case) -> None:
        """One round of one case."""
        path, bodies, orders = self.bodies(place, case)
        run = await send(place, pid, path, bodies, merchants=case.merchants, connections=CONNECTIONS)
        if run.seen.refused or run.stored != orders:
            self.wrong.append(f"{case}: {run.stored} of {orders} orders are stored; answers that were no success: {run.seen.codes}")
        self.runs[case].append(run)
        self.say(f"{case.part} {case.store} {case.merchants}m {case.preloaded}: {run.seen.per_second:,.0f}/s, p99 {run.seen.p99_ms:.0f} ms")


async def measure(
    *, folder: Path, parts: Sequence[str], stores: dict[str, str], size: Size, preloads: Sequence[int], pgbench: Path | None, baseline_url: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """`stores` names each store and its database's URL ("" for SQLite in the home)."""
    bench = Bench(size, say)
    if pgbench is not None:
        baseline.prepare(baseline_url)
    async with devnet() as network:
        for preloaded in preloads:
            for store, url in stores.items():
                place = await build(store, url, folder / f"{store}-{preloaded}", network, merchants=1_000 if size is FULL else 20)
                if preloaded:
                    say(f"preloading {preloaded:,} orders on {store}")
                    await preload(place, preloaded)
                await _rounds(bench, place, parts, preloaded, pgbench, baseline_url, folder)
                bench.wrong += await audited(place)
    return _result(bench)


async def _rounds(bench: Bench, place: Place, parts: Sequence[str], preloaded: int, pgbench: Path | None, url: str, folder: Path) -> None:
    many = len(place.merchants)
    cases = [Case(part, place.store, merchants, preloaded) for part in parts for merchants in ((1,) if part == "query" else (1, many))]
    async with gateway(place, "api") as pid:
        warm = [{"merchant_order_id": f"known-{n}", "address": place.accounts[0], "token_id": place.token_id, "value": "1"} for n in range(max(WARM_UP, 1_000))]
        await send(place, pid, "/withdraw", warm, merchants=1, connections=CONNECTIONS)
        for _ in range(bench.size.rounds):
            for case in cases:
                await bench.one(place, pid, case)
            if pgbench is None:
                continue
            for clients, accounts in ((64, 1), (64, 1_000), (8, 1_000)):
                found = await asyncio.to_thread(  # noqa: TID251  pgbench is waited for beside an idle gateway
                    baseline.measure, pgbench, url, folder, clients=clients, accounts=accounts, seconds=bench.size.baseline_s
                )
                bench.baselines[clients, accounts].append(found.per_second)
                bench.say(f"pgbench {clients} clients, {accounts} accounts: {found.per_second:,.0f}/s")


def _result(bench: Bench) -> dict[str, Any]:
    bases = {key: statistics.median(values) for key, values in bench.baselines.items()}
    results = []
    for case, runs in bench.runs.items():
        key = (64, 1 if case.merchants == 1 and case.store == "postgresql" else 1_000)
        rate, base = statistics.median(run.seen.per_second for run in runs), bases.get(key)
        results.append(
            {
                "part": case.part,
                "store": case.store,
                "merchants": case.merchants,
                "preloaded": case.preloaded,
                "per_second": round(rate, 1),
                "p50_ms": round(statistics.median(run.seen.p50_ms for run in runs), 2),
                "p99_ms": round(statistics.median(run.seen.p99_ms for run in runs), 2),
                "baseline": f"pgbench {key[0]} clients, {key[1]} accounts" if base else "",
                "baseline_per_second": base or 0,
                "ratio": round(rate / base, 2) if base else 0,
                "gateway_cpu_s": round(statistics.median(run.gateway_cpu_s for run in runs), 2),
                "load_cpu_s": round(statistics.median(run.seen.cpu_s for run in runs), 2),
                "rss_mb": max(run.gateway_rss_mb for run in runs),
            }
        )
    return {"results": results, "wrong": bench.wrong}
