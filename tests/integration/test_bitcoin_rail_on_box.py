"""The Bitcoin rail against the network in a box, in process: consensus and pool are real there, and written from the documentation by others."""

import asyncio
import dataclasses
import random

import pytest
from msgspec import structs

from penstock.catalog import Catalog
from penstock.core.event import Absent, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.core.intent import Payment, Resource
from penstock.devnet.box import Arguments
from penstock.devnet.boxes import make_networks
from penstock.prove.simulated.reach import BoxPost
from penstock.rails.base import LaneView, NodeUnreachable, NotEnough, Verdict, VersionView
from penstock.rails.bitcoin import codec
from penstock.rails.bitcoin.rail import BitcoinRail
from penstock.rails.bitcoin.talk import BitcoinTalk
from penstock.rails.rpc import Call, Http, Nodes
from tests.fixtures.bitcoin_bench import KEY, RECIPIENTS, REGTEST, SENDER, STRANGER
from tests.fixtures.scripted import ManualRuntime

CATALOG = Catalog.load().with_network("BTC", chain_id=REGTEST, confirmations=3)
BTC = CATALOG.native("BTC")
COIN = 10**8


class Town:
    """A box with its clock, and a rail that may be born again at any time."""

    def __init__(self, *, funds=(COIN, COIN // 2)):
        self.runtime = ManualRuntime()
        (self.box,) = make_networks(Catalog.load(), ["BTC"], now_ms=self.runtime.now_ms, seed=1)
        self.box.set_block_time(0)
        self.post = BoxPost([self.box])
        self.rail = self.born()
        self.slot = 0
        for units in funds:
            self.box.fund(SENDER, units)
        self.mine(3)

    def born(self):
        nodes = Nodes(self.post.urls("BTC"), BitcoinTalk(Http(self.post), chain_id=REGTEST), self.runtime)
        network = CATALOG.network("BTC")
        return BitcoinRail(network, nodes, self.runtime, own=[SENDER])

    def mine(self, count=1):
        for _ in range(count):
            self.runtime.seconds += 600
            self.box.mine()

    def holdings(self):
        return asyncio.run(self.rail.holdings(SENDER, [BTC]))

    def estimate(self):
        self.runtime.seconds += 10
        return asyncio.run(self.rail.estimate(BTC))

    def bind(self, *payments, coins=None):
        self.slot += 1
        held = self.holdings().coins if coins is None else coins
        payments = payments or (Payment(1, RECIPIENTS["p2wpkh"], "", 250_000),)
        return self.rail.bind(payments, BTC, LaneView("BTC", SENDER, self.slot, held), self.estimate(), attempt_id=self.slot)

    def bump(self, version, *, cancel=False, fees=None):
        return signed(self.rail.bump(version.intent, fees, version=version.number + 1, cancel=cancel))

    def submit(self, version):
        return asyncio.run(self.rail.submit(version.raw))

    def observe(self, *versions):
        return asyncio.run(self.rail.observe(list(versions)))

    def at_least(self, sat_per_kvb):
        """What the nodes' pools take from now on; what pays less is thrown out."""
        self.box.verbs["mempool_min"](Arguments({"sat_per_kvb": sat_per_kvb}))

    def fault(self, **faults):
        for node in self.box.nodes:
            for name, value in faults.items():
                setattr(node.faults, name, value)


def signed(intent):
    made = codec.sign(intent, KEY)
    assert codec.broken_rules(intent, made) == []
    return VersionView(intent.version, made.txid, made.raw, intent)


@pytest.fixture
def town():
    return Town()


def received(town, kind="p2wpkh"):
    return town.box.holding(RECIPIENTS[kind])


def test_every_kind_of_address_is_paid_by_one_transaction_and_the_change_comes_back(town):
    payments = [Payment(place, address, "", 100_000 + place) for place, address in enumerate(RECIPIENTS.values())]
    before = town.holdings()
    version = signed(town.bind(*payments))
    assert town.submit(version).verdict is Verdict.ACCEPTED
    assert town.observe(version) == Pending()
    during = town.holdings()
    assert during.units == before.units
    assert len(during.coins) == len(before.coins) - len(version.intent.resources)
    town.mine()
    assert isinstance(town.observe(version), Included)
    town.mine(2)
    seen = town.observe(version)
    assert (type(seen), seen.txid, seen.fee) == (Final, version.txid, version.intent.terms["fee"])
    assert [town.box.holding(payment.recipient) for payment in payments] == [payment.units for payment in payments]
    after = town.holdings()
    assert after.block == seen.block
    spent = sum(payment.units for payment in payments) + seen.fee
    assert after.units[BTC.id] == before.units[BTC.id] - spent == town.box.holding(SENDER)
    assert sum(coin.units for coin in after.coins) == after.units[BTC.id]
    assert len(after.coins) == len(during.coins) + version.intent.terms["change"]


def test_the_holdings_at_a_block_do_not_change_with_what_comes_later(town):
    at = town.holdings()
    one = signed(town.bind())
    town.submit(one)
    assert town.holdings() == dataclasses.replace(at, coins=town.holdings().coins)
    town.mine(2)
    town.box.fund(SENDER, 777_000)
    same = asyncio.run(town.rail.holdings_at(SENDER, [BTC], at.block))
    assert (same.block, same.units) == (at.block, at.units)
    assert set(same.coins) < set(at.coins)


def test_the_quote_covers_a_payment_that_goes_alone(town):
    fees = town.estimate()
    version = signed(town.bind())
    version = signed(structs.replace(version.intent, terms=version.intent.terms | {"change": 1}))
    town.submit(version)
    town.mine(3)
    assert town.observe(version).fee <= max(fees.cost, version.intent.terms["fee"])
    assert version.intent.terms["fee"] <= fees.fee_cap


@pytest.mark.parametrize("how", ["500", "503", "reset", "timeout"])
def test_a_reply_that_is_lost_after_the_node_accepted_is_unknown_and_the_same_bytes_go_again(town, how, monkeypatch):
    async def at_once(seconds):
        del seconds

    monkeypatch.setattr("penstock.prove.simulated.reach.asyncio.sleep", at_once)
    version = signed(town.bind())
    town.fault(break_after=1, breakage=how)
    assert town.submit(version).verdict is Verdict.UNKNOWN
    town.runtime.seconds += 20
    assert town.observe(version) == Pending()
    assert town.submit(version).verdict is Verdict.ACCEPTED
    town.mine(3)
    assert isinstance(town.observe(version), Final)
    assert received(town) == 250_000


def test_what_a_node_acknowledged_and_lost_is_absent_until_it_is_sent_again(town):
    version = signed(town.bind())
    town.fault(drop=1)
    town.submit(version)
    town.fault(drop=0)
    assert town.observe(version) == Absent()
    assert town.submit(version).verdict is Verdict.ACCEPTED
    assert town.observe(version) == Pending()
    assert town.box.forget(version.txid)
    assert town.observe(version) == Absent()
    assert town.submit(version).verdict is Verdict.ACCEPTED
    town.mine(3)
    assert isinstance(town.observe(version), Final)


def test_it_never_expires_and_is_as_good_after_a_year(town):
    version = signed(town.bind())
    town.submit(version)
    town.box.forget(version.txid)
    town.runtime.seconds += 365 * 86_400
    assert codec.expires_ms(version.intent) is None
    assert town.observe(version) == Absent()
    town.submit(version)
    town.mine(3)
    assert isinstance(town.observe(version), Final)


def test_a_payment_that_the_market_left_behind_is_bumped_and_paid_once(town):
    first = signed(town.bind())
    town.submit(first)
    town.box.spike(4)
    town.mine(3)
    town.observe(first)
    town.mine(5)
    assert town.observe(first) == Pending(stuck=True)
    second = town.bump(first, fees=town.estimate())
    assert town.submit(second).verdict is Verdict.ACCEPTED
    town.mine(3)
    seen = town.observe(first, second)
    assert (type(seen), seen.txid, seen.fee) == (Final, second.txid, second.intent.terms["fee"])
    assert received(town) == 250_000
    assert town.submit(first).verdict is not Verdict.ACCEPTED


def test_what_a_full_pool_threw_out_is_bumped_over_its_threshold(town):
    first = signed(town.bind())
    town.submit(first)
    town.at_least(20_000)
    assert town.observe(first) == Pending(stuck=True)
    assert town.submit(first).verdict is Verdict.UNKNOWN
    second = town.bump(first, fees=town.estimate())
    assert town.submit(second).verdict is Verdict.ACCEPTED
    town.mine(3)
    assert town.observe(first, second).txid == second.txid
    assert received(town) == 250_000


def test_a_recipients_heavy_child_stops_a_replacement_and_the_first_version_still_pays(town):
    """Rule 3 of BIP-125: who replaces pays for the children too. The bump is not taken, which proves nothing; the older one lands."""
    theirs = codec.address(STRANGER.public_key, REGTEST)
    first = signed(town.bind(Payment(1, theirs, "", 250_000)))
    town.submit(first)
    coin = Resource(f"{first.txid}:0", 250_000)
    child = structs.replace(first.intent, sender=theirs, resources=(coin,), terms={"fee": 9_000, "change": 1}, fee_cap=9_000)
    child = codec.sign(structs.replace(child, payments=(Payment(2, RECIPIENTS["p2tr"], "", 1_000),)), STRANGER)
    assert asyncio.run(town.rail.submit(child.raw)).verdict is Verdict.ACCEPTED
    second = town.bump(first)
    said = town.submit(second)
    assert (said.verdict, "insufficient fee" in said.detail) == (Verdict.UNKNOWN, True)
    assert town.observe(first, second) == Absent()  # not the newest: it is sent again
    town.mine(3)
    assert town.observe(first, second).txid == first.txid


def test_each_of_twenty_bumps_is_taken_in_place_of_the_one_before(town):
    """C6: a chain of replacements; the nodes take each, and one lands."""
    versions = [signed(town.bind())]
    assert town.submit(versions[0]).verdict is Verdict.ACCEPTED
    while len(versions) < 20 and (following := town.rail.bump(versions[-1].intent, None, version=len(versions) + 1)) is not None:
        versions.append(signed(following))
        assert town.submit(versions[-1]).verdict is Verdict.ACCEPTED, len(versions)
        assert town.observe(*versions) == Pending()
    assert len(versions) > 8
    town.mine(3)
    assert town.observe(*versions).txid == versions[-1].txid
    assert received(town) == 250_000


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("kept", ["keep", "drop", "reorder"])
def test_a_reorg_brings_it_back_to_sent_and_the_same_bytes_land_again(town, depth, kept):
    version = signed(town.bind())
    town.submit(version)
    town.mine(depth)
    assert town.observe(version).depth == depth
    town.runtime.seconds += 600
    town.box.fork(depth, kept)
    seen = town.observe(version)
    assert not isinstance(seen, FailedOnChain | Suspicious)
    if kept == "drop":
        assert seen == Absent()
        assert town.submit(version).verdict is Verdict.ACCEPTED
    town.mine(4)
    assert isinstance(town.observe(version), Final)
    assert received(town) == 250_000


def test_our_own_cancel_brings_everything_home_and_fails_for_good(town):
    before = town.holdings().units[BTC.id]
    pay = signed(town.bind())
    town.submit(pay)
    cancel = town.bump(pay, cancel=True)
    assert town.submit(cancel).verdict is Verdict.ACCEPTED
    town.mine(2)
    assert town.observe(pay, cancel) == Included(cancel.txid, town.observe(pay, cancel).block, 2, succeeded=False)
    town.mine(4)
    seen = town.observe(pay, cancel)
    assert (type(seen), seen.txid) == (FailedOnChain, cancel.txid)
    assert received(town) == 0
    assert town.holdings().units[BTC.id] == before - seen.fee


def test_a_stranger_with_our_key_is_noticed_in_the_pool_and_in_a_block(town):
    version = signed(town.bind())
    thief = signed(structs.replace(version.intent, payments=(Payment(1, codec.address(STRANGER.public_key, REGTEST), "", 250_000),)))
    town.submit(thief)
    town.observe(version)
    town.runtime.seconds += 11
    assert isinstance(town.observe(version), Suspicious)
    town.mine(3)
    town.rail = town.born()
    town.holdings()
    town.observe(version)
    town.runtime.seconds += 11
    assert isinstance(town.observe(version), Suspicious)
    assert town.submit(version).verdict is not Verdict.ACCEPTED


def test_what_one_node_alone_says_is_not_final(town):
    version = signed(town.bind())
    town.submit(version)
    town.box.nodes[1].faults.blind = True
    town.mine(3)
    assert town.observe(version).depth == 0
    town.box.nodes[1].faults.blind = False
    town.box.nodes[1].faults.lag = 2
    assert town.observe(version).depth == 1
    town.box.nodes[1].faults.lag = 0
    assert isinstance(town.observe(version), Final)


def test_a_new_life_of_the_program_goes_on_with_the_same_bytes_at_every_step(town):
    intent = town.bind()
    version = signed(intent)
    for step in (lambda: town.submit(version), town.mine, town.mine, town.mine):
        town.rail = town.born()
        assert signed(type(intent).from_json(intent.to_json())).raw == version.raw
        step()
        town.rail = town.born()
        assert not isinstance(town.observe(version), Suspicious | FailedOnChain)
    assert isinstance(town.observe(version), Final)
    assert received(town) == 250_000


def test_a_node_that_claims_another_network_is_not_used(town):
    town.fault(chain_id=3652501241)
    town.rail = town.born()
    with pytest.raises(NodeUnreachable, match="is not used"):
        town.holdings()
    assert town.submit(signed(town_intent())).verdict is Verdict.UNKNOWN


def town_intent():
    other = Town()
    return other.bind()


def test_two_attempts_of_one_lane_share_no_coin_and_both_land(town):
    held = town.holdings().coins
    one = signed(town.bind(coins=held))
    rest = tuple(coin for coin in held if coin not in one.intent.resources)
    two = signed(town.bind(coins=rest))
    assert not set(one.intent.resources) & set(two.intent.resources)
    assert {town.submit(one).verdict, town.submit(two).verdict} == {Verdict.ACCEPTED}
    town.mine(3)
    assert {type(town.observe(one)), type(town.observe(two))} == {Final}
    assert received(town) == 500_000


class Story:
    """C6: an operator's worst month, from one seed. Every coin is accounted for at the end."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.town = Town(funds=(COIN // 10, *[3_000_000] * 6))
        self.attempts = []
        self.held_at = {}
        self.paid = 0

    def act(self):
        actions = [self.pay, self.pay, self.bump, self.bump, self.cancel, self.send, self.send, self.lose, self.mine, self.mine, self.mine]
        self.dice.choice([*actions, self.fork, self.spike, self.fill])()
        for versions in self.attempts:
            assert not isinstance(self.town.observe(*versions), Suspicious)

    def pay(self):
        owned = {coin.name for versions in self.attempts for coin in versions[0].intent.resources}
        free = tuple(coin for coin in self.town.holdings().coins if coin.name not in owned)
        payments = []
        for _ in range(self.dice.randint(1, 4)):
            self.paid += 1
            address = codec.address(type(KEY)((1_000 + self.paid).to_bytes(32, "big")).public_key, REGTEST)
            payments.append(Payment(self.paid, address, "", self.dice.choice([300, 5_000, 400_000, 2_500_000])))
        try:
            self.attempts.append([signed(self.town.bind(*payments, coins=free))])
        except NotEnough:
            return
        self.town.submit(self.attempts[-1][-1])

    def bump(self, *, cancel=False):
        if not self.attempts:
            return
        versions = self.dice.choice(self.attempts)
        kind = cancel or versions[-1].intent.kind == "cancel"
        following = self.town.rail.bump(versions[-1].intent, self.town.estimate(), version=len(versions) + 1, cancel=kind)
        if following is not None and following.fee_cap >= following.terms["fee"]:
            versions.append(signed(following))
            self.town.submit(versions[-1])

    def cancel(self):
        if self.dice.random() < 0.3:
            self.bump(cancel=True)

    def send(self):
        if self.attempts:
            self.town.submit(self.dice.choice(self.dice.choice(self.attempts)))

    def lose(self):
        if self.attempts:
            self.town.box.forget(self.dice.choice(self.attempts)[-1].txid)

    def mine(self):
        self.town.mine()
        self.held_at[self.hash_at(self.height)] = self.town.box.holding(SENDER)
        held = self.town.holdings()
        expected = self.held_at.get(self.hash_at(held.block))
        assert expected is None or held.units[BTC.id] == expected

    def fork(self):
        self.town.runtime.seconds += 600
        self.town.box.fork(self.dice.randint(1, 2), self.dice.choice(["keep", "drop", "reorder"]))

    def spike(self):
        self.town.box.spike(self.dice.choice([1, 2, 5]))

    def fill(self):
        self.town.at_least(self.dice.choice([1_000, 3_000, 8_000]))

    @property
    def height(self):
        return self.town.box.status()["head"]

    def hash_at(self, height):
        return asyncio.run(self.town.rail._nodes.agreed(Call("getblockhash", (height,)), str, needed=2))

    def end(self):
        """Fair weather: everything that was signed comes to rest, and nothing was paid twice or lost."""
        self.town.box.spike(1)
        self.town.at_least(1_000)
        for _ in range(12):
            for versions in self.attempts:
                self.town.submit(versions[-1])
            self.town.mine()
        for versions in self.attempts:
            seen = self.town.observe(*versions)
            assert isinstance(seen, Final | FailedOnChain), seen
            for payment in versions[0].intent.payments:
                assert self.town.box.holding(payment.recipient) == (payment.units if isinstance(seen, Final) else 0)
        assert self.town.holdings().units[BTC.id] == self.town.box.holding(SENDER)

    def conflicts(self):
        """Versions of one attempt spend the same coins, and attempts share none."""
        owners = {}
        for number, versions in enumerate(self.attempts):
            spent = [codec.decode(version.raw).outpoints() for version in versions]
            assert all(outpoints == spent[0] for outpoints in spent)
            assert all(owners.setdefault(name, number) == number for name in spent[0])


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_each_order_is_paid_once_or_not_at_all(seed):
    story = Story(seed)
    for _ in range(40):
        story.act()
    story.end()
    story.conflicts()
    assert story.attempts
