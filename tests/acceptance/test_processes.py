"""One `serve` that answers in several processes, on both databases: seen from outside, killed one by one, stopped."""

import os
import re
import signal
from pathlib import Path

import pytest

from tests.fixtures.gateway import Gateway, Make, Merchant, ready, token_id, unique
from tests.fixtures.networks import Chain, fresh_address

USDT = token_id("USDT", "ETH")
PROCESSES = 3
NEVER_LOOKS = """
import sys
if {"serve", "penstock.answerer"} & set(sys.orig_argv):
    from penstock import pump
    init = pump.Pump.__init__
    def silent(self, name, job, runtime, *, limit, idle_s=3600.0):
        init(self, name, job, runtime, limit=limit, idle_s=3600.0 if name == "deliver" else pump.IDLE_S)
    pump.Pump.__init__ = silent
"""
"""Events are delivered when somebody is told of them; nobody looks for them."""
DELIVERS_NOTHING = """
import sys
if "serve" in sys.orig_argv:
    from penstock.webhooks import deliver
    async def nothing(self, limit):
        return []
    deliver.Deliverer.claim = nothing
"""
"""The process with the workers leaves every event to those beside it."""
PORT_TAKEN = """
import sys
if "penstock.answerer" in sys.orig_argv:
    import socket
    def taken(*args, **kwargs):
        raise OSError(98, "Address already in use")
    socket.create_server = taken
"""


def hooked(gateway: Gateway, folder: Path, code: str) -> None:
    """From the next start on every process of the gateway begins with this."""
    (folder / "sitecustomize.py").write_text(code)
    gateway.env["PYTHONPATH"] = f"{folder}:{gateway.env['PYTHONPATH']}"


def answerers(gateway: Gateway) -> list[int]:
    assert gateway.process is not None
    pid = gateway.process.pid
    children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [one for one in children if b"penstock.answerer" in Path(f"/proc/{one}/cmdline").read_bytes()]


def all_listen(gateway: Gateway) -> None:
    """Until so many sockets listen on its port (proc(5), net/tcp: state 0A)."""
    mine = f":{gateway.port:04X}"

    def count() -> int:
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        return sum(row[1].endswith(mine) and row[3] == "0A" for row in rows)

    gateway.wait(lambda: count() == PROCESSES or None)


@pytest.fixture(scope="module")
def place(new_gateway: Make, ethereum: Chain, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    made = new_gateway(ethereum, PENSTOCK_SERVER__PROCESSES=str(PROCESSES))
    ethereum.fund(made.hot_address(), {"ETH": "10", "USDT": "1000"})
    hooked(made, tmp_path_factory.mktemp("hook"), NEVER_LOOKS)
    made.start()
    ready(made)
    return made


@pytest.fixture(scope="module")
def merchant(place: Gateway) -> Merchant:
    return place.merchant(USDT="500")


def test_each_of_them_takes_orders_and_the_workers_hear_of_each_at_once(place: Gateway, merchant: Merchant) -> None:
    """One after the other, so that nothing else wakes those who deliver: the event of an internal payout comes though nobody looks for it."""
    (account, _), inside, outside = place.account(), [unique("in") for _ in range(24)], [unique("out") for _ in range(6)]
    all_listen(place)
    for name in inside:
        merchant.accepted(merchant_order_id=name, address=account, token_id=USDT, value="1")
        assert merchant.event(name)["pay_status"] == "success"
    for name in outside:
        merchant.accepted(merchant_order_id=name, address=fresh_address(), token_id=USDT, value="1", merchant_pays_fee=True)
    assert all(found["order_detail"]["status"] == "Successful" for found in merchant.final(*outside))
    numbers = set()

    def told() -> bool | None:
        numbers.update(re.findall(r'path="/withdraw",process="(\d)"', place.get("/metrics").raw.decode()))
        return numbers == {str(number) for number in range(PROCESSES)} or None

    place.wait(told)
    place.audit()


def test_one_that_is_killed_is_there_again_and_a_repeat_is_answered_by_the_others(place: Gateway, merchant: Merchant) -> None:
    names = [unique("kept") for _ in range(12)]
    fields = {name: {"merchant_order_id": name, "address": fresh_address(), "token_id": USDT, "value": "1"} for name in names}
    first = [merchant.accepted(**fields[name], merchant_pays_fee=True)["order_id"] for name in names]
    before = answerers(place)
    os.kill(before[0], signal.SIGKILL)
    again = place.wait(lambda: (len(now := answerers(place)) == PROCESSES - 1 and before[0] not in now and now) or None)
    assert before[1] in again
    all_listen(place)
    assert [merchant.accepted(**fields[name], merchant_pays_fee=True)["order_id"] for name in names] == first
    merchant.final(*names)
    place.audit()


def test_whoever_answers_says_that_nothing_is_signed(place: Gateway) -> None:
    all_listen(place)
    place.command("signer", "stop", "--reason", "a drill")
    pages = [place.get("/readyz").json["warnings"] for _ in range(20)]
    assert all("nothing is signed: the signer is stopped: a drill" in page for page in pages), pages
    place.command("signer", "go", "--reason", "the drill is over")


def test_a_second_serve_on_the_home_is_refused_and_one_of_another_home_on_the_port_too(
    place: Gateway, new_gateway: Make, ethereum: Chain
) -> None:
    done = place.run("serve")
    assert done.code == 2 and "another penstock process" in done.err, done
    other = new_gateway(ethereum, PENSTOCK_SERVER__PROCESSES="2")
    done = other.run("serve", PENSTOCK_SERVER__LISTEN=f"127.0.0.1:{place.port}")
    assert done.code == 2 and "cannot listen" in done.err, done


def test_they_end_when_whoever_started_them_is_killed_and_a_clean_stop_ends_them_all(place: Gateway, merchant: Merchant) -> None:
    name = unique("before")
    merchant.accepted(merchant_order_id=name, address=fresh_address(), token_id=USDT, value="1", merchant_pays_fee=True)
    orphans = answerers(place)
    place.kill()
    if place.is_postgresql:
        place.expire_leases()
    place.start()
    place.wait(lambda: not any(is_alive(pid) for pid in orphans) or None)
    merchant.final(name)
    all_listen(place)
    last = answerers(place)
    assert place.stop() == 0, place.log.read_text()[-4000:]
    assert not any(is_alive(pid) for pid in last)
    place.audit()


def is_alive(pid: int) -> bool:
    """Not gone, and not waiting to be buried by whoever inherited it."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def test_those_beside_deliver_what_the_one_that_works_has_no_time_for(new_gateway: Make, ethereum: Chain, tmp_path: Path) -> None:
    busy = new_gateway(ethereum, PENSTOCK_SERVER__PROCESSES="2")
    hooked(busy, tmp_path, DELIVERS_NOTHING)
    merchant, (account, _) = busy.merchant(USDT="100"), busy.account()
    busy.start()
    ready(busy)
    names = [unique("beside") for _ in range(10)]
    for name in names:
        merchant.accepted(merchant_order_id=name, address=account, token_id=USDT, value="1")
    assert all(merchant.event(name)["pay_status"] == "success" for name in names)
    assert busy.stop() == 0, busy.log.read_text()[-4000:]
    busy.audit()


def test_api_processes_beside_workers_elsewhere_are_started_by_one_command_too(new_gateway: Make, ethereum: Chain) -> None:
    """On PostgreSQL, where workers may be elsewhere."""
    apart = new_gateway(ethereum, PENSTOCK_SERVER__PROCESSES=str(PROCESSES))
    if not apart.is_postgresql:
        return
    merchant = apart.merchant(USDT="100")
    apart.start("--role", "api")
    all_listen(apart)
    names = [unique("apart") for _ in range(20)]
    for name in names:
        merchant.accepted(merchant_order_id=name, address=fresh_address(), token_id=USDT, value="2")
    os.kill(killed := answerers(apart)[0], signal.SIGKILL)
    apart.wait(lambda: (len(now := answerers(apart)) == PROCESSES - 1 and killed not in now) or None)
    assert len(merchant.info(*names)) == 20
    assert apart.stop() == 0, apart.log.read_text()[-4000:]
    apart.audit()


def test_a_setting_that_is_wrong_for_one_of_them_ends_them_all_with_its_sentence(
    new_gateway: Make, ethereum: Chain, tmp_path: Path
) -> None:
    broken = new_gateway(ethereum, PENSTOCK_SERVER__PROCESSES="2")
    hooked(broken, tmp_path, PORT_TAKEN)
    done = broken.run("serve")
    assert done.code == 2 and "penstock: server.listen: cannot listen on" in done.err, done
    assert done.err.count("Traceback") == 0
