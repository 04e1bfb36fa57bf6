"""An order's Bitcoin transaction goes to an offline signer that holds the same seed, and comes back as the transaction of that order."""

import pytest
from embit import bip32
from embit.psbt import PSBT

from penstock.commands import Commands
from penstock.core.errors import Refused
from tests.conformance.places import BITCOIN, ETHEREUM


def ask(house, name, signed=""):
    return house.run(Commands(house.product).order_psbt(name, signed))


def test_what_an_offline_signer_made_is_the_orders_transaction_to_the_last_byte(tmp_path):
    with BITCOIN.house(tmp_path) as house:
        address, _ = BITCOIN.recipient(house, 1, "0.015")
        house.run(house.withdraw("a", "BTC", "0.015", address))
        (version,) = house.run(house.until("a", "sending", "confirming"))["attempts"][0]["versions"]
        psbt = PSBT.from_base64(ask(house, "a")["psbt"])
        assert psbt.sign_with(bip32.HDKey.from_seed(house.keys.master())) == 1
        checked = ask(house, "a", psbt.to_base64())
        assert checked["txid"] == version["txid"]
        assert checked["hex"].startswith("02000000")
        with pytest.raises(Refused, match="0 signatures"):
            ask(house, "a", ask(house, "a")["psbt"])
        another = psbt.tx
        another.vout[0].value += 1
        with pytest.raises(Refused, match="another transaction"):
            ask(house, "a", PSBT(another).to_base64())


def test_there_is_nothing_to_sign_before_a_transaction_is_bound_and_nothing_elsewhere_than_on_bitcoin(tmp_path):
    with ETHEREUM.house(tmp_path) as house:
        address, _ = ETHEREUM.recipient(house, 1, "12.5")
        house.run(house.withdraw("a", "USDT", "12.5", address))
        house.run(house.until("a", "sending", "confirming"))
        with pytest.raises(Refused, match="no form for an offline signer"):
            ask(house, "a")
        with pytest.raises(Refused, match="no order"):
            ask(house, "b")
        house.run(house.withdraw("c", "USDT", "900000", address))
        house.run(house.until("c", "held"))
        with pytest.raises(Refused, match="no transaction was bound"):
            ask(house, "c")
