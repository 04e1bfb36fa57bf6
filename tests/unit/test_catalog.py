"""The catalogue: what ships is right to the letter, what is wrong never loads, look-ups only find or do not find."""

from __future__ import annotations

import hashlib
import re
import tomllib
from pathlib import Path

import pytest
from Crypto.Hash import keccak

from penstock import catalog as room
from penstock.catalog import Catalog
from penstock.listing import CatalogError, derived_coin_id, derived_token_id
from penstock.rails.xrp import codec as xrp_codec

VECTORS = tomllib.loads((Path(__file__).parents[1] / "vectors" / "catalog_sources.toml").read_text(encoding="utf-8"))
FILE = tomllib.loads(Path(room.__file__).with_name("catalog.toml").read_text(encoding="utf-8"))

# Spec, sections 11 and 16.13, and the vendor's SDKs: what v1 merchants have in their code.
KNOWN_COINS = {
    "ETH": "e8f64d3d-df5b-411d-897f-c6d8d30206b7",
    "BNB": "038073e6-a784-4e3e-b6a7-36456a39055f",
    "USDT": "8e5741cf-6e51-4892-9d04-3d40e1dd0128",
    "USDC": "ce387d66-1c3b-4333-8bb7-7d6ad98ae9bb",
    "USDC.e": "8f5433e8-7f75-11ee-81b9-0a6f38bb19bf",
    "SOL": "31c27e3c-0e6d-4e16-9b5c-857601daa1e8",
}
KNOWN_TOKENS = {
    ("ETH", "ETH"): "8addd19b-37df-4faf-bd74-e61e214b008a",
    ("USDT", "ETH"): "264f4725-3cfd-4ff6-bc80-ff9d799d5fb2",
    ("USDT", "BSC"): "92b15088-7973-4813-b0f3-1895588a5df7",
    ("USDT", "POLYGON"): "f137d42c-f3a6-4f23-9402-76f0395d0cfe",
    ("USDT", "TRX"): "0912e09a-d8e2-41d7-a0bc-a25530892988",
    ("XRP", "XRP"): "fdf0e8b0-ebf5-44f0-a335-21c121b73fc8",
    ("USDC", "POLYGON"): "c6b7c878-8a01-4f7f-8d2e-99a72787b1ac",
    ("USDC.e", "POLYGON"): "8f5433e8-7f75-11ee-81b9-0a6f38bb19bf",
    ("MATIC", "POLYGON"): "85db36af-3282-4501-9357-67da32691ab7",
    ("SOL", "BSC"): "e5c33690-1395-4c69-a664-2529d75a660e",
}
EVM = ("ETH", "POLYGON", "BSC", "ARBITRUM", "OPTIMISM", "BASE", "AVAX")

OWN_TOKEN = """
[coins.EURC]
id = "7d8dd4c6-5c7b-5a1e-8a0c-0d6c4bb0b6a1"
name = "Euro Coin"
display_decimals = 6
[tokens.ETH.EURC]
id = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f9"
standard = "ERC20"
contract = "0x1aBaEA1f7C830bD89Acc67eC4af516284b1bC33c"
decimals = 6
"""


@pytest.fixture(scope="module")
def shipped() -> Catalog:
    return Catalog.load()


def eip55(address: str) -> str:
    """EIP-55, written here anew so that the test does not trust the rail."""
    bare = address[2:].lower()
    digest = keccak.new(digest_bits=256, data=bare.encode()).hexdigest()
    return "0x" + "".join(char.upper() if int(digest[place], 16) >= 8 else char for place, char in enumerate(bare))


def base58check(text: str) -> bytes:
    number = 0
    for char in text:
        number = number * 58 + "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz".index(char)
    raw = number.to_bytes(25, "big")
    assert hashlib.sha256(hashlib.sha256(raw[:21]).digest()).digest()[:4] == raw[21:]
    return raw[:21]


# ---------------------------------------------------------------------------------------------------------- what is shipped


def test_every_contract_agrees_with_two_sources_letter_for_letter(shipped):
    vectors = {vector["token"]: vector for vector in VECTORS["contract"]}
    contracts = [token for token in shipped.tokens() if not token.is_native]
    assert {f"{token.chain}.{token.coin.symbol}" for token in contracts} == set(vectors)
    for token in contracts:
        vector = vectors[f"{token.chain}.{token.coin.symbol}"]
        assert (token.contract, token.decimals) == (vector["contract"], vector["decimals"])
        assert len(set(vector["sources"])) >= 2


def test_every_evm_contract_has_its_checksum_and_every_other_one_too(shipped):
    for token in shipped.tokens():
        if token.chain in EVM and token.contract is not None:
            assert token.contract == eip55(token.contract)
    tron = shipped.by_symbol("USDT", "TRX")
    assert tron is not None
    assert base58check(tron.contract)[0] == 0x41


def test_every_token_of_the_xrp_ledger_is_one_that_its_codec_can_pay(shipped):
    tokens = [token for token in shipped.tokens_on("XRP") if not token.is_native]
    assert [token.coin.symbol for token in tokens] == ["RLUSD", "USDC"]
    for token in tokens:
        code, issuer = token.contract.split(".")
        assert xrp_codec.parse_contract(token.contract) == xrp_codec.Issued(code, issuer)
        assert bytes.fromhex(code).rstrip(b"\0") == token.coin.symbol.encode()
        assert token.decimals == xrp_codec.ISSUED_DECIMALS
    assert all(token.takes_memo for token in shipped.tokens_on("XRP"))


def test_every_genesis_agrees_with_two_sources(shipped):
    assert {vector["network"] for vector in VECTORS["genesis"]} == {*EVM, "BTC", "TRX"}
    for vector in VECTORS["genesis"]:
        network = shipped.network(vector["network"])
        assert (network.chain_id, network.genesis) == (vector["chain_id"], vector["hash"])
        assert len(set(vector["sources"])) >= 2


def test_the_ids_that_merchants_hold_are_theirs_verbatim(shipped):
    assert {symbol: shipped.coin_by_symbol(symbol).id for symbol in KNOWN_COINS} == KNOWN_COINS
    assert {key: shipped.by_symbol(*key).id for key in KNOWN_TOKENS} == KNOWN_TOKENS


def test_ids_nobody_published_are_the_derived_ones_and_no_known_id_is_called_derived(shipped):
    derived = 0
    for symbol, fields in FILE["coins"].items():
        assert (fields["id_from"] == "derived") == (fields["id"] == derived_coin_id(symbol))
        derived += fields["id_from"] == "derived"
    for chain, tokens in FILE["tokens"].items():
        network = shipped.network(chain)
        for fields in tokens.values():
            made = derived_token_id(network.chain_id, fields.get("contract"), family=network.family)
            assert (fields["id_from"] == "derived") == (fields["id"] == made)
            derived += fields["id_from"] == "derived"
    assert derived == 22


def test_derived_ids_never_change():
    """Merchants store them: this test holds the texts, not the rule."""
    assert derived_coin_id("MATIC") == "2d58ffc4-63a2-5add-b678-a1c18c088068"
    assert derived_token_id(8453, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913") == "6d61c236-79bd-5de2-9610-62425bc8103d"
    assert derived_token_id(56, None) == "6ffe7c65-0e01-5af1-a319-37decb17a6aa"


def test_every_evm_network_has_its_coin_usdt_and_usdc(shipped):
    for chain in EVM:
        assert shipped.native(chain).is_native
        assert shipped.by_symbol("USDT", chain) is not None
        assert shipped.by_symbol("USDC", chain) is not None
    assert [shipped.native(chain).coin.symbol for chain in EVM] == ["ETH", "MATIC", "BNB", "ETH", "ETH", "ETH", "AVAX"]
    assert len({shipped.native(chain).coin.id for chain in ("ETH", "ARBITRUM", "OPTIMISM", "BASE")}) == 1


def test_decimals_on_bsc_are_18_and_elsewhere_6(shipped):
    for symbol in ("USDT", "USDC"):
        tokens = shipped.tokens_of(shipped.coin_by_symbol(symbol))
        assert {token.chain: token.decimals for token in tokens if token.decimals != 6} == {"BSC": 18}


def test_the_wire_prints_what_the_base_documents_print(shipped):
    assert shipped.by_symbol("USDT", "POLYGON").wire_contract == "0xc2132d05d31c914a87c6611c10748aeb04b58e8f"
    assert shipped.by_symbol("USDT", "ETH").wire_contract == "0xdAC17F958D2ee523a2206206994597C13D831ec7"
    assert shipped.by_symbol("USDT", "TRX").wire_contract == "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t"
    assert shipped.by_symbol("USDC.e", "POLYGON").wire_contract == "0x2791bca1f2de4661ed88a30c99a7a9449aa84174"
    assert shipped.native("ETH").wire_contract == "1"
    assert shipped.native("POLYGON").wire_contract == "137"


def test_networks_say_how_they_charge(shipped):
    of = {chain: shipped.network(chain) for chain in EVM}
    assert {chain for chain in EVM if of[chain].param("op_stack")} == {"OPTIMISM", "BASE"}
    assert {chain for chain in EVM if of[chain].param("fee_model") == "legacy"} == {"BSC"}
    assert {chain for chain in EVM if of[chain].param("gas_varies")} == {"ARBITRUM"}
    assert all(of[chain].param("has_finality_tag") for chain in EVM)
    assert not any(network.is_test for network in shipped.networks())


# ---------------------------------------------------------------------------------------------------------------- look-ups


def test_look_ups_find_by_kind_or_not_at_all(shipped):
    shared = "8f5433e8-7f75-11ee-81b9-0a6f38bb19bf"
    assert shipped.token(shared).chain == "POLYGON"
    assert shipped.coin(shared).symbol == "USDC.e"
    assert shipped.token("8e5741cf-6e51-4892-9d04-3d40e1dd0128") is None
    assert shipped.coin("0912e09a-d8e2-41d7-a0bc-a25530892988") is None
    assert shipped.token("no id") is None
    assert shipped.coin("no id") is None
    assert shipped.network("DOGE") is None
    assert shipped.by_symbol("USDT", "DOGE") is None
    assert shipped.coin_by_symbol("DOGE") is None


def test_ids_that_cannot_be_paid_yet_have_a_meaning_and_nothing_else(shipped):
    for known in ("bc78e27d-540b-4756-a7fa-69930eca6322", "5c48ec51-c8d0-45cc-ace9-1a3860bd0e25"):
        assert shipped.reserved(known)
        assert shipped.token(known) is None
        assert shipped.coin(known) is None
    assert shipped.reserved("8e5741cf-6e51-4892-9d04-3d40e1dd0128") is None


def test_lists_keep_the_order_of_the_file(shipped):
    assert [network.chain for network in shipped.networks()] == list(FILE["networks"])
    assert [coin.symbol for coin in shipped.coins()] == list(FILE["coins"])
    assert [token.chain for token in shipped.tokens_of(shipped.coin_by_symbol("USDT"))] == [*EVM, "TRX"]
    assert [token.coin.symbol for token in shipped.tokens_on("POLYGON")] == ["MATIC", "USDT", "USDC", "USDC.e"]
    assert sum(len(shipped.tokens_of(coin)) for coin in shipped.coins()) == len(shipped.tokens())


def test_a_network_that_is_not_there_has_no_native_token(shipped):
    with pytest.raises(CatalogError, match="DOGE"):
        shipped.native("DOGE")


def test_it_is_frozen(shipped):
    with pytest.raises(TypeError):
        shipped._tokens["x"] = shipped.native("ETH")


# ----------------------------------------------------------------------------------------------------- the operator's settings


def test_another_chain_id_makes_a_test_network_and_leaves_the_rest_alone(shipped):
    changed = shipped.with_network("ETH", chain_id=31337)
    network = changed.network("ETH")
    assert (network.chain_id, network.genesis, network.is_test) == (31337, None, True)
    assert network.confirmations == room.TEST_CONFIRMATIONS
    assert network.name == "Ethereum (test network 31337)"
    assert network.param("explorer_tx") == ""
    assert network.param("fee_max") == "0.05"
    assert changed.native("ETH") == shipped.native("ETH")
    assert changed.network("BSC") == shipped.network("BSC")
    assert shipped.network("ETH").chain_id == 1


def test_the_same_chain_id_changes_nothing(shipped):
    assert shipped.with_network("ETH", chain_id=1).network("ETH") == shipped.network("ETH")


def test_a_depth_from_the_settings_is_where_success_is_reported(shipped):
    real = shipped.with_network("ETH", confirmations=12).network("ETH")
    assert (real.confirmations, real.is_test, real.param("reports_at_depth", False)) == (12, False, True)
    assert not shipped.network("ETH").param("reports_at_depth", False)
    boxed = shipped.with_network("ETH", chain_id=31337, confirmations=1).network("ETH")
    assert (boxed.confirmations, boxed.is_test) == (1, True)


@pytest.mark.parametrize(
    ("chain", "settings", "words"),
    [
        ("DOGE", {"chain_id": 5}, "not in the catalogue"),
        ("ETH", {"chain_id": 56}, "BSC's"),
        ("ETH", {"chain_id": 0}, "between 1 and"),
        ("ETH", {"chain_id": 2**63}, "between 1 and"),
        ("ETH", {"confirmations": 0}, "1 or more"),
    ],
)
def test_settings_that_would_be_dangerous_are_refused(shipped, chain, settings, words):
    with pytest.raises(CatalogError, match=words):
        shipped.with_network(chain, **settings)


def test_two_test_networks_never_share_a_chain_id(shipped):
    once = shipped.with_network("ETH", chain_id=31337)
    with pytest.raises(CatalogError, match="valid on both"):
        once.with_network("POLYGON", chain_id=31337)
    with pytest.raises(CatalogError, match="already"):
        once.with_network("ETH", chain_id=1)


# ------------------------------------------------------------------------------------------------------- the operator's file


def test_an_operators_file_adds_a_coin_and_a_token(tmp_path):
    path = tmp_path / "catalog.toml"
    path.write_text(OWN_TOKEN, encoding="utf-8")
    for overrides in (path, OWN_TOKEN):
        own = Catalog.load(overrides=overrides)
        assert own.by_symbol("EURC", "ETH").coin.name == "Euro Coin"
        assert len(own.tokens()) == len(Catalog.load().tokens()) + 1


def test_an_operators_file_replaces_single_fields():
    own = Catalog.load(overrides='[networks.ETH]\nfee_max = "0.01"\n[tokens.BSC.USDT]\nstatus = 2\n[coins.USDT]\nlogo = "https://a.b/c"')
    assert own.network("ETH").param("fee_max") == "0.01"
    assert own.network("ETH").chain_id == 1
    assert own.by_symbol("USDT", "BSC").status == 2
    assert own.by_symbol("USDT", "BSC").coin.logo == "https://a.b/c"


def test_an_operators_network_is_data_only():
    own = Catalog.load(
        overrides="""
        [coins.FTM]
        id = "11111111-2222-4333-8444-555555555555"
        name = "Fantom"
        display_decimals = 18
        [networks.FTM]
        family = "evm"
        name = "Fantom"
        chain_id = 250
        native = "FTM"
        block_ms = 1000
        confirmations = 5
        gas_price_max_wei = 1_000_000_000_000
        fee_max = "5"
        [tokens.FTM.FTM]
        id = "11111111-2222-4333-8444-666666666666"
        standard = "FTM"
        decimals = 18
        """
    )
    assert own.native("FTM").wire_contract == "250"
    assert own.network("FTM").param("fee_model") == "eip1559"
    assert own.network("FTM").param("has_finality_tag") is False
    assert own.network("FTM").genesis is None


ETH_USDC = "[tokens.ETH.USDC]\n"
DAI = '[coins.DAI]\nid = "11111111-2222-4333-8444-555555555555"\nname = "Dai"\ndisplay_decimals = 18\n'
DAI_ON_ETH = DAI + '[tokens.ETH.DAI]\nstandard = "ERC20"\n'
ID = 'id = "11111111-2222-4333-8444-666666666666"\n'
CONTRACT = 'contract = "0x6B175474E89094C44Da98b954EedeAC495271d0F"\n'


@pytest.mark.parametrize(
    ("overrides", "entry", "words"),
    [
        ("[networks.ETH]\nfamily = 'doge'", "network ETH", "one of evm, tron"),
        ("[networks.ETH]\nchain_ident = 5", "network ETH", "unknown field chain_ident"),
        ("[networks.ETH]\nchain_id = 56", "network BSC", "chain_id 56 is ETH's"),
        ("[networks.ETH]\nchain_id = '1'", "network ETH", "a whole number"),
        ("[networks.ETH]\nchain_id = true", "network ETH", "a whole number"),
        ("[networks.ETH]\ngenesis = '0x12'", "network ETH", "64 hex digits"),
        ("[networks.ETH]\nnative = 'USDT'", "ETH", "contract is missing"),
        ("[networks.ETH]\nconfirmations = 0", "network ETH", "1 to 100000"),
        ("[networks.ETH]\nfee_max = '1e3'", "network ETH", "fee_max"),
        ("[networks.ETH]\nfee_max = '0'", "network ETH", "nothing could ever be paid"),
        ("[networks.ETH]\nfee_max = 0.5", "network ETH", "a text in quotes"),
        ("[networks.ETH]\nfee_model = 'eip4844'", "network ETH", "eip1559 or legacy"),
        ("[networks.ETH]\npriority_fee_min_wei = -1", "network ETH", "0 or more"),
        ("[networks.ETH]\nexplorer_tx = 'https://a.b/'", "network ETH", "{txid}"),
        ("[networks.eth]\nfamily = 'evm'", "networks.eth", "capitals"),
        ("[networks.FTM]\nfamily = 'evm'\nchain_id = 250", "network FTM", "own coin is missing|native is missing"),
        ("[coins.USDT]\nid = 'USDT'", "coin USDT", "a UUID"),
        ("[coins.USDT]\nid = '8E5741CF-6E51-4892-9D04-3D40E1DD0128'", "coin USDT", "lower case"),
        ("[coins.USDC]\nid = '8e5741cf-6e51-4892-9d04-3d40e1dd0128'", "coin USDC", "is coin USDT's"),
        ("[coins.'US DT']\nid = '8e5741cf-6e51-4892-9d04-3d40e1dd0128'", "coin US DT", "1 to 20"),
        ("[coins.DAI]\nname = 'Dai'\ndisplay_decimals = 18", "coin DAI", "write id = "),
        ("[tokens.DOGE.USDT]\nid = 'x'", "tokens.DOGE", r"no \[networks.DOGE\]"),
        ("[tokens.ETH.DAI]\nid = 'x'", "token ETH.DAI", r"no \[coins.DAI\]"),
        (DAI_ON_ETH + CONTRACT + "decimals = 18", "token ETH.DAI", "write id = "),
        (DAI_ON_ETH + ID + "decimals = 18", "token ETH.DAI", "contract is missing"),
        (DAI_ON_ETH + ID + CONTRACT, "token ETH.DAI", "decimals is missing"),
        (DAI_ON_ETH + ID + CONTRACT + "decimals = 19", "token ETH.DAI", "the books hold 18"),
        (DAI_ON_ETH + ID + CONTRACT + "decimals = -1", "token ETH.DAI", "0 to 255"),
        (ETH_USDC + "status = 4", "token ETH.USDC", "1 to 3"),
        (ETH_USDC + "contract = '0x12'", "token ETH.USDC", "40 hex digits"),
        (ETH_USDC + f"contract = '0x{'0' * 40}'", "token ETH.USDC", "not all 0"),
        (ETH_USDC + "wire_contract = '0x6B175474E89094C44Da98b954EedeAC495271d0F'", "token ETH.USDC", "another contract"),
        (ETH_USDC + "contract = '0xdac17f958d2ee523a2206206994597c13d831ec7'", "token ETH.USDC", "is token ETH.USDT's"),
        (ETH_USDC + "id = '264f4725-3cfd-4ff6-bc80-ff9d799d5fb2'", "token ETH.USDC", "is token ETH.USDT's"),
        (ETH_USDC + "id = '8e5741cf-6e51-4892-9d04-3d40e1dd0128'", "token ETH.USDC", "is coin USDT's"),
        (ETH_USDC + "id = 'bc78e27d-540b-4756-a7fa-69930eca6322'", "bc78e27d", "reserved for: a token on Solana"),
        ("[tokens.TRX.USDT]\nwire_contract = 'tr7nhqjekqxgtci8q8zy4pl8otszgjlj6t'", "token TRX.USDT", "another contract"),
        ("tokens = 5", "catalogue text", "not one of the tables"),
        ("[tokes.ETH.USDT]", "catalogue text", "not one of the tables"),
        ("[coins.USDT", "catalogue text", "table declaration"),
    ],
)
def test_what_is_wrong_never_loads_and_the_error_names_the_entry(overrides, entry, words):
    with pytest.raises(CatalogError, match=words) as caught:
        Catalog.load(overrides=overrides)
    assert entry in str(caught.value)


def test_the_id_that_an_error_proposes_is_the_derived_one():
    with pytest.raises(CatalogError) as caught:
        Catalog.load(overrides=DAI_ON_ETH + CONTRACT + "decimals = 18")
    assert re.search(r'"([0-9a-f-]{36})"', str(caught.value))[1] == derived_token_id(1, "0x6B175474E89094C44Da98b954EedeAC495271d0F")


def test_a_missing_or_unreadable_file_is_named(tmp_path):
    with pytest.raises(CatalogError, match=r"none\.toml"):
        Catalog.load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(CatalogError, match=r"bytes\.toml"):
        Catalog.load(overrides=tmp_path / "bytes.toml")


def test_a_check_of_contracts_from_outside_sees_every_one_and_is_obeyed(shipped):
    seen = []
    Catalog.load(overrides="", check_contract=lambda family, contract: seen.append((family, contract)))
    assert len(seen) == sum(not token.is_native for token in shipped.tokens())
    with pytest.raises(CatalogError, match=r"ETH\.USDT: contract 0xdAC1.*: wrong checksum"):
        Catalog.load(overrides="", check_contract=lambda _family, _contract: "wrong checksum")
