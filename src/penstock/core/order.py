"""The order: a merchant's wish, its states, and the one table of moves between them (architecture, section 3)."""

from __future__ import annotations

import enum
import hashlib
from typing import Final

import msgspec

from penstock.core.canonical import canonical
from penstock.core.errors import InvariantBroken
from penstock.core.snowflake import moment_ms


class OrderState(enum.StrEnum):
    """Where an order stands in the house. Succeeded and failed are never left."""

    ACCEPTED = "accepted"
    HELD = "held"
    SENDING = "sending"
    CONFIRMING = "confirming"
    QUARANTINED = "quarantined"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


S = OrderState

MOVES: Final[dict[tuple[OrderState, OrderState], str]] = {
    (S.ACCEPTED, S.HELD): "something it needs is missing: the hold reason says what",
    (S.HELD, S.ACCEPTED): "what it waited for is there",
    (S.ACCEPTED, S.SENDING): "an attempt was bound",
    (S.HELD, S.SENDING): "an attempt was bound",
    (S.ACCEPTED, S.QUARANTINED): "an attempt of before a restore was signed for the merchant's name of it",
    (S.HELD, S.QUARANTINED): "an attempt of before a restore was signed for the merchant's name of it",
    (S.SENDING, S.CONFIRMING): "a version is in a block",
    (S.CONFIRMING, S.SENDING): "the block was undone (reorg)",
    (S.SENDING, S.ACCEPTED): "the attempt is proved dead and another try is allowed",
    (S.CONFIRMING, S.ACCEPTED): "the attempt is proved dead and another try is allowed",
    (S.ACCEPTED, S.FAILED): "a person gave a reason, or it can never be paid, and nothing was bound",
    (S.HELD, S.FAILED): "a person gave a reason, or it can never be paid, and nothing was bound",
    (S.SENDING, S.FAILED): "the chain proved that nothing was paid",
    (S.CONFIRMING, S.FAILED): "the chain proved that nothing was paid",
    (S.SENDING, S.SUCCEEDED): "a version reached the report threshold",
    (S.CONFIRMING, S.SUCCEEDED): "a version reached the report threshold",
    (S.SENDING, S.QUARANTINED): "only a person can judge what the chain says",
    (S.CONFIRMING, S.QUARANTINED): "only a person can judge what the chain says",
    (S.QUARANTINED, S.SENDING): "a person gave a reason",
    (S.QUARANTINED, S.CONFIRMING): "a person gave a reason",
    (S.QUARANTINED, S.SUCCEEDED): "a person gave a reason, or a version reached the report threshold after all",
    (S.QUARANTINED, S.FAILED): "a person gave a reason, or the chain proved after all that nothing was paid",
}
"""Every legal move. The CHECK in the schema and docs/states.md come from this table."""

TERMINAL: Final = frozenset({S.SUCCEEDED, S.FAILED})


class HoldReason(enum.StrEnum):
    """Why a held order waits."""

    APPROVAL = "approval"
    POLICY = "policy"
    LIQUIDITY = "liquidity"
    FEE_CAP = "fee cap"
    NETWORK_PAUSED = "network paused"


class WireStatus(enum.IntEnum):
    """What merchants see. It only rises, though the order itself may go back."""

    PENDING = 0
    PROCESSING = 1
    SUCCESSFUL = 2
    FAILED = 3

    @property
    def text(self) -> str:
        """As the API prints it."""
        return self.name.capitalize()


_WIRE: Final = {
    S.ACCEPTED: WireStatus.PENDING,
    S.HELD: WireStatus.PENDING,
    S.SENDING: WireStatus.PROCESSING,
    S.CONFIRMING: WireStatus.PROCESSING,
    S.QUARANTINED: WireStatus.PROCESSING,
    S.SUCCEEDED: WireStatus.SUCCESSFUL,
    S.FAILED: WireStatus.FAILED,
}


def check_move(before: OrderState, after: OrderState) -> str:
    """Why this move exists. Raises InvariantBroken for one that does not."""
    try:
        return MOVES[before, after]
    except KeyError:
        raise InvariantBroken(f"an order never goes from {before} to {after}") from None


def wire_status(state: OrderState, shown: WireStatus) -> WireStatus:
    """What merchants see in `state` when they saw `shown` before: monotonic (invariant I14)."""
    return max(_WIRE[state], shown)


class Order(msgspec.Struct, frozen=True, gc=False):
    """One withdrawal. Amounts are coin units of 10^-18; times Unix milliseconds; `payer` and `recipient` are holders
    (`m:<merchant>` or `u:<account>`), `recipient` is "" for an outside address; `seal` is over what is paid to
    whom (core.seal), "" inside the house.
    """

    id: int
    record_id: int
    merchant_id: int
    merchant_order_id: str
    payer: str
    recipient: str
    address: str
    destination: str
    memo: str
    token_id: str
    coin_id: str
    crypto: str
    chain: str
    contract: str
    merchant_pays_fee: bool
    value: int
    fee: int
    net: int
    reserve: int
    fee_usd: str
    token_rate: str
    native_rate: str
    gas_quoted: int
    state: OrderState
    wire: WireStatus
    hold_reason: str
    fail_reason: str
    txid: str
    decided_at_ms: int | None
    seal: str = ""

    @property
    def key(self) -> str:
        """The merchant's own name of the order, unique for ever: it outlives a database that has forgotten the order."""
        return key_of(self.merchant_id, self.merchant_order_id)

    @property
    def is_internal(self) -> bool:
        """Whether it stays in the house."""
        return self.recipient != ""

    @property
    def created_s(self) -> int:
        """The second in the prefix of the order id (spec, 16.9)."""
        return moment_ms(self.id) // 1000


def key_of(merchant_id: int, merchant_order_id: str) -> str:
    """What `Order.key` is, before there is the order."""
    return f"{merchant_id}/{merchant_order_id}"


def fingerprint(*, address: str, token_id: str, value: str, memo: str, merchant_pays_fee: bool) -> str:
    """What must be equal for two requests with one id to be the same (spec 5.6; versioned).

    Covers the request alone: address text, token id, normalised value, memo text, flag.
    """
    return "1:" + hashlib.sha256(canonical([address, token_id, value, memo, merchant_pays_fee])).hexdigest()


def holder_of_merchant(merchant_id: int) -> str:
    """The ledger's name of a merchant."""
    return f"m:{merchant_id}"


def holder_of_account(account_id: int) -> str:
    """The ledger's name of an internal account."""
    return f"u:{account_id}"


HOUSE_MERCHANT: Final = 0
"""Owner of orders that no API merchant asked for: withdrawals of internal accounts."""
