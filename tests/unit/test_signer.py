"""The signer signs what it may, remembers it before it hands it out, and signs nothing else."""

import asyncio
import json
from unittest.mock import Mock

import pytest
from bip_utils import Bip39MnemonicDecoder
from eth_account import Account
from msgspec import structs

from penstock.core.intent import Death, Intent, Payment, SignLater, SignRefused
from penstock.core.money import Coin, Network, Token
from penstock.core.seal import OrderSeal
from penstock.prove.simulated.house import MemoryJournal
from penstock.rails.evm import codec
from penstock.runtime import SystemRuntime
from penstock.signer.addresses import PublicAddresses, PublicKeys, keep_public, load_public
from penstock.signer.families import LANES
from penstock.signer.index import FILE as INDEX
from penstock.signer.index import Index
from penstock.signer.journal import FileJournal, JournalBroken, SignerBusy
from penstock.signer.keys import KeysUnusable, LaneKey, check_library, derive, public_keys
from penstock.signer.local import LocalSigner
from penstock.signer.policy import AllowedNetwork, allow
from penstock.signer.reading import ReadingSigner
from penstock.signer.seed import Seed, create_seed, load_seed
from penstock.vault import Vault, VaultError
from tests.fixtures.nodes import MNEMONIC
from tests.fixtures.seals import SEAL, sealed

RUNTIME = SystemRuntime()
SENDER = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
RECIPIENT = "0xAA00000000000000000000000000000000000001"
USDT = "0xdAC17F958D2ee523a2206206994597C13D831ec7"
ALLOWED = {"ETH": AllowedNetwork("evm", 31337, {"native": None, "usdt": USDT}, 10**16)}


@pytest.fixture(scope="module")
def seed():
    return Seed(Bip39MnemonicDecoder().Decode(MNEMONIC))


@pytest.fixture
def open_signer(tmp_path, seed):
    """Opens a signer on the same home; the one before is closed first, as a restart would."""
    opened = []

    def opener():
        for one in opened:
            one.close()
        opened[:] = [FileJournal(tmp_path)]
        opened.append(Index(tmp_path / INDEX, opened[0]))
        return LocalSigner(seed, opened[0], RUNTIME, ALLOWED, SEAL, index=opened[1])

    yield opener
    for one in opened:
        one.close()


def pay(attempt_id=1, version=1, slot=0, order_id=None, recipient=RECIPIENT, units=5, token="usdt", contract=USDT, **changes):
    intent = Intent(
        attempt_id=attempt_id,
        version=version,
        kind="pay",
        chain="ETH",
        family="evm",
        chain_id=31337,
        sender=SENDER,
        slot=slot,
        token_id=token,
        contract=contract,
        payments=(Payment(order_id or 100 + attempt_id, recipient, "", units),),
        terms={"gas_limit": 60_000, "max_fee_per_gas": 2_000_000_000, "max_priority_fee_per_gas": 1_000_000_000},
        fee_cap=10**15,
    )
    return sealed(structs.replace(intent, **changes))


def sign(signer, *intents):
    return asyncio.run(signer.sign(list(intents)))


def refusal(signer, *intents):
    with pytest.raises(SignRefused) as caught:
        sign(signer, *intents)
    return str(caught.value)


# Seed and keys


def test_the_first_addresses_of_the_test_mnemonic():
    """https://getfoundry.sh/anvil/overview lists them; so does Hardhat, https://hardhat.org/hardhat-network/docs/reference"""
    words = Seed(Bip39MnemonicDecoder().Decode(MNEMONIC))
    addresses = [codec.address_of_public_key(derive(words, codec.path(1, lane)).public_key) for lane in range(3)]
    assert addresses == [SENDER, "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"]


def test_a_256_bit_vector_of_bip39():
    """https://github.com/trezor/python-mnemonic/blob/master/vectors.json (there with passphrase TREZOR); the words are the same."""
    assert Seed(bytes(32)).words().reveal() == " ".join(["abandon"] * 23 + ["art"])


def test_the_seed_is_made_once_and_opens_again(tmp_path):
    vault = Vault.create(tmp_path, RUNTIME, passphrase=None, key_file=True)
    words = create_seed(tmp_path, vault, RUNTIME).words()
    before = (tmp_path / "seed.json").read_bytes()
    assert len(words.reveal().split()) == 24
    assert create_seed(tmp_path, vault, RUNTIME).words() == words == load_seed(tmp_path, vault).words()
    assert (tmp_path / "seed.json").read_bytes() == before
    assert (tmp_path / "seed.json").stat().st_mode & 0o777 == 0o600
    assert not any(word in before.decode() for word in set(words.reveal().split()) if len(word) > 6)


@pytest.mark.parametrize("content", ["{}", "[]", "", '{"sealed": 1}', '{"sealed": "v1:AAAA"}'])
def test_a_damaged_seed_is_said(tmp_path, content):
    vault = Vault.create(tmp_path, RUNTIME, passphrase=None, key_file=True)
    with pytest.raises(VaultError, match="penstock init"):
        load_seed(tmp_path, vault)
    create_seed(tmp_path, vault, RUNTIME)
    (tmp_path / "seed.json").write_text(content)
    with pytest.raises(VaultError):
        load_seed(tmp_path, vault)


def test_keys_and_seeds_print_nothing(seed):
    assert (repr(seed), repr(derive(seed, "m/44'/60'/0'/0/0")), str(seed.words())) == ("Seed(***)", "LaneKey(***)", "***")


@pytest.mark.parametrize(("chain", "lane"), [("ETH", -1), ("ETH", 2**31), ("DOGE", 0)])
def test_there_is_no_key_for_what_is_not_there(seed, chain, lane):
    with pytest.raises(ValueError, match="no key for"):
        asyncio.run(PublicAddresses(public_keys(seed), ALLOWED).address(chain, lane))


def test_every_hot_address_signs_and_none_is_paid(open_signer, seed):
    """Networks may have several; whether the settings use them all is the gateway's affair."""
    signer = open_signer()
    own = [asyncio.run(signer.address("ETH", lane)) for lane in range(LANES["evm"])]
    assert own == signer.addresses("ETH") and len(set(own)) == 16
    signed = sign(signer, pay(sender=own[2]), pay(2, sender=own[15]))
    assert [codec.decode(one.raw).sender for one in signed] == [own[2], own[15]]
    beyond = codec.address_of_public_key(derive(seed, codec.path(1, 16)).public_key)
    assert "not one of this signer's addresses" in refusal(signer, pay(3, sender=beyond))
    assert "an address of our own" in refusal(signer, pay(3, slot=1, sender=own[2], recipient=own[7]))


def test_a_home_of_one_hot_address_learns_the_others_and_never_those_of_another_seed(seed, tmp_path):
    public = public_keys(seed)
    before = PublicKeys(public.fingerprint, {path: key for path, key in public.keys.items() if path.endswith("/0")})
    keep_public(tmp_path, before, RUNTIME)
    assert load_public(tmp_path) == before
    for _ in range(2):
        keep_public(tmp_path, public, RUNTIME)
        assert load_public(tmp_path) == public
    for other in (before, PublicKeys("00" * 4, {**public.keys, "m/1": b"1"})):
        with pytest.raises(VaultError, match="not of the seed"):
            keep_public(tmp_path, other, RUNTIME)
        assert load_public(tmp_path) == public


def test_the_curve_library_is_the_one_we_trust(monkeypatch):
    check_library()
    monkeypatch.setattr(LaneKey, "sign", lambda *_: (0, 1, 1))
    with pytest.raises(KeysUnusable, match="RFC 6979"):
        check_library()
    monkeypatch.setattr("coincurve.keys.lib", object())
    with pytest.raises(KeysUnusable, match="libsecp256k1"):
        check_library()


# What is signed


@pytest.mark.parametrize("token", [("usdt", USDT), ("native", None)])
@pytest.mark.parametrize("legacy", [True, False])
def test_the_bytes_are_those_of_eth_account(open_signer, token, legacy):
    """The oracle: https://github.com/ethereum/eth-account"""
    terms = {"gas_limit": 70_000, "gas_price": 3_000_000_000} if legacy else pay().terms
    (signed,) = sign(open_signer(), pay(token=token[0], contract=token[1], slot=7, terms=terms))
    data = codec.transfer_call_data(RECIPIENT, 5) if token[1] else b""
    fees = {"gasPrice": 3_000_000_000} if legacy else {"maxFeePerGas": 2_000_000_000, "maxPriorityFeePerGas": 1_000_000_000}
    transaction = {"to": token[1] or RECIPIENT, "value": 0 if token[1] else 5, "data": data, "nonce": 7, "chainId": 31337}
    key = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # public: anvil's first account
    expected = Account.sign_transaction({**transaction, "gas": terms["gas_limit"], **fees}, key)
    assert signed.raw == bytes(expected.raw_transaction)
    assert signed.txid == "0x" + bytes(expected.hash).hex()


def test_the_same_intent_gives_the_same_bytes_also_after_a_restart(open_signer, tmp_path):
    first = sign(open_signer(), pay())
    size = (tmp_path / "signer.journal").stat().st_size
    assert sign(open_signer(), pay()) == first
    assert (tmp_path / "signer.journal").stat().st_size == size


def test_versions_rise_on_the_same_slot(open_signer):
    signer = open_signer()
    dearer = {"gas_limit": 60_000, "max_fee_per_gas": 2_250_000_000, "max_priority_fee_per_gas": 1_125_000_000}
    cancel = {"gas_limit": 21_000, "max_fee_per_gas": 3_000_000_000, "max_priority_fee_per_gas": 2_000_000_000}
    one, two, three = sign(signer, pay(), pay(version=2, terms=dearer), pay(version=5, kind="cancel", terms=cancel))
    assert len({one.txid, two.txid, three.txid}) == 3
    found = codec.decode(three.raw).unsigned
    assert (found.to, found.value, found.data, found.nonce) == (SENDER, 0, b"", 0)
    assert "versions only rise" in refusal(signer, pay(version=3, terms=cancel))
    assert "another intent was signed as this version" in refusal(open_signer(), pay(version=2, terms=cancel))
    assert sign(open_signer(), pay()) == [one]


CHANGED = [
    {"recipient": "0xBb00000000000000000000000000000000000002"},
    {"units": 6},
    {"slot": 1},
    {"token": "native", "contract": None},
    {"order_id": 999},
    {"fee_cap": 10**15 + 1},
]


@pytest.mark.parametrize("change", CHANGED)
def test_a_second_intent_for_an_attempt_is_refused(open_signer, change):
    signer = open_signer()
    sign(signer, pay())
    assert "another intent was signed for this attempt" in refusal(signer, pay(version=2, **change))
    assert "another intent" in refusal(open_signer(), pay(**change))


@pytest.mark.parametrize("change", CHANGED)
def test_a_second_intent_in_the_same_batch_is_refused_and_nothing_is_recorded(open_signer, tmp_path, change):
    assert "attempt 1 version 2" in refusal(open_signer(), pay(), pay(version=2, **change))
    assert (tmp_path / "signer.journal").read_bytes() == b""


def test_a_slot_belongs_to_one_attempt(open_signer):
    sign(open_signer(), pay())
    assert "belongs to attempt 1" in refusal(open_signer(), pay(attempt_id=2))
    assert "belongs to attempt 3" in refusal(open_signer(), pay(attempt_id=3, slot=3), pay(attempt_id=4, slot=3))


def test_an_order_has_one_attempt(open_signer):
    sign(open_signer(), pay(order_id=7))
    assert "its death is not proved" in refusal(open_signer(), pay(attempt_id=2, slot=1, order_id=7))


def test_a_name_of_the_merchant_has_one_attempt_also_under_another_id(open_signer):
    """An older database has forgotten the order, and the merchant asks again: it gets a new id, and the name is spent."""
    payment = Payment(7, RECIPIENT, "", 5, key="1/rent")
    sign(open_signer(), pay(payments=(payment,)))
    again = structs.replace(payment, order_id=8)
    assert "its death is not proved" in refusal(open_signer(), pay(attempt_id=2, slot=1, payments=(again,)))
    assert sign(open_signer(), pay(attempt_id=3, slot=1, payments=(structs.replace(again, key="2/rent"),)))


SEALED = pay().payments[0]


@pytest.mark.parametrize(
    "change",
    [
        {"order_id": 999},
        {"key": "2/order-101"},
        {"key": ""},
        {"recipient": "0xBb00000000000000000000000000000000000002"},
        {"recipient": RECIPIENT.lower()},
        {"memo": "1"},
        {"units": 6},
        {"seal": ""},
        {"seal": SEALED.seal[:-1]},
        {"seal": SEALED.seal.upper()},
        {"seal": "\u0661" * 64},
    ],
)
@pytest.mark.parametrize("kind", ["pay", "cancel"])
def test_an_order_that_was_changed_after_it_was_sealed_is_not_signed(open_signer, tmp_path, change, kind):
    changed = structs.replace(pay(kind=kind), payments=(structs.replace(SEALED, **change),))
    assert "the seal of order" in refusal(open_signer(), changed)
    assert (tmp_path / "signer.journal").read_bytes() == b""


def test_a_seal_is_of_one_token_on_one_network_under_one_key(open_signer):
    native = structs.replace(pay(), token_id="native", contract=None)
    assert "the seal of order" in refusal(open_signer(), native)
    assert not SEAL.fits(SEALED, chain="POLYGON", token_id="usdt")
    assert not OrderSeal(bytes(32)).fits(SEALED, chain="ETH", token_id="usdt")
    assert SEAL.fits(structs.replace(SEALED, weight=7), chain="ETH", token_id="usdt")
    assert repr(SEAL) == "OrderSeal(***)"


def test_an_attempt_that_a_journal_of_before_knows_goes_on_without_seal(seed):
    """Its lines have neither key nor seal; the same intent gives the same bytes, and a dearer version of it too."""
    old = json.loads(structs.replace(pay(), payments=(Payment(101, RECIPIENT, "", 5),)).to_json())
    for field in ("key", "seal"):
        del old["payments"][0][field]
    first = codec.sign(Intent.from_json(json.dumps(old)), derive(seed, "m/44'/60'/0'/0/0"))
    signer = LocalSigner(seed, kept({"kind": "sign", "intent": old, "txid": first.txid}), RUNTIME, ALLOWED, SEAL)
    intent = Intent.from_json(json.dumps(old))
    dearer = {"gas_limit": 60_000, "max_fee_per_gas": 2_250_000_000, "max_priority_fee_per_gas": 1_125_000_000}
    assert sign(signer, intent)[0].raw == first.raw
    assert sign(signer, structs.replace(intent, version=2, terms=dearer))
    assert "its death is not proved" in refusal(signer, pay(attempt_id=2, slot=1, order_id=101))


@pytest.mark.parametrize(
    ("words", "change"),
    [
        ("network POLYGON is not configured", {"chain": "POLYGON"}),
        ("chain id 1 is not that of ETH", {"chain_id": 1}),
        ("chain id 31337 is not that of ETH", {"family": "tron"}),
        ("token usdc is not configured", {"token_id": "usdc"}),
        ("the contract is not the token's", {"contract": "0xA0b86991c6218b36c1d19D4a2e9Eb0cE3606eB48"}),
        ("the contract is not the token's", {"contract": None}),
        ("the contract is not the token's", {"token_id": "native"}),
        ("not one of this signer's addresses", {"sender": RECIPIENT}),
        ("names no order", {"payments": ()}),
        ("zero address", {"payments": (Payment(1, RECIPIENT, "", 1), Payment(2, codec.ZERO_ADDRESS, "", 1))}),
        ("an address of our own", {"payments": (Payment(1, RECIPIENT, "", 1), Payment(2, SENDER, "", 1))}),
        ("from 1 to 2^96 - 1", {"payments": (Payment(1, RECIPIENT, "", 1), Payment(2, RECIPIENT, "", 2**96))}),
        ("an address of our own", {"payments": (Payment(1, SENDER.lower(), "", 1),)}),
        ("a token contract", {"payments": (Payment(1, USDT, "", 1),)}),
        ("zero address", {"payments": (Payment(1, codec.ZERO_ADDRESS, "", 1),)}),
        ("from 1 to", {"payments": (Payment(1, RECIPIENT, "", 0),)}),
        ("above its cap", {"fee_cap": 119_999_999_999_999}),
        ("above its cap", {"terms": {"gas_limit": 60_000, "gas_price": 10**12}}),
        ("above its cap", {"terms": {"gas_limit": 60_000, "gas_price": 1, "l1_fee": 10**15}}),
        ("above the network's", {"fee_cap": 10**16 + 1}),
        ("terms are", {"terms": {"gas_limit": 60_000}}),
        ("less than 21000 gas", {"terms": {"gas_limit": 20_999, "gas_price": 1}}),
        ("it does not approve", {"kind": "approve"}),
        ("from 0 to 9223372036854775807, and -1 is none", {"slot": -1}),
        # What no table can hold would stand in the journal for ever, and no start could read it into the books.
        ("9223372036854775808 is none", {"slot": 2**63}),
        ("9223372036854775808 is none", {"attempt_id": 2**63}),
        ("9223372036854775808 is none", {"version": 2**63}),
        ("9223372036854775808 is none", {"payments": (Payment(2**63, RECIPIENT, "", 1),)}),
    ],
)
def test_what_is_not_a_plain_allowed_payment_is_refused_by_name(open_signer, tmp_path, words, change):
    assert words in refusal(open_signer(), pay(**change))
    assert (tmp_path / "signer.journal").read_bytes() == b""


@pytest.mark.parametrize("attempt_id", [-1, 2**63])
def test_a_death_under_an_id_that_no_table_can_hold_is_not_noted(open_signer, tmp_path, attempt_id):
    with pytest.raises(SignRefused, match=f"{attempt_id} is none"):
        asyncio.run(open_signer().bury([Death(1, "x"), Death(attempt_id, "x")]))
    assert (tmp_path / "signer.journal").read_bytes() == b""


def test_bytes_that_do_not_match_the_intent_never_leave(open_signer, monkeypatch, tmp_path):
    """A codec gone wrong: it builds a payment to somebody else."""
    honest = codec.build
    stranger = "0xBb00000000000000000000000000000000000002"

    def crooked(intent):
        return honest(structs.replace(intent, payments=(structs.replace(intent.payments[0], recipient=stranger),)))

    monkeypatch.setattr(codec, "build", crooked)
    assert "does not match its intent: call" in refusal(open_signer(), pay())
    assert "does not match its intent: recipient" in refusal(open_signer(), pay(token="native", contract=None))
    assert (tmp_path / "signer.journal").read_bytes() == b""


def test_the_pin_comes_from_catalogue_values():
    coin = Coin("c", "USDT", "Tether", 6)
    network = Network("ETH", "evm", "Ethereum", "native", 1, None, 12_000, 64, is_test=False, params=(("fee_max", "0.05"),))
    native = Token("native", Coin("e", "ETH", "Ethereum", 18), "ETH", "ERC20", None, "1", 18)
    tokens = [native, Token("usdt", coin, "ETH", "ERC20", USDT, USDT, 6), Token("x", coin, "BSC", "BEP20", RECIPIENT, RECIPIENT, 18)]
    assert allow(network, tokens) == AllowedNetwork("evm", 1, {"native": None, "usdt": USDT}, 5 * 10**16)
    assert allow(network, tokens, fee_max=9).fee_max == 9


# Journal


def test_an_intent_is_on_disk_before_its_signature_leaves(open_signer, tmp_path):
    signer = open_signer()
    sign(signer, pay(), pay(attempt_id=2, slot=1))
    lines = (tmp_path / "signer.journal").read_text().splitlines()
    assert [json.loads(line)["entry"]["intent"]["attempt_id"] for line in lines] == [1, 2]
    assert (tmp_path / "signer.journal").stat().st_mode & 0o777 == 0o600


def test_a_batch_costs_one_fsync(open_signer, monkeypatch):
    signer, calls = open_signer(), []
    monkeypatch.setattr("os.fsync", calls.append)
    sign(signer, *[pay(attempt_id=n, slot=n) for n in range(50)])
    assert len(calls) == 1


@pytest.mark.parametrize("tail", [b"{", b'{"entry": {"attempt', b"\0" * 100_000, b"x" * 70_000])
def test_a_torn_last_line_is_cut_off(open_signer, tmp_path, tail):
    path = tmp_path / "signer.journal"
    first = sign(open_signer(), pay())
    whole = path.read_bytes()
    with path.open("ab") as file:
        file.write(tail)
    signer = open_signer()
    assert path.read_bytes() == whole
    assert sign(signer, pay()) == first
    sign(signer, pay(attempt_id=2, slot=1))
    open_signer()


def test_a_torn_line_may_have_been_a_whole_entry_without_its_end(open_signer, tmp_path):
    path = tmp_path / "signer.journal"
    sign(open_signer(), pay(), pay(attempt_id=2, slot=1))
    path.write_bytes(path.read_bytes()[:-1])
    assert sign(open_signer(), pay(attempt_id=2, slot=1))
    assert len(path.read_bytes().splitlines()) == 2


def broken(path, change):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(change(lines)))


@pytest.mark.parametrize(
    ("where", "change"),
    [
        ("line 2", lambda lines: [lines[0], lines[1].replace(b'"units":5', b'"units":6'), lines[2]]),
        ("line 2", lambda lines: [lines[0], lines[2]]),
        ("line 1", lambda lines: lines[1:]),
        ("line 2", lambda lines: [lines[0], lines[2], lines[1]]),
        ("line 4", lambda lines: [*lines, lines[2]]),
        ("line 2", lambda lines: [lines[0], b"\n", *lines[1:]]),
        ("line 2", lambda lines: [lines[0], lines[1][:40] + b"\n", lines[2]]),
        ("line 2", lambda lines: [lines[0], b"x" * 70_000 + b"\n", lines[2]]),
        ("line 1", lambda lines: [lines[0].replace(b'{"entry"', b'{ "entry"'), *lines[1:]]),
    ],
)
def test_any_other_break_refuses_to_start(open_signer, tmp_path, where, change):
    sign(open_signer(), pay(), pay(attempt_id=2, slot=1), pay(attempt_id=3, slot=2))
    broken(tmp_path / "signer.journal", change)
    with pytest.raises(JournalBroken, match=where):
        open_signer()


def test_a_journal_that_others_can_read_is_refused(open_signer, tmp_path):
    open_signer()
    (tmp_path / "signer.journal").chmod(0o644)
    with pytest.raises(JournalBroken, match="chmod 600"):
        open_signer()


def test_a_journal_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "signer.journal").symlink_to(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(JournalBroken, match="cannot be opened"):
            FileJournal(tmp_path)


def test_a_full_disk_signs_nothing_and_goes_on_after_a_restart(open_signer, monkeypatch):
    signer = open_signer()
    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", Mock(side_effect=OSError(28, "No space left on device")))
        with pytest.raises(JournalBroken, match="No space left"):
            sign(signer, pay())
    with pytest.raises(JournalBroken, match="start again"):
        sign(signer, pay(attempt_id=2, slot=1))
    assert sign(open_signer(), pay())


def test_while_its_journal_is_read_everything_is_put_off_and_after_a_break_for_ever(open_signer):
    async def scenario():
        reading = asyncio.get_running_loop().create_future()
        signer = ReadingSigner(reading)
        for asked in (signer.sign([pay()]), signer.bury([Death(1, "x")]), signer.told(0), signer.standing()):
            with pytest.raises(SignLater, match="still reads its journal") as later:
                await asked
            assert later.value.everything
        reading.set_result(open_signer())
        (signed,) = await signer.sign([pay()])
        assert [entry["txid"] for entry in await signer.told(0)] == [signed.txid]
        assert (await signer.standing()).stopped == ""
        broken = asyncio.get_running_loop().create_future()
        broken.set_exception(JournalBroken("line 7"))
        with pytest.raises(JournalBroken, match="line 7"):
            await ReadingSigner(broken).sign([pay()])

    asyncio.run(scenario())


def test_a_journal_that_is_closed_while_it_is_read_is_read_no_further(tmp_path):
    journal = FileJournal(tmp_path)
    list(journal.read())
    journal.append([{"kind": "go", "id": str(number)} for number in range(3)])
    rest = journal.read(upto=3)
    next(rest)
    journal.close()
    with pytest.raises(JournalBroken, match="closed"):
        next(rest)


def test_an_entry_of_a_kind_from_the_future_refuses_to_start(open_signer, seed, tmp_path):
    open_signer()
    for entry in ({"kind": "death", "intent": json.loads(pay().to_json()), "txid": "0x"}, {"kind": "sign"}):
        with pytest.raises(JournalBroken, match="journal entry 1"):
            LocalSigner(seed, kept(entry), RUNTIME, ALLOWED, SEAL)


def test_other_bytes_than_the_journal_says_are_refused(seed):
    journal = kept({"kind": "sign", "intent": json.loads(pay().to_json()), "txid": "0x" + "11" * 32})
    assert "was the seed replaced" in refusal(LocalSigner(seed, journal, RUNTIME, ALLOWED, SEAL), pay())


def kept(*entries):
    journal = MemoryJournal()
    journal.append(entries)
    return journal


# One process signs, others look


def test_two_signers_on_one_home_are_refused(open_signer, tmp_path, seed):
    open_signer()
    with pytest.raises(SignerBusy, match="another penstock process"):
        FileJournal(tmp_path)


def test_addresses_can_be_read_beside_a_signer(open_signer, seed):
    signer, reader = open_signer(), PublicAddresses(public_keys(seed), ALLOWED)
    assert asyncio.run(reader.address("ETH", 0)) == asyncio.run(signer.address("ETH", 0)) == SENDER
    assert "does not sign" in refusal(reader, pay())
