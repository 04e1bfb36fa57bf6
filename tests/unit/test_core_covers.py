"""Hashes over what an entry decided lie in the chain of batches: every later version must make the same ones of the same rows."""

from penstock.core import covers

ORDER = {
    "id": 7281239123123, "record_id": 5, "merchant_id": 1, "merchant_order_id": 'Überweisung \u2028 "1" 😀', "payer": "m:1", "recipient": "",
    "address": "0xAb", "destination": "0xab", "memo": "", "token_id": "t", "coin_id": "c", "crypto": "USDT", "chain": "ETH",
    "contract": "0xcd", "merchant_pays_fee": 1, "value": 10**30, "fee": 10**17, "net": 10**30 - 10**17, "reserve": 10**30,
    "fee_usd": "1.02", "token_rate": "1", "native_rate": "3000", "gas_quoted": 123, "seal": "ff", "state": "succeeded", "wire": 2,
    "fail_reason": "", "decided_at_ms": 1_790_000_000_000,
}  # fmt: skip
ATTEMPT = {
    "id": 9, "lane_id": 3, "slot": 17, "token_id": "t", "state": "final", "txid": "0x12", "block": 101, "gas_paid": 10**20,
    "native_rate": "3000",
}  # fmt: skip
STEPS = [{"id": number, "at_ms": 1_790_000_000_000, "before": "accepted", "after": "sending", "reason": ""} for number in (2, 1)]


def test_the_hash_of_each_kind_is_fixed_for_ever():
    assert covers.accepted(ORDER, "1:mark") == "1:acdd0cd974c2529fff06c6c033fc74e4c3a19109cdefa0a2b5c5861d2b92f473"
    assert covers.internal(ORDER, "1:mark", '{"a":1}') == "1:3fbb8acb90d534ee64d91c943f7d6b8be82a57181caa1fe86ef1bff0e81a5967"
    assert covers.decided(ORDER, STEPS, "") == "1:07c430e85b0ac28b31873899a19dff99405dfb80f06dd5606f4c8f9b05ba7ff3"
    assert covers.retired(ATTEMPT) == "1:5c45c3dc2f78b0b6ae09b40aeb4df8120ba1a9545488a4049c3c89c1abb3c87e"
