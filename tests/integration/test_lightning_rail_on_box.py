"""The Lightning rail against its network in a box, in process: what is paid, what is not known, and what is never done twice."""

import asyncio
from dataclasses import replace

import pytest

from penstock.catalog import Catalog
from penstock.core.event import Absent, FailedOnChain, Final, Pending, Suspicious
from penstock.core.intent import Payment
from penstock.rails.base import InvalidDestination, NodeUnreachable, OwnAddress, Unpayable, Verdict
from penstock.rails.lightning import codec
from penstock.rails.lightning.fates import QUIET_S, QUIET_UNSURE_S
from penstock.rails.lightning.rail import NOT_KNOWN, LightningRail, talk
from penstock.rails.rpc import Nodes
from tests.fixtures.lightning_bench import MAIN, OTHER_NODE, REGTEST, NoKey
from tests.fixtures.lightning_town import Town

CATALOG = Catalog.load().with_network("LIGHTNING", chain_id=REGTEST)
SATS = CATALOG.native("LIGHTNING")
DAY_S = 86_400


@pytest.fixture
def town():
    return Town()


def test_an_invoice_is_paid_and_what_left_is_the_amount_and_the_fee_that_was_told(town):
    before = town.holdings()
    version = town.version(town.invoice(sat=2_500))
    assert town.submit(version).verdict is Verdict.ACCEPTED
    assert town.observe(version) == Pending()
    assert not town.holdings().steady
    town.later(1)
    seen = town.observe(version)
    assert seen == Final(version.txid, town.runtime.now_ms(), 1_000 + 250, seen.detail)
    assert town.settled(version) == (1, 2_500_000)
    after = town.holdings()
    assert before.steady and after.steady and after.clocked
    assert after.units[SATS.id] == before.units[SATS.id] - 2_500_000 - seen.fee == town.box.holding(town.identity)
    assert after.block > before.block


def test_an_invoice_without_an_amount_takes_what_is_paid(town):
    version = town.version(town.invoice(), sat=321)
    town.submit(version)
    town.later(1)
    assert isinstance(town.observe(version), Final)
    assert town.settled(version) == (1, 321_000)


def test_what_is_ours_is_exact_whoever_opened_the_channels_and_whatever_the_fees_of_commitments_do(town):
    town.do("channel", units=50_000_000, opener="peer")
    town.do("route", fee_base_msat=1_234, fee_ppm=777)
    for number in range(5):
        version = town.version(town.invoice(sat=1_001 + number))
        town.submit(version)
        town.later(1)
        assert isinstance(town.observe(version), Final)
        for channel in town.box.world.channels:
            channel.fee_per_kw += 313
        held = town.holdings()
        assert held.steady
        assert held.units[SATS.id] == town.box.holding(town.identity)


def test_a_reply_that_is_lost_after_the_payment_began_changes_nothing(town):
    for breakage in ("500", "503", "reset", "timeout"):
        version = town.version(town.invoice(sat=10))
        town.fault(node="all", break_after=1, breakage=breakage)
        assert town.submit(version).verdict in (Verdict.UNKNOWN, Verdict.ACCEPTED)
        town.heal()
        town.later(1)
        assert town.submit(version).verdict is Verdict.ACCEPTED, "the node knows it"
        assert isinstance(town.observe(version), Final)
        assert town.settled(version)[0] == 1


def test_an_order_that_never_reached_the_node_is_sent_again_and_the_bytes_are_the_same(town):
    version = town.version(town.invoice())
    town.fault(node="all", down="reset")
    assert town.submit(version).verdict is Verdict.UNKNOWN
    with pytest.raises(NodeUnreachable):
        town.observe(version)
    town.heal()
    town.later(5)
    assert town.observe(version) == Absent()
    assert codec.sign(version.intent, NoKey()).raw == version.raw
    assert town.submit(version).verdict is Verdict.ACCEPTED
    town.later(1)
    assert isinstance(town.observe(version), Final)


def test_an_order_that_was_acknowledged_and_lost_is_for_a_person(town):
    """LND writes its record before it answers, so this node's records are gone: it may pay the hash a second time."""
    version = town.version(town.invoice())
    town.fault(node="all", drop=1)
    assert town.submit(version).verdict is Verdict.ACCEPTED
    assert isinstance(town.observe(version), Suspicious)
    assert town.submit(version).verdict is Verdict.UNKNOWN
    town.later(1)
    assert town.settled(version) == (0, 0)


def test_a_payment_may_be_in_flight_for_two_weeks_and_then_settle(town):
    town.do("hold")
    version = town.version(town.invoice(expiry_s=600))
    town.submit(version)
    for _ in range(14):
        town.later(DAY_S)
        assert town.observe(version) == Pending()
        assert town.submit(version).verdict is Verdict.ACCEPTED
        assert not town.holdings().steady
    town.do("release", payment_hash=version.txid)
    assert isinstance(town.observe(version), Final)
    assert town.settled(version)[0] == 1


def test_a_payment_that_comes_back_fails_for_good_and_only_after_quiet(town):
    town.do("receiver", online=0)
    before = town.holdings().units
    version = town.version(town.invoice())
    town.submit(version)
    assert town.observe(version) == Pending(), "the node says so, and a call of ours may still be on its way"
    town.later(QUIET_S - 1)
    assert town.observe(version) == Pending()
    town.later(1)
    seen = town.observe(version)
    assert seen == FailedOnChain(version.txid, town.runtime.now_ms(), 0, seen.detail)
    assert "NO_ROUTE" in seen.detail
    assert town.holdings().units == before


def test_a_failed_payment_is_never_given_to_the_node_again(town):
    """LND would try it a second time: https://github.com/lightningnetwork/lnd/blob/master/payments/db/payment_status.go"""
    town.do("fail", reason="TIMEOUT")
    version = town.version(town.invoice())
    town.submit(version)
    for _ in range(3):
        assert town.submit(version).verdict is Verdict.ACCEPTED
    town.restart()
    assert town.submit(version).verdict is Verdict.ACCEPTED
    town.later(QUIET_UNSURE_S)
    town.observe(version)
    town.later(QUIET_UNSURE_S)
    assert isinstance(town.observe(version), FailedOnChain)
    assert town.settled(version) == (0, 0)


def test_a_call_that_lies_somewhere_for_minutes_keeps_a_failure_from_being_final(town):
    version = town.version(town.invoice())
    town.fault(node=0, delay_ms=240_000)
    town.fault(node=1, down="reset")
    assert town.submit(version).verdict is Verdict.UNKNOWN
    town.heal()
    town.do("fail")
    assert town.observe(version) == Absent()
    assert town.submit(version).verdict is Verdict.ACCEPTED
    seen = Pending()
    for _ in range(60):
        assert not isinstance(seen, FailedOnChain)
        town.later(10)
        seen = town.observe(version)
    assert isinstance(seen, Final), "the late call began it anew, and it was paid"
    assert town.settled(version)[0] == 1


def test_a_call_without_an_answer_is_not_made_again_by_another_address_at_once(town):
    """Both would arrive, and only one of them would be waited for: found by the seeds of C7."""
    version = town.version(town.invoice())
    town.fault(node=0, delay_ms=60_000)
    town.do("fail", reason="TIMEOUT")
    assert town.submit(version).verdict is Verdict.UNKNOWN
    assert sum(path.endswith("/v2/router/send") for path in town.asked) == 1
    assert town.observe(version) == Absent()
    assert town.submit(version).verdict is Verdict.ACCEPTED, "by the other address, and it fails"
    seen = Pending()
    for _ in range(6):
        assert not isinstance(seen, FailedOnChain)
        town.later(20)
        seen = town.observe(version)
    assert isinstance(seen, Final), "by the call that was late"


def test_a_node_that_calls_failed_what_is_in_flight_is_not_believed(town):
    for hidden in (False, True):
        town.do("hold")
        version = town.version(town.invoice())
        town.submit(version)
        town.fault(node="all", says_failed=True, hides_parts=hidden)
        for _ in range(20):
            town.later(QUIET_S)
            assert town.observe(version) == Pending(), "a channel still has a part of it"
        town.do("release", payment_hash=version.txid)
        town.heal()
        assert isinstance(town.observe(version), Final)


def test_a_payment_in_parts_is_pending_while_one_of_them_may_settle(town):
    town.do("partial")
    town.do("route", parts=4)
    version = town.version(town.invoice(sat=4_000))
    town.submit(version)
    for _ in range(10):
        town.later(DAY_S)
        assert town.observe(version) == Pending()
    town.do("release", payment_hash=version.txid, how="fail")
    town.observe(version)
    town.later(QUIET_S)
    assert isinstance(town.observe(version), FailedOnChain)
    assert town.settled(version) == (0, 0)


def test_a_payment_in_parts_settles_as_one(town):
    town.do("route", parts=5)
    version = town.version(town.invoice(sat=10_000))
    town.submit(version)
    town.later(1)
    assert isinstance(town.observe(version), Final)
    assert town.settled(version) == (1, 10_000_000)


def test_a_node_that_forgot_a_payment_is_never_given_it_again(town):
    town.do("receiver", greedy=1)
    version = town.version(town.invoice())
    town.submit(version)
    town.later(1)
    town.do("forget", txid=version.txid)
    assert isinstance(town.observe(version), Suspicious)
    assert town.submit(version).verdict is Verdict.UNKNOWN
    town.later(DAY_S)
    town.restart()
    assert isinstance(town.observe(version), Suspicious), "its time is over, whatever this process remembers"
    assert town.submit(version).verdict is Verdict.UNKNOWN
    assert town.settled(version)[0] == 1


def test_a_forgotten_payment_whose_part_is_on_a_channel_is_pending(town):
    town.do("hold")
    version = town.version(town.invoice())
    town.submit(version)
    town.do("forget", txid=version.txid)
    town.restart()
    assert town.observe(version) == Pending()
    assert town.submit(version).verdict is Verdict.ACCEPTED


def test_an_order_whose_time_is_over_is_not_sent(town):
    version = town.version(town.invoice(expiry_s=120))
    town.later(110)
    assert "its time to be sent is over" in town.submit(version).detail
    assert isinstance(town.observe(version), Suspicious)
    town.later(DAY_S)
    assert town.settled(version) == (0, 0)


def test_an_order_that_was_never_given_to_the_node_fails_by_itself_once_its_time_is_over(town):
    version = replace(town.version(town.invoice(expiry_s=120)), given=False)
    town.fault(node="all", down="reset")
    assert "reset" in town.run(town.rail.withheld(version.raw))
    town.heal()
    assert town.run(town.rail.withheld(version.raw)) == ""
    town.later(110)
    assert "its time to be sent is over" in town.run(town.rail.withheld(version.raw))
    assert town.observe(version) == Absent()
    town.later(600)
    assert isinstance(town.observe(version), FailedOnChain)
    assert town.observe(replace(version, given=True)) == Suspicious(NOT_KNOWN, alone=True)
    town.restart()
    assert isinstance(town.observe(version), FailedOnChain)
    town.later(DAY_S)
    assert town.settled(version) == (0, 0)


def test_what_the_node_knows_is_judged_by_the_node_whatever_our_record_says(town):
    """A standby that took over may lack the record that it was given."""
    version = replace(town.version(town.invoice(expiry_s=120)), given=False)
    town.submit(version)
    town.restart()
    town.later(DAY_S)
    assert town.run(town.rail.withheld(version.raw)) == ""
    assert isinstance(town.observe(version), Final)


@pytest.mark.parametrize("step_s", [3_600, -3_600])
def test_a_step_of_the_clock_makes_no_payment_late_and_gives_none_more_time(town, step_s):
    """An hour ahead, what had not reached the node yet was for a person; an hour back, it was sent an hour after its time."""
    version = town.version(town.invoice(sat=1_000, expiry_s=900))
    town.runtime.stepped_s = step_s
    assert town.observe(version) == Absent()
    assert town.settled(version) == (0, 0)
    town.runtime.stepped_s = 0
    assert town.submit(version).verdict is Verdict.ACCEPTED
    town.later(5)
    assert isinstance(town.observe(version), Final)

    late = town.version(town.invoice(sat=1_000, expiry_s=900))
    town.runtime.stepped_s = step_s
    town.later(950)
    town.asked.clear()
    assert "its time to be sent is over" in town.submit(late).detail
    assert "/v2/router/send" not in town.asked
    assert isinstance(town.observe(late), Suspicious if step_s > 0 else Absent)
    town.later(3_600)
    assert isinstance(town.observe(late), Suspicious)
    assert town.settled(late) == (0, 0)


def test_an_invoice_is_not_refused_for_ever_because_the_clock_was_stepped(town):
    invoice = town.invoice(sat=1_000, expiry_s=900)
    town.runtime.stepped_s = 3_600
    (held,) = town.prepare(invoice, 1_000)
    assert isinstance(held, Unpayable) and not held.for_ever
    town.later(900)
    (expired,) = town.prepare(invoice, 1_000)
    assert expired.for_ever


def test_an_invoice_that_expires_while_it_is_paid_changes_nothing(town):
    town.do("hold")
    version = town.version(town.invoice(expiry_s=60))
    town.submit(version)
    town.later(3_600)
    assert town.observe(version) == Pending()
    town.do("release", payment_hash=version.txid)
    assert isinstance(town.observe(version), Final)


def test_an_expired_invoice_can_never_be_paid_and_that_needs_no_proof(town):
    invoice = town.invoice(expiry_s=60)
    town.later(31)
    (answer,) = town.prepare(invoice, 1_000)
    assert isinstance(answer, Unpayable) and answer.for_ever


def test_more_than_the_channels_can_send_waits_for_them(town):
    (answer,) = town.prepare(town.invoice(sat=900_000), 900_000)
    assert isinstance(answer, Unpayable) and not answer.for_ever
    town.do("fund", address=town.identity, units=1_000_000_000)
    (answer,) = town.prepare(town.invoice(sat=900_000), 900_000)
    assert not isinstance(answer, Unpayable)


def test_payments_that_are_prepared_together_share_what_the_channels_can_send(town):
    payments = [Payment(n, town.invoice(sat=200_000), "", 200_000_000) for n in range(4)]
    answers = town.run(town.rail.prepare(payments, SATS, town.identity, town.estimate()))
    assert [isinstance(answer, Unpayable) for answer in answers] == [False, False, True, True]


def test_the_house_bears_the_routing_under_a_limit(town):
    assert town.estimate().cost == 0
    small, large, huge = (town.prepare(town.invoice(), sat)[0] for sat in (10, 5_000, 100_000))
    assert [fees.cost for fees in (small, large, huge)] == [0, 0, 0]
    assert [fees.fee_cap for fees in (small, large, huge)] == [10_000, 50_000, 1_000_000]
    town.do("spike", factor=1_000)
    version = town.version(town.invoice(sat=10))
    town.submit(version)
    town.observe(version)
    town.later(QUIET_S)
    assert isinstance(town.observe(version), FailedOnChain), "no route within the limit"


def test_one_address_that_lies_or_is_down_does_not_stop_the_other(town):
    version = town.version(town.invoice())
    town.fault(node=0, down="500")
    assert town.submit(version).verdict is Verdict.ACCEPTED
    town.fault(node=0, down="", other_node=True)
    town.later(61)
    assert isinstance(town.observe(version), Final)
    assert any(OTHER_NODE not in fault and "is configured (node_id)" in fault for fault in town.rail.faults())


def test_another_node_or_network_is_never_used(town):
    version = town.version(town.invoice())
    town.fault(node="all", other_node=True)
    town.restart()
    assert town.submit(version).verdict is Verdict.UNKNOWN
    with pytest.raises(NodeUnreachable, match="node_id"):
        town.observe(version)
    town.heal()
    town.fault(node="all", chain_id=MAIN)
    town.restart()
    with pytest.raises(NodeUnreachable, match="'mainnet'"):
        town.estimate()
    town.later(DAY_S)
    assert town.settled(version) == (0, 0)


def test_an_attempt_of_another_node_is_not_touched(town):
    """The node in the settings was replaced: only the old one knows."""
    version = town.version(town.invoice())
    rail = LightningRail(
        town.network,
        Nodes(town.urls, talk(town.post, chain_id=REGTEST, own=town.identity), town.runtime),
        town.runtime,
        own=[OTHER_NODE],
    )
    assert town.run(rail.submit(version.raw)).verdict is Verdict.UNKNOWN
    assert isinstance(town.run(rail.observe([version])), Suspicious)


def test_a_wrong_macaroon_opens_nothing_and_is_in_no_text(town):
    urls = [url.replace(town.box.world.macaroon, "ab" * 32) for url in town.urls]
    rail = town.rail_on(urls)
    with pytest.raises(NodeUnreachable) as refused:
        town.run(rail.estimate(SATS))
    assert "verification failed" in str(refused.value)
    assert not any("ab" * 8 in text or "box" in text for text in (str(refused.value), *rail.faults()))


def test_restarts_between_all_steps_pay_once(town):
    version = town.version(town.invoice(sat=77))
    for _ in range(2):
        town.restart()
        assert codec.sign(version.intent, NoKey()).raw == version.raw
        town.submit(version)
    town.do("restart", down_ms=5_000)
    with pytest.raises(NodeUnreachable):
        town.observe(version)
    town.later(6)
    town.restart()
    assert isinstance(town.observe(version), Final)
    assert town.settled(version) == (1, 77_000)


def test_calls_for_one_payment_at_the_same_time_send_it_once(town):
    version = town.version(town.invoice())

    async def all_at_once():
        return await asyncio.gather(*(town.rail.submit(version.raw) for _ in range(10)))

    assert {said.verdict for said in town.run(all_at_once())} == {Verdict.ACCEPTED}
    assert sum(path.endswith("/v2/router/send") for path in town.asked) == 1


def test_the_node_may_not_be_asked_to_pay_itself(town):
    own = town.box.world.identity
    rail = LightningRail(town.network, Nodes(town.urls, talk(town.post, chain_id=REGTEST, own=own), town.runtime), town.runtime, own=[own])
    payee = town.box.world.recipient.identity
    mine = LightningRail(
        town.network, Nodes(town.urls, talk(town.post, chain_id=REGTEST, own=payee), town.runtime), town.runtime, own=[payee]
    )
    invoice = town.invoice()
    assert rail.parse_destination(invoice, "").once == f"lightning:{codec.parse(invoice, REGTEST).payment_hash}"
    with pytest.raises(OwnAddress):
        mine.parse_destination(invoice, "")


def test_an_invoice_of_the_real_network_is_no_destination_in_a_box(town):
    real = town.invoice().replace("lnbcrt", "lnbc", 1)
    with pytest.raises(InvalidDestination):
        town.rail.parse_destination(real, "")


def test_bytes_of_another_network_are_refused_by_our_own_decoder(town):
    assert town.run(town.rail.submit(b"{}")).verdict is Verdict.REFUSED
    assert not any("send" in path for path in town.asked)


def test_heights_are_the_nodes(town):
    heads = town.run(town.rail.heads())
    assert heads.head == heads.final == town.box.world.height
    town.box.mine(3)
    assert town.run(town.rail.heads()).head == heads.head + 3
