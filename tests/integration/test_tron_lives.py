"""Rail and signer of TRON together: an order never has two transactions that can land (test plan, C4)."""

import asyncio
import contextlib

import pytest
from bip_utils import Bip39MnemonicDecoder

from penstock.core.event import Dead, FailedOnChain, Final
from penstock.core.intent import Death, Intent, Payment, SignRefused
from penstock.rails.base import FeeEstimate, LaneView, NodeUnreachable, VersionView
from penstock.rails.tron import codec
from penstock.signer.journal import FileJournal
from penstock.signer.local import LocalSigner
from penstock.signer.policy import AllowedNetwork
from penstock.signer.seed import Seed
from tests.fixtures.nodes import MNEMONIC
from tests.fixtures.seals import SEAL, sealed
from tests.fixtures.tron import ALICE, BLOCK_MS, CHAIN_ID, USDT, USDT_CONTRACT, Bench, Runtime, transfer_log, tx

UNITS = 5_000_000


class House:
    """One order's rail and signer. `clock_off_s` is how far this machine's clock is from the chain's."""

    def __init__(self, home, clock_off_s=0):
        self.bench = Bench()
        self.home, self.clock = home, Runtime()
        self.clock.seconds = self.bench.runtime.seconds + clock_off_s
        self.journal = None
        self.versions = []
        self.open()
        self.hot = asyncio.run(self.signer.address("TRX", 0))
        for node in self.bench.nodes:
            node.balances = {self.hot: 10**12}

    def open(self):
        """Start the signer, or start it again."""
        if self.journal is not None:
            self.journal.close()
        self.journal = FileJournal(self.home)
        allowed = {"TRX": AllowedNetwork("tron", CHAIN_ID, {"usdt": USDT_CONTRACT}, 100_000_000)}
        self.signer = LocalSigner(Seed(Bip39MnemonicDecoder().Decode(MNEMONIC)), self.journal, self.clock, allowed, SEAL)

    def intent(self, attempt_id):
        payment = Payment(77, ALICE, "", UNITS)
        none = FeeEstimate("usdt", 0, 0, {}, 0, 0)
        (fees,) = self.bench.run(self.bench.rail.prepare([payment], USDT, self.hot, none))
        return sealed(self.bench.rail.bind([payment], USDT, LaneView("TRX", self.hot, attempt_id), fees, attempt_id=attempt_id))

    def sign(self, intent):
        (signed,) = asyncio.run(self.signer.sign([intent]))
        self.versions.append(VersionView(1, signed.txid, signed.raw, intent))
        return self.versions[-1]

    def bury(self, version, proof):
        asyncio.run(self.signer.bury([Death(version.intent.attempt_id, proof)]))

    def run(self, blocks):
        """Both clocks and the chain go on."""
        self.bench.chain.run(blocks)
        for clock in (self.bench.runtime, self.clock):
            clock.seconds += blocks * BLOCK_MS / 1000

    def land(self, version, **how):
        """A block with it, if a node of the real network would put it there: the block before is older than its expiration."""
        if self.bench.chain.head.time_ms < version.intent.terms["expiration"]:
            self.bench.chain.add(**{version.txid: tx(logs=[transfer_log(sender=self.hot)], **how)})
            return True
        return False


@pytest.fixture
def house(tmp_path):
    built = House(tmp_path)
    yield built
    built.journal.close()


def test_a_second_attempt_waits_for_the_proved_death_of_the_first(house):
    first = house.sign(house.intent(1))
    with pytest.raises(SignRefused, match="death is not proved"):
        house.sign(house.intent(2))
    with pytest.raises(SignRefused, match="has not expired"):
        house.bury(first, "somebody said so")
    house.run(200)
    seen = house.bench.observe(first)
    assert isinstance(seen, Dead)
    house.bury(first, seen.proof)
    second = house.sign(house.intent(2))
    assert second.txid != first.txid
    assert not house.land(first)
    assert house.land(second)


def test_a_restart_between_any_two_steps_gives_the_same_bytes(house):
    intent = house.intent(1)
    signed = house.sign(intent)
    house.open()
    assert house.sign(Intent.from_json(intent.to_json())).raw == signed.raw
    house.run(3)
    changed = house.intent(1)
    assert changed.terms != intent.terms
    with pytest.raises(SignRefused, match="another intent"):
        house.sign(changed)


@pytest.mark.parametrize("minutes", [-10, 0, 10])
@pytest.mark.parametrize("landing", [None, "before", "edge", "failed"])
def test_whatever_this_machines_clock_says_an_order_is_paid_at_most_once(tmp_path, minutes, landing):
    house = House(tmp_path, clock_off_s=60 * minutes)
    paid = attempts = 0
    version = house.sign(house.intent(1))
    with contextlib.closing(house.journal):
        for step in range(400):
            house.run(1)
            edge = house.bench.chain.head.time_ms + BLOCK_MS >= version.intent.terms["expiration"]
            if attempts == 0 and ((landing in ("before", "failed") and step == 20) or (landing == "edge" and edge)):
                how = {"ret": "OUT_OF_ENERGY"} if landing == "failed" else {}
                paid += house.land(version, **how) and landing != "failed"
                attempts += 1
            try:
                seen = house.bench.observe(version)
            except NodeUnreachable:
                continue
            finally:
                house.bench.runtime.seconds -= 60
            if isinstance(seen, Final | FailedOnChain):
                break
            if isinstance(seen, Dead):
                assert not any(house.land(old) for old in house.versions)
                with contextlib.suppress(SignRefused):  # its clock is behind: later
                    house.bury(version, seen.proof)
                    version, attempts = house.sign(house.intent(version.intent.attempt_id + 1)), attempts + 1
                    paid += house.land(version)
        landed = [old for old in house.versions if any(old.txid in block.txs for block in house.bench.chain.blocks)]
        assert len(landed) == 1
        assert paid == (landing != "failed")
        assert isinstance(seen, FailedOnChain if landing == "failed" else Final)


def test_what_is_paid_reaches_the_chain_byte_for_byte(house):
    version = house.sign(house.intent(1))
    asyncio.run(house.bench.rail.submit(version.raw))
    (raw,) = house.bench.node.sent
    found = codec.decode(raw)
    assert (found.sender, found.unsigned.to, found.txid) == (house.hot, USDT_CONTRACT, version.txid)
