"""Our Bitcoin bytes before judges that we did not write: Bitcoin Core's mempool, script and RPC code in Litecoin Core, and bcoin's consensus."""

import asyncio
import itertools
import json

import pytest
from embit import base58
from embit.script import Script
from msgspec import structs

from penstock.core.event import Absent, Dead, FailedOnChain, Final, Included, Pending
from penstock.core.intent import Intent, Payment, Resource
from penstock.core.money import Coin, Network, Token
from penstock.rails.base import LaneView, Verdict, VersionView
from penstock.rails.bitcoin import codec
from penstock.rails.bitcoin.coins import bump
from penstock.rails.bitcoin.rail import BitcoinRail
from penstock.rails.bitcoin.talk import BitcoinTalk
from penstock.rails.post import HttpPost
from penstock.rails.rpc import Http, Nodes
from penstock.runtime import SystemRuntime
from penstock.signer.keys import LaneKey
from tests.fixtures.real_nodes import Refused

REGTEST = next(chain_id for chain_id, params in codec.CHAINS.items() if params.node_name == "regtest")
SECRET = bytes(31) + b"\7"
KEY = LaneKey(SECRET)
SENDER = codec.address(KEY.public_key, REGTEST)
SCRIPT = codec.parse_address(SENDER, REGTEST).script
HASH_20, POINT = bytes(range(20)), bytes.fromhex("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
RECIPIENTS = {
    "p2pkh": Script(b"\x76\xa9\x14" + HASH_20 + b"\x88\xac"),
    "p2sh": Script(b"\xa9\x14" + HASH_20 + b"\x87"),
    "p2wpkh": Script(b"\x00\x14" + HASH_20),
    "p2wsh": Script(b"\x00\x20" + POINT),
    "p2tr": Script(b"\x51\x20" + POINT),
}
"""One output script of each kind; the taproot key is the curve's generator."""
PREFIXES = {"bech32": "bcrt", "p2pkh": b"\x6f", "p2sh": b"\xc4"}


def recipient(kind):
    return RECIPIENTS[kind].address(PREFIXES)


def intent_of(coins, payments, *, fee, fee_cap=None, change=1):
    return Intent(
        attempt_id=1,
        version=1,
        kind="pay",
        chain="BTC",
        family="bitcoin",
        chain_id=REGTEST,
        sender=SENDER,
        slot=0,
        token_id="btc",
        contract=None,
        payments=tuple(Payment(number, to, "", units) for number, (to, units) in enumerate(payments, start=1)),
        terms={"fee": fee, "change": change},
        fee_cap=fee_cap or 10 * fee,
        resources=tuple(coins),
    )


@pytest.fixture(scope="module")
def coins(core):
    """Mature coins of our hot address on Core; each is taken by one test."""
    blocks = core.mine(30, SCRIPT)
    core.mine(100)
    return coins_of(core.rpc, blocks)


def coins_of(rpc, blocks):
    """The coinbase output of each block, as coins that an intent can spend."""
    for block in blocks:
        txid = rpc("getblock", block)["tx"][0]
        made = rpc("getrawtransaction", txid, True)
        yield Resource(f"{txid}:0", round(made["vout"][0]["value"] * 10**8))


def confirmations(core, txid):
    return core.rpc("getrawtransaction", txid, True).get("confirmations", 0)


def test_every_kind_of_address_is_paid_down_to_its_dust_and_no_further(core, coins):
    payments = [(recipient(kind), codec.DUST[kind]) for kind in RECIPIENTS]
    intent = intent_of([next(coins)], payments, fee=2_000)
    signed = codec.sign(intent, KEY)
    assert core.verdict(signed.raw) == ""
    for place, kind in enumerate(RECIPIENTS):
        one_less = codec.build(intent)
        one_less.vout[place].value -= 1
        assert core.verdict(one_less.serialize()) == "dust", kind
    assert core.rpc("sendrawtransaction", signed.raw.hex()) == signed.txid
    core.mine(1)
    landed = core.rpc("getrawtransaction", signed.txid, True)
    assert landed["confirmations"] == 1
    assert [(out["scriptPubKey"]["hex"], round(out["value"] * 10**8)) for out in landed["vout"][:-1]] == [
        (RECIPIENTS[kind].data.hex(), codec.DUST[kind]) for kind in RECIPIENTS
    ]


@pytest.mark.parametrize("count", [1, 2, 252, 253, 500])
def test_a_batch_is_taken_mined_and_never_larger_than_we_say(core, coins, count):
    kinds = itertools.islice(itertools.cycle(RECIPIENTS), count)
    intent = intent_of([next(coins), next(coins)], [(recipient(kind), 10_000 + place) for place, kind in enumerate(kinds)], fee=50_000)
    signed = codec.sign(intent, KEY)
    assert core.rpc("sendrawtransaction", signed.raw.hex()) == signed.txid
    waiting = core.rpc("getmempoolentry", signed.txid)
    said = codec.weight_of(2, [*(codec.parse_address(p.recipient, REGTEST).weight for p in intent.payments), 4 * 31])
    assert said - 4 <= waiting["weight"] <= said  # each signature may be a byte or two shorter than the longest
    assert round(waiting["fees"]["base"] * 10**8) == intent.terms["fee"]
    core.mine(1)
    assert confirmations(core, signed.txid) == 1


def test_each_bump_replaces_the_version_before_it_and_the_last_one_lands(core, coins):
    intent = intent_of([next(coins)], [(recipient("p2tr"), 5_000_000)], fee=153, fee_cap=20_000)
    versions = [codec.sign(intent, KEY)]
    core.rpc("sendrawtransaction", versions[0].raw.hex())
    while (bumped := bump(intent, None, version=intent.version + 1, cancel=False)) is not None:
        intent = bumped
        versions.append(codec.sign(intent, KEY))
        assert core.rpc("sendrawtransaction", versions[-1].raw.hex()) == versions[-1].txid
        assert versions[-2].txid not in core.rpc("getrawmempool")
    assert len(versions) > 5
    assert intent.fee_cap - intent.terms["fee"] < intent.terms["fee"]
    core.mine(1)
    assert confirmations(core, versions[-1].txid) == 1
    for earlier in versions[:-1]:
        assert core.verdict(earlier.raw) == "missing-inputs"


def test_a_replacement_that_pays_a_satoshi_too_little_is_refused(core, coins):
    intent = intent_of([next(coins)], [(recipient("p2wpkh"), 5_000_000)], fee=1_000, fee_cap=20_000)
    core.rpc("sendrawtransaction", codec.sign(intent, KEY).raw.hex())
    size = core.rpc("getrawtransaction", codec.sign(intent, KEY).txid, True)["vsize"]
    for fee, verdict in ((1_000, "insufficient fee"), (1_000 + size - 1, "insufficient fee"), (1_000 + size, "")):
        other = structs.replace(intent, version=2, terms={"fee": fee, "change": 2 if fee == 1_000 else 1})
        assert core.verdict(codec.sign(other, KEY).raw) == verdict, fee


def test_a_cancel_takes_the_coins_back_and_the_payment_can_never_land(core, coins):
    intent = intent_of([next(coins)], [(recipient("p2wsh"), 7_000_000)], fee=1_000)
    payment = codec.sign(intent, KEY)
    core.rpc("sendrawtransaction", payment.raw.hex())
    cancel = codec.sign(bump(intent, None, version=2, cancel=True), KEY)
    assert core.rpc("sendrawtransaction", cancel.raw.hex()) == cancel.txid
    core.mine(1)
    (out,) = core.rpc("getrawtransaction", cancel.txid, True)["vout"]
    assert out["scriptPubKey"]["hex"] == SCRIPT.hex()
    with pytest.raises(Refused, match="missingorspent"):
        core.rpc("sendrawtransaction", payment.raw.hex())


def test_core_signs_our_psbt_offline_and_takes_what_comes_back(core, coins):
    core.rpc("createwallet", "offline")
    core.rpc("importprivkey", base58.encode_check(b"\xef" + SECRET + b"\1"), "", False)
    intent = intent_of([next(coins), next(coins)], [(recipient(kind), 30_000) for kind in RECIPIENTS], fee=3_000)
    exported = codec.export_psbt(intent, public_key=KEY.public_key, fingerprint="00000000", path="m/84'/1'/0'/0/0")
    read = core.rpc("decodepsbt", exported)
    assert round(read["fee"] * 10**8) == 3_000
    done = core.rpc("walletprocesspsbt", exported)
    assert done["complete"]
    signed = codec.import_psbt(intent, done["psbt"])
    assert core.rpc("sendrawtransaction", signed.raw.hex()) == signed.txid
    core.mine(1)
    assert confirmations(core, signed.txid) == 1


def test_bcoin_mines_a_batch_of_ours(bcoin):
    blocks = bcoin.mine(2, SENDER)
    bcoin.mine(100)
    held = list(coins_of(bcoin.rpc, blocks))
    intent = intent_of(held, [(recipient(kind), 100_000) for kind in RECIPIENTS], fee=5_000, change=3)
    signed = codec.sign(intent, KEY)
    assert bcoin.rpc("sendrawtransaction", signed.raw.hex()) == signed.txid
    (block,) = bcoin.mine(1)
    assert signed.txid in bcoin.rpc("getblock", block)["tx"]


def test_both_refuse_an_amount_that_was_changed_after_signing(core, coins, bcoin):
    blocks = bcoin.mine(1, SENDER)
    bcoin.mine(100)
    for coin, refused_by in (
        (next(coins), core.verdict),
        (next(coins_of(bcoin.rpc, blocks)), lambda raw: refusal(bcoin, raw)),
    ):
        intent = intent_of([coin], [(recipient("p2wpkh"), 5_000_000)], fee=1_000)
        signed = codec.sign(intent, KEY)
        more = codec.build(structs.replace(intent, payments=(structs.replace(intent.payments[0], units=5_000_001),)))
        more.vin[0].witness = codec.decode(signed.raw).transaction.vin[0].witness
        assert "script-verify-flag" in refused_by(more.serialize())


def refusal(bcoin, raw):
    with pytest.raises(Refused) as refused:
        bcoin.rpc("sendrawtransaction", raw.hex())
    return str(refused.value)


# The rail


class LaterCore:
    """HTTP to this Core, with the one call that the rail needs and Core has only since 24: what in the mempool spends these coins."""

    def __init__(self, core):
        self._core, self._post = core, HttpPost()

    async def __call__(self, url, body, timeout_s, **more):
        asked = json.loads(body)
        requests = asked if isinstance(asked, list) else [asked]
        answers = []
        if others := [request for request in requests if request["method"] != "gettxspendingprevout"]:
            status, raw = await self._post(url, json.dumps(others if isinstance(asked, list) else others[0]).encode(), timeout_s, **more)
            if len(others) == len(requests):
                return status, raw
            answers = json.loads(raw)
        for request in requests:
            if request not in others:
                answers.append({"id": request["id"], "result": self._spenders(*request["params"]), "error": None})
        return 200, json.dumps(answers if isinstance(asked, list) else answers[0]).encode()

    def _spenders(self, coins):
        spent = {
            (source["txid"], source["vout"]): txid
            for txid in self._core.rpc("getrawmempool")
            for source in self._core.rpc("getrawtransaction", txid, True)["vin"]
        }
        found = [(coin, spent.get((coin["txid"], coin["vout"]))) for coin in coins]
        return [coin if txid is None else {**coin, "spendingtxid": txid} for coin, txid in found]

    async def close(self):
        await self._post.close()


@pytest.fixture
def on_core(core, coins):
    """Runs a scenario with our rail on this Core, and one coin of the hot address."""
    network = Network("BTC", "bitcoin", "Core", "btc", REGTEST, None, 1_000, 3, is_test=True, params=(("fee_max", "0.01"),))

    async def main(scenario):
        runtime, post = SystemRuntime(), LaterCore(core)
        talk = BitcoinTalk(Http(post), chain_id=REGTEST, genesis=core.rpc("getblockhash", 0))
        url = core.rpc.url.replace("://", f"://{core.rpc.user}:{core.rpc.password}@")
        try:
            await scenario(BitcoinRail(network, Nodes([url], talk, runtime), runtime, own=[SENDER]))
        finally:
            await post.close()
            runtime.close()

    return lambda scenario: asyncio.run(main(scenario))


BTC = Token("btc", Coin("c", "BTC", "Bitcoin", 8), "BTC", "BTC", None, "1", 8)


async def bound(rail, coins, *, units=1_000_000, kinds=("p2wpkh",)):
    """The intent and the signed version of a payment of so much to each kind of address."""
    payments = [Payment(number, recipient(kind), "", units) for number, kind in enumerate(kinds, start=1)]
    lane = LaneView("BTC", SENDER, 0, tuple(coins))
    return signed(rail.bind(payments, BTC, lane, await rail.estimate(BTC), attempt_id=1))


def signed(intent):
    made = codec.sign(intent, KEY)
    return VersionView(made.version, made.txid, made.raw, intent)


def test_a_batch_is_followed_from_the_mempool_to_its_last_confirmation(core, coins, on_core):
    async def scenario(rail):
        version = await bound(rail, [next(coins), next(coins)], kinds=[*RECIPIENTS] * 4)
        assert await rail.observe([version]) == Absent()
        assert (await rail.submit(version.raw)).verdict is Verdict.ACCEPTED
        assert (await rail.submit(version.raw)).verdict is Verdict.ACCEPTED  # the node's words for "I have it"
        assert await rail.observe([version]) == Pending()
        for depth in (1, 2):
            core.mine(1)
            seen = await rail.observe([version])
            assert (type(seen), seen.txid, seen.depth) == (Included, version.txid, depth)
        core.mine(1)
        seen = await rail.observe([version])
        assert (type(seen), seen.txid, seen.fee) == (Final, version.txid, version.intent.terms["fee"])
        again = await rail.submit(version.raw)
        assert again.verdict is not Verdict.REFUSED

    on_core(scenario)


def test_a_bump_is_taken_and_the_replaced_version_is_no_failure(core, coins, on_core):
    async def scenario(rail):
        first = await bound(rail, [next(coins)])
        assert (await rail.submit(first.raw)).verdict is Verdict.ACCEPTED
        second = signed(rail.bump(first.intent, None, version=2))
        assert (await rail.submit(second.raw)).verdict is Verdict.ACCEPTED
        assert (await rail.submit(first.raw)).verdict is Verdict.UNKNOWN
        assert await rail.observe([first, second]) == Pending()
        core.mine(3)
        seen = await rail.observe([first, second])
        assert (type(seen), seen.txid) == (Final, second.txid)

    on_core(scenario)


def test_a_cancel_that_lands_is_a_proof_of_failure(core, coins, on_core):
    async def scenario(rail):
        payment = await bound(rail, [next(coins)])
        await rail.submit(payment.raw)
        cancel = signed(rail.bump(payment.intent, None, version=2, cancel=True))
        assert (await rail.submit(cancel.raw)).verdict is Verdict.ACCEPTED
        core.mine(6)  # the depth at which a cancel gives money back, whatever the network's number
        seen = await rail.observe([payment, cancel])
        assert (type(seen), seen.txid, seen.fee) == (FailedOnChain, cancel.txid, cancel.intent.terms["fee"])

    on_core(scenario)


def test_a_reorg_takes_the_block_back_and_the_payment_lands_again(core, coins, on_core):
    async def scenario(rail):
        version = await bound(rail, [next(coins)])
        await rail.submit(version.raw)
        (block, _) = core.mine(2)
        assert isinstance(await rail.observe([version]), Included)
        core.rpc("invalidateblock", block)
        assert await rail.observe([version]) == Pending()
        core.mine(3, RECIPIENTS["p2tr"].data)  # other blocks than the one that was undone
        assert isinstance(await rail.observe([version]), Final)

    on_core(scenario)


def test_a_coin_that_a_stranger_spent_is_never_taken_for_our_own_success(core, coins, on_core):
    async def scenario(rail):
        coin = next(coins)
        version = await bound(rail, [coin])
        thief = await bound(rail, [coin], units=2_000_000)
        await rail.submit(thief.raw)
        core.mine(3)
        assert (await rail.submit(version.raw)).verdict is Verdict.UNKNOWN
        assert not isinstance(await rail.observe([version]), Final | FailedOnChain | Included | Dead)

    on_core(scenario)
