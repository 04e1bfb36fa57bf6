"""What every attack of hostile callers shares: the gateway, who is there, what was counted, what was found."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from penstock.prove.callers.lines import Hang, Headers, Line, Reply, request
from penstock.prove.installed.program import Program
from penstock.prove.lane import Breach, Found
from penstock.prove.merchant import V1, Merchant

T = TypeVar("T")

SURPRISE: Final = "Service error, please try again"
"""What the gateway says when something failed that nobody foresaw."""
FOUND_MAX: Final = 6
"""Of one attack: the first few say what is wrong."""
LINES: Final = 8

READ_ONLY: Final[Mapping[str, Mapping[str, Any]]] = {
    "/bill/info": {"merchant_order_ids": ["order-1"]},
    "/check/user": {"c_id": "1000001"},
    "/assets": {},
    "/network/fee": {"token_id": "264f4725-3cfd-4ff6-bc80-ff9d799d5fb2"},
    "/token/rate": {"token_id": "264f4725-3cfd-4ff6-bc80-ff9d799d5fb2", "amount": "1000"},
    "/coin/all": {},
    "/get/network/height/info": {},
    "/concise/url/get": {},
    "/bill/create": {},
    "/payment/address/get": {},
    "/support/token": {},
    "/token/chain": {"token_id": "8e5741cf-6e51-4892-9d04-3d40e1dd0128"},
}
"""A body for each call without an effect."""
PATHS: Final = (*READ_ONLY, "/withdraw", "/webhook/resend")


@dataclass(slots=True)
class Ring:
    """One gateway under attack. `poor` has a secret and no money, `rich` has both, `account` is inside the house."""

    program: Program
    seed: int
    size: int
    rich: Merchant
    poor: Merchant
    account: str
    counts: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    letters: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    ends_at: float = 0.0
    attack: str = ""
    breaches: Counter[str] = field(default_factory=Counter)

    def breach(self, text: str, *, kind: Breach = "other", replay: str = "") -> None:
        """Note one, unless enough of this attack were noted."""
        self.breaches[self.attack] += 1
        if self.breaches[self.attack] <= FOUND_MAX:
            self.found.append(Found(kind, text, f"seed {self.seed}: {replay}" if replay else f"seed {self.seed}"))

    def withdrawal(self, name: str, **changes: Any) -> dict[str, Any]:
        """A withdrawal that would be taken, where there is money."""
        fields = {"merchant_order_id": name, "address": self.account, "token_id": "264f4725-3cfd-4ff6-bc80-ff9d799d5fb2", "value": "1"}
        return {**fields, **changes}

    @property
    def is_over(self) -> bool:
        """Whether the time of this attack is up."""
        return time.monotonic() > self.ends_at

    async def unharmed(self, what: str, attack: Callable[[], Awaitable[None]]) -> None:
        """An attack after which the books are as before, to the last row."""
        self.attack = what
        before = await self.program.books()
        await attack()
        after = await self.program.books()
        for name in sorted(before.keys() | after.keys()):
            # The one who is served meanwhile has a name of their own, and is counted by the lane.
            if before.get(name, 0) != after.get(name, 0):
                self.breach(f"{what} changed {name} from {before.get(name, 0)} to {after.get(name, 0)}")

    def judge(self, what: str, reply: Reply, replay: str) -> None:
        """What no request may ever get: a status that is not documented, or a failure that nobody foresaw."""
        if reply.status >= 500 or (reply.status not in (0, 200, 400, 404, 408, 413)):
            self.breach(f"{what}: HTTP {reply.status}", replay=replay)
        elif reply.msg == SURPRISE:
            self.breach(f"{what}: a failure that nobody foresaw", replay=replay)

    async def over_lines(self, work: Iterator[T], job: Callable[[Line, T], Awaitable[None]], most: int) -> None:
        """Do it for each piece of work until there are `most`, the time is up, or there is none; over several connections."""
        left = most

        async def one() -> None:
            nonlocal left
            async with Line(self.program.port) as line:
                while left > 0 and not self.is_over:
                    left -= 1
                    piece = next(work, None)
                    if piece is None:
                        return
                    try:
                        await job(line, piece)
                    except Hang as error:
                        self.breach(f"a hang: {error}")
                    except OSError as error:
                        self.breach(f"the gateway did not let anybody in: {type(error).__name__}")
                        await asyncio.sleep(0.5)

        await asyncio.gather(*(one() for _ in range(LINES)))

    async def send(self, line: Line, path: str, headers: Headers, body: bytes) -> Reply:
        """One raw request of the merchant API."""
        return await line.send(request(V1 + path, headers, body))
