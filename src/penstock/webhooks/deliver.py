"""Posts events from the outbox: signed afresh for each send, at least once, with one stable id, until they are delivered or parked.

A pump job that never waits for a receiver: `claim` takes for each endpoint only as many events as it has room for, `handle` starts the sends
and returns, results are stored many in a commit. Concurrency of an endpoint starts at 2, doubles to 64 while it succeeds, and halves
on failure. Endpoints that have not proved themselves share a part of all sends, so a thousand dead ones hold up nobody else.

Where several processes deliver from one database, leases keep each event with one of them; each has limits of its own, so an endpoint may
see as many times its limit as there are processes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import structlog

from penstock.core import wire_signature
from penstock.core.party import Merchant
from penstock.core.snowflake import wire_id
from penstock.db import CommitUnknown, Database, DatabaseUnavailable
from penstock.runtime import Runtime
from penstock.webhooks import outbox
from penstock.webhooks.outbox import LEASE_MS, NO_URL, Event, Outcome

log = structlog.get_logger()

SCHEDULE_S: Final = (10, 30, 60, 180, 420, 900, 3_600, 7_200, 14_400, 21_600, 28_800, 43_200, 57_600, 72_000, 86_400)
"""Seconds from one send to the next: 7 sends within 30 minutes, 16 within 96 hours."""
DEADLINE_S: Final = 22.0
"""Above the transport's own 20 s, below the lease."""
IN_FLIGHT_MAX: Final = 2_000
DOUBTFUL_MAX: Final = 1_500
CROWDED: Final = 500
AT_ONCE_FIRST: Final = 2
AT_ONCE_MAX: Final = 64
POSTPONE_MS: Final = 5_000
RECORD_BATCH: Final = 500
RESULT_MAX: Final = 200
BRACKETS_MAX: Final = 200

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


@dataclass(slots=True)
class Gate:
    """How many sends one endpoint bears at once. It is `proven` while its last send succeeded."""

    url: str = ""
    at_once: int = AT_ONCE_FIRST
    in_flight: int = 0
    proven: bool = False
    good: int = 0

    def leads_to(self, url: str) -> None:
        """Another URL is another endpoint."""
        if url != self.url:
            self.url, self.at_once, self.proven, self.good = url, AT_ONCE_FIRST, False, 0

    def finished(self, *, delivered: bool) -> None:
        """Doubles after as many successes in a row as fit at once; halves with every failure."""
        self.proven = delivered
        self.good = self.good + 1 if delivered else 0
        if not delivered:
            self.at_once = max(1, self.at_once // 2)
        elif self.good >= self.at_once:
            self.at_once, self.good = min(AT_ONCE_MAX, self.at_once * 2), 0


def accepted(reply: Reply) -> bool:
    """The success rule (spec 7.1): status 200 and the body is `success`, is JSON with such a string value, or has it as a whole word.

    In JSON a mere key says nothing: `{"success": false}` is no success.
    """
    if reply.status != 200:
        return False
    text = reply.text.strip().lstrip("\ufeff").casefold()
    try:
        # Brackets bound the depth: a stranger's nesting must not meet a recursion limit that some library has raised.
        found = json.loads(text) if text.count("[") + text.count("{") <= BRACKETS_MAX else text
    except (ValueError, RecursionError):
        found = text
    return _says_success(found)


def _says_success(value: Any, depth: int = 8) -> bool:
    if isinstance(value, str):
        return _WORD.search(value) is not None
    if depth and isinstance(value, list):
        return any(_says_success(item, depth - 1) for item in value)
    if depth and isinstance(value, dict):
        return value.get("success") in (True, 1, "1", "true") or any(_says_success(item, depth - 1) for item in value.values())
    return False


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
        """`schedule`: seconds from one send to the next."""
        self._database = database
        self._runtime = runtime
        self._merchants = merchants
        self._targets = targets
        self._schedule = tuple(schedule) if schedule else SCHEDULE_S
        self._gates: dict[int, Gate] = {}
        self._in_flight = 0
        self._doubtful = 0
        self._results: list[Outcome] = []
        self._recording = False
        self._has_more = True
        """Whether there may be events that were due and found no room at the last look: without any, no send that ends makes room for one."""
        self._quiet = asyncio.Event()
        self._quiet.set()
        self.holds_seat = False
        """Whether a successor may take this process for dead as soon as it has its seat: it takes over what is being sent."""
        self.finished: Callable[[], None] = lambda: None
        """Told when sends are over and there is room for what waits: the pump's `wake`."""

    @property
    def longest_ms(self) -> int:
        """How far ahead an event may be due at most: the longest step of the schedule, and a lease."""
        return max(self._schedule) * 1000 + LEASE_MS

    async def claim(self, limit: int) -> list[Event]:
        """Events that are due and whose endpoint has room; the others stay where they are."""
        self._has_more = True  # until it is known: a send may be over while we look
        room = min(limit, IN_FLIGHT_MAX - self._in_flight)
        if room <= 0:
            return []
        mark = outbox.SEATED if self.holds_seat else outbox.HELPING
        now_ms, lease = self._runtime.now_ms(), mark + self._runtime.random_bytes(8).hex()
        waiting = await self._database.read(partial(outbox.due_merchants, now_ms=now_ms))
        shares = self._shares(waiting, room)
        take = partial(outbox.claim, shares=shares, most=room, lease=lease, now_ms=now_ms)
        events = await self._database.write("deliver.claim", take) if shares else []
        taken = Counter(event.merchant_id for event in events)
        is_cut = len(events) == room or len(shares) < len(waiting)
        self._has_more = is_cut or any(taken[merchant_id] == count for merchant_id, count in shares)
        return events

    def _shares(self, merchant_ids: Sequence[int], room: int) -> list[tuple[int, int]]:
        """How many events of each merchant may be taken now, of as many merchants as there is room for: most have fewer events than they may."""
        shares, doubtful = [], self._doubtful
        for merchant_id in merchant_ids:
            gate = self._gates.get(merchant_id) or Gate()
            count = min(gate.at_once - gate.in_flight, room)
            if not gate.proven:
                # When many are in doubt each gets one at a time, and all of them together never everything.
                count = min(count, DOUBTFUL_MAX - doubtful, 1 - gate.in_flight if doubtful >= CROWDED else count)
                doubtful += max(0, count)
            if count > 0:
                shares.append((merchant_id, count))
            if len(shares) == room:
                break
        return shares

    async def handle(self, events: Sequence[Event]) -> None:
        """Start the sends; their results are recorded as they come."""
        for event in events:
            gate = self._gates.setdefault(event.merchant_id, Gate())
            gate.in_flight += 1
            self._in_flight += 1
            self._doubtful += not gate.proven
            self._quiet.clear()
            self._runtime.spawn(self._send(event, gate, doubtful=not gate.proven), name="webhook")

    async def settled(self) -> None:
        """Until no send is under way and every result is stored: for a clean stop."""
        await self._quiet.wait()

    async def _send(self, event: Event, gate: Gate, *, doubtful: bool) -> None:
        try:
            outcome = await self._outcome(event, gate)
        except Exception as error:  # noqa: BLE001  nothing left the house; whatever it was, the event stays due
            log.error("webhook.postponed", event_id=event.id, merchant=event.merchant_id, error=type(error).__name__)  # noqa: TRY400
            outcome = Outcome(event, "due", "not sent: the house could not look up what it needs", self._runtime.now_ms() + POSTPONE_MS)
        self._runtime.crash_point("webhook:sent")
        gate.in_flight -= 1
        self._doubtful -= doubtful
        self._results.append(outcome)
        if not self._recording:
            await self._record_all()

    async def _outcome(self, event: Event, gate: Gate) -> Outcome:
        merchant = await self._merchants.merchant(event.merchant_id)
        if merchant is None or not merchant.webhook_url or not merchant.secrets:
            reason = "the merchant has no secret that can be opened" if merchant is not None and merchant.webhook_url else NO_URL
            self._tell_parked(event, reason)
            return Outcome(event, "parked", reason, None)
        gate.leads_to(merchant.webhook_url)
        at_ms, started = self._runtime.now_ms(), self._runtime.monotonic()
        status, delivered = 0, False
        body = event.body.encode()
        try:
            async with asyncio.timeout(DEADLINE_S):
                reply = await self._targets.post(merchant.webhook_url, signed_headers(merchant, event, body, at_ms), body)
        except TargetFailed as error:
            result = str(error)[:RESULT_MAX]
        except TimeoutError:
            result = f"no answer within {DEADLINE_S:g} s"
        else:
            status, delivered = reply.status, accepted(reply)
            result = "success" if delivered else "status 200 without success in the body" if status == 200 else f"status {status}"
        gate.finished(delivered=delivered)
        took_ms = int((self._runtime.monotonic() - started) * 1000)
        state, due_at_ms = self._what_next(event, at_ms, delivered=delivered)
        if state == "parked":
            self._tell_parked(event, result)
        return Outcome(event, state, result, due_at_ms, sent=True, at_ms=at_ms, took_ms=took_ms, status=status)

    def _what_next(self, event: Event, at_ms: int, *, delivered: bool) -> tuple[str, int | None]:
        if delivered:
            return "delivered", None
        if event.tries >= len(self._schedule):
            return "parked", None
        # Counted from the beginning of this send, and up to a tenth sooner, so that many do not come at once.
        whole = self._schedule[event.tries] * 1000
        return "due", max(self._runtime.now_ms(), at_ms + whole - self._runtime.random_below(whole // 10 + 1))

    def _tell_parked(self, event: Event, reason: str) -> None:
        log.error("webhook.parked", event_id=event.id, merchant=event.merchant_id, sends=event.sends, reason=reason)

    async def _record_all(self) -> None:
        """Store what came in, many results in one commit, until there are none."""
        self._recording = True
        try:
            while self._results:
                batch, self._results = self._results[:RECORD_BATCH], self._results[RECORD_BATCH:]
                try:
                    await self._record(batch)
                finally:
                    self._in_flight -= len(batch)
                if self._has_more:
                    self.finished()
        finally:
            self._recording = False
            if self._in_flight == 0:
                self._quiet.set()

    async def _record(self, batch: Sequence[Outcome]) -> None:
        """As long as the leases may hold; after that the events are due again anyway: at least once, never lost."""
        give_up_at, wait_s = self._runtime.monotonic() + LEASE_MS / 1000, 0.05
        while True:
            try:
                await self._database.write("webhook.record", lambda tx: outbox.record(tx, batch, now_ms=self._runtime.now_ms()))
                return
            except (DatabaseUnavailable, CommitUnknown) as error:
                # Twice is harmless: once it is stored, the lease is gone.
                if self._runtime.monotonic() >= give_up_at:
                    log.error("webhook.record.lost", count=len(batch), error=type(error).__name__)  # noqa: TRY400
                    return
            except Exception as error:  # noqa: BLE001  these events are sent again when their leases run out
                log.error("webhook.record.failed", count=len(batch), error=type(error).__name__)  # noqa: TRY400
                return
            await self._runtime.sleep(wait_s)
            wait_s = min(5.0, wait_s * 2)


def signed_headers(merchant: Merchant, event: Event, body: bytes, now_ms: int) -> dict[str, str]:
    """As an answer is signed (spec, section 2), with the time of this send; besides, the headers of standardwebhooks.com.

    During a rotation the first send is signed with the newest secret, the next with the one before, and so on, because nobody knows which of
    them the receiver has by now. `Webhook-Signature` carries one HMAC for each, its key being the secret's text in UTF-8.
    """
    timestamp, event_id = str(now_ms // 1000), wire_id(event.id)
    secrets = [secret.reveal() for secret in merchant.secrets]
    content = f"{event_id}.{timestamp}.".encode() + body
    digests = [base64.b64encode(hmac.digest(secret.encode(), content, hashlib.sha256)).decode() for secret in secrets]
    return {
        "Content-Type": "application/json; charset=utf-8",
        "Appid": merchant.app_id,
        "Timestamp": timestamp,
        "Sign": wire_signature.sign(merchant.app_id, secrets[event.tries % len(secrets)], timestamp, body),
        "Webhook-Id": event_id,
        "Webhook-Timestamp": timestamp,
        "Webhook-Signature": " ".join(f"v1,{digest}" for digest in digests),
    }
