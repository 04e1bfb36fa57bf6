"""Channels and what is on them: balances as LND keeps them, to the millisatoshi, with the commitment's fee on the side that opened."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

MSAT: Final = 1_000
ANCHORS_SAT: Final = 660
COMMIT_WEIGHT: Final = 1124
HTLC_WEIGHT: Final = 172
FEE_PER_KW: Final = 2_500
CAPACITY_MIN_SAT: Final = 20_000
"""LND's own least channel. https://github.com/lightningnetwork/lnd/blob/master/funding/manager.go"""

Status = Literal["IN_FLIGHT", "SUCCEEDED", "FAILED"]


@dataclass(slots=True, eq=False)
class Htlc:
    """One part of a payment on one channel. `due_ms` None: it is held until it is released."""

    attempt_id: int
    payment_hash: str
    amount_msat: int
    fee_msat: int
    sent_ms: int
    due_ms: int | None
    expiry_height: int
    status: Status = "IN_FLIGHT"
    resolved_ms: int = 0

    @property
    def total_msat(self) -> int:
        """What leaves the channel."""
        return self.amount_msat + self.fee_msat


@dataclass(slots=True, eq=False)
class Channel:
    """One channel with our peer. `owned_msat` and `theirs_msat` are before the fee that whoever opened it bears."""

    chan_id: int
    channel_point: str
    capacity_sat: int
    owned_msat: int
    theirs_msat: int
    ours: bool
    fee_per_kw: int = FEE_PER_KW
    htlcs: list[Htlc] = field(default_factory=list)
    updates: int = 0
    sent_msat: int = 0

    @property
    def in_flight_msat(self) -> int:
        """What is neither side's."""
        return sum(htlc.total_msat for htlc in self.htlcs)

    @property
    def commit_fee_sat(self) -> int:
        """Of a commitment with the HTLCs that are on it."""
        return self.fee_per_kw * (COMMIT_WEIGHT + HTLC_WEIGHT * len(self.htlcs)) // 1000

    @property
    def overhead_msat(self) -> int:
        """Fee and anchors."""
        return (self.commit_fee_sat + ANCHORS_SAT) * MSAT

    @property
    def local_msat(self) -> int:
        """What LND calls our balance."""
        return max(0, self.owned_msat - (self.overhead_msat if self.ours else 0))

    @property
    def remote_msat(self) -> int:
        """What LND calls the peer's balance."""
        return max(0, self.theirs_msat - (0 if self.ours else self.overhead_msat))

    @property
    def reserve_sat(self) -> int:
        """What we must keep: 1 %."""
        return self.capacity_sat // 100

    @property
    def sendable_msat(self) -> int:
        """What can leave now, with the fee of one more HTLC set aside."""
        ahead = HTLC_WEIGHT * self.fee_per_kw // 1000 * MSAT if self.ours else 0
        return max(0, self.local_msat - self.reserve_sat * MSAT - ahead)

    def add(self, htlc: Htlc) -> None:
        """Put a part in flight."""
        self.owned_msat -= htlc.total_msat
        self.htlcs.append(htlc)
        self.updates += 1

    def settle(self, htlc: Htlc, now_ms: int) -> None:
        """The peer has shown the preimage."""
        self.theirs_msat += htlc.total_msat
        self.sent_msat += htlc.total_msat
        self._end(htlc, "SUCCEEDED", now_ms)

    def fail(self, htlc: Htlc, now_ms: int) -> None:
        """The part comes back."""
        self.owned_msat += htlc.total_msat
        self._end(htlc, "FAILED", now_ms)

    def _end(self, htlc: Htlc, status: Status, now_ms: int) -> None:
        htlc.status, htlc.resolved_ms = status, now_ms
        self.htlcs.remove(htlc)
        self.updates += 1
