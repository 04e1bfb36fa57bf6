"""Hostile receivers of webhooks: no connection goes where it must not, no send lasts for ever, no event is lost (test plan, F1, F2, F4, F5).

What the process really connects to is seen by an audit hook of the interpreter, below our code and below the HTTP library; it lets nothing
leave this machine while the lane runs.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import itertools
import random
import ssl
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from structlog.testing import capture_logs

from penstock.core.party import Merchant
from penstock.core.snowflake import wire_id
from penstock.prove.lane import Breach, Budget, Found, Tried
from penstock.prove.receivers import behaviours
from penstock.prove.receivers.behaviours import FAILING, SUCCEEDING, Arrival, Endpoint, Lure, endpoints, tls_context
from penstock.prove.receivers.office import Office
from penstock.prove.simulated.virtual import Journal, VirtualLoop, VirtualRuntime
from penstock.runtime import SystemRuntime
from penstock.webhooks.deliver import SCHEDULE_S, Reply, TargetFailed
from penstock.webhooks.line import BODY_BYTES_MAX
from penstock.webhooks.targets import TOTAL_S, HttpTargets

SHORT_S: Final = 1.5
"""Patience with a receiver where only the outcome matters."""
LONG_S: Final = 60.0
SIZE_S: Final = 20.0
"""What size 1 takes, about: events and receivers grow with the size, and each of them is waited for."""
SLACK_S: Final = 20.0
"""A busy machine may need so much longer to notice that the time is over."""
DEAD, HEALTHY, EACH = 200, 10, 10
VIRTUAL_EVENTS: Final = 50
CERTIFICATES: Final = {
    "self-signed": ("shop.example", 1, None),
    "expired": ("shop.example", -1, None),
    "another name": ("other.example", 1, None),
    "an old version": ("shop.example", 1, ssl.TLSVersion.TLSv1_1),
}

_watches: list[list[tuple[str, int]]] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect" and _watches and isinstance(arguments[1], tuple):
        host, port = str(arguments[1][0]), int(arguments[1][1])
        for watch in _watches:
            watch.append((host, port))
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            raise ConnectionRefusedError(111, "this lane stays on this machine")


_hooked: list[bool] = []


@contextmanager
def watching() -> Iterator[list[tuple[str, int]]]:
    """Every address that this process connects to meanwhile; none but loopback is really reached."""
    if not _hooked:
        sys.addaudithook(_hook)  # for ever, so once; without a watch it does nothing
        _hooked.append(True)
    seen: list[tuple[str, int]] = []
    _watches.append(seen)
    try:
        yield seen
    finally:
        _watches.remove(seen)


@dataclass(slots=True)
class Bench:
    """What was counted and found."""

    folder: Path
    seed: int
    size: int
    ends_at: float
    runtime: SystemRuntime = field(default_factory=SystemRuntime)
    counts: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    ports: set[int] = field(default_factory=set)

    def know(self, made: dict[str, Endpoint]) -> None:
        """Receivers that may be connected to."""
        self.ports |= {endpoint.port for endpoint in made.values()}

    def breach(self, text: str, kind: Breach = "other") -> None:
        """Note one."""
        self.found.append(Found(kind, text, f"seed {self.seed}"))


# ------------------------------------------------------------------------------------------------------- one send at a time


async def patience(bench: Bench) -> None:
    """Each receiver once, with the real patience: an answer of at most 64 KiB, or a reason, in time."""
    targets = HttpTargets(bench.runtime, allow_private=True)

    async def one(endpoint: Endpoint) -> None:
        started = time.monotonic()
        try:
            reply = await targets.post(f"http://127.0.0.1:{endpoint.port}/", {"Appid": "1"}, b"{}")
        except TargetFailed:
            reply = Reply(0, "")
        bench.counts["sends"] += 1
        if len(reply.text.encode()) > BODY_BYTES_MAX * 3:  # each byte that is no UTF-8 becomes three
            bench.breach(f"{endpoint.name}: {len(reply.text)} characters were read")
        if (took_s := time.monotonic() - started) > TOTAL_S + SLACK_S:
            bench.breach(f"{endpoint.name}: a send took {took_s:.0f} s")

    async with endpoints({**SUCCEEDING, **FAILING}) as made:
        bench.know(made)
        bench.counts["receivers"] = len(made)
        for turn in range(bench.size):
            if turn and time.monotonic() > bench.ends_at:
                break
            await asyncio.gather(*(one(endpoint) for endpoint in made.values()))
    await targets.close()


async def temptations(bench: Bench) -> None:
    """URLs and names that lead into the house: the socket layer sees no connection to any address that is not public."""
    async with endpoints({"the trap": behaviours.SUCCEEDING["success"]}) as made:
        trap = made["the trap"]
        with watching() as seen:
            for _ in range(bench.size):
                for lure in behaviours.lures():
                    await _tempt(bench, lure, trap.port)
        if trap.connections:
            bench.breach(f"{trap.connections} webhooks came to a service inside the house")
        for host, port in set(seen):
            if not ipaddress.ip_address(host.partition("%")[0]).is_global:
                bench.breach(f"a webhook was on its way to {host}:{port}")
        bench.counts["connections_to_public_addresses"] += len(seen)


async def _tempt(bench: Bench, lure: Lure, port: int) -> None:
    answers = itertools.chain(lure.answers, itertools.repeat(lure.answers[-1]))

    def lookup(host: str, port: int) -> list[tuple[int, str]]:  # noqa: ARG001
        return [(behaviours.family(address), address) for address in next(answers)]

    targets = HttpTargets(bench.runtime, allow_private=False, lookup=lookup, total_s=SHORT_S)
    try:
        reply = await targets.post(lure.url.replace("{port}", str(port)), {"Appid": "1"}, b"{}")
        bench.breach(f"{lure.name}: it was sent, and answered with {reply.status}")
    except TargetFailed:
        bench.counts["lures"] += 1
    finally:
        await targets.close()


async def certificates(bench: Bench) -> None:
    """What proves no name gets no event; the event's body is never seen by the receiver."""
    for name, (subject, days_left, newest) in CERTIFICATES.items():
        context = tls_context(bench.folder, subject, days_left=days_left, newest=newest)
        async with endpoints({name: behaviours.SUCCEEDING["success"]}, tls=context) as made:
            bench.know(made)
            lookup = lambda host, port: [(behaviours.family("127.0.0.1"), "127.0.0.1")]  # noqa: E731, ARG005
            targets = HttpTargets(bench.runtime, allow_private=True, lookup=lookup, total_s=SHORT_S * 2)
            try:
                await targets.post(f"https://shop.example:{made[name].port}/", {"Appid": "1"}, b"{}")
                bench.breach(f"a receiver whose certificate is {name} was sent an event")
            except TargetFailed:
                bench.counts["bad_certificates"] += 1
            if made[name].arrivals:
                bench.breach(f"a receiver whose certificate is {name} got the body")
            await targets.close()


# ------------------------------------------------------------------------------------------------------------ whole events


async def outcomes(bench: Bench) -> None:
    """Each receiver as a merchant's: after its sends an event is delivered or parked; once mended, a resend delivers what was parked."""
    targets = HttpTargets(bench.runtime, allow_private=True, total_s=SHORT_S)
    office = Office(bench.runtime, bench.folder / "outcomes.db", targets, schedule=(1, 1))
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(endpoints({**SUCCEEDING, **FAILING}))
        bench.know(made)
        people = await office.open([f"http://127.0.0.1:{endpoint.port}/" for endpoint in made.values()])
        events = {name: await office.write(merchant.id, 2 * bench.size) for (name, _), merchant in zip(made.items(), people, strict=True)}
        if not await office.settled(60.0 * bench.size):
            bench.breach("events are still due long after their schedule is over", "lost_event")
        states = await office.states()
        for name, rows in events.items():
            wanted = "delivered" if name in SUCCEEDING else "parked"
            for row in rows:
                bench.counts["events"] += 1
                if states.get(row["id"]) != wanted:
                    bench.breach(f"{name}: an event is {states.get(row['id'])} and not {wanted}", "lost_event")
        for endpoint in made.values():
            endpoint.mended = True
        for row in itertools.chain(*events.values()):
            if states.get(row["id"]) == "parked":
                bench.counts["events_parked_and_resent"] += await office.outbox.resend_order(row["order_id"])
        await office.settled(60.0 * bench.size)
        lost = [state for state in (await office.states()).values() if state != "delivered"]
        if lost:
            bench.breach(f"{len(lost)} events were not delivered to receivers that are well again", "lost_event")
        for merchant, endpoint in zip(people, made.values(), strict=True):
            _verify(bench, merchant, endpoint)
    await office.close()
    await targets.close()


def _verify(bench: Bench, merchant: Merchant, endpoint: Endpoint) -> None:
    """F5, by the written rules alone: the vendor's formula with one of both secrets, Standard Webhooks with each; one id an event."""
    names: dict[bytes, set[str]] = defaultdict(set)
    secrets = [secret.reveal() for secret in merchant.secrets]
    for arrival in endpoint.arrivals:
        names[arrival.body].add(arrival.headers.get("webhook-id", ""))
        bench.counts["signatures_verified"] += 1
        if not _is_signed(arrival, merchant.app_id, secrets):
            bench.breach(f"{endpoint.name}: a webhook's signature does not fit")
    if any(len(ids) != 1 for ids in names.values()) or len({next(iter(ids)) for ids in names.values()}) != len(names):
        bench.breach(f"{endpoint.name}: an event came under several ids, or two under one")


def _is_signed(arrival: Arrival, app_id: str, secrets: Sequence[str]) -> bool:
    headers = arrival.headers
    stamp, content = headers["timestamp"], f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + arrival.body
    simple = {hashlib.sha256(f"{app_id}{secret}{stamp}".encode() + arrival.body).hexdigest() for secret in secrets}
    standard = {"v1," + base64.b64encode(hmac.digest(secret.encode(), content, "sha256")).decode() for secret in secrets}
    return headers["appid"] == app_id and headers["sign"] in simple and set(headers["webhook-signature"].split(" ")) == standard


async def crowd(bench: Bench) -> None:
    """F2: many endpoints that never answer beside a few that do: these get everything while those still hang, and none more than two at once."""
    targets = HttpTargets(bench.runtime, allow_private=True, total_s=LONG_S)
    office = Office(bench.runtime, bench.folder / "crowd.db", targets)
    dead_count = min(1_000, DEAD * bench.size)
    async with endpoints({"dead": FAILING["silence"], "healthy": SUCCEEDING["success"]}) as made:
        bench.know(made)
        dead, healthy = made["dead"], made["healthy"]
        urls = [f"http://127.0.0.1:{dead.port}/{n}" for n in range(dead_count)]
        people = await office.open([*urls, *(f"http://127.0.0.1:{healthy.port}/{n}" for n in range(HEALTHY))])
        for merchant in people[:dead_count]:
            await office.write(merchant.id, 2)
        wanted = [row["id"] for merchant in people[dead_count:] for row in await office.write(merchant.id, EACH)]
        deadline = time.monotonic() + LONG_S
        states = await office.states()
        while {states[name] for name in wanted} != {"delivered"} and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
            states = await office.states()
        if {states[name] for name in wanted} != {"delivered"}:
            bench.breach("healthy endpoints wait for dead ones", "lost_event")
        bench.counts["dead_endpoints"] += dead_count
        bench.counts["delivered_beside_dead_endpoints"] += sum(states[name] == "delivered" for name in wanted)
        if dead.connections == 0 or max(dead.most_at_once.values(), default=0) > 2:
            bench.breach(f"a dead endpoint had {max(dead.most_at_once.values(), default=0)} sends at once")
    await office.close()
    await targets.close()


# ------------------------------------------------------------------------------------------------------------ virtual time


class _Refusing:
    """A way out where nobody ever says success; keeps when each event was sent."""

    def __init__(self, runtime: VirtualRuntime) -> None:
        self._runtime = runtime
        self.times: dict[str, list[int]] = defaultdict(list)

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:  # noqa: ARG002
        self.times[headers["Webhook-Id"]].append(self._runtime.now_ms())
        return Reply(500, "success")


def schedule(bench: Bench) -> None:
    """F4: 7 sends within 30 minutes, 16 within 96 hours, each gap at most a tenth shorter than written; then parked, none dropped."""
    loop = VirtualLoop()
    runtime = VirtualRuntime(loop, random.Random(bench.seed), Journal())
    out = _Refusing(runtime)
    office = Office(runtime, bench.folder / "schedule.db", out, idle_s=86_400)

    async def days() -> dict[int, str]:
        people = await office.open(["https://shop.example/"] * 5)
        for merchant in people:
            await office.write(merchant.id, VIRTUAL_EVENTS * bench.size // 5)
        await office.sleep_through()
        return await office.states()

    try:
        states = loop.run_until_complete(days())
        loop.run_until_complete(office.close())
    finally:
        runtime.bury()
        loop.close()
    for event_id, state in states.items():
        times = out.times[wire_id(event_id)]
        bench.counts["events_in_virtual_time"] += 1
        gaps = [b - a for a, b in itertools.pairwise(times)]
        # A claim waits for its turn among others at the same endpoint.
        fits = len(gaps) == len(SCHEDULE_S) and all(
            0.9 * s * 1000 <= gap <= s * 1000 + 5_000 for s, gap in zip(SCHEDULE_S, gaps, strict=True)
        )
        if state != "parked" or not fits:
            bench.breach(f"an event is {state} after sends {gaps} ms apart", "lost_event")


# ------------------------------------------------------------------------------------------------------------------- lane


def run(budget: Budget) -> Tried:
    """All receivers, on loopback sockets and in virtual time."""
    started = time.monotonic()
    budget.folder.mkdir(parents=True, exist_ok=True)
    size = max(1, min(budget.size, int(budget.seconds / SIZE_S)))
    bench = Bench(budget.folder, budget.seed, size, started + budget.seconds)
    with capture_logs():  # every parked event would be an error in somebody's log
        schedule(bench)
        asyncio.run(_real(bench))
    bench.runtime.close()
    budget.say(f"sinks: {sum(bench.counts.values())} tried, {len(bench.found)} found")
    table = tuple({"tried": name.replace("_", " "), "times": count} for name, count in sorted(bench.counts.items()))
    return Tried("hostile receivers", dict(bench.counts), tuple(bench.found), table, time.monotonic() - started)


async def _real(bench: Bench) -> None:
    await temptations(bench)
    with watching() as seen:
        await asyncio.gather(patience(bench), certificates(bench), outcomes(bench), crowd(bench))
    bench.counts["connections_seen"] += len(seen)
    # Redirects and the like led nowhere but to the receivers themselves.
    for host, port in set(seen):
        if host != "127.0.0.1" or port not in bench.ports:
            bench.breach(f"a receiver made the gateway connect to {host}:{port}")
