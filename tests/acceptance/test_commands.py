"""The command line beside a running gateway: one JSON value or a table, clear sentences, exit codes."""

import json
import re
import stat
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.fixtures.gateway import Gateway, Make, Merchant, ready, token_id, unique
from tests.fixtures.networks import Chain, fresh_address
from tests.fixtures.processes import free_port, running, wait_until

T = TypeVar("T")
USDT = token_id("USDT", "ETH")
APP_ID = re.compile(r"[0-9]{33}")
ORDER_KEYS = {"order_id", "merchant_order_id", "state", "status", "chain", "crypto", "value", "network_fee", "net_receivable", "address"}


@pytest.fixture(scope="module")
def merchant(gateway: Gateway) -> Merchant:
    return gateway.merchant(USDT="1000")


@pytest.fixture(scope="module")
def paid(gateway: Gateway, merchant: Merchant) -> dict[str, Any]:
    """An order that went the whole way: its timeline."""
    order_id = merchant.accepted(merchant_order_id=unique("told"), address=fresh_address(), token_id=USDT, value="50")["order_id"]

    def told() -> dict[str, Any] | None:
        shown = gateway.order(order_id)
        return shown if shown["webhook"] and shown["webhook"]["state"] == "delivered" else None

    return gateway.wait(told)


# ----------------------------------------------------------------------------------------------------------------------- init


def test_init_makes_what_is_missing_and_may_be_repeated(gateway: Gateway) -> None:
    address = gateway.hot_address()
    files = {path.name: path.read_bytes() for path in gateway.home.iterdir() if path.is_file() and path.suffix not in (".db", ".log")}
    again = gateway.command("init")
    assert again["home"] == str(gateway.home) and again["unlocked_by"] == "key file" and again["migrations"] == []
    assert again["hot_addresses"]["evm"] == address
    for name in ("penstock.toml", "vault.json"):
        assert (gateway.home / name).read_bytes() == files[name]
    assert stat.S_IMODE(gateway.home.stat().st_mode) == 0o700
    keys = [path for path in gateway.home.iterdir() if "key" in path.name]
    assert keys and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in keys)
    assert gateway.command("migrate") == {"applied": []}


def test_without_a_home_the_way_is_shown(bare_home: Gateway, tmp_path: Path) -> None:
    nowhere = {"PENSTOCK_HOME": str(tmp_path / "nowhere")}
    for words in (("merchant", "list"), ("serve",), ("audit",), ("order", "list")):
        done = bare_home.run(*words, **nowhere)
        assert done.code == 2 and done.out == ""
        assert "run `penstock init` first" in done.err
    assert not (tmp_path / "nowhere").exists()


def test_a_passphrase_unlocks_and_a_wrong_one_does_not(bare_home: Gateway, tmp_path: Path) -> None:
    home = {"PENSTOCK_HOME": str(tmp_path / "home"), "PENSTOCK_DATABASE__URL": f"sqlite:///{tmp_path / 'own.db'}"}
    made = bare_home.run("init", "--json", **home, PENSTOCK_PASSPHRASE="correct horse battery staple")
    assert made.code == 0 and made.json["unlocked_by"] == "passphrase", made
    assert bare_home.run("merchant", "list", "--json", **home, PENSTOCK_PASSPHRASE="correct horse battery staple").json == {"merchants": []}
    wrong = bare_home.run("merchant", "list", **home, PENSTOCK_PASSPHRASE="wrong horse")
    assert wrong.code == 2 and "passphrase" in wrong.err
    assert "wrong horse" not in wrong.err and "Traceback" not in wrong.err


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PENSTOCK_LIMITS__REQUESTS_PER_SECOND", "many", "limits.requests_per_second"),
        ("PENSTOCK_SERVER__LISTEN", "everywhere", "server.listen"),
        ("PENSTOCK_WEBHOOKS__ALLOW_PRIVATE_TARGETS", "perhaps", "webhooks.allow_private_targets"),
        ("PENSTOCK_NETWORKS__ETH__RPC_URL", "http://127.0.0.1:1", "networks.ETH.rpc_url"),
        ("PENSTOCK_LIMIT__BURST", "5", "there is no section [limit]"),
        ("PENSTOCK_NETWORKS__NOWHERE__RPC_URLS", "http://127.0.0.1:1", "NOWHERE"),
        ("PENSTOCK_DATABASE_URL", "sqlite:///x.db", "PENSTOCK_DATABASE__URL"),
        ("PENSTOCK_DATABASE__URL", "mysql://u:hush@127.0.0.1/x", "sqlite"),
    ],
)
def test_a_wrong_setting_is_named(bare_home: Gateway, name: str, value: str, says: str) -> None:
    done = bare_home.run("order", "list", "--json", **{name: value})
    assert done.code == 2 and done.out == "", done
    assert says in done.err and "Traceback" not in done.err and "hush" not in done.err


# ------------------------------------------------------------------------------------------------------ merchants and accounts


def test_merchants(gateway: Gateway) -> None:
    name = unique("Shop")
    added = gateway.command("merchant", "add", name, "--webhook-url", f"{gateway.sink.url}/x")
    assert APP_ID.fullmatch(added["app_id"]) and re.fullmatch(r"[0-9a-f]{64}", added["app_secret"])
    assert added["name"] == name and added["webhook_url"] == f"{gateway.sink.url}/x"
    [listed] = [one for one in gateway.command("merchant", "list")["merchants"] if one["app_id"] == added["app_id"]]
    assert added["app_secret"] not in json.dumps(listed)
    assert listed | {"balances": []} == listed and listed["disabled"] is False and listed["ip_allow"] == []
    changed = gateway.command("merchant", "set", added["app_id"], "--webhook-url", f"{gateway.sink.url}/y", "--ip-allow", "10.0.0.0/8")
    assert changed["webhook_url"].endswith("/y") and changed["ip_allow"] == ["10.0.0.0/8"]
    rotated = gateway.command("merchant", "rotate-secret", added["app_id"])
    assert rotated["app_secret"] != added["app_secret"] and rotated["old_secret_valid_until_at_ms"] > 0


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["merchant", "set", "202300000000000000000000000000009", "--disabled"], 1, "no merchant with app id 2023"),
        (["merchant", "rotate-secret", "nobody"], 1, "no merchant with app id nobody"),
        (["merchant", "add", "Bad", "--webhook-url", "ftp://example.com/x"], 1, "https://"),
        (["merchant", "add", "Bad", "--webhook-url", "http://8.8.8.8/x"], 1, "public address"),
        (["merchant", "add", "Bad", "--webhook-url", "https://169.254.169.254/latest"], 1, "metadata"),
        (["account", "add", "--email", "not an address"], 1, "mail"),
        (["account", "show", "1234567"], 1, "no account 1234567"),
        (["credit", "--app-id", "nobody", "--coin", "USDT", "--amount", "1", "--reason", "x"], 1, "no merchant"),
        (["order", "show", "nothing"], 1, "no order nothing"),
        (["order", "show", "[red]x[/y]"], 1, "no order [red]x[/y];"),  # the terminal's own markup is no markup here
        (["order", "cancel", "nothing", "--reason", "x"], 1, "no order nothing"),
        (["order", "list", "--state", "lost"], 1, "accepted, held, sending"),
        (["webhook", "resend", "nothing"], 1, "no event"),
        (["resume", "ETH", "--reason", "x"], 1, "nothing is stopped on ETH"),
        (["order", "list", "--limit", "0"], 2, "limit"),
        (["merchant", "forget"], 2, "forget"),
    ],
)
def test_what_cannot_be_done_is_one_clear_sentence(bare_home: Gateway, words: list[str], code: int, says: str) -> None:
    done = bare_home.run(*words, "--json")
    assert done.code == code and done.out == "", done
    assert says in done.err and "Traceback" not in done.err, done


@pytest.mark.parametrize(
    ("coin", "amount", "says"), [("DOGGO", "1", "no coin DOGGO"), ("USDT", "0", "greater than zero"), ("USDT", "1e3", "")]
)
def test_credits_that_make_no_sense(gateway: Gateway, merchant: Merchant, coin: str, amount: str, says: str) -> None:
    before = merchant.balance("USDT")
    done = gateway.run("credit", "--app-id", merchant.app_id, "--coin", coin, "--amount", amount, "--reason", "x", "--json")
    assert done.code == 1 and says in done.err and "Traceback" not in done.err, done
    assert merchant.balance("USDT") == before


def test_accounts(gateway: Gateway, merchant: Merchant) -> None:
    email = f"{unique('Bob')}@Example.com"
    added = gateway.command("account", "add", "--email", email, "--nickname", "Bob")
    assert re.fullmatch(r"[0-9]{7}", added["c_id"]) and added["email"].lower() == email.lower() and added["nickname"] == "Bob"
    assert added in gateway.command("account", "list")["accounts"]
    twice = gateway.run("account", "add", "--email", email.upper())
    assert twice.code == 1 and "Traceback" not in twice.err
    merchant.accepted(address=added["c_id"], token_id=USDT, value="2")
    shown = gateway.command("account", "show", added["c_id"])
    assert shown["balances"] == [{"crypto": "USDT", "available": "2", "reserved": "0"}]
    assert [line["amount"] for line in shown["history"]] == ["2"]
    credit = gateway.credit(merchant, "usdt", "0.5")
    assert credit["coin"] == "USDT" and credit["amount"] == "0.5" and credit["available"] == merchant.balance("USDT")


# ----------------------------------------------------------------------------------------------------------------------- money


def test_treasury_tells_chain_and_books(gateway: Gateway, ethereum: Chain, paid: dict[str, Any]) -> None:
    rows = gateway.command("treasury")
    assert isinstance(rows, list) and all({"chain", "address", "crypto", "on_chain", "in_books"} <= row.keys() for row in rows)
    assert len({row["address"] for row in rows if row["chain"] in {"ETH", "POLYGON", "BSC"}}) == 1
    assert {row["chain"] for row in rows} >= {"TRX", "XRP", "BTC"}
    off = [row for row in rows if row["chain"] == "POLYGON"]
    assert off and all(row["on_chain"] is None and row["in_books"] == "0" for row in off)

    def agrees() -> dict[str, Any] | None:
        found = {row["crypto"]: row for row in gateway.command("treasury") if row["chain"] == "ETH"}
        return found if all(row["on_chain"] == row["in_books"] for row in found.values()) else None

    usdt = gateway.wait(agrees)["USDT"]
    assert Decimal(usdt["on_chain"]) == Decimal(ethereum.balance(usdt["address"], "USDT")).scaleb(-6)


def test_catalog_and_fees(gateway: Gateway) -> None:
    tokens = gateway.command("catalog")["tokens"]
    assert all({"coin", "chain", "token_id", "contract", "decimals", "status"} <= token.keys() for token in tokens)
    status = {(token["coin"], token["chain"]): token["status"] for token in tokens}
    assert status["USDT", "ETH"] == status["BNB", "BSC"] == 1 and status["USDT", "POLYGON"] == 2
    for chain in ("ETH", "POLYGON", "BSC", "BASE"):
        assert {coin for coin, on in status if on == chain} >= {"USDC"}
    fees = gateway.command("fees")["fees"]
    assert {(fee["coin"], fee["chain"]) for fee in fees} >= {("ETH", "ETH"), ("USDT", "ETH"), ("BNB", "BSC"), ("USDT", "BSC")}
    for fee in fees:
        assert fee["problem"] == "" and Decimal(fee["fee"]) > 0 and fee["age_s"] < 60
        assert re.fullmatch(r"[0-9]+\.[0-9]{2}|[0-9]+", fee["fee_usd"])


# ---------------------------------------------------------------------------------------------------------------------- orders


def test_order_show_tells_the_whole_story(gateway: Gateway, merchant: Merchant, paid: dict[str, Any]) -> None:
    assert paid.keys() >= ORDER_KEYS | {"states", "attempts", "webhook", "waits_for", "next"}
    states = [state["state"] for state in paid["states"]]
    assert states[0] == "accepted" and states[-1] == "succeeded" and "sending" in states
    assert all(state["reason"] for state in paid["states"])
    assert [state["at_ms"] for state in paid["states"]] == sorted(state["at_ms"] for state in paid["states"])
    [attempt] = paid["attempts"]
    assert attempt["confirmations_needed"] == 2 and attempt["gas_paid"].endswith(" ETH") and attempt["fee_taken"].endswith(" USDT")
    assert [version["txid"] for version in attempt["versions"]] == [paid["txid"]]
    assert [(send["status"], send["result"]) for send in paid["webhook"]["sends"]] == [(200, "success")]
    assert paid["next"] == "nothing more"
    assert gateway.order(paid["merchant_order_id"]) == paid
    table = gateway.run("order", "show", paid["order_id"])
    assert table.code == 0 and paid["txid"] in table.out.replace("\n", "") and "succeeded" in table.out and "Next:" in table.out


def test_order_list_filters_newest_first(gateway: Gateway, merchant: Merchant, paid: dict[str, Any]) -> None:
    c_id, _ = gateway.account()
    second = merchant.accepted(address=c_id, token_id=USDT, value="1")["order_id"]
    refused = gateway.run("order", "cancel", second, "--reason", "too late", "--json")
    assert refused.code == 1 and "succeeded" in refused.err
    listed = gateway.command("order", "list", "--app-id", merchant.app_id)["orders"]
    assert [order["order_id"] for order in listed[:1]] == [second] and paid["order_id"] in [order["order_id"] for order in listed]
    assert all(order.keys() >= ORDER_KEYS for order in listed)
    assert [order["order_id"] for order in listed] == sorted((order["order_id"] for order in listed), reverse=True)
    for words, wanted in (
        (("--limit", "1"), lambda _: True),
        (("--chain", "eth"), lambda order: order["chain"] == "ETH"),
        (("--state", "failed"), lambda order: order["state"] == "failed"),
    ):
        found = gateway.command("order", "list", "--app-id", merchant.app_id, *words)["orders"]
        assert all(wanted(order) for order in found) and (words[0] != "--limit" or len(found) == 1)


@pytest.mark.parametrize(
    ("words", "shows"),
    [
        (("merchant", "list"), "Merchants"),
        (("account", "list"), "Accounts"),
        (("treasury",), "Hot address"),
        (("catalog",), "Catalogue"),
        (("fees",), "Fees"),
        (("order", "list"), "Orders"),
        (("audit",), "the books are sound"),
        (("migrate",), "the schema is current"),
    ],
)
def test_people_get_tables(gateway: Gateway, paid: dict[str, Any], words: tuple[str, ...], shows: str) -> None:
    done = gateway.run(*words)
    assert done.code == 0 and shows in done.out, done
    assert "\x1b[" not in done.out, "no colours into a pipe"
    with pytest.raises(ValueError):
        json.loads(done.out)


# ------------------------------------------------------------------------------------------------------- a home of its own


def test_a_node_of_another_chain_is_refused_and_readyz_says_so(new_gateway: Make, ethereum: Chain) -> None:
    """And internal payouts go on all the same."""
    gateway = new_gateway(ethereum, PENSTOCK_NETWORKS__ETH__CHAIN_ID="31999")
    gateway.start()
    page = gateway.wait(lambda: ((one := gateway.get("/readyz").json)["warnings"] and one) or None)
    assert any("ETH" in text and "31999" in text for text in page["reasons"] + page["warnings"]), page
    merchant = gateway.merchant(USDT="10")
    reply = merchant.withdraw(address=fresh_address(), token_id=USDT, value="5")
    assert reply.code in (14004, 224066) and "ETH" in reply.json["msg"], reply.raw
    c_id, _ = gateway.account()
    merchant.accepted(address=c_id, token_id=USDT, value="5")
    assert [row["on_chain"] for row in gateway.command("treasury") if row["chain"] == "ETH"] == [None] * 3
    [usdt] = [fee for fee in gateway.command("fees")["fees"] if fee["coin"] == "USDT"]
    assert usdt["fee"] is None and usdt["problem"]


def test_audit_warns_of_unseen_funding_and_stops_at_an_edited_balance(new_gateway: Make) -> None:
    gateway = new_gateway()
    clean = gateway.audit()
    assert clean["warnings"] == [] and clean["journal"].startswith("not compared")  # no signer runs
    gateway.merchant(USDT="1000")
    report = gateway.audit()
    assert [warning["invariant"] for warning in report["warnings"]] == ["I11"]
    assert "USDT" in report["warnings"][0]["text"] and "1000" in report["warnings"][0]["text"]
    with gateway.connect() as connection:
        changed = connection.execute("UPDATE balance SET available = '2000000000000000000000'")
        assert changed.rowcount == 1
    broken = gateway.run("audit", "--json")
    assert broken.code == 1 and broken.json["ok"] is False
    [breach] = broken.json["breaches"]
    assert breach["invariant"] == "I3" and "2000" in breach["text"] and "1000" in breach["text"]
    table = gateway.run("audit")
    assert table.code == 1 and "THE BOOKS DIFFER" in table.out


def test_the_past_and_what_is_owed_can_be_proved(new_gateway: Make, tmp_path: Path) -> None:
    gateway = new_gateway()
    merchant = gateway.merchant(USDT="1000")
    other = gateway.merchant(USDT="7", ETH="2")
    gateway.start()
    assert gateway.wait(lambda: gateway.command("audit", "--verify-chain")["head"] != "0" * 64)
    whole = gateway.command("audit", "--verify-chain")
    assert whole["ok"] and whole["counts"]["entries"] == 3
    assert gateway.command("audit", "--head", whole["head"])["ok"]
    assert gateway.audit()["journal"] == "agrees"
    assert "write" in gateway.run("audit", "--verify-chain").out.lower()
    strange = gateway.run("audit", "--head", "f" * 64, "--json")
    assert strange.code == 1 and "no checkpoint has the hash" in strange.json["first_break"]
    assert "THE CHAIN IS BROKEN" in gateway.run("audit", "--head", "f" * 64).out

    published, proof = tmp_path / "owed.json", tmp_path / "proof.json"
    written = gateway.command("audit", "--liabilities", str(published))
    assert {coin["coin"]: coin["total"] for coin in written["coins"]} == {"USDT": str(1007 * 10**18), "ETH": str(2 * 10**18)}
    assert "Publish" in gateway.run("audit", "--liabilities", str(tmp_path / "again.json")).out
    proof.write_text(gateway.run("audit", "--liabilities", str(published), "--proof", other.app_id).out)
    shown = gateway.run("verify-proof", str(proof), str(published), "--json")
    assert {(one["coin"], one["available"]) for one in shown.json} == {("USDT", str(7 * 10**18)), ("ETH", str(2 * 10**18))}
    assert "Proved" in gateway.run("verify-proof", str(proof), str(published)).out
    proof.write_text(proof.read_text().replace(str(7 * 10**18), str(6 * 10**18)))
    bent = gateway.run("verify-proof", str(proof), str(published))
    assert bent.code == 1 and "another root" in bent.err
    assert gateway.run("verify-proof", str(tmp_path / "none"), str(published)).code == 2
    assert gateway.run("audit", "--proof", merchant.app_id).code == 2
    nobody = gateway.run("audit", "--liabilities", str(published), "--proof", "m:99")
    assert nobody.code == 1 and "was owed nothing" in nobody.err


def test_a_breach_of_the_books_makes_serve_not_ready_until_a_person_has_looked(new_gateway: Make) -> None:
    gateway = new_gateway()
    gateway.merchant(USDT="1000")
    with gateway.connect() as connection:
        connection.execute("UPDATE balance SET available = '2000000000000000000000'")
    gateway.start()
    page = gateway.wait(lambda: (reply := gateway.get("/readyz")).status == 503 and reply.json.get("reasons") and reply.json)
    assert any(text.startswith("the audit found (I3): m:") for text in page["reasons"])
    assert 'penstock_waiting{kind="finding",state="stop"} 1.0' in gateway.get("/metrics").raw.decode()
    assert "audit.stop" in gateway.log.read_text()
    seen = gateway.command("resume", "all", "--reason", "we know")
    assert "m:" in seen["stood_because"] and seen["reason"] == "we know"
    assert ready(gateway)["ready"] is True
    assert gateway.run("resume", "all", "--reason", "again").code == 1


def test_only_one_worker_signs_for_a_home(gateway: Gateway) -> None:
    """A second `serve` on the same home ends at once and says why."""
    done = gateway.run("serve", PENSTOCK_SERVER__LISTEN="127.0.0.1:0")
    assert done.code == 2 and done.err.count("penstock:") == 1 and "Traceback" not in done.err, done


def test_pages_for_machines(gateway: Gateway, paid: dict[str, Any]) -> None:
    assert gateway.get("/healthz").json == {"status": "ok"}
    page = ready(gateway)
    assert page["ready"] is True and page["reasons"] == []
    assert any("prices come from a file" in text for text in page["warnings"])
    metrics = gateway.get("/metrics").raw.decode()
    assert 'penstock_http_requests_total{code="10000",path="/withdraw"}' in metrics


def test_logs_hold_no_secrets(gateway: Gateway, merchant: Merchant, paid: dict[str, Any]) -> None:
    text = gateway.log.read_text()
    assert "serve.started" in text
    assert merchant.secret not in text and "Sign" not in text


def test_api_and_worker_may_be_two_processes(ethereum: Chain, new_gateway: Make) -> None:
    """On PostgreSQL; SQLite serves one process and says so."""
    api = new_gateway(ethereum)
    if not api.is_postgresql:
        for role in ("api", "worker"):
            done = api.run("serve", "--role", role)
            assert done.code == 2 and "PostgreSQL" in done.err
        return
    ethereum.fund(api.hot_address(), {"ETH": "10", "USDT": "1000"})
    merchant = api.merchant(USDT="100")
    api.start("--role", "api")
    ready(api)
    address, name = fresh_address(), unique("split")
    merchant.accepted(merchant_order_id=name, address=address, token_id=USDT, value="7", merchant_pays_fee=True)
    assert merchant.info(name)[0]["order_detail"]["status"] == "Pending"
    port = free_port()
    log = api.home.with_name("worker.log")
    command = [sys.executable, "-m", "penstock", "serve", "--role", "worker", "--listen", f"127.0.0.1:{port}"]
    with running(command, log=log, env=api.env, cwd=api.home.parent) as worker:
        [found] = merchant.final(name)
        assert found["order_detail"]["status"] == "Successful" and merchant.event(name)["pay_status"] == "success"
        assert ethereum.balance(address, "USDT") == ethereum.units("7", "USDT")
        worker.terminate()
        assert worker.wait(20) == 0, log.read_text()
    api.audit()


def test_api_processes_on_one_machine_share_a_port(ethereum: Chain, new_gateway: Make) -> None:
    """Whoever comes is answered by one of them, and by the other when that one dies."""
    api = new_gateway(ethereum)
    if not api.is_postgresql:
        return  # one process, as the test above has it
    merchant = api.merchant(USDT="100")
    api.start("--role", "api")
    ready(api)
    log = api.home.with_name("second.log")
    words = [sys.executable, "-m", "penstock", "serve", "--role", "api"]
    with running(words, log=log, env=api.env, cwd=api.home.parent) as second:
        wait_until(lambda: b"serve.started" in log.read_bytes() or None, process=second, log=log, timeout_s=60)
        names = [unique("shared") for _ in range(40)]
        for name in names:
            merchant.accepted(merchant_order_id=name, address=fresh_address(), token_id=USDT, value="2")
        api.kill()
        assert len(merchant.info(*names)) == 40
        second.terminate()
        assert second.wait(20) == 0, log.read_text()


def test_a_worker_that_waits_for_its_turn_delivers_and_says_for_whom_it_waits(ethereum: Chain, new_gateway: Make) -> None:
    place = new_gateway(ethereum)
    if not place.is_postgresql:
        return
    ethereum.fund(place.hot_address(), {"ETH": "10", "USDT": "1000"})
    merchant, (account, _) = place.merchant(USDT="100"), place.account()
    beat = "UPDATE seat SET holder = 'elsewhere:/home', beat = beat + 1"
    with place.connect() as connection:
        connection.execute(beat)

    def waits(probe: Callable[[], T | None]) -> T:
        def beating() -> T | None:
            with place.connect() as connection:
                connection.execute(beat)
            return probe()

        return place.wait(beating)

    place.start("--role", "worker")
    told = waits(lambda: reply.json if (reply := place.get("/readyz")).status == 200 else None)
    assert [text for text in told["warnings"] if "waits for its turn" in text and "elsewhere:/home" in text], told
    port = free_port()
    command = [sys.executable, "-m", "penstock", "serve", "--role", "api", "--listen", f"127.0.0.1:{port}"]
    with running(command, log=place.home.with_name("api.log"), env=place.env, cwd=place.home.parent):
        worker_port, place.port = place.port, port
        waits(lambda: (place._is_up() and place.get("/readyz").status == 200) or None)
        inside, outside = unique("inside"), unique("outside")
        merchant.accepted(merchant_order_id=outside, address=fresh_address(), token_id=USDT, value="7", merchant_pays_fee=True)
        merchant.accepted(merchant_order_id=inside, address=account, token_id=USDT, value="1")
        assert waits(lambda: next(iter(merchant.arrivals(inside)), None)).body["pay_status"] == "success"
        assert merchant.info(outside)[0]["order_detail"]["status"] == "Pending"
        # The other's beat stops: it is dead.
        assert merchant.event(outside)["pay_status"] == "success"
        place.port = worker_port
    assert not [text for text in place.get("/readyz").json["warnings"] if "turn" in text]
    place.audit()
