"""The command line of the product: one function a command. Humans get tables, `--json` prints one JSON value.

Exit codes: 0 done, 1 the answer is no (a breach, a refusal), 2 the call or the settings are wrong.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
import uvloop

from penstock import logs, show, workbench
from penstock.core.liabilities import ProofWrong
from penstock.process import command, migrate, serve
from penstock.runtime import SystemRuntime
from penstock.signer.place import folder_of
from penstock.terminal import Json, emit, fail, guarded, note, settings

if TYPE_CHECKING:
    from penstock.commands import Commands

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="A self-hosted gateway for crypto withdrawals."
)
merchants = typer.Typer(no_args_is_help=True, help="Who may call the API.")
accounts = typer.Typer(no_args_is_help=True, help="People inside the house.")
orders = typer.Typer(no_args_is_help=True, help="Withdrawals.")
signers = typer.Typer(help="The process that holds the keys; without a word after it: run it, until SIGTERM.", invoke_without_command=True)
webhooks = typer.Typer(no_args_is_help=True, help="Events for merchants.")
app.add_typer(merchants, name="merchant")
app.add_typer(accounts, name="account")
app.add_typer(orders, name="order")
app.add_typer(webhooks, name="webhook")
app.add_typer(signers, name="signer")


def run(job: Callable[[Commands], Awaitable[T]]) -> T:
    """Open the product beside whatever else runs on this home, do one thing, close it."""
    from penstock.commands import Commands  # noqa: PLC0415  all the rooms; a start of `serve` reads them while its signer starts

    async def body() -> T:
        async with command(configured) as product:
            return await job(Commands(product))

    configured = settings()
    return guarded(body())


@app.command()
def init(
    key_file: Annotated[bool, typer.Option("--key-file", help="Unlock by a key file with mode 0600 instead of a passphrase.")] = False,
    as_json: Json = False,
) -> None:
    """Make home folder, keys and database; safe to repeat."""
    configured = settings()
    passphrase = configured.passphrase
    asked = None
    if passphrase is None and not key_file and sys.stdin.isatty() and not (configured.home / "vault.key").exists():
        asked = typer.prompt("Passphrase that unlocks the keys (empty: use a key file)", default="", hide_input=True, show_default=False)
        if asked and not (configured.home / "vault.json").exists():
            again = typer.prompt("The same passphrase again", default="", hide_input=True, show_default=False)
            if again != asked:
                fail("the two passphrases differ; nothing was made", 2)
    from penstock.setup import initialise  # noqa: PLC0415  only this command has the seed in its memory

    made = guarded(initialise(configured, key_file=key_file, asked=asked or None))
    emit(made, as_json, lambda m: show.facts("Penstock is ready", m | {"migrations": m["migrations"] or "none to make"}))
    if made["unlocked_by"] == "key file" and passphrase is not None:
        note("PENSTOCK_PASSPHRASE is set and not used: the key file of this home unlocks the keys")
    elif made["unlocked_by"] == "key file" and not key_file:
        note("no passphrase was given, so a key file unlocks the keys: whoever reads the home folder has them")


@app.command(name="migrate")
def migrate_command(as_json: Json = False, database: Annotated[str | None, typer.Option(help="Database URL.")] = None) -> None:
    """Bring the database to the current schema."""
    applied = guarded(migrate(settings(database__url=database)))
    emit({"applied": applied}, as_json, lambda m: "\n".join(m["applied"]) or "Nothing to do: the schema is current.")


@app.command(name="serve")
def serve_command(
    listen: Annotated[str | None, typer.Option(help="Address and port, 127.0.0.1:8080 by default.")] = None,
    role: Annotated[str, typer.Option(help="all, api or worker; the last two need PostgreSQL.")] = "all",
    database: Annotated[str | None, typer.Option(help="Database URL; SQLite in the home folder by default.")] = None,
) -> None:
    """Run the gateway until SIGTERM."""
    if role not in ("all", "api", "worker"):
        fail("--role is all, api or worker", 2)
    guarded(serve(settings(server__listen=listen, database__url=database), role), loop_factory=uvloop.new_event_loop)


@signers.callback()
def signer_run(context: typer.Context) -> None:
    """Run the signer by itself, until SIGTERM; `serve` starts one as its child unless signer.socket is set."""
    if context.invoked_subcommand is not None:
        return
    from penstock.signer import program  # noqa: PLC0415  no other command has keys in its memory
    from penstock.signer.keys import KeysUnusable  # noqa: PLC0415

    program.harden()
    configured = settings()
    try:
        guarded(program.run(configured, configured.passphrase, ready=lambda: None, until=program.until_signal))
    except KeysUnusable as error:
        fail(str(error), 2)


def _turn(reason: str, as_json: bool, *, stop: bool) -> None:
    from penstock.signer import switch  # noqa: PLC0415  reads the vault's libraries

    configured = settings()
    try:
        turned = switch.turn(folder_of(configured), SystemRuntime(), stop=stop, reason=reason)
    except OSError as error:
        fail(
            f"the switch is in the signer's folder {folder_of(configured)}, which cannot be written: {error.strerror}; run this as the signer's user, with its home",
            2,
        )
    emit({"signing": not stop, "reason": turned.reason}, as_json, lambda m: show.facts("The signer", m))


@signers.command("stop")
def signer_stop(reason: Annotated[str, typer.Option()], as_json: Json = False) -> None:
    """Nothing is signed any more from now on, whatever runs or hangs, until `signer go`."""
    _turn(reason, as_json, stop=True)


@signers.command("go")
def signer_go(reason: Annotated[str, typer.Option()], as_json: Json = False) -> None:
    """Sign again after a stop."""
    _turn(reason, as_json, stop=False)


@signers.command("relearn")
def signer_relearn(reason: Annotated[str, typer.Option()], as_json: Json = False) -> None:
    """The signer's journal is lost for good: let `serve` teach it again all that the database knows it had signed."""
    emit(run(lambda c: c.relearn(reason)), as_json, lambda m: show.facts("The signer", m))


@merchants.command("add")
def merchant_add(name: str, webhook_url: Annotated[str, typer.Option(help="Where events go.")] = "", as_json: Json = False) -> None:
    """Make a merchant; its secret is shown this once."""
    added = run(lambda c: c.add_merchant(name, webhook_url))
    emit(added, as_json, lambda m: show.secret("Keep the secret: it is not shown again", m))


@merchants.command("list")
def merchant_list(as_json: Json = False) -> None:
    """Every merchant."""
    emit({"merchants": run(lambda c: c.list_merchants())}, as_json, lambda v: show.rows("Merchants", v["merchants"]))


@merchants.command("set")
def merchant_set(
    app_id: str,
    webhook_url: Annotated[str | None, typer.Option(help="Where events go.")] = None,
    disabled: Annotated[bool | None, typer.Option("--disabled/--enabled", help="Refuse every call with 12000.")] = None,
    ip_allow: Annotated[str | None, typer.Option(help="Comma-separated addresses or networks; empty for any.")] = None,
    as_json: Json = False,
) -> None:
    """Change a merchant; counts within a second."""
    networks = None if ip_allow is None else tuple(part.strip() for part in ip_allow.split(",") if part.strip())
    changed = run(lambda c: c.set_merchant(app_id, webhook_url=webhook_url, disabled=disabled, ip_allow=networks))
    emit(changed, as_json, lambda m: show.facts("Merchant", m))


@merchants.command("rotate-secret")
def merchant_rotate(
    app_id: str, overlap_hours: Annotated[int, typer.Option(min=0, help="How long the old secret stays valid.")] = 24, as_json: Json = False
) -> None:
    """Make a new secret; both are valid until the time it states."""
    rotated = run(lambda c: c.rotate_secret(app_id, overlap_hours * 3600))
    emit(rotated, as_json, lambda m: show.secret("Keep the secret: it is not shown again", m))


@accounts.command("add")
def account_add(email: Annotated[str, typer.Option()], nickname: Annotated[str, typer.Option()] = "", as_json: Json = False) -> None:
    """Make an internal account and print its numeric id."""
    emit(run(lambda c: c.add_account(email, nickname)), as_json, lambda m: show.facts("Account", m))


@accounts.command("list")
def account_list(as_json: Json = False) -> None:
    """Every internal account."""
    emit({"accounts": run(lambda c: c.list_accounts())}, as_json, lambda v: show.rows("Accounts", v["accounts"]))


@accounts.command("show")
def account_show(c_id: str, as_json: Json = False) -> None:
    """Balances and history of an internal account."""
    emit(run(lambda c: c.show_account(c_id)), as_json, show.account)


@accounts.command("withdraw")
def account_withdraw(
    c_id: str,
    token: Annotated[str, typer.Option(help="Token id, or coin and network such as USDT:POLYGON.")],
    address: Annotated[str, typer.Option()],
    amount: Annotated[str, typer.Option()],
    memo: Annotated[str, typer.Option()] = "",
    as_json: Json = False,
) -> None:
    """Pay an internal account's money out, on the same road as every withdrawal."""
    order = run(lambda c: c.withdraw_from_account(c_id, token, address, amount, memo))
    emit(order, as_json, lambda m: show.facts("Accepted", m))


@app.command()
def credit(
    app_id: Annotated[str, typer.Option(help="Merchant.")],
    coin: Annotated[str, typer.Option(help="Symbol, such as USDT.")],
    amount: Annotated[str, typer.Option()],
    reason: Annotated[str, typer.Option()],
    as_json: Json = False,
) -> None:
    """Book declared funding of a merchant."""
    emit(run(lambda c: c.credit(app_id, coin, amount, reason)), as_json, lambda m: show.facts("Credited", m))


@app.command()
def treasury(every: Annotated[bool, typer.Option("--all", help="Networks that are off as well.")] = False, as_json: Json = False) -> None:
    """Hot address of each network, with its balances on chain and in the books."""

    async def look(commands: Commands) -> tuple[list[dict[str, Any]], str, list[str]]:
        return await commands.treasury_rows(), await commands.signing_stopped(), await commands.holds()

    rows, stopped, holds = run(look)
    emit(rows, as_json, lambda v: show.treasury(v, every=every))
    if stopped:
        note(f"nothing is signed: {stopped}")
    for hold in holds:
        note(hold)


@app.command("open-tokens")
def open_tokens(chain: str, as_json: Json = False) -> None:
    """Let the hot address hold a network's tokens (XRP Ledger: trust lines) or pay many at once in them (EVM: allowances); `serve` sends it."""
    emit({"opening": run(lambda c: c.open_tokens(chain))}, as_json, lambda v: show.rows("On their way", v["opening"], empty=show.ALL_OPEN))


@app.command()
def catalog(as_json: Json = False) -> None:
    """Coins and tokens that can be paid."""
    emit({"tokens": run(lambda c: c.catalog_rows())}, as_json, lambda v: show.catalog(v["tokens"]))


@app.command()
def fees(as_json: Json = False) -> None:
    """What a payout of each token costs now."""
    emit({"fees": run(lambda c: c.fee_rows())}, as_json, lambda v: show.fees(v["fees"]))


@orders.command("list")
def order_list(
    state: Annotated[str, typer.Option(help="accepted, held, sending, confirming, quarantined, succeeded or failed.")] = "",
    app_id: Annotated[str, typer.Option(help="One merchant.")] = "",
    chain: Annotated[str, typer.Option()] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 50,
    as_json: Json = False,
) -> None:
    """Orders, newest first."""
    found = run(lambda c: c.list_orders(state=state, app_id=app_id, chain=chain, limit=limit))
    emit({"orders": found}, as_json, lambda v: show.orders(v["orders"]))


@orders.command("show")
def order_show(order_id: str, as_json: Json = False) -> None:
    """The timeline of one order, by our id or the merchant's."""
    emit(run(lambda c: c.show_order(order_id)), as_json, show.timeline)


@orders.command("psbt")
def order_psbt(
    order_id: str,
    signed: Annotated[Path | None, typer.Option(help="What an offline signer made of it: checked, and printed ready to send.")] = None,
    as_json: Json = False,
) -> None:
    """The Bitcoin transaction that pays an order, for an offline signer (BIP-174, base64)."""
    text = signed.read_text("ascii", errors="replace").strip() if signed is not None else ""
    found = run(lambda c: c.order_psbt(order_id, text))
    if as_json:
        emit(found, as_json=True, table=str)
    else:
        typer.echo(found["hex"] if signed is not None else found["psbt"])  # in one piece: it goes into another program


@orders.command("cancel")
def order_cancel(order_id: str, reason: Annotated[str, typer.Option()], as_json: Json = False) -> None:
    """Fail an order that nothing was bound for; its money is back at once."""
    emit(run(lambda c: c.cancel_order(order_id, reason)), as_json, lambda m: show.facts("Cancelled", m))


@orders.command("decide")
def order_decide(
    order_id: str,
    decision: Annotated[str, typer.Option("--as", help="again, paid or failed.")],
    reason: Annotated[str, typer.Option()],
    txid: Annotated[str, typer.Option(help="The transaction that has paid it.")] = "",
    proved: Annotated[bool, typer.Option("--proved", help="You have proof that no transaction of ours can pay it any more.")] = False,
    as_json: Json = False,
) -> None:
    """Say what becomes of a quarantined order; each answer is refused where something speaks against it."""
    decided = run(lambda c: c.decide_order(order_id, decision, reason, txid=txid, proved=proved))
    emit(decided, as_json, lambda m: show.facts("Decided", m))


@app.command()
def resume(
    chain: Annotated[str, typer.Argument(help="The network, or `all`.")], reason: Annotated[str, typer.Option()], as_json: Json = False
) -> None:
    """Send again on a network that stopped for a person to look."""
    emit(run(lambda c: c.resume(chain, reason)), as_json, lambda m: show.facts("Resumed", m))


@webhooks.command("resend")
def webhook_resend(order_id: str, as_json: Json = False) -> None:
    """Send an order's event again."""
    emit(run(lambda c: c.resend_event(order_id)), as_json, lambda m: show.facts("Queued", m))


@app.command()
def audit(
    verify_chain: Annotated[bool, typer.Option("--verify-chain", help="Only: is any row of the past not what it was?")] = False,
    archives: Annotated[Path | None, typer.Option(help="Read the files of archives in this folder as well.")] = None,
    head: Annotated[str, typer.Option(help="A head of the chain that you wrote down elsewhere: it must still be there.")] = "",
    liabilities: Annotated[Path | None, typer.Option(help="Write root and total of what is owed in each coin to this file.")] = None,
    proof: Annotated[str, typer.Option(help="With --liabilities: print this holder's proof from what was written there.")] = "",
    as_json: Json = False,
) -> None:
    """Recompute the books from their postings; exits 1 on a breach, 0 with warnings."""
    if proof:
        if liabilities is None:
            fail("--proof needs --liabilities FILE, the file that was published", 2)
        named = liabilities
        emit(run(lambda c: c.prove_liability(named, proof)), as_json=True, table=str)
        return
    if liabilities is not None:
        file = liabilities
        emit(run(lambda c: c.write_liabilities(file)), as_json, show.liabilities)
        return
    if verify_chain or head:
        chain = run(lambda c: c.verify_chain(head, archives))
        emit(chain, as_json, show.chain)
        if not chain["ok"]:
            raise typer.Exit(1)
        return
    report = run(lambda c: c.audit(archives))
    emit(report, as_json, show.audit)
    if report["breaches"]:
        raise typer.Exit(1)


@app.command()
def archive(
    before: Annotated[datetime, typer.Option(formats=["%Y-%m-%d"], help="A day in UTC, at least 30 days ago.")],
    to: Annotated[Path | None, typer.Option(help="Folder of the files; `archive` in the home folder by default.")] = None,
    as_json: Json = False,
) -> None:
    """Move what was over before a day out of the database into files, a month each; a run that was killed is ended by the next."""
    before_ms = int(before.replace(tzinfo=UTC).timestamp() * 1000)
    done = run(lambda c: c.archive(before_ms, to))
    emit(
        {"archives": done},
        as_json,
        lambda v: show.rows("Archived", v["archives"], empty="Nothing was over before that day that is not archived."),
    )


@app.command("verify-proof")
def verify_proof(proof: Path, published: Path, as_json: Json = False) -> None:
    """Check a holder's proof against the roots that the house has published; needs neither home nor database."""
    from penstock.ledger.liabilities import verify as verify_liability  # noqa: PLC0415  reads a database driver

    try:
        shown = verify_liability(json.loads(proof.read_text("utf-8")), json.loads(published.read_text("utf-8")))
    except OSError as error:
        fail(f"{error.filename} cannot be read: {error.strerror}", 2)
    except ValueError as error:
        fail(f"not JSON: {error}", 2)
    except ProofWrong as error:
        fail(str(error))
    emit(shown, as_json, lambda values: show.rows("Proved", show.owed(values)))


workbench.register(app)  # last: the list of commands begins with the product's


def main() -> None:
    """The console script."""
    os.umask(0o077)  # whatever we write (database, settings, demo) is for its owner alone
    running = sys.argv[1:2] in (["serve"], ["devnet"]) or sys.argv[1:] == ["signer"]
    logs.configure(logging.INFO if running else logging.ERROR)
    app()


if __name__ == "__main__":
    main()
