"""Secrets that nobody else has, through a run of the real program at its most talkative, and a search for them everywhere (test plan, G1).

The search knows a secret in clear, in hexadecimal, in base64 and as part of a URL. What must hold a secret (the key file, the environment
of the process) is not searched; everything else is: logs, outputs, answers, metrics, database files, the home, and what prints itself.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import runpy
import secrets
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import structlog
from bip_utils import Bip32Slip10Secp256k1, Bip39SeedGenerator, EthAddrEncoder

from penstock import logs
from penstock.config import SettingWrong, load
from penstock.core.party import Secret
from penstock.prove.callers.lines import as_headers, conversation, request
from penstock.prove.installed.installation import free_port, own_database
from penstock.prove.installed.program import Program, program, wait_for
from penstock.prove.lane import Budget, Found, Tried
from penstock.prove.merchant import V1, Merchant
from penstock.runtime import SystemRuntime
from penstock.signer.seed import load_seed
from penstock.vault import Vault, VaultError

VERBOSE: Final = ("-c", "from penstock.prove.lanes.canaries import verbose; verbose()")
USDT_ETH: Final = "264f4725-3cfd-4ff6-bc80-ff9d799d5fb2"
COMMANDS: Final = (("merchant", "list", "--json"), ("treasury", "--all"), ("order", "show", "out-0"), ("init",))
COMMANDS_AT_ONCE: Final = 3
LIVES_MIN: Final = 2
"""One that is killed and one that comes after it, however short the time."""
PAYS_FROM: Final = "m/44'/60'/0'/0/0"


def verbose() -> None:
    """The command line with every logger at its lowest level and a traceback for whatever fails."""
    configure = logs.configure

    def talkative(level: int) -> None:
        configure(min(level, logging.DEBUG))
        logging.getLogger().setLevel(1)
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET))

    logs.configure = talkative
    runpy.run_module("penstock", run_name="__main__")


@dataclass(slots=True)
class Search:
    """What is looked for, where it was looked for, and what was there."""

    secrets: dict[str, bytes] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    found: list[Found] = field(default_factory=list)
    kept: list[tuple[str, bytes]] = field(default_factory=list)

    def add(self, name: str, secret: str | bytes) -> None:
        """One more secret."""
        self.secrets[name] = secret.encode() if isinstance(secret, str) else secret

    def keep(self, place: str, text: bytes | str) -> None:
        """Something to search once all secrets are known."""
        self.kept.append((place, text.encode() if isinstance(text, str) else text))

    def run(self) -> None:
        """Look for each secret in each place."""
        needles = [(name, form) for name, secret in self.secrets.items() for form in forms(secret)]
        for place, text in self.kept:
            self.counts["places"] += 1
            self.counts["bytes"] += len(text)
            for name, form in needles:
                if form in text:
                    self.counts["leaked_secrets"] += 1
                    self.found.append(Found("leaked_secret", f"{place} holds {name}", place))


def forms(secret: bytes) -> set[bytes]:
    """How a secret may be written. Base64 is looked for without its ends, which depend on the neighbours only there."""
    hexadecimal = secret.hex()
    found = {secret, hexadecimal.encode(), hexadecimal.upper().encode(), quote(secret).encode(), repr(secret)[2:-1].encode()}
    for shift in range(3):
        plain = base64.b64encode(b"\0" * shift + secret)[4:-4]
        found |= {plain, plain.replace(b"+", b"-").replace(b"/", b"_")}
    return {form for form in found if len(form) >= 12}


# ------------------------------------------------------------------------------------------------------------------- the run


async def run(budget: Budget) -> Tried:
    """One life with faults, a kill, another life, commands good and bad; then the search."""
    started = time.monotonic()
    search = Search(counts=Counter({"leaked_secrets": 0}))
    with ExitStack() as stack:
        url = ""
        if budget.postgresql:
            url = stack.enter_context(own_database(budget.postgresql, f"penstock_canaries_{budget.folder.name}"))
        await _live(budget, search, url, started + budget.seconds)
    _home(search, budget.folder / "canaries")
    search.run()
    search.counts["secrets"] = len(search.secrets)
    table = tuple({"secret": name, "found": sum(name in one.text for one in search.found)} for name in sorted(search.secrets))
    return Tried("secrets", dict(search.counts), tuple(search.found), table, time.monotonic() - started)


async def _live(budget: Budget, search: Search, database_url: str, deadline: float) -> None:
    passphrase, node_key, node_password, macaroon = (secrets.token_hex(20) for _ in range(4))
    search.secrets |= {name: text.encode() for name, text in (("the passphrase", passphrase), ("the node's key", node_key),
                                                            ("the node's password", node_password), ("the macaroon", macaroon))}  # fmt: skip
    if database_url:
        search.add("the database's password", database_url.split("@", maxsplit=1)[0].rpartition(":")[2])
    settings = {"PENSTOCK_PASSPHRASE": passphrase, "PENSTOCK_WEBHOOKS__SCHEDULE": "1,1", "PYTHONASYNCIODEBUG": "1"}
    folder = budget.folder / "canaries"
    log = folder / "serve.log"
    async with program(folder, chains=("ETH",), database_url=database_url, settings=settings, start=False, entry=VERBOSE) as made:
        _nodes_with_secrets(made, node_key, node_password, macaroon)
        await made.start()
        merchant = await made.merchant("canary", f"http://127.0.0.1:{free_port()}/{node_key[:4]}", USDT="1000", ETH="10")
        account = await made.account("ada@example.com")
        search.add("a merchant's secret", merchant.secret)
        async with made.commands() as commands:
            search.add("a merchant's new secret", (await commands.rotate_secret(merchant.app_id, 600))["app_secret"])
        await _keys(search, made, passphrase)
        for life in range(1 + budget.size):
            if life >= LIVES_MIN and time.monotonic() > deadline:
                break
            if life:
                await made.start()
            await _faults(made, life)
            await _requests(search, made, merchant, account, life)
            await _pages(search, made)
            search.counts["events_parked_in_the_log"] += await wait_for(lambda: b"webhook.parked" in log.read_bytes(), 10)
            await made.kill()
        await _commands(search, made)
        await _bad_starts(search, made)
        _representations(search, made, merchant, passphrase)


def _nodes_with_secrets(made: Program, node_key: str, node_password: str, macaroon: str) -> None:
    """A node that wants a key in its URL, one that wants a password and is not there, and a Lightning node that is not there."""
    url = made.environment["PENSTOCK_NETWORKS__ETH__RPC_URLS"].split(",")[0]
    dead = f"http://user:{node_password}@127.0.0.1:{free_port()}/v3/{node_key}"
    made.environment["PENSTOCK_NETWORKS__ETH__RPC_URLS"] = f"{url}?apikey={node_key},{dead}"
    made.environment["PENSTOCK_NETWORKS__LIGHTNING__RPC_URLS"] = f"lnd+http://127.0.0.1:{free_port()}?macaroon={macaroon}"
    made.environment["PENSTOCK_NETWORKS__LIGHTNING__NODE_ID"] = "02" + "11" * 32
    made.settings = load(environment=made.environment)


async def _keys(search: Search, made: Program, passphrase: str) -> None:
    """The words, what they stand for, and the private key that pays on Ethereum."""
    for path in made.settings.home.rglob("seed.json"):
        vault_home = path.parent if (path.parent / "vault.json").exists() else made.settings.home
        runtime = SystemRuntime()
        seed = load_seed(path.parent, Vault.open(vault_home, runtime, passphrase=Secret(passphrase)))
        runtime.close()
        words = seed.words().reveal()
        search.add("the seed's words", words)
        search.add("the first six words", " ".join(words.split()[:6]))
        search.add("the master seed", seed.master())
        key = Bip32Slip10Secp256k1.FromSeed(Bip39SeedGenerator(words).Generate()).DerivePath(PAYS_FROM)
        search.add("a private key", key.PrivateKey().Raw().ToBytes())
        address = EthAddrEncoder.EncodeKey(key.PublicKey().KeyObject())
        async with made.commands() as commands:
            if address not in {row["address"] for row in await commands.treasury_rows()}:
                search.found.append(Found("other", f"{address} is not the hot address, so its key is no canary"))


async def _faults(made: Program, life: int) -> None:
    how = ({"down": "500"}, {"delay_ms": 3_000}, {"break_after": 1, "breakage": "reset"})[life % 3]
    await made.control("ETH", do="faults", **how)


async def _requests(search: Search, made: Program, merchant: Merchant, account: str, life: int) -> None:
    """Good ones, bad ones, and some that are no HTTP; every answer is kept."""
    bodies: list[Mapping[str, Any] | bytes] = [
        {"merchant_order_id": f"canary-{life}", "address": account, "token_id": USDT_ETH, "value": "1"},
        {"merchant_order_id": f"out-{life}", "address": "0x52908400098527886E0F7030069857D2E4169EE7", "token_id": USDT_ETH, "value": "30"},
        {"merchant_order_id": merchant.secret, "value": "1"},
        b"{",
        b"\xff" + merchant.secret.encode(),
    ]
    for path in ("/withdraw", "/assets", "/bill/info", "/webhook/resend", "/network/fee"):
        for body in bodies:
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError, ValueError):
                search.keep(f"the answer of {path}", str(await made.ask(merchant, path, body)))
    headers = [(b"Appid", merchant.secret.encode()), (b"Sign", merchant.secret.encode()), (b"X", merchant.secret.encode() + b"\x00")]
    with contextlib.suppress(Exception):
        for reply in await conversation(made.port, request(f"{V1}/{merchant.secret}", headers, b""), patience_s=5):
            search.keep("an answer to no HTTP", reply.body)
    wrong = {**merchant.headers(b"{}"), "Sign": merchant.secret}
    with contextlib.suppress(Exception):
        for reply in await conversation(
            made.port, request(f"{V1}/assets", [*as_headers(wrong), (b"Connection", b"close")], b"{}"), patience_s=5
        ):
            search.keep("an answer to a stranger", reply.body + str(reply.headers).encode())


async def _pages(search: Search, made: Program) -> None:
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json", "/nothing", "/debug", "/.env"):
        async with made.http.get(made.url + path) as response:
            search.keep(f"the page {path}", str(dict(response.headers)).encode() + await response.read())


async def _commands(search: Search, made: Program) -> None:
    """What people type, also where it fails; each in clear or as JSON."""
    turns = asyncio.Semaphore(COMMANDS_AT_ONCE)

    async def one(words: tuple[str, ...]) -> None:
        async with turns:
            _, said = await made.run(*words)
        search.counts["commands"] += 1
        search.keep(f"the output of {' '.join(words)}", said)

    await asyncio.gather(*(one(words) for words in COMMANDS))


async def _bad_starts(search: Search, made: Program) -> None:
    """Starts that fail: a wrong passphrase, and a database that is not there."""
    wrong, password = secrets.token_hex(20), secrets.token_hex(20)
    search.add("a wrong passphrase", wrong)
    search.add("a password in a setting that is wrong", password)
    wrongs: tuple[dict[str, str], ...] = (
        {"PENSTOCK_PASSPHRASE": wrong},
        {"PENSTOCK_DATABASE__URL": f"postgresql://penstock:{password}@127.0.0.1:{free_port()}/penstock"},
    )
    for environment, (code, said) in zip(wrongs, await asyncio.gather(*(made.run("audit", **one) for one in wrongs)), strict=True):
        search.keep(f"a start with a wrong {next(iter(environment))}", said)
        search.counts["bad_starts"] += code != 0
    for name, text in {
        "PENSTOCK_NETWORKS__ETH__RPC_URLS": f"ftp://user:{password}@node.example/",
        "PENSTOCK_WEBHOOKS__ALLOW_PRIVATE_TARGETS": password,
        "PENSTOCK_LIMITS__REQUESTS_PER_SECOND": password,
        "PENSTOCK_SERVER__LISTEN": f"127.0.0.1:{password}",
    }.items():
        try:
            load(environment={**made.environment, name: text})
        except SettingWrong:
            search.keep(f"the refusal of {name}", traceback.format_exc())
            search.counts["bad_settings"] += 1


def _representations(search: Search, made: Program, merchant: Merchant, passphrase: str) -> None:
    """What prints itself: settings, secrets, and the tracebacks of what fails with them."""
    settings = made.settings
    for thing in (settings, *settings.networks.values(), settings.database, settings.prices, Secret(merchant.secret), [Secret(passphrase)]):
        search.keep(f"repr() of {type(thing).__name__}", f"{thing!r} {thing!s}")
    vault = settings.home / "vault.json"
    vault.write_bytes(vault.read_bytes()[:-40])
    runtime = SystemRuntime()
    try:
        Vault.open(settings.home, runtime, passphrase=Secret(passphrase))
    except VaultError:
        search.keep("the traceback of a damaged vault", traceback.format_exc())
    runtime.close()


def _home(search: Search, folder: Path) -> None:
    """Every file of the home and the logs, but the key file itself."""
    for path in _files(folder):
        if path.name != "vault.key":
            search.keep(f"the file {path.relative_to(folder)}", path.read_bytes())
            search.counts["files"] += 1
            search.counts["trace_lines"] += path.read_bytes().count(b"TRACE ") if path.suffix == ".log" else 0


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.rglob("*")) if path.is_file())
