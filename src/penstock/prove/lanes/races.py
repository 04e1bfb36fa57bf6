"""Everybody at once: one id a thousand times, more withdrawals than money, resends, credits and cancellations (test plan, B1 to B3, B6).

Orders, reserves and balances are counted in the database, not in the answers. A control that checks a balance and then writes it is run
through the same burst and must overdraw: otherwise the burst proves nothing.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from aiohttp import web

from penstock.catalog import Catalog
from penstock.core.errors import Refused
from penstock.core.money import LEDGER_DECIMALS, parse_units
from penstock.db import Tx, open_database
from penstock.prove.installed.installation import own_database
from penstock.prove.installed.program import Program, files, program
from penstock.prove.lane import Breach, Budget, Found, Tried
from penstock.prove.merchant import Merchant
from penstock.runtime import SystemRuntime

ETH: Final = "264f4725-3cfd-4ff6-bc80-ff9d799d5fb2"
"""USDT on Ethereum; the hot address is empty, so an order that was taken stays reserved."""
USDT: Final = "8e5741cf-6e51-4892-9d04-3d40e1dd0128"
NATIVE: Final = Catalog.load().native("ETH").id
OUTSIDE: Final = "0x52908400098527886E0F7030069857D2E4169EE7"
BURST: Final = 1_000
CANCELLED: Final = 16
PATIENCE_S: Final = 120.0
PROCESSES: Final = 3
"""On PostgreSQL, beside the first."""
DUPLICATE, POOR, TOO_OFTEN, TAKEN = 11011, 14000, 11009, 10000


@dataclass(slots=True)
class Course:
    """One installation with all its processes, and what was counted there."""

    program: Program
    urls: list[str]
    kind: str
    seed: int
    counts: Counter[str]
    account: str
    found: list[Found] = field(default_factory=list)
    number: int = 0

    def breach(self, kind: Breach, text: str) -> None:
        """Note one."""
        self.found.append(Found(kind, f"{self.kind}: {text}", f"seed {self.seed}, round {self.number}"))

    async def merchant(self, amount: str) -> Merchant:
        """A fresh one with so much USDT."""
        self.number += 1
        return await self.program.merchant(f"race-{self.kind}-{self.number}", USDT=amount)

    async def burst(self, merchant: Merchant, path: str, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """All at once, over all processes; what was not answered has the code 0."""

        async def one(number: int, body: Mapping[str, Any]) -> dict[str, Any]:
            try:
                return await self.program.ask(merchant, path, body, url=self.urls[number % len(self.urls)])
            except (TimeoutError, aiohttp.ClientError, OSError) as error:
                return {"code": 0, "msg": type(error).__name__, "data": None}

        self.counts["requests"] += len(bodies)
        answers = await asyncio.gather(*(one(number, body) for number, body in enumerate(bodies)))
        if unanswered := [answer["msg"] for answer in answers if answer["code"] == 0]:
            self.breach("other", f"{len(unanswered)} of {len(bodies)} were not answered: {Counter(unanswered)}")
        return answers

    async def stored(self, merchant: Merchant) -> dict[str, int]:
        """What the database has of a merchant."""
        number = int(merchant.holder.removeprefix("m:"))
        return await self.program.look(lambda tx: _stored(tx, number, merchant.holder))


def _stored(tx: Tx, merchant_id: int, holder: str) -> dict[str, int]:
    # Orders of a merchant, and the entries that reserved or moved money for them.
    orders = tx.all("SELECT COUNT(*) AS count FROM orders WHERE merchant_id = :id", id=merchant_id)[0]["count"]
    entries = tx.all(
        "SELECT entry.posting_kind, COUNT(*) AS count FROM entry JOIN posting ON posting.entry_id = entry.id "
        "WHERE posting.account = :account GROUP BY entry.posting_kind LIMIT 100",
        account=f"{holder}:available",
    )
    # What a merchant has of the one coin of these races.
    balance = tx.one("SELECT available, reserved FROM balance WHERE holder = :holder AND coin_id = :coin", holder=holder, coin=USDT)
    calls = tx.all("SELECT COUNT(*) AS count FROM resend_call WHERE merchant_id = :id", id=merchant_id)[0]["count"]
    found = {f"entries {row['posting_kind']}": int(row["count"]) for row in entries}
    return {**found, "orders": int(orders), "calls": int(calls), **({} if balance is None else dict(balance))}


def _withdrawal(name: str, value: str, address: str = OUTSIDE) -> dict[str, Any]:
    return {"merchant_order_id": name, "address": address, "token_id": ETH, "value": value}


def _units(text: str) -> int:
    return parse_units(text, LEDGER_DECIMALS)


# ------------------------------------------------------------------------------------------------------------------------ races


async def one_id(course: Course) -> None:
    """B1: one request a thousand times makes one order, one reserve, and a thousand equal answers."""
    merchant = await course.merchant("1000")
    answers = await course.burst(merchant, "/withdraw", [_withdrawal("same", "30")] * BURST)
    stored = await course.stored(merchant)
    if stored["orders"] != 1 or stored["reserved"] != _units("30") or stored["available"] != _units("970"):
        course.breach("double_payment", f"one id {BURST} times left {stored}")
    if len({json.dumps(answer["data"], sort_keys=True) for answer in answers}) != 1 or {answer["code"] for answer in answers} != {TAKEN}:
        course.breach("other", f"one id was answered in several ways: {Counter(answer['code'] for answer in answers)}")
    course.counts["orders"] += stored["orders"]


async def one_id_many_bodies(course: Course) -> None:
    """B2: one id with a thousand contents makes one order; all others conflict."""
    merchant = await course.merchant("10000000")
    bodies = [_withdrawal("same", str(20 + number), course.account if number % 2 else OUTSIDE) for number in range(BURST)]
    told = Counter(answer["code"] for answer in await course.burst(merchant, "/withdraw", bodies))
    stored = await course.stored(merchant)
    if stored["orders"] != 1:
        course.breach("double_payment", f"one id with {BURST} bodies made {stored['orders']} orders")
    if told != {TAKEN: 1, DUPLICATE: BURST - 1}:
        course.breach("other", f"one id with {BURST} bodies was answered {dict(told)}")
    course.counts["orders"] += stored["orders"]


def more_than_there_is(covered: int) -> Callable[[Course], Awaitable[None]]:
    """B3: a thousand withdrawals against a balance for exactly so many."""

    async def race(course: Course) -> None:
        merchant = await course.merchant(str(30 * covered + 2))
        inside = [number % 3 == 0 for number in range(BURST)]
        bodies = [_withdrawal(f"drain-{n}", "30", course.account if inside[n] else OUTSIDE) for n in range(BURST)]
        told = Counter(answer["code"] for answer in await course.burst(merchant, "/withdraw", bodies))
        stored = await course.stored(merchant)
        if stored["orders"] != covered or stored["available"] != _units("2") or stored["reserved"] > _units(str(30 * covered)):
            course.breach("overdraft", f"money for {covered} made {stored}")
        if told != {TAKEN: covered, POOR: BURST - covered}:
            course.breach("other", f"money for {covered} was answered {dict(told)}")
        course.counts["orders"] += stored["orders"]

    return race


async def resends(course: Course) -> None:
    """A hundred different resends at once: one is a call, the others came too soon."""
    merchant = await course.merchant("10")
    start = int(time.time()) - 1_800
    bodies = [{"start_timestamp": start, "end_timestamp": start + 1 + number} for number in range(100)]
    told = Counter(answer["code"] for answer in await course.burst(merchant, "/webhook/resend", bodies))
    calls = (await course.stored(merchant))["calls"]
    if calls != 1 or told != {TAKEN: 1, TOO_OFTEN: 99}:
        course.breach("other", f"100 resends at once were answered {dict(told)} and left {calls} calls")


async def credits_meet_withdrawals(course: Course) -> None:
    """Money comes while it goes: nothing is lost between them."""
    merchant = await course.merchant("30")
    bodies = [_withdrawal(f"meet-{number}", "30", course.account) for number in range(200)]

    async def come() -> None:
        async with course.program.commands() as commands:
            await asyncio.gather(*(commands.credit(merchant.app_id, "USDT", "10", "race") for _ in range(60)))

    answers, _ = await asyncio.gather(course.burst(merchant, "/withdraw", bodies), come())
    taken = sum(answer["code"] == TAKEN for answer in answers)
    stored = await course.stored(merchant)
    if stored["available"] != _units("630") - _units("30") * taken or stored["orders"] != taken:
        course.breach("ledger_imbalance", f"61 credits and {taken} withdrawals left {stored}")
    course.counts["credits"] += 61


async def cancellations(course: Course) -> None:
    """B6: many people cancel the same orders at once, from several processes: each order is cancelled once, and its money comes back once."""
    merchant = await course.merchant("1000")
    answers = await course.burst(merchant, "/withdraw", [_withdrawal(f"cancel-{number}", "30") for number in range(10)])
    ids = [answer["data"]["order_id"] for answer in answers if answer["code"] == TAKEN]
    async with course.program.commands() as one, course.program.commands() as other:

        async def cancel(commands: Any, order_id: str) -> bool:
            try:
                await commands.cancel_order(order_id, "race")
            except Refused:
                return False
            return True

        won = await asyncio.gather(*(cancel(commands, order_id) for order_id in ids for commands in (one, other) * 4))
    course.counts["cancellations"] += len(won)
    stored = await course.stored(merchant)
    if (
        sum(won) != len(ids)
        or stored.get("entries release", 0) != len(ids)
        or (stored["available"], stored["reserved"]) != (_units("1000"), 0)
    ):
        course.breach("other", f"{len(won)} cancellations of {len(ids)} orders: {sum(won)} were told that it was they; {stored}")


async def cancellations_meet_payments(course: Course) -> None:
    """B6: coins arrive while people cancel what waits for them: an order is paid, or its money is back, and never both."""
    course.number += 1
    merchant = await course.program.merchant(f"race-{course.kind}-{course.number}", ETH="100")
    recipients = [f"0x{course.seed & 0xFFFFFFFF:08x}{course.number:016x}{number:016x}" for number in range(CANCELLED)]
    native = {"token_id": NATIVE, "value": "1", "merchant_pays_fee": True}
    bodies = [{"merchant_order_id": recipient, "address": recipient, **native} for recipient in recipients]
    answers = await course.burst(merchant, "/withdraw", bodies)
    ids = [answer["data"]["order_id"] for answer in answers if answer["code"] == TAKEN]

    async def cancel(commands: Any, number: int, order_id: str) -> bool:
        await asyncio.sleep(number * 0.35)  # spread over the moment at which the gateway sees the coins
        try:
            await commands.cancel_order(order_id, "race")
        except Refused:
            return False
        return True

    async with course.program.commands() as commands:
        hot = next(row["address"] for row in await commands.treasury_rows() if row["chain"] == "ETH")
        await course.program.control("ETH", do="block_time", block_ms=250)
        await course.program.control("ETH", do="fund", address=hot, units=str(10**21))
        cancelled = await asyncio.gather(*(cancel(commands, number, order_id) for number, order_id in enumerate(ids)))
    states = await _final_states(course, merchant, recipients)
    for recipient, was_cancelled in zip(recipients, cancelled, strict=True):
        state, paid = states.get(recipient, "nowhere"), await _balance(course, recipient)
        course.counts["cancelled"] += was_cancelled
        course.counts["paid"] += paid > 0
        if paid not in (0, 10**18) or (paid > 0) == was_cancelled:
            course.breach("double_payment", f"an order that was {'cancelled' if was_cancelled else 'not cancelled'} paid {paid} wei")
        if state != ("Failed" if was_cancelled else "Successful"):
            course.breach("lost_order", f"an order that was {'cancelled' if was_cancelled else 'not cancelled'} is {state}")


async def _final_states(course: Course, merchant: Merchant, names: Sequence[str]) -> dict[str, str]:
    """Each order's status, once none moves any more or patience is over."""
    deadline, states = time.monotonic() + PATIENCE_S, dict[str, str]()
    while time.monotonic() < deadline and not (len(states) == len(names) and set(states.values()) <= {"Successful", "Failed"}):
        await asyncio.sleep(0.2)
        found = await course.program.ask(merchant, "/bill/info", {"merchant_order_ids": list(names)})
        states = {one["order_detail"]["merchant_order_id"]: one["order_detail"]["status"] for one in found["data"] or []}
    return states


async def _balance(course: Course, address: str) -> int:
    """Wei at the head of the chain."""
    asked = {"jsonrpc": "2.0", "id": 1, "method": "eth_getBalance", "params": [address, "latest"]}
    async with course.program.http.post(f"{course.program.devnet.url}/ETH", json=asked) as response:
        return int((await response.json())["result"], 16)


RACES: Final = (one_id, one_id_many_bodies, more_than_there_is(1), more_than_there_is(7), resends, credits_meet_withdrawals, cancellations)


# ---------------------------------------------------------------------------------------------------------------------- control


async def control(course: Course) -> None:
    """Check, then write: what the gateway would be without its locks. The same burst must overdraw it, or the burst is too tame."""
    runtime = SystemRuntime()
    database = open_database(runtime, f"sqlite:///{course.program.settings.home / 'control.db'}")
    await database.write("make", lambda tx: tx.run("CREATE TABLE naive (id INTEGER PRIMARY KEY, available INTEGER NOT NULL)"))
    await database.write("fill", lambda tx: tx.run("INSERT INTO naive (id, available) VALUES (1, 1)"))

    async def withdraw(request: web.Request) -> web.Response:
        await request.read()
        # Enough for one withdrawal.
        row = await database.read(lambda tx: tx.one("SELECT available FROM naive WHERE id = 1"))
        if row is None or row["available"] < 1:
            return web.json_response({"code": POOR, "data": None})
        await database.write("take", lambda tx: tx.run("UPDATE naive SET available = available - 1 WHERE id = 1"))
        return web.json_response({"code": TAKEN, "data": None})

    application = web.Application()
    application.router.add_post("/{path:.*}", withdraw)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=BURST).start()
    urls, course.urls = course.urls, [f"http://127.0.0.1:{runner.addresses[0][1]}"]
    try:
        nobody = Merchant("0" * 33, "0" * 64, "m:0")
        told = Counter(a["code"] for a in await course.burst(nobody, "/withdraw", [_withdrawal("naive", "1")] * BURST))
        course.counts["control_overdrafts"] += max(0, told[TAKEN] - 1)
        if told[TAKEN] <= 1:
            course.breach("other", "the control that checks and then writes did not overdraw, so the bursts prove nothing")
    finally:
        course.urls = urls
        await runner.cleanup()
        await database.close()
        runtime.close()


# ------------------------------------------------------------------------------------------------------------------------- lane


async def run(budget: Budget) -> Tried:
    """Every race `size` times on each database, while there is time: at size 1 each once, else at least one of them."""
    started, counts = time.monotonic(), Counter[str]()
    kinds = ["sqlite", *(["postgresql"] if budget.postgresql else [])]
    with files(4 * BURST):
        found = await asyncio.gather(*(_on(kind, budget, counts, started + budget.seconds) for kind in kinds))
    table = tuple({"tried": name.replace("_", " "), "times": count} for name, count in sorted(counts.items()))
    return Tried("races", dict(counts), tuple(itertools.chain(*found)), table, time.monotonic() - started)


async def _on(kind: str, budget: Budget, counts: Counter[str], ends_at: float) -> list[Found]:
    async with _course(budget, kind, counts) as course:
        await control(course)
        order = random.Random(budget.seed).sample(RACES, len(RACES))  # time may be over before each has had its turn
        for number, race in enumerate(order * budget.size):
            if time.monotonic() > ends_at and number >= (len(RACES) if budget.size == 1 else 1):
                break
            await race(course)
            counts["races"] += 1
            budget.say(f"races on {kind}: {counts['races']} so far, {len(course.found)} found")
        await cancellations_meet_payments(course)  # last: from here on the hot address is not empty
        counts["races"] += 1
        for text in await course.program.breaches():
            course.breach("ledger_imbalance", f"the audit says: {text}")
        return course.found


@asynccontextmanager
async def _course(budget: Budget, kind: str, counts: Counter[str]) -> AsyncIterator[Course]:
    async with AsyncExitStack() as stack:
        url = stack.enter_context(own_database(budget.postgresql, f"penstock_races_{budget.folder.name}")) if kind == "postgresql" else ""
        made = await stack.enter_async_context(program(budget.folder / kind, chains=("ETH",), database_url=url))
        await made.ready()
        others = [await stack.enter_async_context(made.beside("--role", "api")) for _ in range(PROCESSES if url else 0)]
        yield Course(made, [made.url, *others], kind, budget.seed, counts, await made.account("ada@example.com"))
