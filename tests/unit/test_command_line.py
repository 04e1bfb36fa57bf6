"""What people see when something is not as it should be."""

import ast
import shutil
import stat
import subprocess
import sys

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
    home = tmp_path / "home"
    assert {str(path.relative_to(home)): stat.S_IMODE(path.stat().st_mode) & 0o077 for path in home.rglob("*")} == dict.fromkeys(
        [
            *("penstock.db", "penstock.db-turn", "penstock.toml", "public.json", "seal.json", "vault.json", "vault.key", "signer"),
            *(f"signer/{name}" for name in ("seal.json", "seed.json", "vault.json", "vault.key")),
        ],
        0,
    )


def test_a_home_of_before_the_signer_had_a_folder_is_told_how_to_move(penstock, tmp_path):
    penstock("init")
    home = tmp_path / "home"
    shutil.copytree(home / "signer", tmp_path / "kept")
    words = penstock("treasury", "--json").json
    (home / "signer" / "seed.json").rename(home / "seed.json")
    (home / "signer.journal").touch()
    for command in ("init", "treasury", "serve", "signer"):
        refused = penstock(command)
        assert (refused.code, "mkdir -m 700 signer; mv signer.journal signer/; mv seed.json signer/" in refused.err) == (2, True)
    (home / "signer.journal").rename(home / "signer" / "signer.journal")
    (home / "seed.json").rename(home / "signer" / "seed.json")
    assert penstock("init").code == 0
    assert penstock("treasury", "--json").json == words


def test_no_second_seed_is_made_where_the_signer_has_moved_out_or_its_seed_is_lost(penstock, tmp_path):
    penstock("init")
    addresses = penstock("treasury", "--json").json
    folder = tmp_path / "home" / "signer"
    folder.rename(tmp_path / "elsewhere")
    assert penstock("init").code == 0
    assert not folder.exists() and penstock("treasury", "--json").json == addresses
    (tmp_path / "elsewhere").rename(folder)
    (folder / "seed.json").unlink()
    refused = penstock("init")
    assert (refused.code, "this home had one; put the folder back" in refused.err) == (2, True)
    assert not (folder / "seed.json").exists()


def test_the_switch_stops_and_goes_and_audit_and_treasury_say_so(penstock, tmp_path):
    penstock("init")
    assert penstock("signer", "stop", "--reason", "a key may be stolen", "--json").json == {
        "signing": False,
        "reason": "a key may be stolen",
    }
    audit = penstock("audit", "--json")
    assert (audit.code, audit.json["warnings"]) == (0, [{"invariant": "signer", "text": "nothing is signed: a key may be stolen"}])
    assert "nothing is signed: a key may be stolen" in penstock("treasury").err
    assert penstock("signer", "go", "--reason", "it was not", "--json").json["signing"] is True
    assert penstock("audit", "--json").json["warnings"] == []


def test_the_switch_without_a_signers_folder_says_where_it_is(penstock, tmp_path):
    refused = penstock("signer", "stop", "--reason", "x")
    assert (refused.code, "which cannot be written" in refused.err) == (2, True)


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


def test_what_serve_imports_can_neither_read_a_seed_nor_sign():
    words = "import sys, penstock.__main__, penstock.commands, penstock.gateway; print([name for name in sys.modules if name.startswith('penstock.signer.') or name == 'bip_utils'])"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stdout))
    assert "penstock.signer.client" in loaded
    assert not loaded & {"bip_utils", *(f"penstock.signer.{name}" for name in ("keys", "local", "program", "seed", "server"))}
