"""The XRP Ledger's rail against the network in a box, in process: written by others from the same public documentation."""

import asyncio
import contextlib
import random

import pytest
from msgspec import structs

from penstock.catalog import Catalog
from penstock.core.event import Absent, FailedOnChain, Final, Included, Pending, Suspicious
from penstock.core.intent import Payment
from penstock.core.money import Token
from penstock.devnet.box import Arguments
from penstock.devnet.boxes import make_networks
from penstock.prove.simulated.reach import BoxPost
from penstock.rails.base import (
    Destination,
    InvalidDestination,
    LaneView,
    MemoRequired,
    NodeUnreachable,
    Unpayable,
    Verdict,
    VersionView,
    WrongNetwork,
)
from penstock.rails.rpc import Http, Nodes
from penstock.rails.xrp import codec
from penstock.rails.xrp.fees import WINDOW
from penstock.rails.xrp.rail import XrpRail
from penstock.rails.xrp.talk import XrpTalk
from penstock.rails.xrp.watch import STRANGER_S
from tests.fixtures.scripted import ManualRuntime
from tests.fixtures.xrp_bench import BOX, KEY, RECIPIENT, SENDER

SHIPPED = Catalog.load()
CATALOG = SHIPPED.with_network("XRP", chain_id=BOX)
XRP = CATALOG.native("XRP")
RLUSD = CATALOG.by_symbol("RLUSD", "XRP")


class Town:
    """A box with its clock, a hot address with 100 XRP, and a rail that may be born again at any time."""

    def __init__(self, *, nodes=2, drops=100_000_000):
        self.runtime = ManualRuntime()
        (self.box,) = make_networks(SHIPPED, ["XRP"], now_ms=self.runtime.now_ms, seed=1, nodes=nodes)
        self.box.set_block_time(0)
        self.post = BoxPost([self.box])
        if drops:
            self.box.fund(SENDER, drops)
        self.mine(2)
        self.rail = self.born()
        self.slot = self.holdings().slots_used if drops else 0

    def born(self, chain_id=BOX):
        nodes = Nodes(self.post.urls("XRP"), XrpTalk(Http(self.post), self.runtime, chain_id=chain_id), self.runtime)
        contracts = [token.contract for token in CATALOG.tokens_on("XRP") if token.contract]
        return XrpRail(CATALOG.network("XRP"), nodes, self.runtime, own=[SENDER], contracts=contracts)

    def mine(self, count=1):
        for _ in range(count):
            self.runtime.seconds += 4
            self.box.mine()

    def run(self, work):
        return asyncio.run(work)

    def holdings(self, *tokens):
        return asyncio.run(self.rail.holdings(SENDER, list(tokens) or [XRP, RLUSD]))

    def estimate(self, token=XRP):
        self.runtime.seconds += 2
        return asyncio.run(self.rail.estimate(token))

    def prepare(self, payment, token=XRP):
        (found,) = asyncio.run(self.rail.prepare([payment], token, SENDER, self.estimate(token)))
        return found

    def pay(self, payment=None, token=XRP):
        """A prepared, bound and signed payment on the next sequence."""
        payment = payment or Payment(1, RECIPIENT, "", 12_500_001)
        fees = self.prepare(payment, token)
        assert not isinstance(fees, Unpayable), fees
        intent = self.rail.bind([payment], token, LaneView("XRP", SENDER, self.slot), fees, attempt_id=self.slot)
        self.slot += 1
        return signed(intent)

    def bump(self, version, **how):
        following = self.rail.bump(version.intent, self.estimate(), version=version.number + 1, **how)
        assert following is not None
        return signed(following)

    def submit(self, version):
        return asyncio.run(self.rail.submit(version.raw))

    def observe(self, *versions):
        return asyncio.run(self.rail.observe(list(versions)))

    def account(self, name, **how):
        return self.box.verbs["account"](Arguments({"name": name, **how}))["address"]

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


def test_xrp_is_paid_and_the_books_would_match_to_the_drop(town):
    before = town.holdings(XRP)
    version = town.pay()
    assert town.submit(version).verdict is Verdict.ACCEPTED
    assert town.observe(version) == Pending()
    town.mine()
    assert town.observe(version) == Pending()  # closed, and not validated
    town.mine()
    seen = town.observe(version)
    assert seen == Final(version.txid, seen.block, version.intent.terms["fee"])
    assert town.box.holding(RECIPIENT) == 12_500_001
    after = town.holdings(XRP)
    assert after.block >= seen.block
    assert before.units[XRP.id] - after.units[XRP.id] == 12_500_001 + seen.fee
    assert (after.slots_used, town.box.holding(SENDER)) == (before.slots_used + 1, after.units[XRP.id])


def test_the_fee_that_was_quoted_is_the_fee_that_is_charged(town):
    quoted = town.estimate().cost
    version = town.pay()
    town.submit(version)
    town.mine(2)
    assert town.observe(version).fee == quoted == version.intent.terms["fee"]


def test_a_token_is_opened_funded_and_paid_to_the_last_unit(town):
    assert town.run(town.rail.unopened(SENDER, [XRP, RLUSD])) == [RLUSD]
    opening = signed(town.rail.open(RLUSD, LaneView("XRP", SENDER, town.slot), town.estimate(RLUSD), attempt_id=town.slot))
    town.slot += 1
    assert town.submit(opening).verdict is Verdict.ACCEPTED
    town.mine(2)
    assert isinstance(town.observe(opening), Final)
    assert town.run(town.rail.unopened(SENDER, [XRP, RLUSD])) == []
    assert town.estimate().terms["reserve"] == 1_200_000
    town.box.fund(SENDER, 500_000_000, RLUSD.contract)
    theirs = town.account("holder", trusts=RLUSD.contract)
    town.mine(2)
    assert town.holdings().units[RLUSD.id] == 500_000_000
    version = town.pay(Payment(1, theirs, "", 12_345_678), RLUSD)
    assert town.submit(version).verdict is Verdict.ACCEPTED
    town.mine(2)
    assert isinstance(town.observe(version), Final)
    assert town.box.holding(theirs, RLUSD.contract) == 12_345_678
    assert town.holdings().units[RLUSD.id] == 487_654_322


def test_a_tag_goes_along(town):
    exchange = town.account("exchange", settings="require_dest")
    version = town.pay(Payment(1, exchange, "573049", 1_000_000))
    town.submit(version)
    town.mine(2)
    assert isinstance(town.observe(version), Final)


def test_what_a_recipient_demands_is_found_before_anything_is_bound(town):
    exchange, closed = town.account("exchange", settings="require_dest"), town.account("hermit", settings="deposit_auth")
    shy = town.account("shy", settings="disallow_xrp")
    town.mine(2)
    with pytest.raises(MemoRequired):
        town.run(town.rail.look_up(Destination(exchange), XRP, 1_000_000))
    town.run(town.rail.look_up(Destination(exchange, "1"), XRP, 1_000_000))
    for address in (closed, shy):
        with pytest.raises(InvalidDestination):
            town.run(town.rail.look_up(Destination(address), XRP, 1_000_000))
    for payment, token in (
        (Payment(1, exchange, "", 1_000_000), XRP),
        (Payment(1, closed, "", 1_000_000), XRP),
        (Payment(1, RECIPIENT, "", 999_999), XRP),
        (Payment(1, exchange, "1", 1_000_000), RLUSD),
    ):
        assert isinstance(town.prepare(payment, token), Unpayable)


@pytest.mark.parametrize("how", ["500", "503", "reset"])
def test_a_reply_that_is_lost_after_the_node_accepted_is_unknown_and_the_same_bytes_are_safe(town, how):
    version = town.pay()
    town.fault(break_after=1, breakage=how)
    assert town.submit(version).verdict is Verdict.UNKNOWN
    town.runtime.seconds += 60
    assert town.submit(version).verdict is not Verdict.REFUSED
    town.mine(2)
    assert isinstance(town.observe(version), Final)
    assert town.box.holding(RECIPIENT) == 12_500_001
    assert town.submit(version).verdict is not Verdict.REFUSED
    town.mine(2)
    assert town.box.holding(RECIPIENT) == 12_500_001


def test_what_a_node_acknowledged_and_lost_is_absent_until_it_is_sent_again(town):
    version = town.pay()
    town.fault(drop=1)
    assert town.submit(version).verdict is Verdict.ACCEPTED
    town.fault(drop=0)
    assert town.observe(version) == Absent()
    town.submit(version)
    assert town.box.forget(version.txid)
    assert town.observe(version) == Absent()
    town.submit(version)
    town.mine(2)
    assert isinstance(town.observe(version), Final)


def test_what_reaches_the_network_twice_is_paid_once(town):
    version = town.pay()
    town.fault(duplicate=2)
    town.submit(version)
    town.mine(3)
    assert isinstance(town.observe(version), Final)
    assert town.box.holding(RECIPIENT) == 12_500_001


def test_what_expired_is_signed_anew_on_the_same_sequence_and_only_one_can_land(town):
    first = town.pay()
    town.mine(WINDOW)
    assert town.observe(first) == Absent()
    town.mine(3)
    assert town.observe(first) == Pending(stuck=True)
    second = town.bump(first)
    assert (second.intent.slot, second.intent.terms["fee"]) == (first.intent.slot, first.intent.terms["fee"])
    assert second.intent.terms["last_ledger"] > first.intent.terms["last_ledger"] + WINDOW
    assert town.observe(first, second) == Absent()
    assert town.submit(second).verdict is Verdict.ACCEPTED
    assert town.submit(first).verdict is not Verdict.REFUSED
    town.mine(2)
    seen = town.observe(first, second)
    assert (type(seen), seen.txid) == (Final, second.txid)
    assert town.box.holding(RECIPIENT) == 12_500_001


@pytest.mark.parametrize("late", range(-3, 4))
def test_at_the_edge_of_its_life_a_transaction_either_lands_or_has_a_successor_never_both(town, late):
    """C5: given to the network when `late` more ledgers have closed than its last one allows for."""
    first = town.pay()
    while town.box.status()["head"] < first.intent.terms["last_ledger"] - 1 + late:
        town.mine()
    town.submit(first)
    for _ in range(6):
        town.mine()
        seen = town.observe(first)
        if isinstance(seen, Final) or seen == Pending(stuck=True):
            break
    versions = [first]
    if not isinstance(seen, Final):
        versions.append(town.bump(first))
        town.submit(versions[-1])
        town.mine(2)
        seen = town.observe(*versions)
    assert isinstance(seen, Final)
    assert (seen.txid == first.txid) == (late <= 0)
    assert town.box.holding(RECIPIENT) == 12_500_001


def test_a_ledger_gap_means_wait(town):
    first = town.pay()
    town.mine(WINDOW + 3)
    town.fault(gap=20)
    assert town.observe(first) == Pending()
    town.box.nodes[0].faults.gap = 0
    assert town.observe(first) == Pending()
    town.fault(gap=0)
    assert town.observe(first) == Pending(stuck=True)


def test_a_price_that_rose_is_met_on_the_same_sequence(town):
    first = town.pay()
    town.box.spike(64)
    assert town.submit(first).verdict is Verdict.ACCEPTED  # queued
    town.mine(4)
    town.box.spike(64)
    assert town.observe(first) == Pending(stuck=True)
    second = town.bump(first)
    assert second.intent.terms["fee"] > 64 * 10
    assert town.submit(second).verdict is Verdict.ACCEPTED
    town.mine(2)
    seen = town.observe(first, second)
    assert (seen.txid, seen.fee) == (second.txid, second.intent.terms["fee"])
    assert town.box.holding(RECIPIENT) == 12_500_001


def test_a_price_above_the_cap_waits_without_a_new_version(town):
    first = town.pay()
    town.box.spike(5_000)
    fees = town.estimate()
    assert fees.cost > first.intent.fee_cap
    assert town.rail.bump(first.intent, fees, version=2) is None


def test_a_cancel_uses_the_sequence_up_and_pays_nobody(town):
    """While the payment is only queued: what the open ledger has taken cannot be replaced there."""
    first = town.pay()
    town.box.spike(64)
    town.submit(first)
    cancel = town.bump(first, cancel=True)
    assert town.submit(cancel).verdict is Verdict.ACCEPTED
    town.mine(2)
    seen = town.observe(first, cancel)
    assert (type(seen), seen.txid) == (FailedOnChain, cancel.txid)
    assert town.box.holding(RECIPIENT) == 0


@pytest.mark.parametrize("fate", ["keep", "drop", "reorder"])
def test_a_closed_ledger_that_is_undone_changes_nothing(town, fate):
    version = town.pay()
    town.submit(version)
    town.mine()
    assert town.observe(version) == Pending()
    town.box.fork(1, fate)
    for _ in range(6):
        seen = town.observe(version)
        if isinstance(seen, Final):
            break
        assert isinstance(seen, Absent | Pending)
        town.submit(version)
        town.mine()
    assert isinstance(seen, Final)
    assert town.box.holding(RECIPIENT) == 12_500_001


def test_what_fails_on_the_ledger_costs_the_fee_and_moves_nothing(town):
    """The recipient came to demand a tag between our look and the ledger."""
    address = town.account("exchange")
    version = town.pay(Payment(1, address, "", 1_000_000))
    town.account("exchange", settings="require_dest")
    before = town.holdings(XRP).units[XRP.id]
    town.submit(version)
    town.mine(2)
    seen = town.observe(version)
    assert (type(seen), seen.fee) == (FailedOnChain, version.intent.terms["fee"])
    assert "tecDST_TAG_NEEDED" in seen.detail
    assert before - town.holdings(XRP).units[XRP.id] == seen.fee


def test_spending_the_reserve_fails_on_the_ledger_and_is_never_bound(town):
    payment = Payment(1, RECIPIENT, "", 99_500_000)
    version = town.pay(payment)
    town.submit(version)
    town.mine(2)
    assert "tecUNFUNDED_PAYMENT" in town.observe(version).detail


def test_two_nodes_that_disagree_are_not_believed(town):
    version = town.pay()
    town.submit(version)
    town.mine(2)
    town.box.nodes[1].faults.blind = True
    for _ in range(3):
        assert town.observe(version) == Included(version.txid, version.intent.terms["last_ledger"] - WINDOW + 2, 0, succeeded=True)
        town.runtime.seconds += STRANGER_S
    town.box.nodes[1].faults.blind = False
    assert isinstance(town.observe(version), Final)


def test_two_nodes_that_know_nothing_while_the_sequence_is_used_call_a_person(town):
    version = town.pay()
    town.submit(version)
    town.mine(2)
    town.fault(blind=True)
    assert not isinstance(town.observe(version), Suspicious)
    town.runtime.seconds += STRANGER_S
    assert isinstance(town.observe(version), Suspicious)
    town.fault(blind=False)
    assert isinstance(town.observe(version), Final)


def test_a_node_that_lags_settles_nothing_alone(town):
    town.box.nodes[1].faults.lag = 5
    version = town.pay()
    town.submit(version)
    town.mine(3)
    assert isinstance(town.observe(version), Included)
    town.mine(5)
    assert isinstance(town.observe(version), Final)


def test_a_restart_between_any_two_steps_gives_the_same_bytes(town):
    version = town.pay()
    for step in (lambda: None, lambda: town.submit(version), town.mine, lambda: town.submit(version), town.mine):
        step()
        town.rail = town.born()
        assert signed(version.intent) == version
    assert isinstance(town.observe(version), Final)
    assert town.box.holding(RECIPIENT) == 12_500_001


def test_many_sequences_in_any_order_of_arrival_are_all_paid(town):
    versions = [town.pay(Payment(n, RECIPIENT, "", 1_000_000 + n)) for n in range(12)]
    for version in reversed(versions):
        assert town.submit(version).verdict is Verdict.ACCEPTED
    town.mine(3)
    for version in versions:
        assert isinstance(town.observe(version), Final)
    assert town.box.holding(RECIPIENT) == sum(1_000_000 + n for n in range(12))


def test_a_node_of_another_network_is_refused_and_bytes_for_another_too(town):
    town.fault(chain_id=1)
    town.rail = town.born()
    with pytest.raises(WrongNetwork):
        town.run(town.rail.heads())
    town.fault(chain_id=0)
    town.runtime.seconds += 100
    other = structs.replace(town.pay().intent, chain_id=BOX + 1)
    assert town.submit(signed(other)).verdict is Verdict.REFUSED


def test_a_hot_address_nobody_funded_opens_no_lane_until_it_is_funded():
    town = Town(drops=0)
    with pytest.raises(NodeUnreachable, match="does not exist"):
        town.holdings()
    town.box.fund(SENDER, 20_000_000)
    town.mine(2)
    held = town.holdings()
    assert (held.units[XRP.id], held.slots_used > 1) == (20_000_000, True)


def test_the_catalogues_tokens_are_those_of_the_box(town):
    assert isinstance(RLUSD, Token)
    assert {token.contract for token in CATALOG.tokens_on("XRP") if token.contract} == {
        token["contract"] for token in town.box.status()["tokens"].values()
    }


# C5: whatever nodes do, one sequence pays once


class Weather:
    """Faults that come and go, by dice."""

    def __init__(self, town, dice):
        self.town = town
        self.dice = dice
        self.deeds = [self.lose, self.hide, self.lag, self.gap, self.forget, self.dear, self.fork, self.break_off, self.wait, self.twice]

    def act(self):
        self.dice.choice(self.deeds)()

    def node(self):
        return self.dice.choice(self.town.box.nodes).faults

    def lose(self):
        self.node().drop = self.dice.randrange(4)

    def hide(self):
        self.node().blind = self.dice.random() < 0.4

    def lag(self):
        self.node().lag = self.dice.choice([0, 0, 1, 2, 40])

    def gap(self):
        self.node().gap = self.dice.choice([0, 0, 5, 50])

    def twice(self):
        self.node().duplicate = 2

    def break_off(self):
        node = self.node()
        node.break_after, node.breakage = 1, self.dice.choice(["500", "503", "reset"])

    def forget(self):
        for txid in self.town.box.chain.waiting:
            self.town.box.forget(txid)

    def dear(self):
        self.town.box.spike(self.dice.choice([1, 2, 8, 60]))

    def fork(self):
        with contextlib.suppress(ValueError):
            self.town.box.fork(1, self.dice.choice(["keep", "drop", "reorder"]))

    def wait(self):
        self.town.mine(self.dice.choice([1, 2, 5, WINDOW + 2]))

    def clear(self):
        for node in self.town.box.nodes:
            node.faults = type(node.faults)()
        self.town.runtime.seconds += 60


def follow(town, dice, versions):
    """What the order room does after one look."""
    try:
        seen = town.observe(*versions)
        match seen:
            case Absent() | Included():
                town.submit(versions[-1])
            case Pending(stuck=True):
                following = town.rail.bump(versions[-1].intent, town.estimate(), version=len(versions) + 1)
                if following is not None and len(versions) < 20:
                    versions.append(signed(following))
                    town.submit(dice.choice(versions))  # also bytes that are older than the newest
            case _:
                pass
    except NodeUnreachable:
        return None
    return seen


@pytest.mark.parametrize("seed", range(100))
def test_whatever_the_nodes_do_one_sequence_pays_exactly_once(seed):
    dice = random.Random(seed)
    town = Town()
    before, weather = town.holdings(XRP), Weather(town, dice)
    versions, seen = [town.pay()], None
    for _ in range(40):
        weather.act()
        town.mine(dice.randrange(3))
        if dice.random() < 0.1:
            town.rail = town.born()
        seen = follow(town, dice, versions)
        if isinstance(seen, Final):
            break
        assert not isinstance(seen, FailedOnChain)
    weather.clear()
    for _ in range(200):
        if isinstance(seen, Final):
            break
        seen = follow(town, dice, versions)
        town.mine()
    assert isinstance(seen, Final)
    town.mine(3)
    after = town.holdings(XRP)
    assert town.box.holding(RECIPIENT) == 12_500_001
    assert before.units[XRP.id] - after.units[XRP.id] == 12_500_001 + seen.fee
    assert after.slots_used == before.slots_used + 1
    assert {version.intent.slot for version in versions} == {before.slots_used}
    town.submit(dice.choice(versions))
    town.mine(3)
    assert town.box.holding(RECIPIENT) == 12_500_001
