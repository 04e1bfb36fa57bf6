"""A merchant in a few lines: signs requests, verifies answers, receives webhooks. What an integrator would write."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from penstock.core import wire_signature
from penstock.core.wire import compact
from penstock.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Answer:
    """A signed answer, and whether its signature is right."""

    body: dict[str, Any]
    verified: bool


@dataclass(frozen=True, slots=True)
class Event:
    """A webhook as it arrived."""

    body: dict[str, Any]
    verified: bool


@dataclass(slots=True)
class Client:
    """Calls one Penstock as one merchant."""

    runtime: Runtime
    base_url: str
    app_id: str
    app_secret: str

    def headers(self, body: bytes) -> dict[str, str]:
        """Appid, Timestamp and Sign over the exact bytes (spec, section 2)."""
        timestamp = str(self.runtime.now_ms() // 1000)
        signature = wire_signature.sign(self.app_id, self.app_secret, timestamp, body)
        return {"Appid": self.app_id, "Timestamp": timestamp, "Sign": signature, "Content-Type": "application/json; charset=utf-8"}

    async def call(self, session: aiohttp.ClientSession, path: str, fields: dict[str, Any]) -> Answer:
        """One signed call."""
        body = compact(fields)
        url = f"{self.base_url}/ccpayment/v1{path}"
        async with session.post(url, data=body, headers=self.headers(body), timeout=aiohttp.ClientTimeout(total=10)) as response:
            raw = await response.read()
            return Answer(json.loads(raw), self.is_ours(dict(response.headers), raw))

    def is_ours(self, headers: dict[str, str], raw: bytes) -> bool:
        """Whether the server signed these bytes with our secret."""
        found = {name.lower(): value for name, value in headers.items()}
        expected = wire_signature.sign(self.app_id, self.app_secret, found.get("timestamp", ""), raw)
        return found.get("appid") == self.app_id and found.get("sign") == expected


@dataclass(slots=True)
class Sink:
    """A webhook receiver on loopback that answers `success` and keeps what it got."""

    events: dict[str, Event] = field(default_factory=dict)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    client: Client | None = None

    async def receive(self, request: web.Request) -> web.Response:
        """Verify, keep, acknowledge."""
        raw = await request.read()
        body = json.loads(raw)
        verified = self.client is not None and self.client.is_ours(dict(request.headers), raw)
        self.events[body["merchant_order_id"]] = Event(body, verified)
        self.arrived.set()
        return web.Response(text="success")

    async def start(self) -> tuple[web.AppRunner, str]:
        """Listen on a free loopback port."""
        application = web.Application()
        application.router.add_post("/webhook", self.receive)
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        return runner, f"http://127.0.0.1:{port}/webhook"
