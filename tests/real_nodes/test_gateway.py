"""The running gateway with a real Lightning node behind it: what a merchant sees, what the recipient gets, and the books."""

import pytest

from penstock.rails.lightning import codec
from tests.fixtures.gateway import gateway_home, ready, token_id
from tests.fixtures.real_nodes import until

REGTEST = next(chain_id for chain_id, chain in codec.CHAINS.items() if chain.electrum == "regtest")


@pytest.fixture
def gateway(route, request):
    """`penstock serve`, paying by Alice."""
    rpc = route.alice.rpc
    prefix = "PENSTOCK_NETWORKS__LIGHTNING__"
    settings = {
        prefix + "RPC_URLS": "electrum+" + rpc.url.replace("://", f"://{rpc.user}:{rpc.password}@"),
        prefix + "CHAIN_ID": str(REGTEST),
        prefix + "NODE_ID": rpc("nodeid").partition("@")[0],
    }
    with gateway_home("sqlite", request, **settings) as made:
        made.start()
        ready(made)
        yield made


def received(route, payment_hash):
    return [row["amount_msat"] for row in route.bob.rpc("lightning_history") if row.get("payment_hash") == payment_hash]


def test_a_merchants_order_is_paid_over_real_channels_once_although_everything_dies_in_flight(route, gateway):
    merchant = gateway.merchant(SATS="100000")
    order = {"token_id": token_id("SATS", "LIGHTNING"), "value": "2100"}
    before = route.alice.channels_msat()

    paid, paid_hash = route.bob.invoice(2_100)
    merchant.accepted(merchant_order_id="at-once", address=paid, **order)
    (final,) = merchant.final("at-once")
    assert final["order_detail"]["status"] == "Successful"
    assert merchant.event("at-once")["txid"] == gateway.order("at-once")["txid"] == paid_hash

    held, held_hash = route.bob.invoice(2_100)
    route.bob.hold(True)
    merchant.accepted(merchant_order_id="held", address=held, **order)
    until(route.alice.in_flight_sat, "the payment is in flight")
    gateway.kill()
    route.alice.kill()
    route.alice.start()
    gateway.expire_leases()
    gateway.start()
    assert merchant.info("held")[0]["order_detail"]["status"] == "Processing"
    route.ready()
    route.bob.hold(False)
    (final,) = merchant.final("held", timeout_s=60)
    assert final["order_detail"]["status"] == "Successful"

    assert received(route, paid_hash) == received(route, held_hash) == [2_100_000]
    spent = before - route.alice.channels_msat()
    assert 0 < spent - 2 * 2_100_000 <= 2 * 1_010
    assert merchant.balance("SATS") == "95800"
    gateway.audit()
