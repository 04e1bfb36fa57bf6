"""What LND and Electrum answer, mapped whole; and what the rail makes of it. Nodes are scripted: the box and the real programs come elsewhere."""

import asyncio
import base64
import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.event import Absent, FailedOnChain, Final, Pending, Suspicious
from penstock.rails.base import LaneView, NodeUnreachable, PostFailed, Unpayable, Verdict
from penstock.rails.lightning import codec, lnd
from penstock.rails.lightning.fates import QUIET_S, QUIET_UNSURE_S, REMEMBERED_MAX, Memories
from penstock.rails.lightning.rail import LightningRail, talk
from penstock.rails.lightning.talk import Fate
from penstock.rails.rpc import BadAnswer, Http, Nodes
from tests.fixtures.lightning_bench import (
    FEES,
    NODE,
    NOW_S,
    REGTEST,
    SATS,
    hash_of,
    intent_of,
    invoice,
    lane,
    network,
    payment,
    preimage_of,
    version_of,
)
from tests.fixtures.scripted import ManualRuntime

ZEROS = "00" * 32
MACAROON = "0201036c6e64" * 8
LND_URL = f"lnd+https://127.0.0.1:8080?macaroon={MACAROON}&tls_cert=/var/lib/node/tls.cert"
ELECTRUM_URL = "electrum+http://gate:S3cret%2Fpass@127.0.0.1:7777"

INFO = {"identity_pubkey": NODE, "block_height": 850_000, "chains": [{"chain": "bitcoin", "network": "regtest"}], "version": "0.18.4-beta"}
CHANNEL = {
    "active": True,
    "capacity": "1000000",
    "local_balance": "996530",
    "remote_balance": "0",
    "commit_fee": "2810",
    "fee_per_kw": "2500",
    "unsettled_balance": "0",
    "pending_htlcs": [],
    "initiator": True,
    "commitment_type": "ANCHORS",
    "local_constraints": {"chan_reserve_sat": "10000"},
}
"""The fields that count of https://lightning.engineering/api-docs/api/lnd/lightning/list-channels"""


def balances(local, remote, unsettled=0):
    names = {"local_balance": local, "remote_balance": remote, "unsettled_local_balance": 0, "unsettled_remote_balance": unsettled}
    return {name: {"sat": str(msat // 1000), "msat": str(msat)} for name, msat in names.items()}


def lnd_payment(status="SUCCEEDED", *, number=1, preimage=None, htlcs=("SUCCEEDED",), **fields):
    """https://lightning.engineering/api-docs/api/lnd/router/track-payment-v2"""
    return {
        "payment_hash": hash_of(number),
        "payment_preimage": preimage or (preimage_of(number).hex() if status == "SUCCEEDED" else ZEROS),
        "value_msat": "1000000",
        "fee_msat": "1010",
        "status": status,
        "failure_reason": "FAILURE_REASON_NONE",
        "htlcs": [{"status": htlc} for htlc in htlcs],
        **fields,
    }


def grpc(code, message):
    return {"error": {"code": code, "message": message, "details": []}}


NEVER = (404, grpc(5, "payment isn't initiated"))


class ScriptedLnd:
    """Answers by path; each a value, or a status with a value, or an exception."""

    def __init__(self):
        self.answers = {
            "/v1/getinfo": INFO,
            "/v1/balance/channels": balances(996_530_000, 0),
            "/v1/channels": {"channels": [CHANNEL]},
            "track": NEVER,
            "send": {"result": lnd_payment("IN_FLIGHT", htlcs=())},
        }
        self.asked = []

    async def __call__(self, url, body, timeout_s, *, method="POST", headers=None, first_line=False, tls_cert=""):
        assert url.startswith("https://127.0.0.1:8080/v") and "?" not in url
        assert headers == {"Grpc-Metadata-macaroon": MACAROON}
        assert tls_cert == "/var/lib/node/tls.cert"
        path = url.removeprefix("https://127.0.0.1:8080")
        key = "track" if "/track/" in path else "send" if path == "/v2/router/send" else path
        assert method == ("POST" if key == "send" else "GET") and first_line == (key in ("track", "send"))
        self.asked.append((key, path, json.loads(body) if body else None))
        answer = self.answers[key]
        if isinstance(answer, Exception):
            raise answer
        status, said = answer if isinstance(answer, tuple) else (200, answer)
        return status, said if isinstance(said, bytes) else json.dumps(said).encode()


class ScriptedElectrum:
    """Answers by method; an exception is an error in words, or no answer."""

    def __init__(self):
        self.answers = {
            "nodeid": f"{NODE}@127.0.0.1:9735",
            "getinfo": {"network": "regtest", "blockchain_height": 700},
            "list_channels": [dict(ELECTRUM_CHANNEL), {"type": "BACKUP"}],
            "lightning_history": [dict(OPENING)],
            "get_invoice": ValueError("Request not found"),
            "lnpay": {"payment_hash": hash_of(1), "success": True, "preimage": preimage_of(1).hex(), "log": []},
        }
        self.asked = []

    async def __call__(self, url, body, timeout_s, *, method="POST", headers=None, first_line=False):
        assert (url, method) == ("http://127.0.0.1:7777", "POST")
        assert headers == {"Authorization": "Basic " + base64.b64encode(b"gate:S3cret/pass").decode()}
        asked = json.loads(body)
        self.asked.append((asked["method"], asked["params"], timeout_s))
        answer = self.answers[asked["method"]]
        if isinstance(answer, PostFailed):
            raise answer
        if isinstance(answer, ValueError):
            return 200, json.dumps({"id": 1, "jsonrpc": "2.0", "error": {"code": 1, "message": str(answer)}}).encode()
        return 200, json.dumps({"id": 1, "jsonrpc": "2.0", "result": answer}).encode()


ELECTRUM_CHANNEL = {
    "type": "CHANNEL",
    "state": "OPEN",
    "peer_state": "GOOD",
    "local_balance": 9_990_000,
    "remote_balance": 10_000,
    "local_reserve": 100_000,
    "local_unsettled_sent": 0,
    "remote_unsettled_sent": 0,
}
OPENING = {"type": "channel_opening", "amount_msat": 10_000_000_000, "fee_msat": None}
"""docs/electrum-rpc.md, as seen on the real program."""


def row(number=1, fee_msat=2_000, amount_msat=1_000_000, **fields):
    return {
        "type": "payment",
        "direction": 0,
        "amount_msat": -amount_msat - fee_msat,
        "fee_msat": fee_msat,
        "payment_hash": hash_of(number),
        "preimage": preimage_of(number).hex(),
        **fields,
    }


class Bench:
    def __init__(self, node, url, **params):
        self.node = node
        self.runtime = ManualRuntime()
        self.net = network(**params)
        nodes = Nodes([url], talk(node, chain_id=REGTEST, own=NODE), self.runtime)
        self.rail = LightningRail(self.net, nodes, self.runtime, own=[NODE])

    def run(self, work):
        return asyncio.run(work)

    def submit(self, version):
        return self.run(self.rail.submit(version.raw))

    def observe(self, version):
        return self.run(self.rail.observe([version]))

    def failed(self, version):
        """After all the quiet that may be wanted."""
        self.observe(version)
        self.runtime.seconds += QUIET_UNSURE_S
        return self.observe(version)

    def prepare(self, text, sat=1_000):
        return self.run(self.rail.prepare([payment(text, sat)], SATS, NODE, FEES))[0]

    def holdings(self):
        return self.run(self.rail.holdings(NODE, [SATS]))

    def show(self, **answers):
        self.node.answers |= answers


@pytest.fixture
def at_lnd():
    return Bench(ScriptedLnd(), LND_URL)


@pytest.fixture
def at_electrum():
    return Bench(ScriptedElectrum(), ELECTRUM_URL)


@pytest.fixture
def version():
    return version_of(intent_of())


# LND: paying


def test_lnd_is_told_the_invoice_the_limits_and_nothing_that_is_not_in_the_bytes(at_lnd, version):
    assert at_lnd.submit(version).verdict is Verdict.ACCEPTED
    key, _, body = at_lnd.node.asked[-1]
    assert key == "send"
    assert body == {
        "payment_request": version.intent.payments[0].recipient,
        "fee_limit_msat": "10000",
        "cltv_limit": 1_008,
        "timeout_seconds": 60,
        "no_inflight_updates": False,
        "allow_self_payment": False,
    }


def test_lnd_is_told_the_amount_only_where_the_invoice_has_none(at_lnd):
    at_lnd.submit(version_of(intent_of(text=invoice(sat=None), sat=55)))
    assert at_lnd.node.asked[-1][2]["amt_msat"] == "55000"


def test_lnd_is_asked_by_the_hash_in_base64_for_addresses(at_lnd, version):
    at_lnd.observe(version)
    assert at_lnd.node.asked[-2][1] == "/v2/router/track/" + base64.urlsafe_b64encode(bytes.fromhex(hash_of(1))).decode()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"result": lnd_payment("IN_FLIGHT", htlcs=())}, Verdict.ACCEPTED),
        ({"result": lnd_payment("FAILED", htlcs=())}, Verdict.ACCEPTED),
        ((409, grpc(6, "payment is in transition")), Verdict.ACCEPTED),
        ((500, grpc(2, "invoice is already paid")), Verdict.ACCEPTED),
        ((500, {"error": {"grpc_code": 6, "http_code": 409, "message": "payment already exists"}}), Verdict.ACCEPTED),
        ({"result": lnd_payment("IN_FLIGHT", number=2)}, Verdict.UNKNOWN),
        ((500, grpc(2, "invoice expired. Valid until 2026-01-01")), Verdict.UNKNOWN),
        ((500, grpc(2, "insufficient local balance")), Verdict.UNKNOWN),
        ((500, grpc(2, "the RPC server is in the process of starting up, but not yet ready to accept calls")), Verdict.UNKNOWN),
        ((502, b"<html>"), Verdict.UNKNOWN),
        ((200, b"<html>"), Verdict.UNKNOWN),
        ((200, b"[]"), Verdict.UNKNOWN),
        ((200, b"{}"), Verdict.UNKNOWN),
        (PostFailed("no answer within 8 s"), Verdict.UNKNOWN),
    ],
)
def test_what_lnd_says_to_an_order_is_accepted_or_unknown_and_never_refused(at_lnd, version, answer, verdict):
    at_lnd.show(send=answer)
    assert at_lnd.submit(version).verdict is verdict


# LND: watching


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (lnd_payment(), Final),
        (lnd_payment(preimage="11" * 32), Suspicious),
        (lnd_payment(preimage=preimage_of(1).hex().upper()), Suspicious),
        (lnd_payment(preimage="x"), Suspicious),
        (lnd_payment(value_msat="999000"), Suspicious),
        (lnd_payment(fee_msat="10001"), Suspicious),
        (lnd_payment(fee_msat="10000"), Final),
        (lnd_payment("IN_FLIGHT", htlcs=("IN_FLIGHT", "FAILED")), Pending),
        (lnd_payment("INITIATED", htlcs=()), Pending),
        (lnd_payment("FAILED", htlcs=("FAILED", "IN_FLIGHT")), Pending),
        (lnd_payment("FAILED", htlcs=("FAILED", "SUCCEEDED")), Pending),
        (lnd_payment("FAILED", htlcs=("FAILED", "SOMETHING")), Pending),
        (lnd_payment("UNKNOWN", htlcs=()), Pending),
        (lnd_payment("PAID_MAYBE", htlcs=()), Pending),
        (lnd_payment("FAILED", htlcs=("FAILED",), failure_reason="FAILURE_REASON_NO_ROUTE"), FailedOnChain),
        (lnd_payment("FAILED", htlcs=()), FailedOnChain),
    ],
)
def test_every_status_of_lnd_has_one_meaning(at_lnd, version, answer, kind):
    at_lnd.show(track={"result": answer})
    seen = at_lnd.failed(version)
    assert type(seen) is kind
    if kind is FailedOnChain:
        assert (seen.txid, seen.fee) == (hash_of(1), 0)
    if kind is Final:
        assert (seen.txid, seen.fee, seen.block) == (hash_of(1), int(answer["fee_msat"]), at_lnd.runtime.now_ms())
        assert preimage_of(1).hex() not in repr(seen)


@pytest.mark.parametrize(
    "answer",
    [
        (404, {"code": 5, "message": "Not Found", "details": []}),
        (404, grpc(5, "Not Found")),
        (500, grpc(2, "payment isn't initiated")),
        (500, grpc(2, "wallet locked, unlock it to enable full RPC access")),
        (503, b"Service Unavailable"),
        (200, {"result": lnd_payment(number=2)}),
        (200, {"result": lnd_payment(value_msat="-1")}),
        (200, {"result": lnd_payment(fee_msat=None)}),
        (200, {"result": lnd_payment(htlcs=()) | {"htlcs": "none"}}),
        (200, {"result": None}),
        (200, b'{"result":' + b"[" * 5_000),
        PostFailed("reset"),
    ],
)
def test_what_lnd_does_not_say_clearly_proves_nothing(at_lnd, version, answer):
    at_lnd.show(track=answer)
    with pytest.raises(NodeUnreachable):
        at_lnd.observe(version)


def test_only_lnds_own_words_say_that_it_never_heard_of_a_payment(at_lnd, version):
    assert at_lnd.observe(version) == Absent()


def htlc(number):
    return {"incoming": False, "amount": "1000", "hash_lock": base64.b64encode(bytes.fromhex(hash_of(number))).decode()}


@pytest.mark.parametrize("track", [NEVER, {"result": lnd_payment("FAILED", htlcs=("FAILED",))}])
def test_a_part_on_a_channel_outweighs_what_the_records_say(at_lnd, version, track):
    at_lnd.show(**{"track": track, "/v1/channels": {"channels": [CHANNEL, CHANNEL | {"pending_htlcs": [htlc(2), htlc(1)]}]}})
    assert at_lnd.failed(version) == Pending()
    at_lnd.show(**{"/v1/channels": {"channels": [CHANNEL | {"pending_htlcs": [htlc(2)]}]}})
    assert at_lnd.failed(version) != Pending()


def test_a_payment_that_was_known_and_is_not_any_more_is_for_a_person(at_lnd, version):
    at_lnd.submit(version)
    assert isinstance(at_lnd.observe(version), Suspicious)
    at_lnd.node.asked.clear()
    assert at_lnd.submit(version).verdict is Verdict.UNKNOWN
    assert not any(key == "send" for key, _, _ in at_lnd.node.asked)


def test_a_failure_that_was_seen_and_is_gone_begins_its_quiet_anew(at_lnd, version):
    failed = {"result": lnd_payment("FAILED", htlcs=())}
    at_lnd.show(track=failed)
    at_lnd.observe(version)
    at_lnd.runtime.seconds += QUIET_UNSURE_S
    at_lnd.show(track={"result": lnd_payment("IN_FLIGHT", htlcs=("IN_FLIGHT",))})
    assert at_lnd.observe(version) == Pending()
    at_lnd.show(track=failed)
    assert at_lnd.observe(version) == Pending()
    at_lnd.runtime.seconds += QUIET_UNSURE_S
    assert isinstance(at_lnd.observe(version), FailedOnChain)


def test_a_call_without_an_answer_makes_the_quiet_longer(at_lnd, version):
    at_lnd.show(send=PostFailed("no answer"))
    at_lnd.submit(version)
    at_lnd.show(track={"result": lnd_payment("FAILED", htlcs=())})
    at_lnd.observe(version)
    at_lnd.runtime.seconds += QUIET_S * 2
    assert at_lnd.observe(version) == Pending()
    at_lnd.runtime.seconds += QUIET_UNSURE_S
    assert isinstance(at_lnd.observe(version), FailedOnChain)


# LND: what it holds


def test_what_is_ours_is_before_the_fee_of_our_own_commitment(at_lnd):
    held = at_lnd.holdings()
    assert held.steady and held.clocked
    assert held.block == at_lnd.runtime.now_ms()
    assert held.units == {"sats": 1_000_000_000}


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(0, 10**9), st.integers(0, 10**9), st.integers(253, 50_000), st.sampled_from(sorted(lnd._WEIGHTS))
        ),
        max_size=6,
    )
)
def test_what_is_ours_comes_out_exact_of_whole_satoshi_and_sums(specs):
    """Each channel: who opened, both sides before fees, the fee rate and the kind."""
    channels, ours_msat, local_sum, remote_sum = [], 0, 0, 0
    for ours, left, right, rate, kind in specs:
        weight, anchors = lnd._WEIGHTS[kind]
        overhead = (rate * weight // 1000 + anchors) * 1000
        mine = left + (overhead if ours else 0)
        least = right + (0 if ours else overhead)
        theirs = least + -(mine + least) % 1000  # the capacity is whole
        local, remote = mine - (overhead if ours else 0), theirs - (0 if ours else overhead)
        channels.append(
            {
                "capacity": str((mine + theirs) // 1000),
                "local_balance": str(local // 1000),
                "remote_balance": str(remote // 1000),
                "fee_per_kw": str(rate),
                "initiator": ours,
                "commitment_type": kind,
            }
        )
        ours_msat, local_sum, remote_sum = ours_msat + mine, local_sum + local, remote_sum + remote
    assert lnd.owned_msat(channels, local_sum, remote_sum) == ours_msat


def test_a_commitment_that_cannot_be_understood_stops_the_look(at_lnd):
    strange = CHANNEL | {"commitment_type": "SOMETHING_NEW"}
    theirs = CHANNEL | {"initiator": False}
    with pytest.raises(BadAnswer, match="cannot be told exactly"):
        lnd.owned_msat([strange, theirs], 0, 0)
    assert lnd.owned_msat([strange], 0, 5) == 1_000_000_000 - 5, "alone it needs no understanding"


@pytest.mark.parametrize(
    "answers",
    [
        {"/v1/channels": {"channels": [CHANNEL | {"pending_htlcs": [htlc(9)]}]}},
        {"/v1/balance/channels": balances(996_530_000, 0, unsettled=5)},
    ],
)
def test_what_is_in_flight_makes_the_look_unsteady(at_lnd, answers):
    at_lnd.show(**answers)
    assert not at_lnd.holdings().steady


def test_balances_that_move_between_two_answers_make_the_look_unsteady(at_lnd):
    told = [balances(5, 0), balances(6, 0)]
    at_lnd.node.answers["/v1/balance/channels"] = told[0]
    real = at_lnd.node.__call__

    class Moving:
        async def __call__(self, url, *arguments, **options):
            answer = await real(url, *arguments, **options)
            if url.endswith("/v1/channels"):
                at_lnd.node.answers["/v1/balance/channels"] = told[1]
            return answer

    adapter = lnd.Lnd(Http(Moving()))
    nodes = Nodes([LND_URL], talk(at_lnd.node, chain_id=REGTEST, own=NODE), at_lnd.runtime)
    assert not asyncio.run(adapter.purse(nodes.usable()[0])).steady


def test_what_can_be_sent_leaves_the_reserve_and_sleeping_channels_alone(at_lnd):
    at_lnd.show(**{"/v1/channels": {"channels": [CHANNEL, CHANNEL | {"active": False}]}})
    assert isinstance(at_lnd.prepare(invoice(sat=986_531), 986_531), Unpayable)
    assert not isinstance(at_lnd.prepare(invoice(sat=900_000), 900_000), Unpayable)


# Which node it is


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (INFO | {"identity_pubkey": "03" + "ab" * 32}, r"\(node_id\)"),
        (INFO | {"identity_pubkey": "nobody"}, "66 hex digits"),
        (INFO | {"chains": [{"chain": "bitcoin", "network": "mainnet"}]}, "'mainnet', and 'regtest' is configured"),
        (INFO | {"chains": [{"chain": "litecoin", "network": "regtest"}]}, "another chain"),
        (INFO | {"chains": []}, "another chain"),
        ((500, {"code": 2, "message": "wallet locked, unlock it to enable full RPC access"}), "wallet locked"),
        ((200, b"[]"), "not an object"),
    ],
)
def test_a_node_that_is_not_the_one_in_the_settings_is_never_asked_for_anything(at_lnd, version, info, words):
    at_lnd.show(**{"/v1/getinfo": info})
    with pytest.raises(NodeUnreachable, match=words):
        at_lnd.observe(version)
    assert at_lnd.submit(version).verdict is Verdict.UNKNOWN
    assert {key for key, _, _ in at_lnd.node.asked} == {"/v1/getinfo"}


def test_secrets_and_addresses_are_in_no_text(at_lnd, version):
    at_lnd.show(send=(500, grpc(2, f"bad macaroon {MACAROON} at https://127.0.0.1:8080/x /var/lib/node/tls.cert")))
    said = at_lnd.submit(version).detail
    at_lnd.show(track=(500, grpc(2, f"bad macaroon {MACAROON}")))
    with pytest.raises(NodeUnreachable) as refused:
        at_lnd.observe(version)
    for text in (said, str(refused.value), *at_lnd.rail.faults()):
        assert MACAROON not in text
        assert "8080" not in text
        assert "tls.cert" not in text


def test_an_address_of_no_known_program_is_named_as_such():
    bench = Bench(ScriptedLnd(), "https://127.0.0.1:8080")
    with pytest.raises(NodeUnreachable, match=r"lnd\+https://, electrum\+https://"):
        bench.run(bench.rail.heads())


def test_a_macaroon_may_stand_in_a_file(tmp_path):
    path = tmp_path / "pay.macaroon"
    bench = Bench(ScriptedLnd(), f"lnd+https://127.0.0.1:8080?macaroon_file={path}&tls_cert=/var/lib/node/tls.cert")
    with pytest.raises(NodeUnreachable, match="macaroon_file cannot be read") as refused:
        bench.run(bench.rail.heads())
    assert str(tmp_path) not in str(refused.value)
    path.write_bytes(bytes.fromhex(MACAROON))
    assert bench.run(bench.rail.heads()).head == 850_000


# Electrum


def test_electrum_is_told_the_invoice_alone_and_not_waited_for(at_electrum, version):
    assert at_electrum.submit(version).verdict is Verdict.ACCEPTED
    method, params, timeout_s = at_electrum.node.asked[-1]
    assert (method, params) == ("lnpay", [version.intent.payments[0].recipient])
    assert timeout_s < 5


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ({"payment_hash": hash_of(1), "success": False, "preimage": None, "log": []}, Verdict.ACCEPTED),
        ({"payment_hash": hash_of(2), "success": True, "preimage": None, "log": []}, Verdict.UNKNOWN),
        (ValueError("A previous attempt to pay this invoice did not clear"), Verdict.ACCEPTED),
        (ValueError("A payment was already initiated for this invoice"), Verdict.ACCEPTED),
        (ValueError("This invoice has been paid already"), Verdict.ACCEPTED),
        (ValueError("This invoice has expired"), Verdict.UNKNOWN),
        (ValueError("list indices must be integers or slices, not NoneType"), Verdict.UNKNOWN),
        (ValueError("wallet not loaded"), Verdict.UNKNOWN),
        (PostFailed("no answer within 3 s"), Verdict.UNKNOWN),
    ],
)
def test_what_electrum_says_to_an_order_is_accepted_or_unknown(at_electrum, version, answer, verdict):
    at_electrum.show(lnpay=answer)
    assert at_electrum.submit(version).verdict is verdict


def test_silence_on_a_payment_does_not_make_a_node_a_bad_one(at_electrum, version):
    at_electrum.show(lnpay=PostFailed("no answer within 3 s"))
    at_electrum.submit(version)
    assert at_electrum.rail.faults() == []


@pytest.mark.parametrize(
    ("status", "history", "unsettled", "kind"),
    [
        (3, [row()], 0, Final),
        (0, [row()], 0, Final),
        (5, [row()], 7, Final),
        (3, [row(fee_msat=2_000, amount_msat=1_000_000) | {"fee_msat": None}], 0, Final),
        (3, [row(preimage="22" * 32)], 0, Suspicious),
        (3, [row(fee_msat=10_001)], 0, Suspicious),
        (3, [], 0, Pending),
        (3, [row(direction=1)], 0, Pending),
        (3, [row(number=2)], 0, Pending),
        (4, [], 0, Pending),
        (2, [], 0, Pending),
        (6, [], 0, Pending),
        (7, [], 0, Pending),
        (None, [], 0, Pending),
        ("5", [], 0, Pending),
        (5, [], 1, Pending),
        (0, [], 1, Pending),
        (1, [], 1, Pending),
        (5, [], 0, FailedOnChain),
        (0, [], 0, FailedOnChain),
        (1, [], 0, FailedOnChain),
    ],
)
def test_every_status_of_electrum_has_one_meaning(at_electrum, version, status, history, unsettled, kind):
    channel = ELECTRUM_CHANNEL | {"local_unsettled_sent": unsettled}
    at_electrum.show(get_invoice={"status": status}, lightning_history=[OPENING, *history], list_channels=[ELECTRUM_CHANNEL, channel])
    assert type(at_electrum.failed(version)) is kind


def test_a_fee_is_what_left_beyond_the_amount(at_electrum, version):
    at_electrum.show(get_invoice={"status": 3}, lightning_history=[row(fee_msat=2_000) | {"fee_msat": None}])
    assert at_electrum.observe(version).fee == 2_000


@pytest.mark.parametrize(
    "answers",
    [
        {"get_invoice": ValueError("wallet not loaded")},
        {"get_invoice": []},
        {"get_invoice": {"status": 3}, "lightning_history": [row(amount_msat=999_000, fee_msat=0)]},
        {"get_invoice": {"status": 3}, "lightning_history": [row() | {"fee_msat": 1}]},
        {"get_invoice": {"status": 3}, "lightning_history": [row() | {"amount_msat": 1.5}]},
        {"get_invoice": {"status": 3}, "lightning_history": {}},
        {"get_invoice": {"status": 5}, "list_channels": ValueError("wallet not loaded")},
        {"get_invoice": {"status": 5}, "list_channels": [{"type": "CHANNEL", "local_unsettled_sent": "none"}]},
    ],
)
def test_what_electrum_does_not_say_clearly_proves_nothing(at_electrum, version, answers):
    at_electrum.show(**answers)
    with pytest.raises(NodeUnreachable):
        at_electrum.observe(version)


@pytest.mark.parametrize(("state", "kind"), [("REDEEMED", FailedOnChain), ("CLOSED", Pending), ("FORCE_CLOSING", Pending)])
def test_a_closed_channel_counts_until_it_is_swept(at_electrum, version, state, kind):
    """It keeps the numbers of its last day for ever."""
    closed = ELECTRUM_CHANNEL | {"state": state, "local_unsettled_sent": 1_000}
    at_electrum.show(get_invoice={"status": 5}, list_channels=[ELECTRUM_CHANNEL, closed])
    assert type(at_electrum.failed(version)) is kind
    assert at_electrum.holdings().steady == (kind is FailedOnChain)


def test_electrum_never_heard_of_it_only_in_its_own_words(at_electrum, version):
    assert at_electrum.observe(version) == Absent()


def test_what_is_ours_at_electrum_is_the_sum_of_its_history(at_electrum):
    at_electrum.show(lightning_history=[OPENING, row(fee_msat=2_001), row(number=2, fee_msat=0)])
    held = at_electrum.holdings()
    assert held.steady
    assert held.units == {"sats": 10_000_000_000 - 2_000_000 - 2_001}
    at_electrum.show(list_channels=[ELECTRUM_CHANNEL | {"local_unsettled_sent": 1}])
    assert not at_electrum.holdings().steady
    assert at_electrum.run(at_electrum.rail.heads()).head == 700


def test_the_limit_at_electrum_is_its_own_or_nothing_is_paid(at_electrum):
    assert at_electrum.prepare(invoice(sat=1_000), 1_000).fee_cap == 10_000
    assert at_electrum.prepare(invoice(sat=1_000_000), 1_000_000).fee_cap == 10_000_000
    frugal = Bench(ScriptedElectrum(), ELECTRUM_URL, fee_max="100", fee_limit_ppm=1)
    assert frugal.prepare(invoice(sat=1_000), 1_000).fee_cap == 10_000
    refused = frugal.prepare(invoice(sat=20_000), 20_000)
    assert isinstance(refused, Unpayable) and not refused.for_ever and "fee_max" in str(refused)


def test_electrum_pays_no_invoice_without_an_amount(at_electrum):
    refused = at_electrum.prepare(invoice(sat=None), 1_000)
    assert isinstance(refused, Unpayable) and refused.for_ever


def test_another_electrum_is_never_used(at_electrum, version):
    at_electrum.show(nodeid="02" + "cd" * 32)
    with pytest.raises(NodeUnreachable, match="node_id"):
        at_electrum.observe(version)


# What all have in common


def test_an_order_is_prepared_with_its_own_limit_and_time(at_lnd):
    fees = at_lnd.prepare(invoice(sat=5_000, expiry_s=600), 5_000)
    assert (fees.cost, fees.fee_cap) == (0, 50_000)
    assert fees.terms == {"fee_limit_msat": 50_000, "cltv_limit": 1_008, "timeout_s": 60, "send_by_ms": (NOW_S + 600 - 15) * 1000}
    patient = at_lnd.prepare(invoice(expiry_s=86_400))
    assert patient.terms["send_by_ms"] == (NOW_S + 3_600) * 1000
    huge = Bench(at_lnd.node, LND_URL, fee_max="7").prepare(invoice(sat=900_000), 900_000)
    assert huge.fee_cap == 7_000


def test_what_was_prepared_is_what_is_bound_and_can_be_signed(at_lnd):
    fees = at_lnd.prepare(invoice())
    intent = at_lnd.rail.bind([payment(invoice())], SATS, lane(3), fees, attempt_id=4)
    assert (intent.sender, intent.slot, intent.attempt_id, intent.fee_cap) == (NODE, 3, 4, fees.fee_cap)
    assert [resource.name for resource in intent.resources] == [hash_of(1)]
    signed = codec.sign(intent, None)
    assert codec.broken_rules(intent, signed) == []


@pytest.mark.parametrize(("expiry_s", "dead"), [(30, True), (31, False)])
def test_an_invoice_about_to_expire_is_not_begun(at_lnd, expiry_s, dead):
    answer = at_lnd.prepare(invoice(expiry_s=expiry_s))
    assert isinstance(answer, Unpayable) == dead
    if dead:
        assert answer.for_ever


@pytest.mark.parametrize(("text", "sat"), [(invoice(sat=1_000), 999), (invoice(sat=1_000), 1_001), (invoice(sat=None), 0)])
def test_another_amount_than_the_invoices_is_never_paid(at_lnd, text, sat):
    answer = at_lnd.prepare(text, sat)
    assert isinstance(answer, Unpayable) and answer.for_ever
    with pytest.raises(Unpayable):
        at_lnd.rail.bind([payment(text, sat)], SATS, lane(), FEES, attempt_id=1)


def test_one_payment_one_invoice_one_coin(at_lnd):
    with pytest.raises(ValueError, match="exactly one"):
        at_lnd.rail.bind([payment(invoice(1)), payment(invoice(2))], SATS, lane(), FEES, attempt_id=1)
    estimate = asyncio.run(at_lnd.rail.estimate(SATS))
    with pytest.raises(ValueError, match="what `prepare` said"):
        at_lnd.rail.bind([payment(invoice())], SATS, LaneView("LIGHTNING", NODE, 1), estimate, attempt_id=1)
    with pytest.raises(ValueError, match="identity"):
        asyncio.run(at_lnd.rail.holdings("02" + "cd" * 32, [SATS]))
    with pytest.raises(ValueError, match="at least one version"):
        at_lnd.run(at_lnd.rail.observe([]))


def test_nothing_is_bumped_and_nothing_is_called_back(at_lnd):
    assert at_lnd.rail.bump(intent_of(), None, version=2) is None
    assert at_lnd.rail.bump(intent_of(), None, version=2, cancel=True) is None


def test_a_destination_says_what_it_asks_for_and_that_it_is_paid_once_for_ever(at_lnd):
    found = at_lnd.rail.parse_destination(invoice(5, sat=21).upper(), "memo")
    assert (found.address, found.memo, found.units, found.once) == (invoice(5, sat=21), "", 21_000, f"lightning:{hash_of(5)}")
    assert at_lnd.rail.parse_destination(invoice(5, sat=None), "").units is None


def test_a_settings_identity_that_is_none_is_refused_at_the_start():
    with pytest.raises(ValueError, match="66 hex digits"):
        talk(ScriptedLnd(), chain_id=REGTEST, own="node")
    with pytest.raises(ValueError, match="no Bitcoin network"):
        talk(ScriptedLnd(), chain_id=1, own=NODE)


def test_memory_is_bounded_and_never_drops_what_is_under_way():
    async def scenario():
        memories = Memories()
        first = memories.of("first")
        async with first.lock:
            for number in range(REMEMBERED_MAX + 5):
                memories.of(str(number))
            assert memories.of("first") is first
        assert memories.of("0") is not None

    asyncio.run(scenario())


def test_fates_are_few():
    """Whoever adds one has to say in the rail what it means."""
    assert {fate.name for fate in Fate} == {"UNKNOWN", "PENDING", "SETTLED", "FAILED"}
    assert hashlib.sha256(preimage_of(1)).hexdigest() == hash_of(1)
