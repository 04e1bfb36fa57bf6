"""Posts events from the outbox: signed afresh for each send, at least once, with one stable id, until they are delivered or parked.

A pump job that never waits for a receiver: sends run on their own, bounded per endpoint, so that a thousand dead receivers hold up
nobody else. Concurrency per endpoint starts at 2, doubles to 64 while it succeeds, and halves on failure.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import structlog

from penstock.core import wire_signature
from penstock.core.party import Merchant
from penstock.core.snowflake import wire_id
from penstock.db import Database, DatabaseUnavailable, Tx
from penstock.runtime import Runtime

log = structlog.get_logger()

SCHEDULE_S: Final = (10, 30, 60, 180, 420, 900, 3_600, 7_200, 14_400, 21_600, 28_800, 43_200, 57_600, 72_000, 86_400)
"""Waits after each send: 7 sends within 30 minutes, 16 within 96 hours."""
LEASE_MS: Final = 30_000
IN_FLIGHT_MAX: Final = 2_000
AT_ONCE_FIRST: Final = 2
AT_ONCE_MAX: Final = 64
RESULT_MAX: Final = 200

_WORD: Final = re.compile(r"\bsuccess\b", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answered; `text` is at most the first 64 KiB."""

    status: int
    text: str


class TargetFailed(Exception):
    """No answer, or a target that must not be connected to; the text says which, without secrets."""


class Targets(Protocol):
    """The way out. Redirects are not followed, private targets only where they are admitted."""

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Reply:
        """One POST. Raises TargetFailed."""
        ...


class Merchants(Protocol):
    """Where events go and with what they are signed."""

    async def merchant(self, merchant_id: int) -> Merchant | None:
        """As it is now."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """A claimed row of the outbox."""

    id: int
    merchant_id: int
    body: str
    sends: int
    lease: str


@dataclass(frozen=True, slots=True)
class Sent:
    """One send and what came of it."""

    event: Event
    at_ms: int
    took_ms: int
    status: int
    result: str
    delivered: bool


@dataclass(slots=True)
class _Gate:
    """How many sends one endpoint bears at once."""

    at_once: int = AT_ONCE_FIRST
    in_flight: int = 0

    def finished(self, *, delivered: bool) -> None:
        self.in_flight -= 1
        self.at_once = min(AT_ONCE_MAX, self.at_once * 2) if delivered else max(1, self.at_once // 2)


def accepted(reply: Reply) -> bool:
    """The success rule (spec 7.1): status 200 and the body is, holds as a JSON value, or has as a whole word `success`."""
    if reply.status != 200:
        return False
    text = reply.text.strip().casefold()
    if text == "success":
        return True
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return _WORD.search(text) is not None
    if isinstance(found, dict):
        return any(value == "success" for value in found.values())
    return bool(found == "success")


class Deliverer:
    """The pump job of events that are due."""

    def __init__(
        self,
        *,
        database: Database,
        runtime: Runtime,
        merchants: Merchants,
        targets: Targets,
        schedule: Sequence[int] | None = None,
    ) -> None:
        self._database = database
        self._runtime = runtime
        self._merchants = merchants
        self._targets = targets
        self._schedule = tuple(schedule) if schedule else SCHEDULE_S
        self._gates: defaultdict[int, _Gate] = defaultdict(_Gate)
        self._in_flight = 0
        self._results: list[Sent] = []
        self._recording = False
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def claim(self, limit: int) -> list[Event]:
        """Events that are due and whose endpoint has room; the others stay for later."""
        room = min(limit, IN_FLIGHT_MAX - self._in_flight)
        if room <= 0:
            return []
        now_ms, lease = self._runtime.now_ms(), self._runtime.random_bytes(8).hex()
        full = [{"merchant_id": merchant_id} for merchant_id, gate in self._gates.items() if gate.in_flight >= gate.at_once]

        def job(tx: Tx) -> list[Event]:
            # Oldest due first, but none of an endpoint that is busy; others skip what we hold.
            rows = tx.all(
                "UPDATE outbox SET lease = :lease, lease_until_ms = :until_ms, due_at_ms = :until_ms WHERE id IN "
                "(SELECT id FROM outbox WHERE due_at_ms <= :now_ms AND merchant_id NOT IN (SELECT k.merchant_id FROM {ROWS k(merchant_id {INT})}) "
                "ORDER BY due_at_ms LIMIT :room {SKIP_LOCKED}) RETURNING id, merchant_id, body, sends",
                lease=lease,
                until_ms=now_ms + LEASE_MS,
                now_ms=now_ms,
                room=room,
                k=full,
            )
            events = [Event(**row, lease=lease) for row in sorted(rows, key=lambda row: row["id"])]
            return self._fitting(tx, events, now_ms)

        return await self._database.write("deliver.claim", job)

    def _fitting(self, tx: Tx, events: Sequence[Event], now_ms: int) -> list[Event]:
        """As many as each endpoint has room for; the rest is due again at once."""
        taken: defaultdict[int, int] = defaultdict(int)
        fitting, back = [], []
        for event in events:
            gate = self._gates[event.merchant_id]
            if gate.in_flight + taken[event.merchant_id] < gate.at_once:
                taken[event.merchant_id] += 1
                fitting.append(event)
            else:
                back.append({"id": event.id})
        if back:
            # No room at their endpoint after all.
            tx.run(
                "UPDATE outbox SET due_at_ms = :now_ms, lease = '' WHERE id IN (SELECT k.id FROM {ROWS k(id {INT})})", now_ms=now_ms, k=back
            )
        return fitting

    async def handle(self, events: Sequence[Event]) -> None:
        """Start the sends; their results are recorded as they come."""
        for event in events:
            self._in_flight += 1
            self._gates[event.merchant_id].in_flight += 1
            self._quiet.clear()
            self._runtime.spawn(self._send(event), name="webhook")

    async def settled(self) -> None:
        """Until no send is under way and every result is stored: for a clean stop."""
        await self._quiet.wait()

    async def _send(self, event: Event) -> None:
        sent = await self._post(event)
        self._runtime.crash_point("webhook:sent")
        self._gates[event.merchant_id].finished(delivered=sent.delivered)
        self._results.append(sent)
        if not self._recording:
            await self._record_all()

    async def _post(self, event: Event) -> Sent:
        at_ms, started = self._runtime.now_ms(), self._runtime.monotonic()
        status, delivered = 0, False
        merchant = await self._merchants.merchant(event.merchant_id)
        if merchant is None or not merchant.webhook_url or not merchant.secrets:
            result = "the merchant has no webhook URL"
        else:
            body = event.body.encode()
            try:
                reply = await self._targets.post(merchant.webhook_url, signed_headers(merchant, event.id, body, at_ms), body)
            except TargetFailed as error:
                result = str(error)
            else:
                status, delivered = reply.status, accepted(reply)
                result = "success" if delivered else f"status {status} without success in the body" if status == 200 else f"status {status}"
        took_ms = int((self._runtime.monotonic() - started) * 1000)
        return Sent(event, at_ms, took_ms, status, result[:RESULT_MAX], delivered)

    async def _record_all(self) -> None:
        """Store what came in, many results in one commit, until there are none."""
        self._recording = True
        try:
            while self._results:
                batch, self._results = self._results, []
                try:
                    await self._database.write("webhook.record", partial(self._record, batch=batch))
                except DatabaseUnavailable:
                    # Their leases run out and they are sent again: at least once, never lost.
                    log.warning("webhook.record.lost", count=len(batch))
                self._in_flight -= len(batch)
        finally:
            self._recording = False
            if self._in_flight <= 0:
                self._quiet.set()

    def _record(self, tx: Tx, *, batch: Sequence[Sent]) -> None:
        now_ms = self._runtime.now_ms()
        rows: list[dict[str, Any]] = []
        for sent in batch:
            wait = self._wait_ms(sent.event.sends)
            state = "delivered" if sent.delivered else "parked" if wait is None else "due"
            rows.append(
                {"id": sent.event.id, "held": sent.event.lease, "state": state, "result": sent.result, "at_ms": sent.at_ms}
                | {"took_ms": sent.took_ms, "status": sent.status}
                | {"ended_at_ms": None if state == "due" else now_ms, "due_at_ms": now_ms + (wait or 0) if state == "due" else None}
            )
            if state == "parked":
                log.error("webhook.parked", event_id=sent.event.id, merchant=sent.event.merchant_id, reason=sent.result)
        # Every send, for the merchant's questions; numbered on after a resend.
        tx.run(
            "INSERT INTO webhook_send (outbox_id, number, at_ms, took_ms, status, result) SELECT s.id, "
            "(SELECT COUNT(*) FROM webhook_send AS before WHERE before.outbox_id = s.id) + 1, s.at_ms, s.took_ms, s.status, s.result "
            "FROM {ROWS s(id {INT}, at_ms {INT}, took_ms {INT}, status {INT}, result TEXT)}",
            s=rows,
        )
        # Only by the holder of the lease: after a takeover the other one's result counts.
        tx.run(
            "UPDATE outbox SET state = s.state, sends = outbox.sends + 1, result = s.result, ended_at_ms = s.ended_at_ms, "
            "due_at_ms = s.due_at_ms, lease = '' FROM {ROWS s(id {INT}, held TEXT, state TEXT, result TEXT, ended_at_ms {INT}, due_at_ms {INT})} "
            "WHERE outbox.id = s.id AND outbox.lease = s.held",
            s=rows,
        )

    def _wait_ms(self, sends_before: int) -> int | None:
        """Until the next send, up to a tenth sooner so that many do not come at once; None when the schedule is over."""
        if sends_before >= len(self._schedule):
            return None
        whole = self._schedule[sends_before] * 1000
        return whole - self._runtime.random_below(whole // 10 + 1)


def signed_headers(merchant: Merchant, event_id: int, body: bytes, now_ms: int) -> dict[str, str]:
    """As an answer is signed (spec, section 2), with the newest secret and the time of this send."""
    timestamp = str(now_ms // 1000)
    return {
        "Content-Type": "application/json; charset=utf-8",
        "Appid": merchant.app_id,
        "Timestamp": timestamp,
        "Sign": wire_signature.sign(merchant.app_id, merchant.secrets[0].reveal(), timestamp, body),
        "Webhook-Id": wire_id(event_id),
    }
