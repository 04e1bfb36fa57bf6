"""What people see when something is not as it should be."""

import stat

import pytest

from tests.fixtures.commands import CommandRunner, base_environment


@pytest.fixture
def penstock(commands: CommandRunner, tmp_path):
    def run(*words, **env):
        return commands.run(*words, env=base_environment(tmp_path) | {"PENSTOCK_HOME": str(tmp_path / "home")} | env, cwd=tmp_path)

    return run


def test_an_error_may_hold_brackets(penstock):
    done = penstock("catalog", PENSTOCK_NETWORK__ETH="1")
    assert done.code == 2
    assert "there is no section [network]" in done.err


def test_init_says_what_unlocks_and_where_coins_go(penstock):
    done = penstock("init")
    assert done.code == 0
    assert "key file" in done.out
    assert "hot addresses  evm 0x" in done.out
    again = penstock("init", "--json", PENSTOCK_PASSPHRASE="given, and not needed")
    assert again.json["unlocked_by"] == "key file"


def test_init_with_a_passphrase_makes_no_key_file(penstock, tmp_path):
    assert penstock("init", "--json", PENSTOCK_PASSPHRASE="a long one").json["unlocked_by"] == "passphrase"
    assert not (tmp_path / "home" / "vault.key").exists()


def test_what_a_command_writes_is_for_its_owner_alone(penstock, tmp_path):
    (tmp_path / "home").mkdir(mode=0o755)
    penstock("init")
    assert {path.name: stat.S_IMODE(path.stat().st_mode) & 0o077 for path in (tmp_path / "home").iterdir()} == dict.fromkeys(
        ("penstock.db", "penstock.toml", "seal.json", "seed.json", "vault.json", "vault.key"), 0
    )


def test_an_account_cannot_withdraw_on_a_network_that_is_off_but_can_pay_inside_the_house(penstock):
    penstock("init")
    merchant = penstock("merchant", "add", "Shop", "--json").json
    penstock("credit", "--app-id", merchant["app_id"], "--coin", "USDT", "--amount", "5", "--reason", "test")
    ada, bob = (penstock("account", "add", "--email", f"{name}@example.com", "--json").json["c_id"] for name in ("ada", "bob"))
    words = ("account", "withdraw", ada, "--token", "USDT:TRX", "--amount", "1", "--address")
    outside = penstock(*words, "TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t")
    assert outside.code == 1
    assert "14004 ChainStopWithdraw" in outside.err
    inside = penstock(*words, bob)
    assert inside.code == 1
    assert "14000 BalanceInsufficient" in inside.err
