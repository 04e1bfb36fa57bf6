"""Which cases are measured, in interleaved rounds beside the baseline; the medians of them, and what was wrong."""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import platform
import sqlite3
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psycopg

from penstock.bench import baseline
from penstock.bench.parts import CROWD, LIVES, PARTS, REQUESTS, Case, Round, Sample
from penstock.bench.place import BITCOIN, EVM, EVM_MANY, Network, Place, audited, gateway, opened_place
from penstock.db import open_database
from penstock.runtime import SystemRuntime

BASELINES: Final = ((64, 1), (64, 1_000), (8, 1_000))
"""Clients and accounts of each pgbench."""
NETWORKS: Final = {"batched": BITCOIN, "batched-evm": EVM_MANY}
"""Of the parts that are not measured on EVM."""


@dataclass(frozen=True, slots=True)
class Size:
    """How much: requests a round, orders of a round that are driven to their end, rounds, merchants, seconds of a baseline, preloads."""

    requests: int
    lives: int
    rounds: int
    merchants: int
    baseline_s: int
    preloads: tuple[int, ...]


FULL: Final = Size(requests=20_000, lives=10_000, rounds=5, merchants=1_000, baseline_s=5, preloads=(0, 1_000_000))
QUICK: Final = Size(requests=200, lives=60, rounds=1, merchants=1, baseline_s=1, preloads=(0,))


def sized(*, quick: bool, orders: int | None, rounds: int | None, preload: int | None) -> Size:
    """What the command line asks for. Half as many lives as acceptances: enough that beginning and end of a backlog say little."""
    size = QUICK if quick else FULL
    if orders is not None:
        size = replace(size, requests=orders, lives=max(10, orders // 2))
    if preload is not None:
        size = replace(size, preloads=(0, preload) if preload else (0,))
    return replace(size, rounds=rounds) if rounds else size


def chosen(names: Sequence[str]) -> list[str]:
    """The parts of these names, all when none is named. Raises ValueError for a name that is none."""
    if strange := [name for name in names if name not in PARTS]:
        raise ValueError(f"no part is called {strange[0]}; there are {', '.join(PARTS)}")
    return list(names) or list(PARTS)


@dataclass(slots=True)
class Bench:
    """What was measured so far."""

    size: Size
    say: Callable[[str], None]
    pgbench: Path | None
    baseline_url: str
    folder: Path
    samples: defaultdict[Case, list[tuple[int, Sample]]] = field(default_factory=lambda: defaultdict(list))
    """Each with the number of the baselines' round that comes after it: a case is held against its own rounds' alone."""
    baselines: list[dict[tuple[int, int], float]] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def keep(self, case: Case, sample: Sample) -> None:
        """One round's result."""
        self.samples[case].append((len(self.baselines), sample))
        if sample.wrong:
            self.wrong.append(sample.wrong)
        slow = f", p99 {sample.p99_ms:,.0f} ms" if sample.p99_ms is not None else ""
        where = f"{case.part}, {case.store}, {case.merchants} merchants, {case.preloaded:,} before, {case.ids}"
        self.say(f"{where}, {case.processes} processes, {case.connections} connections: {sample.per_second:,.0f}/s{slow}")

    async def compare(self) -> None:
        """One round of every baseline."""
        if self.pgbench is None or not self.baseline_url:
            return
        found = {}
        for clients, accounts in BASELINES:
            measured = await asyncio.to_thread(
                baseline.measure,
                self.pgbench,
                self.baseline_url,
                self.folder,
                clients=clients,
                accounts=accounts,
                seconds=self.size.baseline_s,
            )
            found[clients, accounts] = measured.per_second
            self.say(f"pgbench, {clients} clients, {accounts:,} accounts: {measured.per_second:,.0f}/s")
        self.baselines.append(found)


def bench(parts: Sequence[str], size: Size, *, postgresql: str, pgbench: Path | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Everything, on both stores where a PostgreSQL is given (its user may create databases); the result as JSON prints it."""
    began = datetime.now(UTC)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-bench-")))
        compared = stack.enter_context(baseline.own_database(postgresql)) if postgresql and pgbench is not None else ""
        state = Bench(size, say, pgbench, compared, folder)
        asyncio.run(_measure(state, parts, postgresql))
        return {
            "at": f"{began:%Y-%m-%dT%H:%M:%SZ}",
            "took_s": round((datetime.now(UTC) - began).total_seconds()),
            "version": importlib.metadata.version("penstock"),
            "machine": _machine(postgresql),
            "size": asdict(size),
            "ok": not state.wrong,
            "wrong": state.wrong,
            "results": _results(state.samples, state.baselines),
            "baselines": [
                {"clients": clients, "accounts": accounts, "per_second": _median([found[clients, accounts] for found in state.baselines])}
                for clients, accounts in (BASELINES if state.baselines else ())
            ],
            "starts": state.starts,
        }


async def _measure(state: Bench, parts: Sequence[str], server: str) -> None:
    if state.baseline_url:
        await _migrated(state.baseline_url)
        baseline.prepare(state.baseline_url)
    for preloaded in state.size.preloads:
        for store in ("sqlite", *(["postgresql"] if server else [])):
            for network, there in _networks(parts, preloaded):
                with ExitStack() as stack:
                    url = stack.enter_context(baseline.own_database(server)) if store == "postgresql" else ""
                    home = state.folder / f"{store}-{there[0]}-{preloaded}"
                    async with opened_place(
                        store, url, home, merchants=state.size.merchants, preload=preloaded, say=state.say, network=network
                    ) as place:
                        await _place(state, place, there)


def _networks(parts: Sequence[str], preloaded: int) -> list[tuple[Network, list[str]]]:
    """A house for each network, and what is measured there. Whatever the past, a transaction that pays many is the same."""
    houses = (EVM,) if preloaded else (EVM, EVM_MANY, BITCOIN)
    return [(network, there) for network in houses if (there := [part for part in parts if NETWORKS.get(part, EVM) is network])]


async def _place(state: Bench, place: Place, parts: Sequence[str]) -> None:
    rounds = Round(place, requests=state.size.requests, lives=state.size.lives, seed=place.preloaded)
    # First what drains itself: what `accept` leaves behind would be sent, too.
    living = [case for case in _cases(place, parts) if case.part in LIVES]
    for _ in range(state.size.rounds if living else 0):
        for case in living:
            state.keep(case, await rounds.life(case))
        await state.compare()
    if not living:
        async with gateway(place, "all") as gate:
            rounds.starts_s.append(gate.start_s)
    first_answer_s = statistics.median(rounds.starts_s)
    state.starts.append(
        {"store": place.store, "network": place.network.chain, "preloaded": place.preloaded, "first_answer_s": first_answer_s}
    )
    asking = [case for case in _cases(place, parts) if case.part in REQUESTS]
    for processes in sorted({case.processes for case in asking}):
        async with gateway(place, "api", processes) as gate:
            await rounds.remember()
            for _ in range(state.size.rounds):
                for case in asking:
                    if case.processes == processes:
                        state.keep(case, await rounds.requests(gate, case))
                await state.compare()
    if "sign" in parts:
        for _ in range(state.size.rounds):
            case = Case("sign", place.store, 1, place.preloaded)
            state.keep(case, await rounds.sign(case))
    state.say(f"auditing {place.store}, {place.network.chain}")
    state.wrong += [f"{place.store}: {breach}" for breach in await audited(place)]


def _cases(place: Place, parts: Sequence[str]) -> list[Case]:
    cases: list[Case] = []
    both = sorted({1, os.cpu_count() or 1})  # processes that answer: one, and one for each core
    for part in parts:
        if part == "query":
            cases += [Case(name, place.store, 1, place.preloaded, processes=count) for name in ("query-1", "query-100") for count in both]
        elif part != "sign":
            # A life costs ten times an acceptance: how many merchants there are is tried on the empty house alone, and
            # with all of them what it gives that others answer and deliver beside the process that sends. Events alone are sent
            # before another process has started.
            fewest = len(place.merchants) if part in LIVES and place.preloaded else 1
            cases += [
                Case(part, place.store, merchants, place.preloaded, processes=count)
                for merchants in sorted({fewest, len(place.merchants)})
                for count in (both if part in REQUESTS or (merchants > 1 and part != "webhooks") else (1,))
            ]
        if part == "accept":
            cases.append(Case(part, place.store, 1, place.preloaded, "sequential"))
            cases += [Case(part, place.store, 1, place.preloaded, processes=count, connections=CROWD) for count in both]
            cases.append(Case(part, place.store, len(place.merchants), place.preloaded, processes=both[-1], connections=CROWD))
    return cases


def _results(
    samples: Mapping[Case, Sequence[tuple[int, Sample]]], baselines: Sequence[Mapping[tuple[int, int], float]]
) -> list[dict[str, Any]]:
    results = []
    for case, numbered in samples.items():
        rounds = [sample for _, sample in numbered]
        # One busy merchant on PostgreSQL meets the same contention; everything else is held against the easier thousand accounts.
        hard = case.part in ("accept", "internal") and case.merchants == 1 and case.store == "postgresql"
        key = (64, 1 if hard else 1_000)
        compared = baselines and not case.part.startswith("query")
        base = _median([baselines[min(at, len(baselines) - 1)][key] for at, _ in numbered]) if compared else None
        rate = statistics.median(sample.per_second for sample in rounds)
        results.append(
            {
                **asdict(case),
                "per_second": round(rate, 1),
                "p50_ms": _median([sample.p50_ms for sample in rounds]),
                "p99_ms": _median([sample.p99_ms for sample in rounds]),
                "baseline": f"pgbench, {key[0]} clients, {key[1]:,} accounts" if base else "",
                "baseline_per_second": round(base, 1) if base else None,
                "ratio": round(rate / base, 2) if base else None,
                **{name: _median([sample.more.get(name) for sample in rounds]) for name in rounds[0].more},
            }
        )
    return results


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 2) if known else None


async def _migrated(url: str) -> None:
    runtime = SystemRuntime()
    database = open_database(runtime, url)
    await database.migrate()
    await database.close()
    runtime.close()


def _machine(postgresql: str) -> str:
    words = [f"{os.cpu_count()} cores", f"{platform.system()} {platform.machine()}", f"Python {platform.python_version()}"]
    words.append(f"SQLite {sqlite3.sqlite_version}")
    if postgresql:
        with psycopg.connect(postgresql) as server:
            words.append(f"PostgreSQL {server.info.parameter_status('server_version')}")
    return ", ".join(words)
