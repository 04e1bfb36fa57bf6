"""Our Lightning rail with its Electrum adapter on real channels: Alice is the house's node, Carol passes on for a fee, Bob is paid."""

import asyncio

import pytest

from penstock.core.event import Absent, FailedOnChain, Final, Pending, Suspicious
from penstock.core.intent import Payment
from penstock.core.money import Coin, Network, Token
from penstock.rails.base import LaneView, NodeUnreachable, Unpayable, Verdict, VersionView, WrongNetwork
from penstock.rails.lightning import codec
from penstock.rails.lightning.fates import QUIET_UNSURE_S
from penstock.rails.lightning.rail import LightningRail, talk
from penstock.rails.post import HttpPost
from penstock.rails.rpc import Nodes
from penstock.runtime import SystemRuntime
from tests.fixtures.real_nodes import CHANNEL_SAT, until

CHAIN_IDS = {chain.electrum: chain_id for chain_id, chain in codec.CHAINS.items()}
SATS = Token("sats", Coin("c", "SATS", "Satoshi", 3), "LIGHTNING", "LIGHTNING", None, "1", 3)
DAY_S = 86_400.0


def carols_fee(msat):
    """A satoshi, and a millionth of what she passes on."""
    return 1_000 + msat // 1_000_000


class Clock(SystemRuntime):
    """The system's clock, with a hand on it: waiting for days is turning it forward."""

    ahead_s = 0.0

    def now_ms(self):
        return super().now_ms() + round(self.ahead_s * 1000)

    def monotonic(self):
        return super().monotonic() + self.ahead_s


class House:
    """A life of the rail, which pays by Alice."""

    def __init__(self, route, runtime, post, *, node=None, network="regtest"):
        self.route, self.runtime, self._post = route, runtime, post
        self.node = route.alice.rpc("nodeid").partition("@")[0] if node is None else node
        chain_id = CHAIN_IDS[network]
        rpc = route.alice.rpc
        url = "electrum+" + rpc.url.replace("://", f"://{rpc.user}:{rpc.password}@")
        nodes = Nodes([url], talk(post, chain_id=chain_id, own=self.node), runtime)
        params = (("fee_max", "200000"),)
        net = Network("LIGHTNING", "lightning", "Lightning", "sats", chain_id, None, 1_000, 1, is_test=True, params=params)
        self.rail = LightningRail(net, nodes, runtime, own=[self.node])

    def reborn(self):
        """Another life, which remembers nothing."""
        return House(self.route, self.runtime, self._post, node=self.node)

    async def prepared(self, invoice):
        """The payment, and what `prepare` says of it."""
        destination = self.rail.parse_destination(invoice, "")
        payment = Payment(1, destination.address, "", destination.units)
        (answer,) = await self.rail.prepare([payment], SATS, self.node, await self.rail.estimate(SATS))
        return payment, answer

    async def bound(self, invoice):
        payment, fees = await self.prepared(invoice)
        intent = self.rail.bind([payment], SATS, LaneView("LIGHTNING", self.node, 0), fees, attempt_id=1)
        signed = codec.sign(intent, None)
        assert codec.broken_rules(intent, signed) == []
        return VersionView(signed.version, signed.txid, signed.raw, intent)

    async def until(self, kind, version, *, timeout_s=30):
        """Observe until it is of this kind."""
        async with asyncio.timeout(timeout_s):
            while not isinstance(seen := await self.observed(version), kind):
                await asyncio.sleep(0.1)
        return seen

    async def observed(self, version):
        """What is seen, None while the node does not answer."""
        try:
            return await self.rail.observe([version])
        except NodeUnreachable:
            self.runtime.ahead_s += 20  # the rail leaves a node that failed alone for a while
            return None

    async def stays_pending(self, version, *, days=14):
        for _ in range(days):
            assert await self.rail.observe([version]) == Pending()
            self.runtime.ahead_s += DAY_S

    async def certainly_failed(self, version):
        """The rail waits before it believes a failure; then it does."""
        assert await self.rail.observe([version]) == Pending()
        self.runtime.ahead_s += QUIET_UNSURE_S
        seen = await self.rail.observe([version])
        assert (type(seen), seen.txid, seen.fee) == (FailedOnChain, version.txid, 0), seen

    async def owned(self):
        """Millisatoshi in Alice's channels, as the treasury is told."""
        holdings = await self.rail.holdings(self.node, [SATS])
        assert holdings.steady
        return holdings.units["sats"]


@pytest.fixture
def on_route(route):
    """Runs a scenario with a house that pays by Alice."""

    def run(scenario, **options):
        async def main():
            runtime, post = Clock(), HttpPost()
            try:
                await scenario(House(route, runtime, post, **options))
            finally:
                await post.close()
                runtime.close()

        asyncio.run(main())

    return run


def received(route, payment_hash):
    """What came to Bob for a hash, in millisatoshi."""
    return sum(row["amount_msat"] for row in route.bob.rpc("lightning_history") if row.get("payment_hash") == payment_hash)


def test_an_invoice_is_paid_once_and_all_balances_agree_to_the_millisatoshi(route, on_route):
    async def scenario(house):
        wallets = (route.alice, route.carol, route.bob)
        before, owned = [wallet.channels_msat() for wallet in wallets], await house.owned()
        assert (owned, sum(before)) == (before[0], 2 * CHANNEL_SAT * 1000)
        invoice, payment_hash = route.bob.invoice(12_345)
        version = await house.bound(invoice)
        assert version.txid == payment_hash
        assert await house.rail.observe([version]) == Absent()
        assert (await house.rail.submit(version.raw)).verdict is Verdict.ACCEPTED
        final = await house.until(Final, version)
        assert (final.txid, final.fee) == (payment_hash, carols_fee(12_345_000))
        for again in (house, house.reborn()):
            assert (await again.rail.submit(version.raw)).verdict is Verdict.ACCEPTED
            assert (await again.rail.observe([version])).fee == final.fee
        assert received(route, payment_hash) == 12_345_000
        after = [wallet.channels_msat() for wallet in wallets]
        assert [new - old for new, old in zip(after, before, strict=True)] == [-12_345_000 - final.fee, final.fee, 12_345_000]
        assert await house.owned() == owned - 12_345_000 - final.fee
        assert final.fee <= version.intent.fee_cap

    on_route(scenario)


def test_many_at_once_to_the_same_hash_pay_once(route, on_route):
    async def scenario(house):
        invoice, payment_hash = route.bob.invoice(1_000)
        owned = await house.owned()
        version = await house.bound(invoice)
        lives = [house, *(house.reborn() for _ in range(4))]
        said = await asyncio.gather(*(life.rail.submit(version.raw) for life in lives for _ in range(3)))
        assert {one.verdict for one in said} <= {Verdict.ACCEPTED, Verdict.UNKNOWN}
        final = await house.until(Final, version)
        assert received(route, payment_hash) == 1_000_000
        assert await house.owned() == owned - 1_000_000 - final.fee

    on_route(scenario)


def test_in_flight_is_not_failed_for_weeks_and_across_restarts(route, on_route):
    async def scenario(house):
        owned = await house.owned()
        invoice, payment_hash = route.bob.invoice(20_000)
        route.bob.hold(True)
        version = await house.bound(invoice)
        assert (await house.rail.submit(version.raw)).verdict is not Verdict.REFUSED
        await house.stays_pending(version)
        assert not (await house.rail.holdings(house.node, [SATS])).steady
        route.alice.kill()
        assert await house.observed(version) is None
        assert (await house.rail.submit(version.raw)).verdict is Verdict.UNKNOWN
        route.alice.start()
        house = house.reborn()
        await house.until(Pending, version)
        await house.stays_pending(version)
        assert (await house.rail.submit(version.raw)).verdict is Verdict.ACCEPTED  # it knows it already
        route.ready()
        route.bob.hold(False)
        final = await house.until(Final, version)
        assert received(route, payment_hash) == 20_000_000
        assert await house.owned() == owned - 20_000_000 - final.fee

    on_route(scenario)


def test_a_receiver_that_dies_in_flight_is_paid_when_it_comes_back(route, on_route):
    async def scenario(house):
        invoice, payment_hash = route.bob.invoice(21_000)
        route.bob.hold(True)
        version = await house.bound(invoice)
        await house.rail.submit(version.raw)
        route.bob.kill()
        await house.stays_pending(version)
        route.bob.start()
        await house.until(Final, version)
        assert received(route, payment_hash) == 21_000_000

    on_route(scenario)


def test_a_receiver_that_is_away_is_a_failure_that_is_never_tried_again(route, on_route):
    async def scenario(house):
        owned = await house.owned()
        invoice, payment_hash = route.bob.invoice(23_000)
        route.bob.stop()
        until(lambda: not route.carol.is_ready(), "Carol misses Bob")
        version = await house.bound(invoice)
        assert (await house.rail.submit(version.raw)).verdict is Verdict.ACCEPTED
        await house.certainly_failed(version)
        route.bob.start()
        route.ready()
        route.alice.forget_failures()
        for life in (house, house.reborn()):
            assert (await life.rail.submit(version.raw)).verdict is Verdict.ACCEPTED
        assert await house.owned() == owned
        assert received(route, payment_hash) == 0

    on_route(scenario)


def test_what_the_channels_cannot_carry_is_held_before_it_is_sent(route, on_route):
    async def scenario(house):
        invoice, _ = route.bob.invoice(CHANNEL_SAT * 99 // 100)
        _, answer = await house.prepared(invoice)
        assert isinstance(answer, Unpayable) and not answer.for_ever
        assert "channels can send" in str(answer)

    on_route(scenario)


def test_a_failure_that_electrum_cannot_read_stays_in_flight_until_electrum_restarts(route, on_route):
    async def scenario(house):
        invoice, payment_hash = route.bob.invoice(24_000)
        route.bob.rpc("delete_request", payment_hash)
        version = await house.bound(invoice)
        assert (await house.rail.submit(version.raw)).verdict is Verdict.UNKNOWN
        await house.stays_pending(version)
        route.alice.stop()
        route.alice.start()
        await house.until(Pending, version)
        await house.certainly_failed(version)

    on_route(scenario)


def test_an_expired_invoice_fails_before_anything_is_bound(route, on_route):
    async def scenario(house):
        invoice, _ = route.bob.invoice(1_000, expiration_s=20)
        _, answer = await house.prepared(invoice)
        assert isinstance(answer, Unpayable) and answer.for_ever
        assert "expired" in str(answer)

    on_route(scenario)


def test_an_invoice_that_expires_on_its_way_to_the_node_is_neither_paid_nor_called_failed(route, on_route):
    async def scenario(house):
        owned = await house.owned()
        invoice, payment_hash = route.bob.invoice(1_000, expiration_s=1)
        house.runtime.ahead_s = -3_600  # our clock is slow
        version = await house.bound(invoice)
        await asyncio.sleep(2)
        said = await house.rail.submit(version.raw)
        assert (said.verdict, "expired" in said.detail) == (Verdict.UNKNOWN, True)
        assert await house.rail.observe([version]) == Absent()
        house.runtime.ahead_s = DAY_S
        assert isinstance(await house.rail.observe([version]), Suspicious)
        assert await house.owned() == owned
        assert received(route, payment_hash) == 0

    on_route(scenario)


@pytest.mark.parametrize(
    "wrong", [{"node": "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"}, {"network": "mainnet"}]
)
def test_another_node_or_network_than_configured_is_never_used(on_route, wrong):
    async def scenario(house):
        with pytest.raises(WrongNetwork):
            await house.rail.estimate(SATS)

    on_route(scenario, **wrong)


def test_electrum_says_failed_while_a_part_is_in_flight_and_the_rail_does_not(route, on_route):
    async def scenario(house):
        # Carol has less left to pass on than Alice sends in parts: some arrive, and Bob waits for the others for two minutes.
        elsewhere, _ = route.bob.invoice(CHANNEL_SAT * 6 // 10)
        assert route.carol.rpc("lnpay", elsewhere)["success"]
        invoice, payment_hash = route.bob.invoice(CHANNEL_SAT // 2)
        version = await house.bound(invoice)
        assert (await house.rail.submit(version.raw)).verdict is Verdict.ACCEPTED
        assert route.alice.status(payment_hash) == "Failed"
        assert route.alice.in_flight_sat() > 0
        await house.stays_pending(version)

    on_route(scenario)
