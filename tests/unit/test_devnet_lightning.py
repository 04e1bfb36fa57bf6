"""Lightning in a box: the recipient's invoices, LND's rules and shapes, every knob and every fault."""

import base64
import hashlib
import json

import bolt11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.catalog import Catalog
from penstock.devnet.box import BadCommand, Broken, Request
from penstock.devnet.boxes import make_networks
from penstock.devnet.control import control, status
from penstock.devnet.lightning.box import LightningBox, network_of
from penstock.devnet.lightning.node import LightningFaults
from penstock.devnet.lightning.world import CHAIN_ID, LightningWorld
from tests.fixtures.evm import Clock

REAL = {3652501241: "lnbc"}


class Place:
    """A box with one channel of 1,000,000 satoshi, its clock, and LND's client in a few lines."""

    def __init__(self, seed=7):
        self.clock = Clock()
        self.box = network_of(LightningWorld(name="LIGHTNING", now_ms=self.clock, seed=seed, block_ms=1_000))
        self.world = self.box.world
        self.do("fund", address=self.world.identity, units=1_000_000_000)

    def do(self, verb, **arguments):
        return control([self.box], {"do": verb, **arguments})

    def later(self, ms):
        self.clock.pass_ms(ms)
        self.box.tick()

    def ask(self, path, body=None, node=0, macaroon=None):
        method = "GET" if body is None else "POST"
        headers = {"grpc-metadata-macaroon": macaroon or self.world.macaroon}
        content = b"" if body is None else json.dumps(body).encode()
        answer = self.box.nodes[node].answer(Request(content, path, method, {}, headers))
        assert answer.body.count(b"\n") == 1
        return answer.status, json.loads(answer.body)

    def get(self, path, node=0):
        status_, said = self.ask(path, node=node)
        assert status_ == 200, said
        return said

    def send(self, invoice, node=0, **more):
        return self.ask("/v2/router/send", {"payment_request": invoice, "fee_limit_msat": "100000", "timeout_seconds": 60, **more}, node)

    def track(self, payment_hash, node=0):
        return self.ask("/v2/router/track/" + base64.urlsafe_b64encode(bytes.fromhex(payment_hash)).decode(), node=node)

    def state(self, payment_hash):
        return self.track(payment_hash)[1]["result"]["status"]

    def invoice(self, sat=1_000, **more):
        return self.do("invoice", units=sat * 1000, **more)


@pytest.fixture
def place():
    return Place()


# Who and where


def test_the_catalogue_in_a_box_is_regtest_and_no_real_network():
    (box,) = make_networks(Catalog.load(), ["LIGHTNING"], now_ms=Clock())
    assert isinstance(box, LightningBox)
    assert box.settings["chain_id"] == CHAIN_ID == int.from_bytes(bytes.fromhex("fabfb5da"), "little")
    assert CHAIN_ID not in REAL
    assert box.settings["node_id"] == box.world.identity
    assert box.settings["rpc_url"].format(url="http://127.0.0.1:1/LIGHTNING").startswith("lnd+http://127.0.0.1:1/LIGHTNING?macaroon=")


def test_the_same_seed_and_clock_give_the_same_ids_and_another_seed_others():
    one, same, other = Place(), Place(), Place(seed=8)
    assert one.invoice() == same.invoice() != other.invoice()
    assert one.world.identity == same.world.identity != other.world.identity
    assert one.world.channels[0].channel_point == same.world.channels[0].channel_point != other.world.channels[0].channel_point


def test_the_node_says_who_it_is_and_where(place):
    info = place.get("/v1/getinfo")
    assert info["identity_pubkey"] == place.world.identity
    assert info["chains"] == [{"chain": "bitcoin", "network": "regtest"}]
    assert "not a real network" in info["version"]
    assert place.get("/v1/state") == {"state": "SERVER_ACTIVE"}


def test_nothing_opens_without_the_macaroon(place):
    code, said = place.ask("/v1/getinfo", macaroon="00")
    assert (code, said["code"]) == (500, 2)
    code, said = place.ask("/v2/router/send", {}, macaroon="00")
    assert (code, said["error"]["code"]) == (500, 2)


@pytest.mark.parametrize("path", ["/v1/nothing", "/", "", "/v1/getinfo/more"])
def test_what_is_not_there_is_not_found(place, path):
    assert place.ask(path) == (404, {"code": 5, "message": "Not Found", "details": []})


def test_the_height_rises_with_the_clock_and_by_command(place):
    first = place.get("/v1/getinfo")["block_height"]
    place.later(5_000)
    assert place.get("/v1/getinfo")["block_height"] == first + 5
    assert place.do("mine", count=3) == {"head": first + 8}
    place.do("block_time", block_ms=0)
    place.later(60_000)
    assert place.box.status()["head"] == first + 8
    with pytest.raises(BadCommand, match="no forks"):
        place.do("fork", depth=1)


# The recipient


def test_an_invoice_is_real_bolt_11_signed_by_the_recipient(place):
    made = place.invoice(sat=250, memo="tea", expiry_s=90)
    read = bolt11.decode(made["invoice"])
    assert (read.currency, read.amount_msat, read.description, read.expiry) == ("bcrt", 250_000, "tea", 90)
    assert (read.payment_hash, read.payee, read.date) == (made["payment_hash"], place.world.recipient.identity, place.clock() // 1000)
    said = place.get("/v1/payreq/" + made["invoice"])
    assert (said["num_msat"], said["destination"], said["payment_hash"]) == ("250000", read.payee, made["payment_hash"])


def test_an_invoice_for_any_amount_has_none(place):
    assert bolt11.decode(place.do("invoice")["invoice"]).amount_msat is None
    with pytest.raises(BadCommand, match="memo"):
        place.do("invoice", memo="x" * 201)
    with pytest.raises(BadCommand, match="up to"):
        place.do("invoice", units=10**14)
    with pytest.raises(BadCommand, match="expiry"):
        place.do("invoice", expiry_s=0)
    with pytest.raises(BadCommand, match="no invoice with this hash"):
        place.do("settled", payment_hash="00" * 32)


# Paying, in LND's shapes


def test_a_payment_is_in_flight_and_then_settled_by_its_preimage(place):
    made = place.invoice()
    code, said = place.send(made["invoice"])
    assert code == 200
    first = said["result"]
    assert (first["status"], first["payment_hash"], first["payment_preimage"]) == ("IN_FLIGHT", made["payment_hash"], "00" * 32)
    assert (
        place.get("/v1/channels")["channels"][0]["pending_htlcs"][0]["hash_lock"]
        == base64.b64encode(bytes.fromhex(made["payment_hash"])).decode()
    )
    assert place.get("/v1/balance/channels")["unsettled_remote_balance"]["msat"] == "1001100"
    place.later(50)
    code, said = place.track(made["payment_hash"], node=1)
    paid = said["result"]
    assert (paid["status"], paid["value_msat"], paid["fee_msat"]) == ("SUCCEEDED", "1000000", "1100")
    assert hashlib.sha256(bytes.fromhex(paid["payment_preimage"])).hexdigest() == made["payment_hash"]
    assert [(part["status"], part["route"]["total_fees_msat"]) for part in paid["htlcs"]] == [("SUCCEEDED", "1100")]
    assert place.do("settled", payment_hash=made["payment_hash"]) == {"settled": True, "times": 1, "received": "1000000"}
    assert place.box.holding(place.world.identity) == 1_000_000_000 - 1_001_100
    (listed,) = place.get("/v1/payments")["payments"]
    assert listed == paid


def test_the_fields_are_those_of_lnds_documentation(place):
    """Numbers of 64 bits and enums are text, those of 32 bits numbers. https://lightning.engineering/api-docs/api/lnd/router/track-payment-v2"""
    made = place.invoice()
    place.send(made["invoice"])
    shown = place.track(made["payment_hash"])[1]["result"]
    assert {"payment_hash", "value", "creation_date", "fee", "payment_preimage", "value_sat", "value_msat", "payment_request", "status",
            "fee_sat", "fee_msat", "creation_time_ns", "htlcs", "payment_index", "failure_reason"} <= shown.keys()  # fmt: skip
    assert all(isinstance(shown[name], str) for name in ("value_msat", "fee_msat", "creation_time_ns", "payment_index", "status"))
    channel = place.get("/v1/channels")["channels"][0]
    assert {"active", "capacity", "local_balance", "remote_balance", "commit_fee", "fee_per_kw", "unsettled_balance", "pending_htlcs",
            "initiator", "commitment_type", "local_constraints", "chan_id", "channel_point"} <= channel.keys()  # fmt: skip
    assert isinstance(channel["pending_htlcs"][0]["expiration_height"], int)
    assert int(channel["capacity"]) == 1_000_000


def test_a_hash_that_nobody_sent_is_answered_in_lnds_words(place):
    assert place.track("11" * 32) == (404, {"error": {"code": 5, "message": "payment isn't initiated", "details": []}})
    assert place.ask("/v2/router/track/!!")[0] == 400


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"amt_msat": "5000"}, "must not be specified"),
        ({"cltv_limit": 2_017}, "exceeds max allowed"),
        ({"payment_request": "lnbcrt1xyz"}, "cannot be decoded"),
        ({"fee_limit_msat": "many"}, "syntax error"),
    ],
)
def test_a_request_that_lnd_would_refuse_is_refused_in_its_words(place, more, words):
    code, said = place.send(place.invoice()["invoice"], **more)
    assert code in (400, 500)
    assert words in said["error"]["message"]


def test_an_invoice_of_the_real_network_is_refused(place):
    real = bolt11.decode(place.invoice()["invoice"])
    real.currency = "bc"
    text = bolt11.encode(real, "11" * 32)
    assert "not for current active network" in place.send(text)[1]["error"]["message"]


def test_an_invoice_without_amount_wants_one(place):
    made = place.do("invoice")
    assert "must be specified" in place.send(made["invoice"])[1]["error"]["message"]
    assert place.send(made["invoice"], amt_msat="77000")[0] == 200
    place.later(50)
    assert place.do("settled", payment_hash=made["payment_hash"])["received"] == "77000"


def test_an_expired_invoice_is_not_begun_and_one_that_expires_on_the_way_comes_back(place):
    made = place.invoice(expiry_s=10)
    place.later(11_000)
    assert "expired" in place.send(made["invoice"])[1]["error"]["message"]
    place.do("route", latency_ms=60_000)
    late = place.invoice(expiry_s=10)
    place.send(late["invoice"])
    place.later(60_000)
    assert place.state(late["payment_hash"]) == "FAILED"


# LND's rules of a hash


def test_a_hash_in_flight_or_paid_is_not_taken_again(place):
    made = place.invoice()
    place.send(made["invoice"])
    assert place.send(made["invoice"]) == (409, {"error": {"code": 6, "message": "payment is in transition", "details": []}})
    place.later(50)
    assert place.send(made["invoice"])[1]["error"]["message"] == "invoice is already paid"
    assert place.do("settled", payment_hash=made["payment_hash"])["times"] == 1


def test_a_hash_that_failed_is_taken_again_as_lnd_does(place):
    made = place.invoice()
    place.do("fail", reason="TIMEOUT")
    assert place.send(made["invoice"])[1]["result"]["failure_reason"] == "FAILURE_REASON_TIMEOUT"
    assert place.state(made["payment_hash"]) == "FAILED"
    assert place.send(made["invoice"])[0] == 200
    place.later(50)
    assert place.state(made["payment_hash"]) == "SUCCEEDED"


# Routes


def test_a_payment_without_a_way_fails_with_lnds_reason(place):
    cases = {"NO_ROUTE": [], "INSUFFICIENT_BALANCE": []}
    place.do("receiver", online=0)
    cases["NO_ROUTE"].append(place.invoice())
    place.send(cases["NO_ROUTE"][-1]["invoice"])
    place.do("receiver", online=1)
    for more in ({"fee_limit_msat": "1099"}, {"cltv_limit": 100}):
        cases["NO_ROUTE"].append(place.invoice())
        place.send(cases["NO_ROUTE"][-1]["invoice"], **more)
    cases["INSUFFICIENT_BALANCE"].append(place.invoice(sat=999_000))
    place.send(cases["INSUFFICIENT_BALANCE"][-1]["invoice"])
    for reason, made in cases.items():
        assert {place.track(one["payment_hash"])[1]["result"]["failure_reason"] for one in made} == {f"FAILURE_REASON_{reason}"}
    assert place.box.holding(place.world.identity) == 1_000_000_000


def test_routing_costs_what_the_knobs_say(place):
    place.do("route", fee_base_msat=7, fee_ppm=10_000)
    place.do("spike", factor=3)
    made = place.invoice()
    place.send(made["invoice"])
    place.later(50)
    assert place.track(made["payment_hash"])[1]["result"]["fee_msat"] == str(3 * (7 + 10_000))
    with pytest.raises(BadCommand, match="factor"):
        place.do("spike", factor=0)


def test_parts_go_over_many_channels_and_settle_together(place):
    place.do("channel", units=1_000_000_000, opener="peer")
    place.do("route", parts=4)
    made = place.invoice(sat=1_500_000)
    place.send(made["invoice"], fee_limit_msat="100000000")
    assert [len(channel.htlcs) for channel in place.world.channels] == [3, 2]
    place.later(50)
    assert place.do("settled", payment_hash=made["payment_hash"]) == {"settled": True, "times": 1, "received": "1500000000"}


def test_a_part_that_is_held_keeps_the_payment_in_flight_until_it_is_released(place):
    place.do("route", parts=3)
    place.do("partial")
    made = place.invoice(sat=3_000)
    place.send(made["invoice"])
    place.later(20 * 86_400_000)
    shown = place.track(made["payment_hash"])[1]["result"]
    assert (shown["status"], [part["status"] for part in shown["htlcs"]]) == ("IN_FLIGHT", ["IN_FLIGHT", "FAILED", "FAILED"])
    assert place.do("release", payment_hash=made["payment_hash"], how="fail") == {"released": 1}
    assert place.state(made["payment_hash"]) == "FAILED"


def test_a_recipient_may_settle_late_and_take_less_than_the_whole(place):
    place.do("partial")
    made = place.invoice(sat=2_000)
    place.send(made["invoice"])
    place.later(1_000)
    place.do("release", payment_hash=made["payment_hash"])
    assert place.state(made["payment_hash"]) == "SUCCEEDED"
    assert place.do("settled", payment_hash=made["payment_hash"])["received"] == "1000000"


def test_held_payments_are_counted_and_released_by_name(place):
    place.do("hold", count=1)
    held, free = place.invoice(), place.invoice()
    for made in (held, free):
        place.send(made["invoice"])
    place.later(10**9)
    assert (place.state(held["payment_hash"]), place.state(free["payment_hash"])) == ("IN_FLIGHT", "SUCCEEDED")
    assert place.box.status()["waiting"] == 1
    place.do("release", payment_hash=held["payment_hash"])
    assert place.state(held["payment_hash"]) == "SUCCEEDED"
    assert place.do("release", payment_hash=held["payment_hash"]) == {"released": 0}
    with pytest.raises(BadCommand, match="preimage"):
        place.do("release", payment_hash="11" * 32)
    with pytest.raises(BadCommand, match="settle, fail"):
        place.do("release", payment_hash=held["payment_hash"], how="maybe")


# Faults


def test_a_drop_is_acknowledged_and_lost(place):
    made = place.invoice()
    place.do("faults", drop=1)
    assert place.send(made["invoice"])[1]["result"]["status"] == "INITIATED"
    assert place.track(made["payment_hash"])[0] == 404


def test_a_delayed_call_gets_no_answer_and_arrives_later(place):
    made = place.invoice()
    place.do("faults", delay_ms=60_000)
    with pytest.raises(Broken, match="timeout"):
        place.send(made["invoice"])
    place.later(59_999)
    assert place.track(made["payment_hash"])[0] == 404
    place.later(1)
    assert place.state(made["payment_hash"]) == "IN_FLIGHT"


def test_a_call_that_arrives_twice_begins_a_failed_payment_anew(place):
    made = place.invoice()
    place.do("faults", duplicate=1)
    place.do("fail")
    assert place.send(made["invoice"])[1]["result"]["status"] == "FAILED"
    assert place.state(made["payment_hash"]) == "IN_FLIGHT"


def test_a_call_may_be_taken_and_answered_with_an_error(place):
    made = place.invoice()
    place.do("faults", break_after=1, breakage="503")
    with pytest.raises(Broken, match="503"):
        place.send(made["invoice"])
    assert place.state(made["payment_hash"]) == "IN_FLIGHT"


def test_each_address_has_faults_of_its_own(place):
    made = place.invoice()
    place.send(made["invoice"])
    place.do("faults", node=0, blind=True, lag=2, chain_id=3652501241, other_node=True)
    assert place.track(made["payment_hash"])[0] == 404
    assert place.get("/v1/payments")["payments"] == []
    liar, honest = place.get("/v1/getinfo"), place.get("/v1/getinfo", node=1)
    assert (liar["chains"][0]["network"], honest["chains"][0]["network"]) == ("mainnet", "regtest")
    assert honest["block_height"] - liar["block_height"] == 2
    assert liar["identity_pubkey"] != honest["identity_pubkey"]
    assert place.track(made["payment_hash"], node=1)[0] == 200
    place.do("faults", node=1, down="reset")
    with pytest.raises(Broken, match="reset"):
        place.get("/v1/getinfo", node=1)
    place.do("heal")
    assert [node.faults for node in place.box.nodes] == [LightningFaults()] * 2


def test_a_node_may_call_failed_what_is_in_flight_and_hide_its_parts(place):
    made = place.invoice()
    place.do("hold")
    place.send(made["invoice"])
    place.do("faults", says_failed=True)
    shown = place.track(made["payment_hash"])[1]["result"]
    assert (shown["status"], [part["status"] for part in shown["htlcs"]]) == ("FAILED", ["IN_FLIGHT"])
    place.do("faults", hides_parts=True)
    assert place.track(made["payment_hash"])[1]["result"]["htlcs"] == []


def test_a_restart_is_silence_for_a_while_and_nothing_is_lost(place):
    made = place.invoice()
    place.send(made["invoice"])
    place.do("restart", down_ms=1_000)
    with pytest.raises(Broken, match="reset"):
        place.track(made["payment_hash"])
    place.later(1_000)
    assert place.state(made["payment_hash"]) == "SUCCEEDED"


def test_a_forgotten_payment_goes_on_and_may_be_paid_again_by_a_greedy_recipient(place):
    made = place.invoice()
    place.send(made["invoice"])
    assert place.do("forget", txid=made["payment_hash"]) == {"forgotten": True}
    assert place.do("forget", txid=made["payment_hash"]) == {"forgotten": False}
    place.later(50)
    for greedy, times in ((0, 1), (1, 2)):
        place.do("receiver", greedy=greedy)
        assert place.send(made["invoice"])[0] == 200
        place.later(50)
        assert place.do("settled", payment_hash=made["payment_hash"])["times"] == times


# Funding and balances


def test_funding_opens_a_channel_in_which_exactly_so_much_is_the_nodes(place):
    before = place.box.holding(place.world.identity)
    point = place.do("fund", address=place.world.identity, units="20000000")["txid"]
    assert point.endswith(":0") and len(point) == 66
    assert place.box.holding(place.world.identity) == before + 20_000_000
    shown = place.get("/v1/channels")["channels"][-1]
    assert int(shown["local_balance"]) == 20_000 - int(shown["commit_fee"]) - 660


@pytest.mark.parametrize(("address", "units"), [("nobody", 20_000_000), (None, 19_999_999), (None, 20_000_001), (None, 0)])
def test_what_cannot_be_funded_is_not(place, address, units):
    with pytest.raises(BadCommand):
        place.do("fund", address=address or place.world.identity, units=units)


def test_there_are_no_tokens(place):
    with pytest.raises(BadCommand, match="no tokens"):
        place.do("fund_token", contract="x", address=place.world.identity, units=20_000_000)
    with pytest.raises(ValueError, match="no tokens"):
        place.box.holding(place.world.identity, "x")


def test_a_status_is_for_people(place):
    place.send(place.invoice()["invoice"])
    place.later(50)
    said = status(place.box)
    assert (said["network"], said["payments"], said["waiting"], said["channels"]) == ("LIGHTNING", {"SUCCEEDED": 1}, 0, 1)
    assert json.dumps(said)


@pytest.mark.parametrize(
    "command",
    [
        {"do": "hold", "count": -1},
        {"do": "fail", "reason": "BOREDOM"},
        {"do": "route", "parts": 17},
        {"do": "route", "speed": 1},
        {"do": "receiver", "online": 2},
        {"do": "channel", "units": 20_000_000, "opener": "nobody"},
        {"do": "dance"},
    ],
)
def test_a_command_that_is_none_does_nothing(place, command):
    before = place.box.status()
    with pytest.raises(BadCommand):
        control([place.box], command)
    assert place.box.status() == before


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(0, 7), st.integers(1, 5_000)), min_size=1, max_size=12))
def test_whatever_happens_no_millisatoshi_comes_or_goes(deeds):
    place = Place()
    for kind, number in deeds:
        if kind < 3:
            place.do(("hold", "fail", "partial")[kind])
        elif kind == 3:
            place.do("route", parts=number % 6, fee_base_msat=number)
        elif kind == 4:
            place.later(number)
        made = place.invoice(sat=number)
        place.send(made["invoice"])
        if kind == 5:
            place.do("release", payment_hash=made["payment_hash"], how=("settle", "fail")[number % 2])
        for channel in place.world.channels:
            assert channel.owned_msat + channel.theirs_msat + channel.in_flight_msat == channel.capacity_sat * 1000
            assert min(channel.owned_msat, channel.theirs_msat) >= 0


def test_a_network_has_from_one_to_sixteen_addresses():
    with pytest.raises(ValueError, match="from 1 to 16"):
        network_of(LightningWorld(name="LIGHTNING", now_ms=Clock(), seed=1, block_ms=1_000), nodes=0)
