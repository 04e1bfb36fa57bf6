"""Caps and the switch: what the signer puts off, what it refuses, and what its journal remembers of both."""

import asyncio
import json

import pytest
from bip_utils import Bip39MnemonicDecoder
from msgspec import structs

from penstock.core.intent import Death, Payment, SignLater, SignRefused
from penstock.prove.simulated.house import MemoryJournal
from penstock.runtime import SystemRuntime
from penstock.signer import switch
from penstock.signer.local import LocalSigner
from penstock.signer.policy import DAY_MS, AllowedNetwork, Caps, Spent
from penstock.signer.seed import Seed
from tests.fixtures.nodes import MNEMONIC
from tests.fixtures.seals import SEAL, sealed
from tests.unit.test_signer import ALLOWED, RECIPIENT, USDT, pay

SEED = Seed(Bip39MnemonicDecoder().Decode(MNEMONIC))
MILLION = 10**6
SCALE = 10**12
CAPS = Caps({"USDT": 100 * MILLION * SCALE}, {"USDT": 250 * MILLION * SCALE}, {"usdt": ("USDT", SCALE), "native": ("ETH", 1)})


class Clock(SystemRuntime):
    """A day goes by when the test says so."""

    def __init__(self):
        super().__init__()
        self.ms = 1_790_000_000_000

    def now_ms(self):
        return self.ms


class Place:
    """One journal and the signers that open it one after another."""

    def __init__(self, caps=CAPS, allowed=ALLOWED, folder=None):
        self.clock, self.journal, self.caps, self.allowed, self.folder = Clock(), MemoryJournal(), caps, allowed, folder
        self.number = 0
        self.restart()

    def restart(self):
        read = (lambda: None) if self.folder is None else (lambda: switch.read(self.folder))
        self.signer = LocalSigner(SEED, self.journal, self.clock, self.allowed, SEAL, caps=self.caps, switch=read)

    def pay(self, units, **changes):
        self.number += 1
        intent = pay(attempt_id=self.number, slot=self.number, units=units, **changes)
        self.sign(intent)
        return intent

    def sign(self, *intents):
        return asyncio.run(self.signer.sign(list(intents)))

    def standing(self):
        return asyncio.run(self.signer.standing())


def test_an_order_above_its_cap_is_refused_and_one_at_its_cap_is_not():
    place = Place()
    with pytest.raises(SignRefused, match=r"one order may pay 100 USDT \(signer.order_max\)") as caught:
        place.pay(100 * MILLION + 1)
    assert not isinstance(caught.value, SignLater)
    place.pay(100 * MILLION)


def test_the_cap_of_a_day_puts_off_and_goes_on_by_itself_when_the_day_is_over():
    place = Place()
    for units in (100 * MILLION, 100 * MILLION, 50 * MILLION):
        place.pay(units)
        place.clock.ms += 60_000
    with pytest.raises(SignLater, match=r"250 of 250 USDT were signed within 24 hours \(signer.day_max\)") as caught:
        place.pay(1)
    assert caught.value.everything is False
    place.pay(10**18, token="native", contract=None)
    place.restart()
    with pytest.raises(SignLater):
        place.pay(1)
    place.clock.ms += DAY_MS - 180_000
    place.pay(100 * MILLION)
    with pytest.raises(SignLater):
        place.pay(1)


def test_the_cap_of_a_day_counts_all_of_one_call_and_the_standing_says_what_is_left():
    place = Place()
    batch = [pay(attempt_id=n, slot=n, units=90 * MILLION) for n in range(1, 4)]
    with pytest.raises(SignLater, match="attempt 3 version 1: 180 of 250 USDT"):
        place.sign(*batch)
    assert place.journal.lines == []
    place.sign(*batch[:2])
    assert place.standing().left == {"USDT": 70 * MILLION * SCALE}


def test_a_minute_is_one_sum_that_counts_until_its_newest_is_a_day_old():
    spent = Spent()
    for second in range(60):
        spent.note("USDT", 1, second * 1_000)
    assert len(spent._lately["USDT"]) == 1
    assert spent.within_a_day("USDT", DAY_MS + 58_999) == 60
    assert spent.within_a_day("USDT", DAY_MS + 59_000) == 0


def test_versions_of_an_attempt_count_once():
    place = Place()
    first = place.pay(100 * MILLION)
    dearer = {"gas_limit": 60_000, "max_fee_per_gas": 2_250_000_000, "max_priority_fee_per_gas": 1_125_000_000}
    for version in (2, 3):
        place.sign(structs.replace(first, version=version, terms=dearer))
    place.sign(first)
    assert place.standing().left == {"USDT": 150 * MILLION * SCALE}


def test_a_clock_that_steps_back_forgets_nothing():
    place = Place()
    for _ in range(2):
        place.pay(100 * MILLION)
    place.clock.ms -= 3_600_000
    place.restart()
    with pytest.raises(SignLater):
        place.pay(100 * MILLION)


def test_a_death_gives_nothing_back_for_only_the_chain_knows_whether_it_is_true():
    """TRON: what has expired by our clock may have been mined. Whoever lies about deaths gets not more than the cap of a day."""
    allowed = {"TRX": AllowedNetwork("tron", 728126428, {"trx": None}, 10**8)}
    place = Place(Caps({}, {"TRX": 250 * 10**18}, {"trx": ("TRX", 10**18)}), allowed)
    sender = asyncio.run(place.signer.address("TRX", 0))
    expires_ms = place.clock.ms + 60_000
    terms = {"ref_block": 1, "ref_block_hash": 1, "expiration": expires_ms, "net_fee_max": 0}

    def intent(attempt_id):
        payment = Payment(7, "TJRabPrwbZy45sbavfcjinPJC18kjpRTv8", "", 100)
        fields = {"chain": "TRX", "family": "tron", "chain_id": 728126428, "sender": sender, "token_id": "trx", "contract": None}
        return sealed(pay(attempt_id=attempt_id, slot=attempt_id, payments=(payment,), terms=terms, fee_cap=10**7, **fields))

    for attempt_id in (1, 2):
        place.sign(intent(attempt_id))
        place.clock.ms = expires_ms + attempt_id
        asyncio.run(place.signer.bury([Death(attempt_id, "a lie")]))
    with pytest.raises(SignLater, match="200 of 250 TRX"):
        place.sign(intent(3))


def test_the_switch_stops_every_signature_also_a_repeated_one_and_outlives_a_restart(tmp_path):
    place = Place(folder=tmp_path)
    first = place.pay(1)
    switch.turn(tmp_path, place.clock, stop=True, reason="a key may be stolen")
    for intent in (first, pay(attempt_id=99, slot=99)):
        with pytest.raises(SignLater, match="the signer is stopped: a key may be stolen") as caught:
            place.sign(intent)
        assert caught.value.everything is True
    assert place.standing().stopped == "the signer is stopped: a key may be stolen"
    (tmp_path / switch.FILE).unlink()
    place.restart()
    assert place.standing().stopped, "a file that went away starts nothing"
    turned = switch.turn(tmp_path, place.clock, stop=False, reason="it was not")
    assert place.standing().stopped == ""
    place.sign(first)
    kinds = [(line["kind"], line.get("reason")) for line in place.journal.lines if line["kind"] != "sign"]
    assert kinds == [("stop", "a key may be stolen"), ("go", "it was not")]
    switch.turn(tmp_path, place.clock, stop=True, reason="again")
    place.restart()
    assert place.standing().stopped
    (tmp_path / switch.FILE).write_text(json.dumps({"id": turned.id, "stop": False, "reason": "old"}))
    assert place.standing().stopped, "a turn that was put back from a backup is not turned again"


def test_a_stop_that_comes_while_many_are_built_keeps_all_of_them(tmp_path):
    place = Place(folder=tmp_path)
    make = place.signer._make

    def slow(intent):
        switch.turn(tmp_path, place.clock, stop=True, reason="now")
        return make(intent)

    place.signer._make = slow
    with pytest.raises(SignLater, match="stopped: now"):
        place.pay(1)
    assert [line["kind"] for line in place.journal.lines] == ["stop"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", '{"id": "", "stop": false, "reason": ""}', '{"id": "a", "stop": 0, "reason": ""}', "[" * 9999]
)
def test_a_switch_that_cannot_be_read_stops(tmp_path, content):
    place = Place(folder=tmp_path)
    (tmp_path / switch.FILE).write_text(content)
    with pytest.raises(SignLater, match="is damaged"):
        place.pay(1)
    (tmp_path / switch.FILE).unlink()
    (tmp_path / switch.FILE).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SignLater, match="cannot be read"):
        place.pay(1)
    assert place.journal.lines == []


def test_an_intent_that_no_line_of_the_journal_holds_is_refused():
    place = Place()
    long = structs.replace(pay(), payments=(Payment(1, RECIPIENT, "", 1, key="é" * 100_000),))
    with pytest.raises(SignRefused, match="longer than any"):
        place.sign(sealed(long))
    assert place.journal.lines == []
    assert place.allowed["ETH"].contracts["usdt"] == USDT


def test_a_cancel_that_names_no_order_is_refused_on_every_family():
    """Found by the red team: the XRP Ledger's codec takes a first cancel without payments, and each one burns a fee on a new sequence."""
    allowed = {"XRP": AllowedNetwork("xrp", 0, {"xrp": None}, 10**5)}
    place = Place(Caps(), allowed)
    sender = asyncio.run(place.signer.address("XRP", 0))
    fields = {"chain": "XRP", "family": "xrp", "chain_id": 0, "sender": sender, "token_id": "xrp", "contract": None, "fee_cap": 5_000}
    cancel = pay(kind="cancel", payments=(), terms={"fee": 12, "last_ledger": 1_000}, **fields)
    with pytest.raises(SignRefused, match="names no order"):
        place.sign(cancel)
    assert place.journal.lines == []
