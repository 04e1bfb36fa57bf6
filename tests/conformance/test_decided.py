"""What comes after a person's decision: the house pays nothing that a person has failed, goes on comparing its coins, and starts again."""

import pytest
from msgspec.structs import replace

from penstock.commands import Commands
from penstock.core.errors import Refused
from penstock.core.event import Suspicious
from penstock.core.intent import Intent
from penstock.prove.simulated.virtual import Crash
from penstock.rails.base import Submission, Verdict
from penstock.rails.evm import codec
from penstock.rails.xrp import watch
from penstock.signer.client import SignerAway
from penstock.signer.keys import lane_keys
from tests.conformance.places import BITCOIN, ETHEREUM, LIGHTNING, XRP


class Refusing:
    """A signer's eye to which no seal fits."""

    def fits(self, *_payment, **_of):
        return False


def rows(house, sql):
    return house.run(house.product.database.read(lambda tx: tx.all(sql)))


def kinds(house):
    """What each version of what was asked for is, and how its attempt stands."""
    found = rows(house, "SELECT kind, state FROM version JOIN attempt ON attempt.id = attempt_id WHERE kind <> 'open' ORDER BY number")
    return [(row["kind"], row["state"]) for row in found]


def asked(house, place, name, number=1):
    """A payout of the place's main token; whom it is for."""
    value = place.pays[place.main]
    address, memo = place.recipient(house, number, value)
    assert house.run(house.withdraw(name, place.main, value, address, memo))["code"] == 10000
    return address


def decided(house, name, outcome, *, proved):
    return house.run(Commands(house.product).decide_order(name, outcome, "a person has looked", txid="", proved=proved))["state"]


def resumed(house, place):
    return house.run(Commands(house.product).resume(place.chain, "a person has looked"))["stood_because"]


def refused_by_the_signer(house, name):
    """An order that is quarantined because the signer refused it; the signer is well again afterwards."""
    seal, house.product.signer._seal = house.product.signer._seal, Refusing()
    address = asked(house, ETHEREUM, name)
    house.run(house.until(name, "quarantined"))
    house.product.signer._seal = seal
    return address


def test_what_a_person_has_failed_is_not_paid_by_a_further_version(tmp_path, monkeypatch):
    """One node alone could not prove that version 1 had expired, a person could; with a second node our own version 2 paid it."""
    with XRP.house(tmp_path) as house:
        judge = watch.judge
        monkeypatch.setattr(watch, "judge", lambda *given, **known: judge(*given, **known | {"alone": True}))

        async def nowhere(_raw):
            return Submission(Verdict.UNKNOWN, "no answer")

        house.product.rails["XRP"].submit = nowhere
        address = asked(house, XRP, "a")
        house.run(house.until("a", "quarantined", within_s=3_000))
        assert decided(house, "a", "failed", proved=True) == "failed"
        monkeypatch.setattr(watch, "judge", judge)
        house.restart()
        resumed(house, XRP)
        house.wait(600)
        assert (house.run(house.order("a"))["state"], XRP.received(house, address, XRP.main)) == ("failed", "0")
        # The sequence is used up by a cancel, so that what comes after it can land.
        assert kinds(house) == [("pay", "final"), ("cancel", "final")]
        asked(house, XRP, "b", 2)
        assert house.run(house.until("b", "succeeded", "failed", "quarantined"))["state"] == "succeeded"
        house.judge()


@pytest.mark.slow
@pytest.mark.parametrize("place", [ETHEREUM, BITCOIN, XRP], ids=lambda place: place.chain)
def test_what_no_node_took_and_a_person_failed_ends_by_a_cancel(tmp_path, monkeypatch, place):
    with place.house(tmp_path) as house:
        rail = house.product.rails[place.chain]

        async def nowhere(_raw):
            return Submission(Verdict.UNKNOWN, "no answer")

        async def strange(_versions):
            return Suspicious("nobody can tell")

        with monkeypatch.context() as away:
            away.setattr(rail, "submit", nowhere)
            address = asked(house, place, "a")
            house.run(house.until("a", "sending"))
            house.wait(5)
            away.setattr(rail, "observe", strange)
            house.run(house.until("a", "quarantined", within_s=3_000))
        assert decided(house, "a", "failed", proved=True) == "failed"
        resumed(house, place)
        house.wait(7_200 if place is BITCOIN else 900)
        assert (house.run(house.order("a"))["state"], place.received(house, address, place.main)) == ("failed", "0")
        assert kinds(house) == [("pay", "final"), ("cancel", "final")]
        asked(house, place, "b", 2)
        assert house.run(house.until("b", "succeeded", "failed", "quarantined", within_s=9_000))["state"] == "succeeded"
        house.judge()


def test_what_was_never_signed_is_failed_only_while_the_signer_can_say_so(tmp_path, monkeypatch):
    with ETHEREUM.house(tmp_path) as house:
        address = refused_by_the_signer(house, "a")

        async def away(_given):
            raise SignerAway("the signer does not answer")

        with monkeypatch.context() as gone:
            gone.setattr(house.product.signer, "entries", away)
            for proved in (False, True):
                with pytest.raises(Refused, match="the signer, who knows whether it has any, does not answer"):
                    decided(house, "a", "failed", proved=proved)
        assert decided(house, "a", "failed", proved=False) == "failed"
        resumed(house, ETHEREUM)
        house.wait(300)
        assert ETHEREUM.received(house, address, ETHEREUM.main) == "0"
        asked(house, ETHEREUM, "b", 2)
        assert house.run(house.until("b", "succeeded", "failed", "quarantined"))["state"] == "succeeded"
        house.judge()


@pytest.mark.parametrize("label", ["signer:buried", "settle:before", "settle:after"])
def test_a_crash_in_the_middle_of_a_decision_loses_no_nonce(tmp_path, label):
    with ETHEREUM.house(tmp_path) as house:
        refused_by_the_signer(house, "a")
        house.die()
        house.start(crash_at=(label, 1))
        house.wait(30)
        with pytest.raises(Crash):
            decided(house, "a", "failed", proved=False)
        house.die()
        house.start()
        house.wait(30)
        assert decided(house, "a", "failed", proved=False) == "failed"
        resumed(house, ETHEREUM)
        asked(house, ETHEREUM, "b", 2)
        assert house.run(house.until("b", "succeeded", "failed", "quarantined"))["state"] == "succeeded"
        assert [row["slot"] for row in rows(house, "SELECT slot FROM attempt WHERE state = 'final'")] == [0]
        house.judge()


def test_a_nonce_that_a_stranger_has_used_stops_neither_the_comparison_of_coins_nor_a_start(tmp_path):
    with ETHEREUM.house(tmp_path) as house:
        house.network.set_block_time(0)
        asked(house, ETHEREUM, "a")
        house.run(house.until("a", "sending"))
        house.wait(3)
        (version,) = rows(house, "SELECT intent, txid FROM version")
        house.network.forget(version["txid"])
        ours, native = Intent.from_json(version["intent"]), house.product.catalog.native("ETH")
        payment = replace(ours.payments[0], recipient="0x00000000000000000000000000000000000000bb", units=1)
        theirs = replace(ours, token_id=native.id, contract=None, payments=(payment,))
        house.network.chain.submit(codec.sign(theirs, lane_keys(house.keys)[codec.path(1, 0)]).raw)
        house.network.mine(1)
        house.network.set_block_time(1_000)
        house.run(house.until("a", "quarantined"))
        house.wait(60)
        assert decided(house, "a", "failed", proved=True) == "failed"
        assert "none of ours" in resumed(house, ETHEREUM)
        house.wait(60)
        assert "ETH left the hot address" in resumed(house, ETHEREUM)  # what the stranger took is seen, and a person says why
        house.wait(60)
        house.restart()
        house.wait(60)
        assert rows(house, "SELECT reason FROM recovery_hold") == []
        asked(house, ETHEREUM, "b", 2)
        assert house.run(house.until("b", "succeeded", "failed", "quarantined"))["state"] == "succeeded"


@pytest.mark.slow
def test_an_invoice_that_only_a_person_could_decide_stops_no_comparison_of_coins(tmp_path):
    with LIGHTNING.house(tmp_path) as house:
        rail = house.product.rails[LIGHTNING.chain]

        async def lost(_order, memory):
            memory.sent += 1
            memory.unanswered += 1
            return Submission(Verdict.UNKNOWN, "no answer")

        submit, rail._submit = rail._submit, lost
        asked(house, LIGHTNING, "a")
        house.run(house.until("a", "quarantined", within_s=9_000))
        rail._submit = submit
        assert decided(house, "a", "failed", proved=True) == "failed"
        house.wait(60)
        (before,) = rows(house, "SELECT block FROM treasury_seen")
        asked(house, LIGHTNING, "b", 2)
        assert house.run(house.until("b", "succeeded", "failed", "quarantined"))["state"] == "succeeded"
        house.wait(300)
        (after,) = rows(house, "SELECT block FROM treasury_seen")
        assert after["block"] > before["block"] + 200_000
