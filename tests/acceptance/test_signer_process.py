"""`serve` and the signer that it started: keys on one side, money going out all the same (failure model, section 8)."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from penstock.signer.journal import FileJournal, entries
from penstock.signer.program import READ_FIRST_BYTES
from tests.fixtures.gateway import Gateway, Make, Merchant, ready, token_id, unique
from tests.fixtures.networks import AnvilChain, fresh_address

USDT = token_id("USDT", "ETH")
SECRET_FILES = ("seed.json", "seal.json", "vault.json", "vault.key")
HOOK = """
import os, sys
def note(event, args):
    if event == "open" and isinstance(args[0], str):
        with_what = os.open({log!r}, os.O_WRONLY | os.O_APPEND | os.O_CREAT) if args[0] != {log!r} else None
        if with_what is not None:
            os.write(with_what, f"{{os.getpid()}} {{args[0]}}\\n".encode())
            os.close(with_what)
sys.addaudithook(note)
"""
"""Notes every file that a process opens, by its number."""


class Place:
    """A gateway that pays on anvil."""

    def __init__(self, make: Make, chain: AnvilChain, **settings: str) -> None:
        self.gateway: Gateway = make(chain, **settings)
        self.chain = chain
        chain.fund(self.gateway.hot_address(), {"ETH": "10", "USDT": "1000"})
        self.merchant: Merchant = self.gateway.merchant(USDT="500")

    def watch(self, folder: Path) -> None:
        """From the next start on every process of the gateway notes what it opens."""
        self.opened = folder / "opened"
        (folder / "sitecustomize.py").write_text(HOOK.format(log=str(self.opened)))
        self.gateway.env["PYTHONPATH"] = f"{folder}:{self.gateway.env['PYTHONPATH']}"

    def pay(self, value: str = "1") -> str:
        name = unique("signer")
        fields: dict[str, Any] = {"merchant_order_id": name, "address": fresh_address(), "token_id": USDT, "value": value}
        self.merchant.accepted(**fields, merchant_pays_fee=True)
        return name

    def paid(self, *names: str) -> None:
        for found in self.merchant.final(*names):
            assert found["order_detail"]["status"] == "Successful"

    def signer(self) -> int:
        """The number of serve's one child."""
        assert self.gateway.process is not None
        pid = self.gateway.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        [child] = [int(one) for one in children if b"penstock.signer" in Path(f"/proc/{one}/cmdline").read_bytes()]
        return child

    def warnings(self) -> list[str]:
        return list(self.gateway.get("/readyz").json["warnings"])


@pytest.fixture(scope="module")
def place(new_gateway: Make, ethereum: AnvilChain, tmp_path_factory: pytest.TempPathFactory) -> Place:
    made = Place(new_gateway, ethereum)
    made.watch(tmp_path_factory.mktemp("hook"))
    made.gateway.start()
    ready(made.gateway)
    return made


def test_a_payout_goes_through_the_child_and_the_gateway_never_opens_a_key(place: Place) -> None:
    place.paid(place.pay("3"))
    assert place.gateway.process is not None
    opened: dict[int, set[str]] = {place.gateway.process.pid: set(), place.signer(): set()}
    for line in place.opened.read_text().splitlines():
        pid, name = line.split(" ", 1)
        opened.setdefault(int(pid), set()).add(name)
    folder = str(place.gateway.home / "signer") + "/"
    assert not {name for name in opened[place.gateway.process.pid] if name.startswith(folder)}
    assert {folder + name for name in SECRET_FILES} <= opened[place.signer()]
    assert str(place.gateway.home / "vault.json") in opened[place.gateway.process.pid], "the hook sees what is opened"


def test_orders_wait_while_the_signer_is_dead_and_go_on_when_it_is_back(place: Place) -> None:
    first = place.signer()
    os.kill(first, signal.SIGSTOP)
    names = [place.pay() for _ in range(3)]
    assert place.gateway.wait(lambda: [w for w in place.warnings() if "the signer does not answer" in w] or None)
    os.kill(first, signal.SIGKILL)
    place.paid(*names)
    assert place.signer() != first
    place.gateway.audit()


def test_a_stop_holds_everything_and_a_go_pays_it(place: Place) -> None:
    stopped = place.gateway.command("signer", "stop", "--reason", "a drill")
    assert stopped == {"signing": False, "reason": "a drill"}
    name = place.pay()
    assert place.gateway.wait(lambda: [w for w in place.warnings() if w == "nothing is signed: the signer is stopped: a drill"] or None)
    place.gateway.wait(lambda: ((shown := place.gateway.order(name))["state"] == "held" and shown) or None)
    assert place.gateway.order(name)["hold_reason"] == "network paused"
    assert [w["text"] for w in place.gateway.audit()["warnings"] if w["invariant"] == "signer"] == ["nothing is signed: a drill"]
    place.gateway.command("signer", "go", "--reason", "the drill is over")
    place.paid(name)
    assert not [w for w in place.warnings() if "nothing is signed" in w]


def test_after_serve_is_killed_the_next_one_has_a_signer_and_the_first_is_gone(place: Place) -> None:
    first = place.signer()
    place.gateway.kill()
    if place.gateway.is_postgresql:
        place.gateway.expire_leases()
    place.gateway.start()
    assert place.signer() != first
    with contextlib.suppress(FileNotFoundError):
        assert Path(f"/proc/{first}/cmdline").read_bytes() == b"", "gone, or not yet buried by whoever inherited it"
    place.paid(place.pay())


def test_a_house_answers_while_its_signer_reads_a_long_past_and_pays_when_that_is_read(place: Place) -> None:
    place.paid(place.pay())
    place.gateway.stop()
    journal = FileJournal(place.gateway.home / "signer")
    assert "sign" in [entry["kind"] for entry in entries(journal)]
    past = [{"kind": "death", "at_ms": 1, "attempt_id": number, "proof": "x" * 1_000} for number in range(1, READ_FIRST_BYTES // 1_000)]
    journal.append(past)
    journal.close()
    place.gateway.start()
    place.paid(place.pay())
    assert not [word for word in place.warnings() if "signer" in word]
    place.gateway.audit()


def test_the_cap_of_a_day_holds_an_order_and_lets_the_next_coin_pass(new_gateway: Make, ethereum: AnvilChain) -> None:
    place = Place(new_gateway, ethereum, PENSTOCK_SIGNER__DAY_MAX__USDT="5", PENSTOCK_SIGNER__ORDER_MAX__USDT="4")
    place.gateway.start()
    ready(place.gateway)
    place.paid(place.pay("4"))
    waits = place.pay("2")
    place.gateway.wait(lambda: ((shown := place.gateway.order(waits))["state"] == "held" and shown) or None)
    assert place.gateway.order(waits)["hold_reason"] == "policy"
    place.paid(place.pay("1"))
    assert place.gateway.order(waits)["state"] == "held"
    place.gateway.audit()


def test_a_row_that_was_changed_in_the_database_is_not_paid(new_gateway: Make, ethereum: AnvilChain) -> None:
    place = Place(new_gateway, ethereum)
    place.gateway.start()
    ready(place.gateway)
    place.gateway.command("signer", "stop", "--reason", "so that the row can be changed first")
    name, thief = place.pay("7"), fresh_address()
    place.gateway.wait(lambda: ((shown := place.gateway.order(name))["state"] == "held" and shown) or None)
    with place.gateway.connect() as connection:
        connection.execute(f"UPDATE orders SET destination = '{thief}' WHERE merchant_order_id = '{name}'")
    place.gateway.command("signer", "go", "--reason", "go on")
    place.gateway.wait(lambda: ((shown := place.gateway.order(name))["state"] == "quarantined" and shown) or None)
    assert place.chain.balance(thief, "USDT") == 0
    assert "the seal of order" in str(place.gateway.order(name))


def test_workers_ask_a_signer_that_runs_by_itself(new_gateway: Make, ethereum: AnvilChain, database_kind: str, tmp_path: Path) -> None:
    """A role for the API alone has no signer at all; the worker asks the one that the settings name."""
    if database_kind != "postgresql":
        return
    place = Place(new_gateway, ethereum)
    socket = str(place.gateway.home / "signer" / "signer.socket")
    env = place.gateway.env | {"PENSTOCK_SIGNER__SOCKET": socket}
    place.gateway.env = env
    with (tmp_path / "signer.log").open("wb") as log:
        signer = subprocess.Popen([sys.executable, "-m", "penstock", "signer"], env=env, stdout=log, stderr=log)
    try:
        place.gateway.start("--role", "all")
        ready(place.gateway)
        assert place.gateway.process is not None
        pid = place.gateway.process.pid
        assert Path(f"/proc/{pid}/task/{pid}/children").read_text() == ""
        place.paid(place.pay())
    finally:
        signer.terminate()
        assert signer.wait(15) == 0
    assert [w for w in place.warnings() if "the signer does not answer" in w]
