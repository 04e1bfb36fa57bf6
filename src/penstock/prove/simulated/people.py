"""Everybody around one simulated house: merchants with their wishes, repeats and mistakes, and their webhook receivers in every mood.

They outlive every crash of the program, and never forget what they were answered.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from penstock.core import wire_signature
from penstock.core.money import CoinAmount, Token
from penstock.core.wire import compact
from penstock.prove.simulated.auditor import Alarm
from penstock.prove.simulated.networks import Recipient, Site
from penstock.prove.simulated.reach import call_asgi
from penstock.prove.simulated.weather import Outside
from penstock.webhooks.deliver import Reply, TargetFailed

BUSY: Final = (224066, 11004, 11006)
"""No estimate or price at the moment, too many at once, or older than two minutes because the machine slept: a merchant asks again."""
ACCEPTED: Final = 10000
CROWD: Final = 4
KINDS: Final = ("pay", "pay", "pay", "pay", "pay", "internal", "greedy", "crowd", "clash", "wrong", "untagged", "again")
MERCHANTS: Final = 2


@dataclass(slots=True)
class Wish:
    """What a merchant wants, and the answer it has at last. `sites` None: it stays in the house."""

    name: str
    kind: str
    merchant: int
    at_s: float
    token: Token
    value: str
    recipient: Recipient
    pays_fee: bool
    site: Site | None
    answer: dict[str, Any] | None = None

    @property
    def accepted(self) -> bool:
        """Whether there is an order."""
        return self.answer is not None and self.answer["code"] == ACCEPTED

    def units(self, net: int) -> int:
        """Base units of the token that so much of the coin is."""
        return CoinAmount(self.token.coin, net).to_token(self.token).units


@dataclass(slots=True)
class People:
    """One seed's merchants. `events` are the bodies that came for an order, `ids` the names of those events."""

    seed: int
    source: random.Random
    now_ms: Callable[[], int]
    now_s: Callable[[], float]
    note: Callable[[str], None]
    outside: Outside
    alarm: Alarm
    storm: Callable[[], bool]
    keys: list[tuple[str, str]] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    events: dict[tuple[int, str], set[bytes]] = field(default_factory=dict)
    ids: dict[tuple[int, str], set[str]] = field(default_factory=dict)
    deliveries: int = 0
    asked: int = 0

    @property
    def app_id(self) -> str:
        """Of the first merchant."""
        return self.keys[0][0]

    @property
    def app_secret(self) -> str:
        """Of the first merchant."""
        return self.keys[0][1]

    @property
    def stormy(self) -> bool:
        """Whether anything goes wrong now."""
        return self.storm()

    # Wishes

    def wish(self, sites: list[Site], token_of: Callable[[str, str], Token], accounts: list[str], *, count: int, span_s: float) -> None:
        """What everybody will want in this seed, in a few bursts."""
        bursts = [self.now_s() + self.source.random() * span_s for _ in range(self.source.randint(1, 4))]
        for number in range(count):
            site = self.source.choice(sites)
            kind = self.source.choice(KINDS)
            symbol = self.source.choice(list(site.place.pays))
            token, value = token_of(symbol, site.place.chain), self.source.choice(site.place.pays[symbol])
            name = f"w{number}"
            recipient = self._recipient(site, kind, name, token, value, accounts)
            if kind == "greedy":
                value = "99999999999999"
            at_s = self.source.choice(bursts) + self.source.random() * min(60.0, span_s / 3)
            merchant = self.source.randrange(MERCHANTS)
            pays_fee = site.place.family == "lightning" or self.source.random() < 0.5
            inside = recipient.address in accounts
            self.wishes.append(Wish(name, kind, merchant, at_s, token, value, recipient, pays_fee or inside, None if inside else site))

    def _recipient(self, site: Site, kind: str, name: str, token: Token, value: str, accounts: list[str]) -> Recipient:
        if kind == "internal":
            return Recipient(self.source.choice(accounts), "", lambda: 0)
        if kind == "wrong" and site.place.wrong:
            return Recipient(self.source.choice(site.place.wrong), "", lambda: 0)
        earlier = [wish.recipient for wish in self.wishes if wish.token == token and wish.site is site and wish.kind == "pay"]
        if kind == "again" and earlier:
            return self.source.choice(earlier)
        recipient = site.place.recipient(site.network, f"{name} {self.source.randrange(10**9)}", token, value)
        if kind == "untagged" and recipient.memo:
            return Recipient(recipient.address, "", recipient.received)
        return recipient

    # Asking

    async def ask(self, app: Callable[..., Any], merchant: int, path: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """One signed request, and its verified answer. It must be signed by who was asked."""
        self.asked += 1
        app_id, secret = self.keys[merchant]
        body, timestamp = compact(dict(fields)), str(self.now_ms() // 1000)
        sign = wire_signature.sign(app_id, secret, timestamp, body)
        headers, raw = await call_asgi(app, f"/ccpayment/v1{path}", {"Appid": app_id, "Timestamp": timestamp, "Sign": sign}, body)
        answer: dict[str, Any] = json.loads(raw)
        if "Sign" in headers and headers["Sign"] != wire_signature.sign(app_id, secret, headers["Timestamp"], raw):
            self.alarm(f"an answer to {path} carries a wrong signature")
        return answer

    async def _withdraw(self, app: Callable[..., Any], wish: Wish, value: str, until_s: float) -> dict[str, Any]:
        fields = {
            "merchant_order_id": wish.name,
            "address": wish.recipient.address,
            "token_id": wish.token.id,
            "value": value,
            "merchant_pays_fee": wish.pays_fee,
        }
        if wish.recipient.memo:
            fields["memo"] = wish.recipient.memo
        while True:
            answer = await self.ask(app, wish.merchant, "/withdraw", fields)
            self.note(f"answer {wish.name} {answer['code']}")
            if answer["code"] not in BUSY:
                return answer
            if self.now_s() > until_s:
                self.alarm(f"{wish.name} is answered {answer['code']} {answer['msg']} for ever")
            await asyncio.sleep(1 + self.source.random() * 2)

    async def client(self, app: Callable[..., Any], wish: Wish, until_s: float) -> None:
        """Ask, and ask again with the same id until there is an answer; some in a crowd, some once more after it."""
        await asyncio.sleep(max(0.0, wish.at_s - self.now_s()))
        if wish.kind == "crowd":
            answers = await asyncio.gather(*(self._withdraw(app, wish, wish.value, until_s) for _ in range(CROWD)))
            if len({compact(answer) for answer in answers if answer["code"] == ACCEPTED}) > 1:
                self.alarm(f"{wish.name} was asked {CROWD} times at once and answered differently: {answers}")
            wish.answer = next((answer for answer in answers if answer["code"] == ACCEPTED), answers[0])
            return
        answer = await self._withdraw(app, wish, wish.value, until_s)
        if wish.kind == "clash" and answer["code"] == ACCEPTED:
            other = await self._withdraw(app, wish, wish.value + ("1" if "." in wish.value else ".1"), until_s)
            if other["code"] == ACCEPTED:
                self.alarm(f"{wish.name} was accepted with two contents")
        wish.answer = answer
        if answer["code"] == ACCEPTED and self.source.random() < 0.3:
            await self.repeat(app, wish, until_s)

    async def repeat(self, app: Callable[..., Any], wish: Wish, until_s: float) -> None:
        """The same once more, perhaps in another life of the program: it must be answered the same."""
        again = await self._withdraw(app, wish, wish.value, until_s)
        if again != wish.answer:
            self.alarm(f"{wish.name} was answered differently when it was repeated: {wish.answer} {again}")

    async def look(self, app: Callable[..., Any], *, pace_s: float) -> None:
        """What is shown of an order only ever rises; now and then events are asked for once more."""
        rank, shown = {"Pending": 0, "Processing": 1, "Successful": 2, "Failed": 2}, dict[tuple[int, str], int]()
        while self.stormy:
            await asyncio.sleep(pace_s * (0.5 + self.source.random()))
            merchant = self.source.randrange(MERCHANTS)
            names = [wish.name for wish in self.wishes if wish.merchant == merchant][:90]
            if names:
                answer = await self.ask(app, merchant, "/bill/info", {"merchant_order_ids": names})
                for bill in answer["data"] or ():
                    detail = bill["order_detail"]
                    key, now = (merchant, detail["merchant_order_id"]), rank[detail["status"]]
                    if now < shown.get(key, 0):
                        self.alarm(f"{key[1]} went back to {detail['status']}")
                    shown[key] = now
            if self.seed % 3 == 0 and self.source.random() < 0.1:  # it mends what was lost before, so not everywhere
                start = self.now_ms() // 1000 - 3_000
                fields = {"start_timestamp": start, "end_timestamp": start + 3_600, "webhook_result": "All Result"}
                await self.ask(app, merchant, "/webhook/resend", fields)

    # Receiving

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """The receiver of every merchant; its address says whose. Raises TargetFailed."""
        mood = self.outside.sink
        await asyncio.sleep(self.source.random() * (30.0 if mood == "sink_slow" else 0.2))
        if mood == "sink_down":
            raise TargetFailed("the receiver is down")
        merchant = int(url.rsplit("/", 1)[1])
        app_id, secret = self.keys[merchant]
        if headers["Appid"] != app_id or headers["Sign"] != wire_signature.sign(app_id, secret, headers["Timestamp"], body):
            self.alarm(f"an event for {app_id} carries a wrong signature")
        self.deliveries += 1
        key = merchant, json.loads(body)["merchant_order_id"]
        self.events.setdefault(key, set()).add(body)
        self.ids.setdefault(key, set()).add(headers["Webhook-Id"])
        self.note(f"event {key[1]} {mood}")
        match mood:
            case "sink_500":
                return Reply(500, "success")
            case "sink_wrong":
                return Reply(200, "thank you")
            case "sink_lost":
                raise TargetFailed("the answer was lost")
            case "sink_redirect":
                return Reply(302, "success")
            case _:
                return Reply(200, "success")
