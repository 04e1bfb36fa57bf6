"""A real Lightning channel: bcoin's blocks, ElectrumX, and two Electrum nodes that speak BOLT to each other."""

import hashlib

import pytest

from tests.fixtures.real_nodes import CHANNEL_SAT, Refused


def test_an_invoice_is_paid_and_the_balances_move_to_the_millisatoshi(lightning):
    alice, bob = lightning.alice, lightning.bob
    before = alice.channels_msat(), bob.channels_msat()
    assert sum(before) == CHANNEL_SAT * 1000
    invoice, payment_hash = bob.invoice(12_345)
    paid = alice.rpc("lnpay", invoice)
    assert paid["success"]
    assert hashlib.sha256(bytes.fromhex(paid["preimage"])).hexdigest() == payment_hash == paid["payment_hash"]
    assert (alice.channels_msat(), bob.channels_msat()) == (before[0] - 12_345_000, before[1] + 12_345_000)
    with pytest.raises(Refused, match="has been paid already"):
        alice.rpc("lnpay", invoice)
