"""TRON's rail against the network in a box, in process: written by others from the same public documentation (test plan, C4 and C8)."""

import asyncio

import pytest

from penstock.catalog import Catalog
from penstock.core.event import Absent, Dead, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.core.intent import Payment
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control
from penstock.devnet.tron.chain import CHAIN_ID
from penstock.prove.simulated.reach import BoxPost
from penstock.rails.base import FeeEstimate, LaneView, Unpayable, Verdict, VersionView
from penstock.rails.rpc import Http, Nodes
from penstock.rails.tron import codec
from penstock.rails.tron.rail import TronRail
from penstock.rails.tron.talk import TronTalk
from penstock.signer.keys import LaneKey
from tests.fixtures.scripted import ManualRuntime

SHIPPED = Catalog.load()
CATALOG = SHIPPED.with_network("TRX", chain_id=CHAIN_ID)
TRX, USDT = CATALOG.native("TRX"), CATALOG.by_symbol("USDT", "TRX")
KEY = LaneKey((7).to_bytes(32, "big"))
HOT = codec.address(KEY.public_key, CHAIN_ID)
ALICE, BOB = "THTR75o8xXAgCTQqpiot2AFRAjvW1tSbVV", "TW1dU4L3eNm7Lw8WvieLKEHpXWAussRG9Z"
SUN = 1_000_000
SOLID = 4


class Town:
    """A box with its clock, a hot address with 1,000 TRX and 1,000 USDT, and a rail."""

    def __init__(self, nodes=2):
        self.runtime = ManualRuntime()
        (self.box,) = make_networks(SHIPPED, ["TRX"], now_ms=self.runtime.now_ms, seed=1, nodes=nodes)
        self.box.set_block_time(0)
        self.box.fund(HOT, 1_000 * SUN)
        self.box.fund(BOB, SUN)
        self.box.fund(HOT, 1_000 * SUN, USDT.contract)
        self.mine(SOLID + 1)
        post = BoxPost([self.box])
        talk = TronTalk(Http(post), self.runtime, chain_id=CHAIN_ID)
        self.rail = TronRail(
            CATALOG.network("TRX"), Nodes(post.urls("TRX"), talk, self.runtime), self.runtime, own=[HOT], contracts=[USDT.contract]
        )
        self.attempts = 1_000

    def mine(self, count=1):
        for _ in range(count):
            self.runtime.seconds += 1
            self.box.mine()

    def live(self, seconds):
        """Time passes with a block every ten seconds."""
        for _ in range(seconds // 10):
            self.runtime.seconds += 10
            self.box.mine()

    def run(self, work):
        return asyncio.run(work)

    def do(self, **command):
        return control([self.box], command)

    def prepare(self, token=TRX, recipient=BOB, units=2_500_000):
        self.runtime.seconds += 61  # prices and energy are asked again
        self.box.mine()
        (found,) = self.run(self.rail.prepare([Payment(1, recipient, "", units)], token, HOT, FeeEstimate(token.id, 0, 0, {}, 0, 0)))
        return found

    def bind(self, token=TRX, recipient=BOB, units=2_500_000, fees=None):
        fees = fees or self.prepare(token, recipient, units)
        assert not isinstance(fees, Unpayable), fees
        self.attempts += 1
        payment = Payment(1, recipient, "", units)
        intent = self.rail.bind([payment], token, LaneView("TRX", HOT, self.attempts), fees, attempt_id=self.attempts)
        made = codec.sign(intent, KEY)
        assert codec.broken_rules(intent, made) == []
        return VersionView(1, made.txid, made.raw, intent)

    def send(self, version):
        return self.run(self.rail.submit(version.raw))

    def see(self, version):
        self.runtime.seconds += 2
        return self.run(self.rail.observe([version]))

    def pay(self, *args, **how):
        version = self.bind(*args, **how)
        assert self.send(version).verdict is Verdict.ACCEPTED
        return version

    def held(self, token=TRX):
        return self.run(self.rail.holdings(HOT, [TRX, USDT])).units[token.id]


@pytest.fixture
def town():
    return Town()


@pytest.mark.parametrize("recipient", [ALICE, BOB])
@pytest.mark.parametrize("token", [TRX, USDT])
def test_a_payment_costs_what_was_quoted_and_the_holdings_fall_by_it_to_the_last_unit(town, token, recipient):
    before = {it: town.held(it) for it in (TRX, USDT)}
    fees = town.prepare(token, recipient)
    version = town.pay(token, recipient, fees=fees)
    assert town.see(version) == Pending()
    town.mine()
    assert isinstance(town.see(version), Included)
    town.mine(SOLID)
    seen = town.see(version)
    assert seen == Final(version.txid, seen.block, fees.cost)
    after = {it: town.held(it) for it in (TRX, USDT)}
    assert before[TRX] - after[TRX] == seen.fee + (2_500_000 if token is TRX else 0)
    assert before[USDT] - after[USDT] == (0 if token is TRX else 2_500_000)
    assert after == {TRX: town.box.holding(HOT), USDT: town.box.holding(HOT, USDT.contract)}


def test_staked_energy_makes_a_token_payment_cheap_and_the_quote_says_so(town):
    dear = town.prepare(USDT)
    town.do(do="stake", address=HOT, sun=100_000 * SUN)
    town.mine()
    cheap = town.prepare(USDT)
    assert cheap.cost < dear.cost - 6 * SUN
    version = town.pay(USDT, fees=cheap)
    town.mine(SOLID + 1)
    assert town.see(version).fee == cheap.cost


def test_an_empty_recipient_of_usdt_costs_about_twice(town):
    town.box.fund(BOB, 1, USDT.contract)
    town.mine()
    known, new = town.prepare(USDT, BOB).cost, town.prepare(USDT, ALICE).cost
    assert 1.8 * known < new < 2.4 * known


@pytest.mark.parametrize("fault", [{"break_after": 2, "breakage": "500"}, {"break_after": 2, "breakage": "reset"}, {"busy_after": 2}])
def test_a_node_that_took_it_and_says_otherwise_changes_nothing(town, fault):
    version = town.bind()
    town.do(do="faults", node="all", **fault)
    assert town.send(version).verdict in (Verdict.UNKNOWN, Verdict.ACCEPTED)
    town.runtime.seconds += 60
    assert town.send(version).verdict is Verdict.ACCEPTED, "a duplicate is one that the node has"
    town.mine(SOLID + 1)
    assert isinstance(town.see(version), Final)
    assert town.box.holding(BOB) == SUN + 2_500_000


def test_what_was_acknowledged_and_lost_is_absent_until_it_is_sent_again(town):
    town.do(do="faults", node="all", drop=1)
    version = town.pay()
    town.mine()
    assert town.see(version) == Absent()
    town.do(do="heal")
    assert town.send(version).verdict is Verdict.ACCEPTED
    town.mine(SOLID + 1)
    assert isinstance(town.see(version), Final)


@pytest.mark.parametrize("fate", ["keep", "drop", "reorder"])
@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_a_fork_of_what_is_not_solidified_is_followed(town, depth, fate):
    version = town.pay()
    town.mine(depth)
    assert isinstance(town.see(version), Included)
    town.do(do="fork", depth=depth, transactions=fate)
    if fate == "drop":
        assert town.see(version) == Absent()
        assert town.send(version).verdict is Verdict.ACCEPTED
    town.mine(SOLID + 1)
    assert isinstance(town.see(version), Final)
    assert town.box.holding(BOB) == SUN + 2_500_000


def test_a_transaction_that_never_landed_is_dead_only_by_solidified_time_and_never_lands_afterwards(town):
    town.do(do="faults", node="all", drop=1)
    version = town.pay()
    town.do(do="heal")
    expiration = version.intent.terms["expiration"]
    while town.box.chain.head.time_ms < expiration:
        town.live(10)
        assert not isinstance(town.see(version), Dead)
    assert not isinstance(town.see(version), Dead), "its end is in a block that may still be undone"
    town.mine(SOLID + 1)
    seen = town.see(version)
    assert isinstance(seen, Dead)
    assert version.txid in seen.proof
    assert town.send(version).verdict is not Verdict.ACCEPTED
    town.mine(2)
    assert town.box.holding(BOB) == SUN


def test_while_solidification_stalls_for_half_an_hour_nothing_dies(town):
    town.do(do="faults", node="all", drop=1)
    version = town.pay()
    town.do(do="heal")
    town.do(do="stall")
    town.live(1_800)
    assert not isinstance(town.see(version), Dead | Final)
    town.do(do="stall", on=0)
    assert isinstance(town.see(version), Dead)


def test_missed_slots_can_carry_it_past_its_expiration_and_it_is_found_there(town):
    version = town.pay()
    town.runtime.seconds += 1_000
    town.mine(SOLID + 1)
    seen = town.see(version)
    assert isinstance(seen, Final)
    assert town.box.chain.block(seen.block).time_ms > version.intent.terms["expiration"]


def test_one_solidified_half_that_lags_decides_nothing_alone(town):
    town.do(do="faults", node=1, solid_lag=3)
    version = town.pay()
    town.mine(SOLID + 1)
    assert not isinstance(town.see(version), Final)
    town.mine(3)
    assert isinstance(town.see(version), Final)


def test_a_node_that_omits_transactions_does_not_make_a_living_one_dead(town):
    town.do(do="faults", node=1, omit=True, blind=True)
    version = town.pay()
    town.live(600)
    assert not isinstance(town.see(version), Dead)
    town.do(do="heal")
    assert isinstance(town.see(version), Final)


@pytest.mark.parametrize(
    ("behaviour", "verdict"),
    [
        ("usual", Final),
        ("false", Final),
        ("nothing", Final),
        ("silent", Suspicious),
        ("short", Suspicious),
        ("twice", Suspicious),
        ("paused", FailedOnChain),
        ("broken", FailedOnChain),
        ("endless", FailedOnChain),
    ],
)
def test_a_token_that_changes_its_manners_on_the_way_is_judged_by_its_event_alone(town, behaviour, verdict):
    version = town.bind(USDT)
    town.do(do="behave", contract=USDT.contract, behaviour=behaviour)
    town.mine()
    if behaviour == "short":
        version = town.bind(USDT)  # it needs more energy than it did
    assert town.send(version).verdict is Verdict.ACCEPTED
    town.mine(SOLID + 1)
    seen = town.see(version)
    assert isinstance(seen, verdict), seen
    if verdict is FailedOnChain:
        assert seen.fee <= version.intent.fee_cap
        assert town.held(USDT) == 1_000 * SUN


def test_energy_that_grew_dearer_on_the_way_fails_within_the_cap(town):
    version = town.bind(USDT)
    town.do(do="energy_factor", contract=USDT.contract, factor=500_000)
    assert town.send(version).verdict is Verdict.ACCEPTED
    town.mine(SOLID + 1)
    seen = town.see(version)
    assert isinstance(seen, FailedOnChain)
    assert "OUT_OF_ENERGY" in seen.detail
    assert seen.fee <= version.intent.fee_cap
    assert town.held(USDT) == 1_000 * SUN


def test_a_fork_may_turn_success_into_failure_and_only_what_is_solidified_counts(town):
    version = town.pay(USDT)
    town.mine()
    assert town.see(version).succeeded
    town.do(do="energy_factor", contract=USDT.contract, factor=500_000)
    town.do(do="fork", depth=1)
    assert not town.see(version).succeeded
    town.mine(SOLID)
    assert isinstance(town.see(version), FailedOnChain)


def test_a_node_without_events_settles_nothing_alone(town):
    town.do(do="faults", node=1, logless=True)
    version = town.pay(USDT)
    town.mine(SOLID + 1)
    assert not isinstance(town.see(version), Final)
    town.do(do="heal")
    assert isinstance(town.see(version), Final)


def test_a_node_of_another_network_is_not_believed(town):
    town.do(do="faults", node=1, chain_id=728126428)
    version = town.pay()
    town.mine(SOLID + 1)
    assert not isinstance(town.see(version), Final)
    assert any("728126428" in fault for fault in town.rail.faults())
