"""C7 of the test plan, short size: seeded weeks of one gateway, its node and whatever may go wrong between them.

The follower here does what the product's does (orders/follow.py): it submits what is signed, observes, and sends the same bytes again for Absent.
What is held against it is the truth of the network, weeks after the gateway has made up its mind.
"""

import random

import pytest

from penstock.core.event import Absent, FailedOnChain, Final, Suspicious
from penstock.rails.base import NodeUnreachable, Unpayable
from penstock.rails.lightning import fates
from tests.fixtures.lightning_town import SATS, Town

SCENARIOS = 100
FOUND = (1024, 1803, 2409)
"""Seeds that once released what was paid later."""
STEPS = 40
DAY_S = 86_400
WAITS_S = (0.02, 0.5, 3, 10, 30, 120, 700, 4_000, DAY_S, 3 * DAY_S)


class Life:
    """One seed: payments, troubles, and what the gateway decided."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.town = Town(seed)
        self.open = {}
        self.decided = {}
        self.all = []

    def trouble(self):
        town, dice = self.town, self.dice
        node = dice.choice([0, 1, "all"])
        match dice.randrange(16):
            case 0:
                town.do("hold", count=dice.randrange(1, 4))
            case 1:
                town.do("fail", count=dice.randrange(1, 3), reason=dice.choice(["TIMEOUT", "NO_ROUTE", "ERROR"]))
            case 2:
                town.do("partial", count=1)
            case 3:
                town.do("route", parts=dice.randrange(1, 6), latency_ms=dice.choice([0, 50, 5_000, DAY_S * 1000]))
            case 4:
                town.do("receiver", online=dice.randrange(2))
            case 5:
                town.do("restart", down_ms=dice.choice([100, 20_000, 3_600_000]))
            case 6:
                town.fault(node=node, break_after=1, breakage=dice.choice(["500", "503", "reset", "timeout"]))
            case 7:
                town.fault(node=node, delay_ms=dice.choice([0, 1_000, 60_000, 500_000]))
            case 8:
                town.fault(node=node, duplicate=1)
            case 9:
                town.fault(node=node, says_failed=True, hides_parts=bool(dice.randrange(2)))
            case 10:
                town.fault(node=node, down=dice.choice(["500", "reset", "timeout"]))
            case 11:
                town.fault(node=node, blind=True)
            case 12:
                town.fault(node=node, other_node=True)
            case 13:
                town.do("spike", factor=dice.choice([1, 1, 50]))
            case 14:
                town.restart()
            case 15:
                town.heal()

    def some_hash(self):
        return self.dice.choice(self.all).txid if self.all else None

    def begin(self):
        """One more order, from the invoice on; where it cannot be prepared now it is no order."""
        try:
            version = self.town.version(
                self.town.invoice(sat=self.dice.choice([1, 50, 3_000]), expiry_s=self.dice.choice([60, 900, 7 * DAY_S]))
            )
        except (NodeUnreachable, AttributeError):  # AttributeError: an Unpayable has no terms to bind on
            return
        self.all.append(version)
        self.open[version.txid] = version
        match self.dice.randrange(6):
            case 0:
                pass  # the process died before it was sent
            case 1:  # the call lies somewhere for minutes, and the next try fails
                self.town.fault(node="all", delay_ms=self.dice.randrange(1_000, 500_000))
                self.town.submit(version)
                self.town.fault(node="all", delay_ms=0)
                self.town.do("fail")
            case _:
                self.town.submit(version)

    def follow(self, version):
        try:
            seen = self.town.observe(version)
        except NodeUnreachable:
            return
        if isinstance(seen, Absent):
            self.town.submit(version)
        if isinstance(seen, Final | FailedOnChain):
            self.decided[version.txid] = seen
            del self.open[version.txid]

    def step(self):
        match self.dice.randrange(8):
            case 0 | 1:
                self.begin()
            case 2 | 3:
                self.trouble()
            case 4:
                if (payment_hash := self.some_hash()) and self.dice.randrange(2):
                    self.town.do("release", payment_hash=payment_hash, how=self.dice.choice(["settle", "settle", "fail"]))
            case _:
                pass
        self.town.later(self.dice.choice(WAITS_S))
        for version in list(self.open.values()):
            self.follow(version)
        self.check_failed()

    def check_failed(self):
        """What was called failed has nothing on any channel."""
        on_channels = {htlc.payment_hash for channel in self.town.box.world.channels for htlc in channel.htlcs}
        assert not on_channels & {txid for txid, seen in self.decided.items() if isinstance(seen, FailedOnChain)}

    def end(self):
        """Everything heals, every recipient takes what it can, a month passes."""
        town = self.town
        town.heal()
        town.do("receiver", online=1)
        town.do("spike", factor=1)
        for _ in range(5):
            town.later(6 * DAY_S)
            for version in self.all:
                town.do("release", payment_hash=version.txid, how="settle")
            for version in list(self.open.values()):
                self.follow(version)
            self.check_failed()

    def check(self):
        town = self.town
        for version in self.all:
            times, received = town.settled(version)
            seen = self.decided.get(version.txid)
            assert times <= 1, "never twice"
            assert times == isinstance(seen, Final), "what was taken is called paid, and nothing else"
            if seen is None:
                assert isinstance(town.observe(version), Suspicious), "what stays open is told to a person"
            if isinstance(seen, Final):
                assert received <= version.intent.payments[0].units
                assert seen.fee <= version.intent.fee_cap
        held = town.holdings()
        assert held.steady
        assert held.units[SATS.id] == town.box.holding(town.identity)


def live(seed):
    life = Life(seed)
    for _ in range(STEPS):
        life.step()
    life.end()
    life.check()
    return life


@pytest.mark.slow
def test_no_payment_is_released_while_a_part_of_it_may_settle_and_none_is_paid_twice():
    lives = [live(seed) for seed in (*range(SCENARIOS), *FOUND)]
    kinds = [type(seen) for life in lives for seen in life.decided.values()]
    assert kinds.count(Final) > 4 * SCENARIOS
    assert kinds.count(FailedOnChain) > SCENARIOS
    assert sum(len(life.open) for life in lives) < len(kinds) / 5, "most decide themselves, though nodes are away for days here"


def test_the_scenarios_find_a_failure_that_is_believed_at_once(monkeypatch):
    monkeypatch.setattr(fates.Memory, "certainly_failed", lambda *_: True)
    with pytest.raises(AssertionError, match=r"never twice|called paid|on_channels"):
        list(map(live, range(SCENARIOS)))


def test_a_hash_that_is_sent_whenever_it_is_unknown_is_paid_twice_by_a_node_that_forgets():
    """Why `send_by_ms` and the memory of what was known exist: with a recipient who takes twice, the plain rule pays twice."""
    town = Town()
    town.do("receiver", greedy=1)
    version = town.version(town.invoice())
    town.submit(version)
    town.later(1)
    town.do("forget", txid=version.txid)
    town.restart()
    town.submit(version)  # within its time and without memory: what remains is the treasury, which sees the outflow
    town.later(1)
    assert town.settled(version)[0] == 2
    assert not isinstance(town.prepare(town.invoice(), 1)[0], Unpayable)
