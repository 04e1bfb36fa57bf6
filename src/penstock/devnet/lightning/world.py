"""The Lightning network as the box knows it: one paying node, its channels, its records of payments, and a recipient.

A plain state machine on the clock it is given: what is due by now happens before anything is answered. The rules by which a hash may be paid
again, and by which a payment's status follows from its parts, are LND's.
https://github.com/lightningnetwork/lnd/blob/master/payments/db/payment_status.go
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Literal

import coincurve

from penstock.devnet.lightning.channel import CAPACITY_MIN_SAT, MSAT, Channel, Htlc
from penstock.devnet.lightning.recipient import CLTV_FINAL, Recipient

PREFIX: Final = "bcrt"
CHAIN_ID: Final = 3669344250
"""Regtest's magic: its invoices begin with lnbcrt, which no wallet on a real network pays. docs/adr/0003"""
HEIGHT_FIRST: Final = 1_000
LATENCY_MS: Final = 50
HOP_CLTV: Final = 80
CHANNELS_MAX: Final = 1_000
SATOSHI_MAX: Final = 21_000_000 * 10**8

PaymentStatus = Literal["INITIATED", "IN_FLIGHT", "SUCCEEDED", "FAILED"]
REASONS: Final = ("TIMEOUT", "NO_ROUTE", "ERROR", "INCORRECT_PAYMENT_DETAILS", "INSUFFICIENT_BALANCE", "CANCELED")


class Refused(Exception):
    """What the node answers instead; `code` is gRPC's."""

    def __init__(self, code: int, words: str) -> None:
        super().__init__(words)
        self.code = code


@dataclass(frozen=True, slots=True)
class Order:
    """What `router/send` was told, decoded."""

    payment_hash: str
    invoice: str
    payee: str
    amount_msat: int
    fee_limit_msat: int
    cltv_limit: int
    expires_ms: int


@dataclass(slots=True, eq=False)
class Payment:
    """One record of the paying node."""

    order: Order
    index: int
    created_ms: int
    parts: list[Htlc] = field(default_factory=list)
    failure: str = ""
    preimage: bytes = b""

    @property
    def status(self) -> PaymentStatus:
        """By LND's table."""
        states = {part.status for part in self.parts}
        if "IN_FLIGHT" in states:
            return "IN_FLIGHT"
        if "SUCCEEDED" in states:
            return "SUCCEEDED"
        if self.failure:
            return "FAILED"
        return "IN_FLIGHT" if states else "INITIATED"

    @property
    def fee_msat(self) -> int:
        """Of the parts that settled."""
        return sum(part.fee_msat for part in self.parts if part.status == "SUCCEEDED")


@dataclass(slots=True)
class Weather:
    """What the network is like. Counts are of the next payments: `hold` stay in flight until released, `fail` end with `reason`,
    `partial` leave one part of several in flight while the others come back.
    """

    fee_base_msat: int = 1_000
    fee_ppm: int = 100
    spike: int = 1
    latency_ms: int = LATENCY_MS
    parts: int = 1
    hold: int = 0
    fail: int = 0
    reason: str = "NO_ROUTE"
    partial: int = 0


class LightningWorld:
    """Everything there is, on a clock."""

    def __init__(self, *, name: str, now_ms: Callable[[], int], seed: int, block_ms: int) -> None:
        self.name = name
        self._now_ms = now_ms
        self._seed = seed
        self.identity = coincurve.PrivateKey(self._digest("node")).public_key.format().hex()
        self.peer = coincurve.PrivateKey(self._digest("peer")).public_key.format().hex()
        self.macaroon = self._digest("macaroon").hex()
        self.recipient = Recipient(PREFIX, seed=seed)
        self.weather = Weather()
        self.channels: list[Channel] = []
        self.payments: dict[str, Payment] = {}
        self.down_until_ms = 0
        self.block_ms = block_ms
        self._height, self._height_ms = HEIGHT_FIRST, now_ms()
        self._late: list[tuple[int, Order]] = []
        self._attempts = 0
        self._records = 0

    def _digest(self, name: str) -> bytes:
        return hashlib.sha256(f"lightning {self._seed} {self.name} {name}".encode()).digest()

    @property
    def now_ms(self) -> int:
        """What the clock shows."""
        return self._now_ms()

    @property
    def height(self) -> int:
        """Of the Bitcoin network below."""
        passed = (self.now_ms - self._height_ms) // self.block_ms if self.block_ms else 0
        return self._height + max(0, passed)

    def mine(self, count: int) -> int:
        """The counter rises, and nothing else happens."""
        self._height += count
        return self.height

    def set_block_time(self, block_ms: int) -> None:
        """From here on; 0: only by `mine`."""
        self._height, self._height_ms, self.block_ms = self.height, self.now_ms, block_ms

    def open_channel(self, units_msat: int, *, ours: bool = True) -> Channel:
        """A channel in which so much is ours, opened by us or by the peer. Raises ValueError."""
        units_sat, rest = divmod(units_msat, MSAT)
        if rest or not CAPACITY_MIN_SAT <= units_sat <= SATOSHI_MAX or len(self.channels) >= CHANNELS_MAX:
            raise ValueError(f"a channel has whole satoshi, {CAPACITY_MIN_SAT} or more, and there are at most {CHANNELS_MAX}")
        number = len(self.channels)
        point = f"{self._digest(f'channel {number}').hex()}:0"
        theirs_sat = 0 if ours else CAPACITY_MIN_SAT
        channel = Channel((self.height << 40) | number << 16, point, units_sat + theirs_sat, units_msat, theirs_sat * MSAT, ours)
        self.channels.append(channel)
        return channel

    def owned_msat(self) -> int:
        """What is the node's own in all channels."""
        return sum(channel.owned_msat for channel in self.channels)

    def tick(self) -> None:
        """Let happen what is due by now, in its order."""
        while True:
            late = min(self._late, key=lambda item: item[0], default=None)
            due = min(
                ((c, h) for c in self.channels for h in c.htlcs if h.due_ms is not None),
                key=lambda item: (item[1].due_ms, item[1].attempt_id),
                default=None,
            )
            late_ms = late[0] if late is not None else None
            due_ms = due[1].due_ms if due is not None else None
            first = min((moment for moment in (late_ms, due_ms) if moment is not None), default=None)
            if first is None or first > self.now_ms:
                return
            if late is not None and late_ms == first:
                self._late.remove(late)
                self._arrives_late(late[1], first)
            elif due is not None:
                self._resolve(due[1].payment_hash, first)

    def _arrives_late(self, order: Order, at_ms: int) -> None:
        try:
            self.pay(order, at_ms=at_ms)
        except Refused:
            return  # nobody is there any more to be told

    def pay_later(self, order: Order, delay_ms: int) -> None:
        """The call lies somewhere before it reaches the node."""
        self._late.append((self.now_ms + delay_ms, order))

    def pay(self, order: Order, *, at_ms: int | None = None) -> Payment:
        """Start a payment, unless its hash is known and has not failed. Raises Refused."""
        now_ms = self.now_ms if at_ms is None else at_ms
        if now_ms > order.expires_ms:
            raise Refused(2, "invoice expired. Valid until " + str(order.expires_ms // 1000))
        known = self.payments.get(order.payment_hash)
        if known is not None and known.status != "FAILED":
            words = {"INITIATED": "payment already exists", "IN_FLIGHT": "payment is in transition"}
            raise Refused(6, words.get(known.status, "invoice is already paid"))
        self._records += 1
        payment = self.payments[order.payment_hash] = Payment(order, self._records, now_ms)
        payment.failure = self._send_parts(payment, now_ms)
        return payment

    def _send_parts(self, payment: Payment, now_ms: int) -> str:
        """Put the parts in flight, or say why there is no way."""
        weather, order = self.weather, payment.order
        if weather.fail:
            weather.fail -= 1
            return weather.reason
        if order.payee != self.recipient.identity or not self.recipient.online:
            return "NO_ROUTE"
        if order.cltv_limit < CLTV_FINAL + HOP_CLTV:
            return "NO_ROUTE"
        count = max(2, weather.parts) if weather.partial else weather.parts
        shares = self._shares(order.amount_msat, count)
        if shares is None:
            return "INSUFFICIENT_BALANCE"
        if sum(fee for _, _, fee in shares) > order.fee_limit_msat:
            return "NO_ROUTE"
        due_ms: int | None = now_ms + weather.latency_ms
        if weather.hold:
            weather.hold -= 1
            due_ms = None
        partial = bool(weather.partial) and len(shares) > 1
        weather.partial -= partial
        for place, (channel, amount_msat, fee_msat) in enumerate(shares):
            self._attempts += 1
            due = None if partial and place == 0 else due_ms
            htlc = Htlc(self._attempts, order.payment_hash, amount_msat, fee_msat, now_ms, due, self.height + CLTV_FINAL + HOP_CLTV)
            payment.parts.append(htlc)
            channel.add(htlc)
        return ""

    def _shares(self, amount_msat: int, count: int) -> list[tuple[Channel, int, int]] | None:
        """Channel, amount and fee of each part; None when the channels do not hold it."""
        step = max(1, -(-amount_msat // count))
        left, shares = amount_msat, list[tuple[Channel, int, int]]()
        free = {channel.chan_id: channel.sendable_msat for channel in self.channels}
        for channel in self.channels:
            while left:
                room = free[channel.chan_id]
                amount = min(left, step, room)
                while amount and amount + self.fee_of(amount) > room:
                    amount -= min(amount, amount + self.fee_of(amount) - room)
                if not amount:
                    break
                shares.append((channel, amount, self.fee_of(amount)))
                free[channel.chan_id] -= amount + self.fee_of(amount)
                left -= amount
        return None if left else shares

    def fee_of(self, amount_msat: int) -> int:
        """What the network takes for routing so much, in millisatoshi."""
        weather = self.weather
        return (weather.fee_base_msat + amount_msat * weather.fee_ppm // 10**6) * weather.spike

    def _resolve(self, payment_hash: str, now_ms: int) -> None:
        """The parts of a hash that are due, all at once: the recipient takes them together or not at all."""
        waiting = [(c, h) for c in self.channels for h in c.htlcs if h.payment_hash == payment_hash]
        due = [(c, h) for c, h in waiting if h.due_ms is not None and h.due_ms <= now_ms]
        whole = len(due) == len(waiting)
        arrived = sum(htlc.amount_msat for _, htlc in due)
        if whole and self.recipient.takes(payment_hash, arrived, now_ms=now_ms):
            self._settle(payment_hash, due, now_ms)
        else:
            self._fail(payment_hash, due, now_ms, "INCORRECT_PAYMENT_DETAILS" if whole else "TIMEOUT")

    def release(self, payment_hash: str, *, settle: bool) -> int:
        """End the parts that are held, whatever the recipient would say; how many there were."""
        held = [(c, h) for c in self.channels for h in c.htlcs if h.payment_hash == payment_hash and h.due_ms is None]
        if settle and self.recipient.asked(payment_hash) is None:
            raise ValueError("nobody here knows the preimage of this hash")
        if held and settle:
            self._settle(payment_hash, held, self.now_ms)
        elif held:
            self._fail(payment_hash, held, self.now_ms, "TIMEOUT")
        return len(held)

    def _settle(self, payment_hash: str, parts: list[tuple[Channel, Htlc]], now_ms: int) -> None:
        preimage = self.recipient.take(payment_hash, sum(htlc.amount_msat for _, htlc in parts))
        for channel, htlc in parts:
            channel.settle(htlc, now_ms)
        if (payment := self.payments.get(payment_hash)) is not None:
            payment.preimage = preimage

    def _fail(self, payment_hash: str, parts: list[tuple[Channel, Htlc]], now_ms: int, reason: str) -> None:
        for channel, htlc in parts:
            channel.fail(htlc, now_ms)
        if (payment := self.payments.get(payment_hash)) is not None and not payment.failure:
            payment.failure = reason

    def forget(self, payment_hash: str) -> bool:
        """Lose the record of a payment; its parts go on without it."""
        return self.payments.pop(payment_hash, None) is not None

    def restart(self, down_ms: int) -> None:
        """The node is away for so long; channels and records outlive it, and parts that others hold go on."""
        self.down_until_ms = self.now_ms + down_ms
