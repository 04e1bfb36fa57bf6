"""Channels and payments as LND's gateway writes them: 64-bit numbers and enums as text, hashes in hex, other bytes in base64."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from penstock.devnet.lightning.channel import COMMIT_WEIGHT, MSAT, Channel, Htlc
from penstock.devnet.lightning.world import Payment


def amount(msat: int) -> dict[str, str]:
    """lnrpc.Amount."""
    return {"sat": str(msat // MSAT), "msat": str(msat)}


def balance_of(channels: Sequence[Channel]) -> dict[str, Any]:
    """lnrpc.ChannelBalanceResponse. What is in flight from us counts as unsettled with the peer, as in LND."""
    local = sum(channel.local_msat for channel in channels)
    return {
        "balance": str(local // MSAT),
        "pending_open_balance": "0",
        "local_balance": amount(local),
        "remote_balance": amount(sum(channel.remote_msat for channel in channels)),
        "unsettled_local_balance": amount(0),
        "unsettled_remote_balance": amount(sum(channel.in_flight_msat for channel in channels)),
        "pending_open_local_balance": amount(0),
        "pending_open_remote_balance": amount(0),
        "custom_channel_data": "",
    }


def channel_of(channel: Channel, peer: str) -> dict[str, Any]:
    """lnrpc.Channel."""
    return {
        "active": True,
        "remote_pubkey": peer,
        "channel_point": channel.channel_point,
        "chan_id": str(channel.chan_id),
        "capacity": str(channel.capacity_sat),
        "local_balance": str(channel.local_msat // MSAT),
        "remote_balance": str(channel.remote_msat // MSAT),
        "commit_fee": str(channel.commit_fee_sat),
        "commit_weight": str(COMMIT_WEIGHT),
        "fee_per_kw": str(channel.fee_per_kw),
        "unsettled_balance": str(channel.in_flight_msat // MSAT),
        "total_satoshis_sent": str(channel.sent_msat // MSAT),
        "total_satoshis_received": "0",
        "num_updates": str(channel.updates),
        "pending_htlcs": [_pending_of(htlc, place) for place, htlc in enumerate(channel.htlcs)],
        "private": False,
        "initiator": channel.ours,
        "chan_status_flags": "ChanStatusDefault",
        "commitment_type": "ANCHORS",
        "local_constraints": {"chan_reserve_sat": str(channel.reserve_sat), "dust_limit_sat": "354", "max_accepted_htlcs": 483},
        "remote_constraints": {"chan_reserve_sat": str(channel.reserve_sat), "dust_limit_sat": "354", "max_accepted_htlcs": 483},
    }


def _pending_of(htlc: Htlc, place: int) -> dict[str, Any]:
    return {
        "incoming": False,
        "amount": str(htlc.total_msat // MSAT),
        "hash_lock": base64.b64encode(bytes.fromhex(htlc.payment_hash)).decode(),
        "expiration_height": htlc.expiry_height,
        "htlc_index": str(place),
        "forwarding_channel": "0",
        "forwarding_htlc_index": "0",
        "locked_in": True,
    }


def payment_of(payment: Payment) -> dict[str, Any]:
    """lnrpc.Payment."""
    order = payment.order
    return {
        "payment_hash": order.payment_hash,
        "value": str(order.amount_msat // MSAT),
        "creation_date": str(payment.created_ms // 1000),
        "fee": str(payment.fee_msat // MSAT),
        "payment_preimage": (payment.preimage if payment.status == "SUCCEEDED" else bytes(32)).hex(),
        "value_sat": str(order.amount_msat // MSAT),
        "value_msat": str(order.amount_msat),
        "payment_request": order.invoice,
        "status": payment.status,
        "fee_sat": str(payment.fee_msat // MSAT),
        "fee_msat": str(payment.fee_msat),
        "creation_time_ns": str(payment.created_ms * 10**6),
        "htlcs": [_attempt_of(part, payment) for part in payment.parts],
        "payment_index": str(payment.index),
        "failure_reason": f"FAILURE_REASON_{payment.failure or 'NONE'}",
        "first_hop_custom_records": {},
    }


def _attempt_of(part: Htlc, payment: Payment) -> dict[str, Any]:
    return {
        "attempt_id": str(part.attempt_id),
        "status": part.status,
        "route": {
            "total_time_lock": part.expiry_height,
            "total_amt": str(part.total_msat // MSAT),
            "total_amt_msat": str(part.total_msat),
            "total_fees": str(part.fee_msat // MSAT),
            "total_fees_msat": str(part.fee_msat),
            "hops": [],
        },
        "attempt_time_ns": str(part.sent_ms * 10**6),
        "resolve_time_ns": str(part.resolved_ms * 10**6),
        "failure": {"code": "INCORRECT_OR_UNKNOWN_PAYMENT_DETAILS"} if part.status == "FAILED" else None,
        "preimage": base64.b64encode(payment.preimage if part.status == "SUCCEEDED" else b"").decode(),
    }
