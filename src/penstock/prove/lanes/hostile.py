"""Hostile callers at a real gateway: forged, reflected, malformed and endless requests, floods, and addresses that are almost right."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from penstock.prove.callers import attacks, sockets
from penstock.prove.callers.ring import Ring
from penstock.prove.callers.sockets import Healthy, going_on
from penstock.prove.installed.program import program, wait_for
from penstock.prove.lane import Budget, Tried

CHAINS: Final = ("ETH", "TRX", "XRP", "LIGHTNING")
Attack = Callable[[Ring], Awaitable[None]]
FLOOD_SHARE: Final = 0.1
"""Of the time, for callers who are too many."""
ATTACKS: Final[tuple[tuple[Attack, float], ...]] = (
    (attacks.strangers, 0.5),
    (attacks.reflections, 1),
    (sockets.framings, 1),
    (attacks.forgeries, 2),
    (attacks.malformed, 3),
    (attacks.almost_addresses, 2),
)
"""What is tried, and its share of the time."""
LETTERS: Final = 3


async def run(budget: Budget) -> Tried:
    """All attacks on one fresh gateway, while one merchant is served; then a flood at one with a rate limit."""
    started = time.monotonic()
    async with program(budget.folder / "gateway", chains=CHAINS) as gateway, _mailbox() as (url, letters):
        rich = await gateway.merchant("rich", url, USDT="1000")
        ring = Ring(gateway, budget.seed, budget.size, rich, await gateway.merchant("poor"), await gateway.account("ada@example.com"))
        healthy = Healthy(gateway, await gateway.merchant("healthy", USDT="100000"), await gateway.account("bob@example.com"))
        await gateway.ready()
        await _write_letters(ring, letters)
        # First what counts rows alone with it, then what takes long, beside somebody who is served.
        slow = asyncio.create_task(sockets.endless(ring))
        await _attack(ring, budget, started)
        await slow
        async with going_on(healthy):
            ring.ends_at = started + budget.seconds
            await sockets.idle(ring)
        await _close(ring, healthy)
    await _flood(ring, budget)
    return Tried("hostile callers", dict(ring.counts), tuple(ring.found), _table(ring, healthy), time.monotonic() - started)


async def _attack(ring: Ring, budget: Budget, started: float) -> None:
    """Each attack within its share of what is left."""
    weights = sum(share for _, share in ATTACKS)
    for attack, share in ATTACKS:
        left = max(1.0, started + 0.85 * budget.seconds - time.monotonic())
        ring.ends_at = time.monotonic() + left * share / weights
        weights -= share
        await attack(ring)
        budget.say(f"hostile: {attack.__name__}, {sum(ring.counts.values())} tried, {len(ring.found)} found")


async def _close(ring: Ring, healthy: Healthy) -> None:
    """What must be true when all is over."""
    if not ring.program.is_running:
        ring.breach("the gateway ended")
        return
    for failure in healthy.failures[:5]:
        ring.breach(f"a healthy merchant was turned away: {failure}")
    if healthy.answered == 0:
        ring.breach("a healthy merchant was never answered")
    orders = (await ring.program.books()).get(f"orders {healthy.merchant.holder}", 0)
    if orders != healthy.accepted:
        ring.breach(f"{healthy.accepted} orders were accepted and {orders} are there", kind="lost_order")
    ring.counts["healthy_requests"] += healthy.answered
    for text in await ring.program.breaches():
        ring.breach(f"the audit says: {text}", kind="ledger_imbalance")


async def _flood(ring: Ring, budget: Budget) -> None:
    async with program(budget.folder / "limited", settings={"PENSTOCK_LIMITS__REQUESTS_PER_SECOND": "100"}) as limited:
        healthy = Healthy(limited, await limited.merchant("healthy", USDT="100000"), await limited.account("ada@example.com"))
        await sockets.flood(ring, limited, healthy, seconds=min(2.0 * ring.size, FLOOD_SHARE * budget.seconds))
        for failure in healthy.failures[:5]:
            ring.breach(f"beside a flood: {failure}")
        ring.counts["healthy_requests"] += healthy.answered


async def _write_letters(ring: Ring, letters: list[tuple[dict[str, str], bytes]]) -> None:
    """A few webhooks of ours, as they went out, for those who would send them back."""
    for number in range(LETTERS):
        answer = await ring.program.ask(ring.rich, "/withdraw", ring.withdrawal(f"letter-{number}"))
        if answer["code"] != 10000:
            ring.breach(f"a good withdrawal was refused: {answer}")
    if not await wait_for(lambda: len(letters) >= LETTERS, 30):
        ring.breach(f"{len(letters)} of {LETTERS} webhooks came", kind="lost_event")
    ring.letters += letters


@contextlib.asynccontextmanager
async def _mailbox() -> Any:
    """A receiver that keeps headers and bodies as they came."""
    letters: list[tuple[dict[str, str], bytes]] = []

    async def receive(request: web.Request) -> web.Response:
        letters.append(({name: request.headers[name] for name in ("Appid", "Timestamp", "Sign")}, await request.read()))
        return web.Response(text="success")

    application = web.Application()
    application.router.add_post("/", receive)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/", letters
    finally:
        await runner.cleanup()


def _table(ring: Ring, healthy: Healthy) -> tuple[dict[str, Any], ...]:
    rows = [{"tried": name.replace("_", " "), "times": count} for name, count in sorted(ring.counts.items())]
    rows.append({"tried": "healthy merchant, 99 of 100 answers within ms", "times": healthy.slowest_ms(0.99)})
    return tuple(rows)
