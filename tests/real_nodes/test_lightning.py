"""Real Lightning channels: bcoin's blocks, ElectrumX, and three Electrum nodes that speak BOLT to each other."""

import hashlib

import pytest

from tests.fixtures.real_nodes import CHANNEL_SAT, Refused

FEE_MSAT = 1_012
"""What Carol takes for passing on 12,345 satoshi: 1,000 millisatoshi and a millionth."""


def test_an_invoice_is_paid_through_carol_and_the_balances_move_to_the_millisatoshi(route):
    wallets = (route.alice, route.carol, route.bob)
    before = [wallet.channels_msat() for wallet in wallets]
    assert sum(before) == 2 * CHANNEL_SAT * 1000
    invoice, payment_hash = route.bob.invoice(12_345)
    paid = route.alice.rpc("lnpay", invoice)
    assert paid["success"], paid
    assert hashlib.sha256(bytes.fromhex(paid["preimage"])).hexdigest() == payment_hash == paid["payment_hash"]
    after = [wallet.channels_msat() for wallet in wallets]
    assert [new - old for new, old in zip(after, before, strict=True)] == [-12_345_000 - FEE_MSAT, FEE_MSAT, 12_345_000]
    with pytest.raises(Refused, match="has been paid already"):
        route.alice.rpc("lnpay", invoice)
