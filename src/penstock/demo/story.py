"""The demo, told step by step: every program is the real one, every answer is signed, every webhook is verified."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from rich.console import Console
from rich.panel import Panel
from rich.syntax import Syntax
from rich.text import Text

from penstock import show
from penstock.commands import Commands
from penstock.config import Settings, load
from penstock.core.wire import compact
from penstock.demo.merchant import Answer, Client, Sink
from penstock.demo.payouts import CHAINS, CREDITS, FUNDS, PAYOUTS
from penstock.process import command
from penstock.runtime import SystemRuntime
from penstock.setup import initialise
from penstock.signer.program import until_signal

PATIENCE_S: Final = 60.0


class DemoFailed(Exception):
    """A step did not do what it should; the text says which."""


@dataclass(slots=True)
class Stage:
    """Where the story is told."""

    console: Console
    runtime: SystemRuntime
    http: aiohttp.ClientSession
    home: Path
    devnet_url: str
    gateway_url: str
    sink: Sink
    sink_url: str
    settings: Settings
    environment: dict[str, str]
    payouts: list[dict[str, Any]] = field(default_factory=list)

    def say(self, text: str) -> None:
        """A step."""
        self.console.print(f"\n[bold cyan]▸[/] {text}", highlight=False)


async def tell(console: Console, *, home: Path | None, keep: bool) -> dict[str, Any]:
    """Set up, pay, wait, show, audit. The result is what `--json` prints; `ok` decides the exit code."""
    with tempfile.TemporaryDirectory(prefix="penstock-demo-") as temporary:
        async with _stage(console, home or Path(temporary)) as stage:
            client = await _set_up(stage)
            await _pay(stage, client)
            await _events(stage)
            result = await _close(stage)
            if keep:
                await _leave_running(stage, client)
            return result


@contextlib.asynccontextmanager
async def _stage(console: Console, home: Path) -> AsyncIterator[Stage]:
    runtime = SystemRuntime()
    devnet_port, gateway_port = _free_port(), _free_port()
    devnet_url, gateway_url = f"http://127.0.0.1:{devnet_port}", f"http://127.0.0.1:{gateway_port}"
    sink = Sink()
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(runtime.close)
        http = await stack.enter_async_context(aiohttp.ClientSession(trust_env=False))
        sink_runner, sink_url = await sink.start()
        stack.push_async_callback(sink_runner.cleanup)
        console.print(Panel("A payout from request to webhook, on this machine and with play money.", title="Penstock", expand=False))
        environment = os.environ | {"PENSTOCK_HOME": str(home)}
        await stack.enter_async_context(_program(environment, "devnet", "--listen", f"127.0.0.1:{devnet_port}", *_only()))
        networks = await _networks(runtime, http, devnet_url)
        _write_settings(home, gateway_port, networks)
        settings = load(environment=environment)
        await initialise(settings, key_file=True, asked=None)
        await stack.enter_async_context(_program(environment, "serve"))
        await _until(runtime, http, f"{gateway_url}/readyz")
        yield Stage(console, runtime, http, home, devnet_url, gateway_url, sink, sink_url, settings, environment)


def _write_settings(home: Path, gateway_port: int, networks: dict[str, Any]) -> None:
    """In the home's own file, so that commands beside the demo see the same."""
    lines = [f'[server]\nlisten = "127.0.0.1:{gateway_port}"', "[webhooks]\nallow_private_targets = true"]
    for chain in CHAINS:
        settings = networks[chain]["settings"]
        lines.append("\n".join([f"[networks.{chain}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]))
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (home / "penstock.toml").write_text("\n\n".join(lines) + "\n", "utf-8")


def _only() -> list[str]:
    return [part for chain in CHAINS for part in ("--only", chain)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.asynccontextmanager
async def _program(environment: dict[str, str], *arguments: str) -> AsyncIterator[None]:
    """`penstock …` as a child, ended by SIGTERM as an operator would."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "penstock", *arguments, env=environment, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        yield
    finally:
        if child.returncode is None:
            child.terminate()
        await child.wait()


async def _until(runtime: SystemRuntime, http: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    """Ask until it answers 200."""
    deadline = runtime.monotonic() + PATIENCE_S
    while runtime.monotonic() < deadline:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with http.get(url) as response:
                if response.status == 200:
                    found: dict[str, Any] = await response.json()
                    return found
        await runtime.sleep(0.05)
    raise DemoFailed(f"{url} did not answer within {PATIENCE_S:g} s")


async def _networks(runtime: SystemRuntime, http: aiohttp.ClientSession, devnet_url: str) -> dict[str, Any]:
    overview = await _until(runtime, http, f"{devnet_url}/")
    return {network["network"]: network for network in overview["networks"]}


async def _control(stage: Stage, chain: str, **command: Any) -> dict[str, Any]:
    async with stage.http.post(f"{stage.devnet_url}/control", json={"network": chain, **command}) as response:
        if response.status != 200:
            raise DemoFailed(f"devnet refused {command}: {await response.text()}")
        answer: dict[str, Any] = await response.json()
        return answer


async def _set_up(stage: Stage) -> Client:
    """A merchant, an internal account, declared funding, and coins on the hot addresses."""
    async with command(stage.settings) as product:
        commands = Commands(product)
        merchant = await commands.add_merchant("Demo shop", stage.sink_url)
        account = await commands.add_account("ada@example.com", "Ada")
        client = Client(stage.runtime, stage.gateway_url, merchant["app_id"], merchant["app_secret"])
        stage.sink.client = client
        stage.say(f"Merchant [bold]{merchant['app_id']}[/], internal account [bold]{account['c_id']}[/] ({account['email']})")
        for coin, amount in CREDITS.items():
            await commands.credit(client.app_id, coin, amount, "demo funding")
        for chain in CHAINS:
            network = product.catalog.network(chain)
            if network is None:
                raise DemoFailed(f"{chain} is not in the catalogue")
            for address in (await product.treasury.addresses(network)).values():
                for token in product.catalog.tokens_on(chain):
                    units = str(FUNDS.get(token.coin.symbol, 10_000) * 10**token.decimals)
                    if token.contract is None:
                        await _control(stage, chain, do="fund", address=address, units=units)
                    else:
                        await _control(stage, chain, do="fund_token", contract=token.contract, address=address, units=units)
        await _funded(stage, commands)
        stage.console.print(show.treasury([row for row in await commands.treasury_rows() if row["chain"] in CHAINS], every=False))
    return client


async def _funded(stage: Stage, commands: Commands) -> None:
    """Until the gateway has seen the coins at a final block and booked them."""
    deadline = stage.runtime.monotonic() + PATIENCE_S
    while stage.runtime.monotonic() < deadline:
        rows = [row for row in await commands.treasury_rows() if row["chain"] in CHAINS]
        if all(row["in_books"] == row["on_chain"] != "0" for row in rows):
            return
        await stage.runtime.sleep(0.1)
    raise DemoFailed("the gateway did not see the funding")


async def _pay(stage: Stage, client: Client) -> None:
    """Inside the house, then once on every family of networks."""
    async with command(stage.settings) as product:
        for payout in PAYOUTS:
            token = product.catalog.by_symbol(payout.symbol, payout.chain)
            if token is None:
                raise DemoFailed(f"{payout.symbol} on {payout.chain} is not in the catalogue")
            address = payout.address
            if payout.is_internal:
                address = str((await product.directory.list_accounts())[0].id)
            elif not address:  # the recipient's Lightning node makes an invoice
                units = str(int(payout.value) * 10**token.decimals)
                address = (await _control(stage, payout.chain, do="invoice", units=units))["invoice"]
            fields = {"address": address, "token_id": token.id, "value": payout.value, **payout.more}
            await _request(stage, client, payout.title, **fields)


async def _request(stage: Stage, client: Client, title: str, **fields: Any) -> None:
    """One /withdraw, shown with its answer."""
    name = f"demo-{len(stage.payouts) + 1}"
    body = {"merchant_order_id": name, **fields}
    answer = await client.call(stage.http, "/withdraw", body)
    stage.say(title)
    stage.console.print(Text("POST /ccpayment/v1/withdraw", style="dim"))
    stage.console.print(Syntax(compact(body).decode(), "json", word_wrap=True, background_color="default"))
    _show_answer(stage, answer)
    if answer.body["code"] != 10000 or not answer.verified:
        raise DemoFailed(f"{title}: {answer.body}")
    stage.payouts.append({"merchant_order_id": name, "order_id": answer.body["data"]["order_id"]})


def _show_answer(stage: Stage, answer: Answer) -> None:
    stage.console.print(Syntax(json.dumps(answer.body, ensure_ascii=False), "json", word_wrap=True, background_color="default"))
    stage.console.print("[green]✓ signature of the answer is right[/]" if answer.verified else "[red]✗ WRONG SIGNATURE[/]")


async def _events(stage: Stage) -> None:
    stage.say("Webhooks, as they arrive")
    shown: set[str] = set()
    deadline = stage.runtime.monotonic() + PATIENCE_S
    while len(shown) < len(stage.payouts):
        if stage.runtime.monotonic() > deadline:
            raise DemoFailed("not every webhook arrived")
        for name in [payout["merchant_order_id"] for payout in stage.payouts]:
            event = stage.sink.events.get(name)
            if event is None or name in shown:
                continue
            shown.add(name)
            mark = "[green]✓ signature is right[/]" if event.verified else "[red]✗ WRONG SIGNATURE[/]"
            body = event.body
            line = f"{name}: {body['pay_status']}, {body['net_receivable']} {body['crypto']} on {body['chain']}, txid {body['txid']}"
            stage.console.print(f"{line}  {mark}", highlight=False, soft_wrap=True)
            if not event.verified:
                raise DemoFailed("a webhook carries a wrong signature")
        await stage.runtime.sleep(0.05)


async def _close(stage: Stage) -> dict[str, Any]:
    """Timelines, books, and what `--json` prints."""
    async with command(stage.settings) as product:
        commands = Commands(product)
        payouts = []
        for payout in stage.payouts:
            order = await commands.show_order(payout["order_id"])
            event = stage.sink.events[payout["merchant_order_id"]].body
            payouts.append({name: order[name] for name in ("chain", "crypto", "order_id", "status")} | {"txid": event["txid"]})
        stage.say("The story of one order")
        stage.console.print(show.timeline(await commands.show_order(stage.payouts[1]["order_id"])))
        report = await commands.audit()
        stage.say("The books, recomputed from every posting")
        stage.console.print(show.audit(report))
        ok = report["ok"] and all(payout["status"] == "Successful" for payout in payouts)
        return {"ok": ok, "payouts": payouts, "audit": report}


async def _leave_running(stage: Stage, client: Client) -> None:
    """Print a signed curl example and wait for Ctrl-C, or for SIGTERM: what was started here ends here."""
    body = b"{}"
    flags = " ".join(f"-H '{name}: {value}'" for name, value in client.headers(body).items())
    stage.say("Running until Ctrl-C. Within two minutes, this call is valid:")
    stage.console.print(f"curl -s {client.base_url}/ccpayment/v1/assets {flags} -d '{{}}'", highlight=False, soft_wrap=True)
    stage.console.print(
        f"\nPENSTOCK_HOME={stage.home}  app id {client.app_id}  secret {client.app_secret}", highlight=False, soft_wrap=True
    )
    await until_signal()
