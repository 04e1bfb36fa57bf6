"""What the signer makes of settings and catalogue: the networks it signs for, its caps, and the most that one transaction may burn."""

import pytest

from penstock.catalog import Catalog
from penstock.config import SettingWrong, load
from penstock.core.money import LEDGER_DECIMALS
from penstock.listing import CatalogError
from penstock.signer.policy import allowed_networks, caps_of, fee_max_of, load_catalog

URL = "http://127.0.0.1:1/"
NODE = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
CATALOG = Catalog.load()


@pytest.fixture
def settings(tmp_path):
    return lambda **values: load(
        environment={"PENSTOCK_HOME": str(tmp_path), **{f"PENSTOCK_{key}": value for key, value in values.items()}}
    )


def test_it_signs_for_networks_that_have_a_node_and_a_key(settings):
    assert set(allowed_networks(settings(NETWORKS__ETH__RPC_URLS=URL), CATALOG)) == {"ETH"}


def test_a_node_that_keeps_the_coins_is_named_by_its_id(settings):
    found = allowed_networks(settings(NETWORKS__LIGHTNING__RPC_URLS=f"lnd+{URL}", NETWORKS__LIGHTNING__NODE_ID=NODE), CATALOG)
    assert found["LIGHTNING"].node == NODE


def test_every_network_with_a_key_is_there_where_all_are_asked_for(settings):
    found = allowed_networks(settings(), CATALOG, every=True)
    assert {"ETH", "BTC", "TRX", "XRP"} <= set(found)
    assert "LIGHTNING" not in found
    assert allowed_networks(settings(), CATALOG) == {}


def test_the_operators_own_cap_of_a_fee_is_in_base_units(settings):
    eth = CATALOG.network("ETH")
    assert fee_max_of(settings(), CATALOG, eth) is None
    own = settings(NETWORKS__ETH__RPC_URLS=URL, NETWORKS__ETH__FEE_MAX="0.01")
    assert fee_max_of(own, CATALOG, eth) == 10**16
    assert allowed_networks(own, CATALOG)["ETH"].fee_max == 10**16


def test_caps_are_in_ledger_units_and_by_the_catalogues_own_symbols(settings):
    caps = caps_of(settings(SIGNER__ORDER_MAX__USDT="5", SIGNER__DAY_MAX__ETH="2.5"), CATALOG)
    assert (caps.order_max, caps.day_max) == ({"USDT": 5 * 10**LEDGER_DECIMALS}, {"ETH": 25 * 10 ** (LEDGER_DECIMALS - 1)})
    usdt = CATALOG.by_symbol("USDT", "ETH")
    assert caps.coins[usdt.id] == ("USDT", 10 ** (LEDGER_DECIMALS - 6))


def test_a_cap_of_a_coin_that_does_not_exist_is_refused(settings):
    with pytest.raises(SettingWrong, match=r"signer\.order_max\.NOSUCH: there is no such coin"):
        caps_of(settings(SIGNER__ORDER_MAX__NOSUCH="5"), CATALOG)


def test_what_a_network_is_comes_from_its_settings(settings):
    found = load_catalog(settings(NETWORKS__ETH__CONFIRMATIONS="7", NETWORKS__ETH__BLOCK_MS="1234", NETWORKS__BTC__BATCH_MAX="5"))
    assert (found.network("ETH").confirmations, found.network("ETH").block_ms) == (7, 1234)
    assert found.network("ETH").chain_id == CATALOG.network("ETH").chain_id
    assert found.network("BTC").param("batch_max") == 5
    assert found.network("BTC").param("batch_window_ms") == CATALOG.network("BTC").param("batch_window_ms")


@pytest.mark.parametrize(("seconds", "milliseconds"), [("0", 0), ("2", 2_000)])
def test_how_long_orders_gather_is_said_in_seconds(settings, seconds, milliseconds):
    assert load_catalog(settings(NETWORKS__BTC__BATCH_WINDOW_S=seconds)).network("BTC").param("batch_window_ms") == milliseconds


def test_a_contract_that_is_no_address_of_its_network_is_refused(settings, tmp_path):
    (tmp_path / "catalog.toml").write_text('[tokens.ETH.USDT]\ncontract = "0x12"\n')
    with pytest.raises(CatalogError, match="0x12"):
        load_catalog(settings())


def test_every_contract_that_is_shipped_is_an_address_of_its_network(settings, tmp_path):
    """Asked here and not at each start; where the operator has a file, all are asked."""
    (tmp_path / "catalog.toml").write_text("")
    assert list(load_catalog(settings()).tokens()) == list(CATALOG.tokens())
