"""Those who come to the simulation's door beside its merchant: forgers, guessers, the careless, and another merchant.

Each trick is tried once in a seed, at some moment of the storm, and says what must never come of it. What is logged meanwhile is looked
through for secrets.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from penstock.core import wire_signature
from penstock.core.wire import compact
from penstock.prove.simulated.reach import call_asgi
from penstock.webhooks import targets
from penstock.wiring import Product

DENIED: Final = "0x000000000000000000000000000000000000dEaD"
"""On the operator's list of addresses that are not paid."""
USDT_MAX: Final = "200000"
"""The operator's maximum of one withdrawal."""
EXACT: Final = "123456789012.123456789012345678"
"""Thirty digits: more than a decimal of default precision holds."""
RICH: Final = "1000000000000"

INSIDE: Final = ("127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:10.0.0.1", "fd00:ec2::254")
"""Where no webhook may go, as a resolver says it."""
DISGUISED: Final = ("64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "fec0::1", "224.0.0.5", "192.88.99.1")
"""And those that `is_global` takes for public."""

BUSY: Final = (224066, 11004)
EXPIRED: Final = 11006


class Tricked(Exception):
    """A stranger got what must never be had; the text says what."""


class Witness(bytes):
    """A signature that notices when somebody compares it letter by letter, which takes longer the more letters are right."""

    compared = False

    def __eq__(self, other: object) -> bool:
        Witness.compared = True
        return bytes(self) == bytes(other) if isinstance(other, bytes) else NotImplemented

    __hash__ = bytes.__hash__

    def lower(self) -> Witness:
        """Still a witness."""
        return Witness(super().lower())


class Host(Protocol):
    """Whom they visit: a seed, the merchant that is served, its wishes, and the weather."""

    seed: int

    def now_ms(self) -> int:
        """The clock that everybody shares."""
        ...

    @property
    def app_id(self) -> str:
        """Of the merchant."""
        ...

    @property
    def app_secret(self) -> str:
        """Of the merchant."""
        ...

    @property
    def wishes(self) -> Sequence[Any]:
        """What it asked for."""
        ...

    @property
    def stormy(self) -> bool:
        """Whether anything goes wrong now."""
        ...


@dataclass(slots=True)
class Strangers:
    """One seed's visitors. They outlive every crash of the program, and what was tried is not tried again."""

    world: Host
    account: str = ""
    other: tuple[str, str] = ("", "")
    disabled: tuple[str, str] = ("", "")
    left: list[str] = field(default_factory=list)
    source: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.source = random.Random(f"strangers {self.world.seed}")
        tricks = sorted(_TRICKS)
        self.source.shuffle(tricks)
        self.left = [_status.__name__, *tricks]

    async def visit(self, app: Callable[..., Any], product: Product) -> None:
        """Try everything that is left. Raises Tricked."""
        while self.left:
            await asyncio.sleep(self.source.random() * 4)
            trick = _TRICKS.get(self.left[-1], _status)
            await trick(Visit(self, app, product))
            self.left.pop()


@dataclass(frozen=True, slots=True)
class Visit:
    """One trick under way."""

    who: Strangers
    app: Callable[..., Any]
    product: Product

    def now_s(self) -> int:
        """The clock that everybody shares."""
        return self.who.world.now_ms() // 1000

    def withdrawal(self, name: str, **fields: Any) -> dict[str, Any]:
        """A good small one inside the house, but for `fields`."""
        coin = self.product.catalog.coin_by_symbol("USDC")
        wanted = {"merchant_order_id": f"s-{name}", "address": self.who.account, "token_id": coin.id if coin else "", "value": "1"}
        return wanted | fields

    async def post(self, path: str, body: bytes, *, keys: tuple[str, str] = ("", ""), age_s: int = 0, sign: bytes = b"") -> dict[str, Any]:
        """A request, signed with these keys or the merchant's own, or with `sign`; asked again while the house is busy."""
        app_id, secret = keys if keys[0] else (self.who.world.app_id, self.who.world.app_secret)
        while True:
            timestamp = str(self.now_s() - age_s)
            signature: Any = sign or wire_signature.sign(app_id, secret, timestamp, body)
            headers, raw = await call_asgi(
                self.app, f"/ccpayment/v1{path}", {"Appid": app_id, "Timestamp": timestamp, "Sign": signature}, body
            )
            answer: dict[str, Any] = json.loads(raw)
            if secret.encode() in raw or self.who.world.app_secret.encode() in raw:
                raise Tricked("an answer holds a merchant's secret")
            if "Sign" in headers and headers["Sign"] != wire_signature.sign(app_id, secret, headers["Timestamp"], raw):
                raise Tricked("an answer is signed with somebody else's secret")
            slept = answer["code"] == EXPIRED and not age_s
            if not slept and (answer["code"] not in BUSY or not self.who.world.stormy):
                return answer | {"is_signed": "Sign" in headers}
            await asyncio.sleep(1)

    async def refused(self, what: str, body: bytes, *codes: int, path: str = "/withdraw", **how: Any) -> None:
        """It must be answered with one of these codes."""
        answer = await self.post(path, body, **how)
        if answer["code"] not in (*codes, *BUSY):
            raise Tricked(f"{what} was answered {answer['code']}: {answer['msg']}")


async def _forged(visit: Visit) -> None:
    body = compact(visit.withdrawal("forged"))
    for sign in (b"0" * 64, b"f" * 64, wire_signature.sign(visit.who.world.app_id, "0" * 64, str(visit.now_s()), body).encode()):
        answer = await visit.post("/withdraw", body, sign=sign)
        if answer["code"] != 11005 or answer["is_signed"]:
            raise Tricked(f"a forged signature was answered {answer['code']}, and that {'with' if answer['is_signed'] else 'without'} ours")


async def _compared(visit: Visit) -> None:
    Witness.compared = False
    await visit.post("/withdraw", compact(visit.withdrawal("compared")), sign=Witness(b"e" * 64))
    if Witness.compared:
        raise Tricked("a signature was compared letter by letter: whoever measures the time can guess it")


async def _lengthened(visit: Visit) -> None:
    """SHA-256's padding holds 0x80, so a lengthened body is never UTF-8."""
    body = compact(visit.withdrawal("lengthened"))
    await visit.refused("a body that was lengthened", body[:-1] + b"\x80" + bytes(5) + b"}", 11000)
    await visit.refused("a body that was lengthened", body[:-2] + b'\x80"}', 11000)


async def _twice(visit: Visit) -> None:
    body = compact(visit.withdrawal("twice"))
    await visit.refused("a field that stands twice", body[:-1] + b',"value":"2"}', 11000)


async def _no_amounts(visit: Visit) -> None:
    for number, value in enumerate(("-5", "1e2", "+1", " 1", "0x10", "1_0", "\u0661\u0662", "NaN", "")):
        await visit.refused(f"the amount {value!r}", compact(visit.withdrawal(f"amount{number}", value=value)), 11000, 14013)


async def _to_the_last_digit(visit: Visit) -> None:
    answer = await visit.post("/withdraw", compact(visit.withdrawal("exact", value=EXACT)))
    if answer["code"] == 10000 and answer["data"]["net_receivable"] != EXACT:
        raise Tricked(f"{EXACT} was asked for and {answer['data']['net_receivable']} accepted")


async def _old(visit: Visit) -> None:
    for age_s in (3600, -3600):
        await visit.refused(f"a request of {age_s} seconds ago", compact(visit.withdrawal("old")), 11006, age_s=age_s)


async def _other_content(visit: Visit) -> None:
    """Two wishes under one id, at once and later."""
    bodies = [compact(visit.withdrawal("other", value=value)) for value in ("1", "2", "1")]
    tasks = [visit.product.runtime.spawn(visit.post("/withdraw", body), name="other") for body in bodies]
    answers = [await task for task in tasks]
    accepted = {answer["data"]["net_receivable"] for answer in answers if answer["code"] == 10000}
    if len(accepted) > 1 or (answers[0]["code"], answers[1]["code"]) == (10000, 10000):
        raise Tricked(f"one id was accepted for {len(accepted)} different wishes")
    if len({answer["data"]["order_id"] for answer in answers if answer["code"] == 10000}) > 1:
        raise Tricked("one id has two orders")


async def _elsewhere(visit: Visit) -> None:
    """Another merchant asks for orders that are none of its own."""
    names = [*(wish.name for wish in visit.who.world.wishes), "s-exact", "s-other"]  # those of other tricks, too
    answer = await visit.post("/bill/info", compact({"merchant_order_ids": names}), keys=visit.who.other)
    if answer["code"] == 10000 and answer["data"]:
        raise Tricked("a merchant was shown another merchant's orders")


async def _switched_off(visit: Visit) -> None:
    await visit.refused("a merchant that is disabled", compact(visit.withdrawal("disabled")), 12000, keys=visit.who.disabled)


async def _reflected(visit: Visit) -> None:
    """One of our own bodies comes back, with the fields of a request in it."""
    for ours in ({"code": 10000, "msg": "success"}, {"pay_status": "success", "order_type": "API Withdrawal"}):
        await visit.refused("one of our own bodies", compact(ours | visit.withdrawal("reflected")), 11000)


async def _not_paid_here(visit: Visit) -> None:
    token = visit.product.catalog.by_symbol("USDT", "ETH")
    if token is None or token.contract is None:
        raise Tricked("the catalogue has changed")
    outside = {"token_id": token.id, "merchant_pays_fee": True}
    too_much = str(int(USDT_MAX) + 1)
    await visit.refused("an address on the operator's list", compact(visit.withdrawal("denied", address=DENIED, **outside)), 14017)
    await visit.refused(
        "more than the operator's maximum",
        compact(visit.withdrawal("much", address=DENIED.lower()[:-1] + "e", value=too_much, **outside)),
        14006,
    )
    await visit.refused("a token's contract as address", compact(visit.withdrawal("contract", address=token.contract, **outside)), 14008)


async def _webhook_inside(visit: Visit) -> None:  # noqa: ARG001  as every trick
    """A merchant's name leads to public addresses while it is registered, and into the house when it is sent to."""
    reach = targets.reach_of("https", allow_private=False)
    for place in (*INSIDE, *DISGUISED):
        with contextlib.suppress(targets.Refused):
            raise Tricked(f"a webhook would be sent to {targets.judged([(0, place)], 443, reach)}")
        if targets.check_url(f"https://[{place}]/" if ":" in place else f"https://{place}/", allow_private=False) is None:
            raise Tricked(f"{place} was taken for a webhook's address")


async def _status(visit: Visit) -> None:
    """What is shown of an order only ever rises; somebody looks until it clears up."""
    rank = {"Pending": 0, "Processing": 1, "Successful": 2, "Failed": 2}
    shown: dict[str, int] = {}
    while visit.who.world.stormy:
        answer = await visit.post("/bill/info", compact({"merchant_order_ids": [wish.name for wish in visit.who.world.wishes]}))
        for bill in answer["data"] or ():
            detail = bill["order_detail"]
            now = rank[detail["status"]]
            if now < shown.get(detail["merchant_order_id"], 0):
                raise Tricked(f"{detail['merchant_order_id']} went back to {detail['status']}")
            shown[detail["merchant_order_id"]] = now
        await asyncio.sleep(1)


_TRICKS: Final[dict[str, Callable[[Visit], Awaitable[None]]]] = {
    trick.__name__: trick
    for trick in (
        _forged, _compared, _lengthened, _twice, _no_amounts, _to_the_last_digit, _old, _other_content, _elsewhere, _switched_off,
        _reflected, _not_paid_here, _webhook_inside,
    )
}  # fmt: skip
