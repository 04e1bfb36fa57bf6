"""What lies on disk is sealed, and opens only for who may."""

import json
import os

import pytest

from penstock.core.party import Secret
from penstock.runtime import SystemRuntime
from penstock.vault import Vault, VaultError, write_once

RUNTIME = SystemRuntime()
PHRASE = Secret("correct horse battery staple")


@pytest.fixture(scope="module")
def phrase_home(tmp_path_factory):
    home = tmp_path_factory.mktemp("phrase")
    Vault.create(home, RUNTIME, passphrase=PHRASE, key_file=False)
    return home


@pytest.fixture
def key_home(tmp_path):
    home = tmp_path / "home"
    Vault.create(home, RUNTIME, passphrase=None, key_file=True)
    return home


def open_by_key(home):
    return Vault.open(home, RUNTIME, passphrase=None)


def test_a_sealed_text_opens_again_under_the_passphrase(phrase_home):
    sealed = Vault.open(phrase_home, RUNTIME, passphrase=PHRASE).seal(b"secret", "merchant:1:secret")
    assert Vault.open(phrase_home, RUNTIME, passphrase=PHRASE).open_sealed(sealed, "merchant:1:secret") == b"secret"


def test_another_passphrase_does_not_open_and_is_not_repeated(phrase_home):
    with pytest.raises(VaultError, match="does not open the vault") as caught:
        Vault.open(phrase_home, RUNTIME, passphrase=Secret("hunter2-hunter2"))
    assert "hunter2" not in str(caught.value)


def test_a_missing_passphrase_is_said(phrase_home):
    with pytest.raises(VaultError, match="PENSTOCK_PASSPHRASE"):
        Vault.open(phrase_home, RUNTIME, passphrase=None)


def test_the_argon2_parameters_are_stored_and_bound(phrase_home, tmp_path):
    fields = json.loads((phrase_home / "vault.json").read_text())
    assert (fields["kdf"]["memory_kib"], fields["kdf"]["passes"], fields["kdf"]["lanes"]) == (65536, 3, 4)
    fields["kdf"]["passes"] = 2
    write_once(tmp_path / "vault.json", json.dumps(fields).encode(), RUNTIME)
    with pytest.raises(VaultError):
        Vault.open(tmp_path, RUNTIME, passphrase=PHRASE)


@pytest.mark.parametrize("kdf", [None, {}, {"salt": "00" * 16, "memory_kib": 2**40, "passes": 3, "lanes": 4}, {"salt": "zz"}])
def test_senseless_parameters_ask_for_no_memory(phrase_home, tmp_path, kdf):
    fields = json.loads((phrase_home / "vault.json").read_text()) | {"kdf": kdf}
    write_once(tmp_path / "vault.json", json.dumps(fields).encode(), RUNTIME)
    with pytest.raises(VaultError, match="damaged"):
        Vault.open(tmp_path, RUNTIME, passphrase=PHRASE)


def test_a_key_file_opens_the_vault(key_home):
    sealed = open_by_key(key_home).seal(b"\x00\xff", "seed:1")
    assert open_by_key(key_home).open_sealed(sealed, "seed:1") == b"\x00\xff"


def test_all_files_are_private(key_home):
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in key_home.iterdir()} == {
        "vault.json": "0o600",
        "vault.key": "0o600",
    }
    assert key_home.stat().st_mode & 0o777 == 0o700


def test_making_it_twice_changes_nothing(key_home):
    before = {path: path.read_bytes() for path in key_home.iterdir()}
    Vault.create(key_home, RUNTIME, passphrase=None, key_file=True)
    assert {path: path.read_bytes() for path in key_home.iterdir()} == before


def test_a_crash_between_key_file_and_vault_is_healed(key_home):
    key = (key_home / "vault.key").read_bytes()
    (key_home / "vault.json").unlink()
    Vault.create(key_home, RUNTIME, passphrase=None, key_file=True)
    assert (key_home / "vault.key").read_bytes() == key


@pytest.mark.parametrize(("passphrase", "key_file"), [(None, False), (PHRASE, True)])
def test_there_is_exactly_one_way_in(tmp_path, passphrase, key_file):
    with pytest.raises(VaultError, match="one of the two"):
        Vault.create(tmp_path / "home", RUNTIME, passphrase=passphrase, key_file=key_file)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
@pytest.mark.parametrize("name", ["vault.key", "vault.json"])
def test_a_file_that_others_can_read_is_refused(key_home, name, mode):
    (key_home / name).chmod(mode)
    with pytest.raises(VaultError, match=f"chmod 600 {name}"):
        open_by_key(key_home)


def test_a_key_file_of_another_user_is_refused(key_home, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(VaultError, match="belongs to another user"):
        open_by_key(key_home)


def test_a_key_file_that_is_a_link_is_refused(key_home):
    (key_home / "vault.key").rename(key_home / "elsewhere")
    (key_home / "vault.key").symlink_to(key_home / "elsewhere")
    with pytest.raises(VaultError, match=r"vault\.key cannot be read"):
        open_by_key(key_home)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"wrap": "magic", "nonce": "", "wrapped_key": ""}'])
def test_a_damaged_vault_says_so(key_home, content):
    (key_home / "vault.json").write_bytes(content)
    with pytest.raises(VaultError):
        open_by_key(key_home)


@pytest.mark.parametrize("content", [b"", b"00", b"zz", b"\xff" * 32])
def test_a_damaged_key_file_says_so(key_home, content):
    (key_home / "vault.key").write_bytes(content)
    with pytest.raises(VaultError, match=r"vault\.key is damaged"):
        open_by_key(key_home)


def test_another_key_file_does_not_open(key_home):
    (key_home / "vault.key").write_text("11" * 32)
    with pytest.raises(VaultError, match="belongs to another one"):
        open_by_key(key_home)


def test_a_home_without_vault_says_what_to_do(tmp_path):
    with pytest.raises(VaultError, match="penstock init"):
        open_by_key(tmp_path)


def test_a_sealed_text_is_bound_to_its_row(key_home):
    vault = open_by_key(key_home)
    sealed = vault.seal(b"secret", "merchant:1:secret")
    for other in (sealed[:-4] + "AAA=", "v2" + sealed[2:], "", "v1:", "v1:%%%", sealed.removeprefix("v1:")):
        with pytest.raises(VaultError, match="merchant:1:secret"):
            vault.open_sealed(other, "merchant:1:secret")
    with pytest.raises(VaultError, match="merchant:2:secret"):
        vault.open_sealed(sealed, "merchant:2:secret")


def test_the_same_text_is_never_sealed_to_the_same_bytes(key_home):
    vault = open_by_key(key_home)
    assert len({vault.seal(b"x", "c") for _ in range(50)}) == 50


def test_nothing_prints_a_key(key_home):
    assert repr(open_by_key(key_home)) == "Vault(***)"
    assert (key_home / "vault.key").read_text().strip() not in (key_home / "vault.json").read_text()


def test_of_many_rows_no_sealed_text_opens_in_another_row_or_another_vault(key_home, tmp_path):
    """G2: a thousand ciphertexts swapped among rows, columns and merchants, and under the key of another house."""
    vault = open_by_key(key_home)
    contexts = [f"merchant:{merchant}:{secret}" for merchant in range(40) for secret in range(25)]
    sealed = {context: vault.seal(context.encode(), context) for context in contexts}
    other = Vault.create(tmp_path / "another", RUNTIME, passphrase=None, key_file=True)
    for context, stranger in zip(contexts, contexts[1:] + contexts[:1], strict=True):
        assert vault.open_sealed(sealed[context], context) == context.encode()
        with pytest.raises(VaultError, match=stranger):
            vault.open_sealed(sealed[context], stranger)
        with pytest.raises(VaultError, match=context):
            other.open_sealed(sealed[context], context)
