"""A story of the lane of several processes: one `serve` that answers callers in three, killed one by one and all at once, on either database."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from penstock.prove.installed.installation import PATIENCE_S, ProgramFailed, own_database
from penstock.prove.installed.premises import Premises, premises
from penstock.prove.installed.shop import CHAINS, SEVERAL, Shop
from penstock.prove.lane import Budget, Found
from penstock.prove.lanes.crash import FINISH_S, SCHEDULE

PROCESSES: Final = 3
STORM_S: Final = 4.0
"""For each size, how long processes are killed at random."""
CALM_S: Final = (0.1, 0.8)
"""From one kill to the next."""
ALL_OF: Final = 6
"""One kill of so many takes everybody."""
EARLY_OF: Final = 12
"""Who has only just been started is let come up, but for one time of so many."""


@dataclass(slots=True)
class Family:
    """What became of one story."""

    database: str
    kills: Counter[str] = field(default_factory=Counter)
    orders: int = 0
    found: list[Found] = field(default_factory=list)


async def tell(budget: Budget, database: str, deadline: float) -> Family:
    """Withdrawals run while processes die; in the end every id is asked for once more, everything finishes, and the books are judged."""
    family, dice = Family(database), random.Random(budget.seed)
    async with contextlib.AsyncExitStack() as stack:
        url = ""
        if database == "postgresql":
            url = stack.enter_context(own_database(budget.postgresql, f"penstock_family_{budget.seed}_{time.time_ns() % 10**9}"))
        settings = {"PENSTOCK_WEBHOOKS__SCHEDULE": SCHEDULE, "PENSTOCK_SERVER__PROCESSES": str(PROCESSES), **SEVERAL}
        place = await stack.enter_async_context(premises(budget.folder / f"family-{database}", chains=CHAINS, database_url=url, **settings))
        shop = Shop(place, budget.seed)
        stack.push_async_callback(shop.close)
        try:
            await _live(place, shop, family, dice, budget, deadline)
        except ProgramFailed as failed:
            family.found.append(Found("other", f"the program did not come back: {failed}"))
        replay = f"penstock.prove.lanes.workers: seed {budget.seed}, size {budget.size}, {database}; its log: {place.log}"
        family.found = [Found(one.breach, f"{database}: {one.text}", replay) for one in (*family.found, *shop.found)]
        family.orders = len(shop.wishes)
    return family


async def _live(place: Premises, shop: Shop, family: Family, dice: random.Random, budget: Budget, deadline: float) -> None:
    await place.start()
    await place.ready()
    await shop.settle_in()
    trading = asyncio.create_task(shop.trade())
    try:
        ends_at = time.monotonic() + min(STORM_S * budget.size, max(STORM_S, deadline - time.monotonic()))
        while time.monotonic() < ends_at or (not _all_kinds(family) and time.monotonic() < ends_at + PATIENCE_S):
            await asyncio.sleep(dice.uniform(*CALM_S))
            await _strike(place, family, dice)
    finally:
        shop.last_orders()
        await trading
    await place.ready()
    await shop.ask_again()
    if not await shop.finished_within(FINISH_S):
        family.found.append(Found("other", f"not everything finished within {FINISH_S:g} s in good weather"))
    await shop.judge()
    await shop.books_equal_chains(20)
    if (code := await place.stop()) != 0:
        family.found.append(Found("other", f"a clean stop ended with {code}"))


def _all_kinds(family: Family) -> bool:
    return bool(family.kills["answerer"] and family.kills["everybody"])


async def _strike(place: Premises, family: Family, dice: random.Random) -> None:
    """One that answers callers; or the one that started them, alone or with all of them, which then lives again."""
    answerers = place.answerers()
    if not answerers and dice.randrange(EARLY_OF):
        return
    if answerers and dice.randrange(ALL_OF):
        _kill(dice.choice(answerers))
        family.kills["answerer"] += 1
        return
    is_alone = dice.random() < 0.5  # those that it started hear the end of their pipes, and answer what they have accepted
    everybody = [] if is_alone else [*answerers, *place.signers()]
    place.signal(signal.SIGKILL)
    for pid in everybody:
        _kill(pid)
    family.kills["parent" if is_alone else "everybody"] += 1
    await place.start()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
