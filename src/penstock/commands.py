"""What an operator can ask for, as plain values: the command line prints them, `--json` prints them as they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penstock.core.errors import Problem, Refused
from penstock.core.intent import SignLater
from penstock.core.money import LEDGER_DECIMALS, CoinAmount, Network, Token, parse_units, plain
from penstock.core.order import HOUSE_MERCHANT, OrderState, holder_of_account, holder_of_merchant
from penstock.core.party import Account, Merchant
from penstock.core.snowflake import wire_id
from penstock.core.withdrawal import WithdrawRequest
from penstock.ledger import book, liabilities
from penstock.ledger.audit import audit
from penstock.orders import attempts, auditor, recovery
from penstock.orders.archiver import Archiver
from penstock.orders.timeline import summary
from penstock.rails.base import CannotOpen, NodeUnreachable
from penstock.signer import switch
from penstock.signer.place import folder_of
from penstock.wiring import Product


class Commands:
    """Every command on an open product. Raises Refused where the answer is no."""

    def __init__(self, product: Product) -> None:
        self._p = product

    # ------------------------------------------------------------------------------------------------ merchants and accounts

    async def add_merchant(self, name: str, webhook_url: str) -> dict[str, Any]:
        """A merchant with its secret, shown this once."""
        app_id, *ids = self._p.ids.next(2)
        merchant, secret = await self._p.directory.add_merchant(name, webhook_url, app_id=wire_id(app_id), ids=ids)
        return {
            "app_id": merchant.app_id,
            "app_secret": secret.reveal(),
            "merchant_id": merchant.id,
            "name": merchant.name,
            "webhook_url": merchant.webhook_url,
        }

    async def list_merchants(self) -> list[dict[str, Any]]:
        """Every merchant but the house, with balances."""
        return [await self._merchant(m) for m in await self._p.directory.list_merchants() if m.id != HOUSE_MERCHANT]

    async def _merchant(self, merchant: Merchant) -> dict[str, Any]:
        owned = await book.balances(self._p.database, holder_of_merchant(merchant.id))
        return {
            "app_id": merchant.app_id,
            "name": merchant.name,
            "webhook_url": merchant.webhook_url,
            "disabled": merchant.disabled,
            "ip_allow": list(merchant.ip_allow),
            "balances": [f"{plain(have, LEDGER_DECIMALS)} {self._symbol(coin_id)}" for coin_id, (have, _) in owned.items()],
        }

    async def set_merchant(
        self, app_id: str, *, webhook_url: str | None, disabled: bool | None, ip_allow: tuple[str, ...] | None
    ) -> dict[str, Any]:
        """Change a merchant."""
        merchant = await self._merchant_of(app_id)
        changed = await self._p.directory.set_merchant(merchant.id, webhook_url=webhook_url, disabled=disabled, ip_allow=ip_allow)
        return await self._merchant(changed)

    async def rotate_secret(self, app_id: str, overlap_s: int) -> dict[str, Any]:
        """A new secret beside the old one."""
        merchant = await self._merchant_of(app_id)
        secret, until_ms = await self._p.directory.rotate_secret(merchant.id, overlap_s, ids=self._p.ids.next(1))
        return {"app_id": app_id, "app_secret": secret.reveal(), "old_secret_valid_until_at_ms": until_ms}

    async def _merchant_of(self, app_id: str) -> Merchant:
        merchant = await self._p.directory.by_app_id(app_id)
        if merchant is None:
            raise Refused(Problem.NOT_FOUND, f"there is no merchant with app id {app_id}; `penstock merchant list` shows all")
        return merchant

    async def add_account(self, email: str, nickname: str) -> dict[str, Any]:
        """An internal account."""
        return _account(await self._p.directory.add_account(email, nickname))

    async def list_accounts(self) -> list[dict[str, Any]]:
        """Every internal account."""
        return [_account(account) for account in await self._p.directory.list_accounts()]

    async def show_account(self, c_id: str) -> dict[str, Any]:
        """An internal account with balances and its newest orders."""
        account = await self._account_of(c_id)
        holder = holder_of_account(account.id)
        owned = await book.balances(self._p.database, holder)
        return _account(account) | {
            "balances": [
                {"crypto": self._symbol(coin_id), "available": plain(have, LEDGER_DECIMALS), "reserved": plain(held, LEDGER_DECIMALS)}
                for coin_id, (have, held) in owned.items()
            ],
            "history": await self._p.timelines.of_holder(holder),
        }

    async def _account_of(self, c_id: str) -> Account:
        account = await self._p.directory.find(c_id)
        if account is None:
            raise Refused(Problem.TO_USER_NOT_FOUND, f"there is no account {c_id}; `penstock account list` shows all")
        return account

    async def withdraw_from_account(self, c_id: str, token: str, address: str, amount: str, memo: str) -> dict[str, Any]:
        """Pay an internal account's money out; the command's own id makes the order unique."""
        account = await self._account_of(c_id)
        named = self._token(token)
        if named.chain in self._p.rails:  # a payout inside the house needs no network; any other is refused by `accept`
            await self._p.board.refresh_network(named.chain)
        name = f"account-{wire_id(self._p.ids.next()[0])}"
        request = WithdrawRequest(name, address.strip(), named.id, parse_units(amount, LEDGER_DECIMALS), memo, False, False)
        async with self._p.taking_orders():
            try:
                return summary(await self._p.accept.withdraw_from_account(account, request))
            except Refused as refusal:
                if refusal.problem is not Problem.SERVICE_ERROR:
                    raise
                # Repeating the command makes another order: only who has looked knows that this one is not there.
                raise Refused(
                    refusal.problem, f"{refusal.msg} Before you repeat it: `penstock order show {name}` must find nothing."
                ) from refusal

    def _token(self, text: str) -> Token:
        symbol, _, chain = text.partition(":")
        coin = self._p.catalog.coin_by_symbol(symbol)
        token = self._p.catalog.token(text) or (self._p.catalog.by_symbol(coin.symbol, chain.upper()) if coin is not None else None)
        if token is None:
            raise Refused(Problem.INVALID_COIN, f"{text} is neither a token id nor COIN:NETWORK; `penstock catalog` shows all")
        return token

    # -------------------------------------------------------------------------------------------------------------- money

    async def credit(self, app_id: str, coin: str, amount: str, reason: str) -> dict[str, Any]:
        """Declared funding."""
        merchant = await self._merchant_of(app_id)
        known = self._p.catalog.coin_by_symbol(coin)
        if known is None:
            raise Refused(Problem.INVALID_COIN, f"there is no coin {coin}; `penstock catalog` shows all")
        units = CoinAmount.parse(known, amount)
        if not units:
            raise Refused(Problem.INVALID_ARGUMENT, "amount must be greater than zero")
        command_id = self._p.ids.next()[0]
        holder = holder_of_merchant(merchant.id)
        await book.credit(
            self._p.database, self._p.book("command"), command_id, holder, units, reason=reason, at_ms=self._p.runtime.now_ms()
        )
        owned = await book.balances(self._p.database, holder)
        return {"credit_id": str(command_id), "app_id": app_id, "coin": known.symbol, "amount": str(units), "reason": reason} | {
            "available": plain(owned[known.id][0], LEDGER_DECIMALS)
        }

    async def treasury_rows(self) -> list[dict[str, Any]]:
        """Hot addresses with balances on chain and in the books."""
        books = await book.totals(self._p.database, "treasury:")
        rows = []
        for network in self._p.catalog.networks():
            if not self._p.has_address(network.chain):
                continue
            held = await self._held(network)
            for token in self._p.catalog.tokens_on(network.chain):
                in_books = plain(-books.get((f"treasury:{token.id}", token.coin.id), 0), LEDGER_DECIMALS)
                units = {address: amounts.get(token.id) for address, amounts in held.items()}
                known = [amount for amount in units.values() if amount is not None]
                on_chain = plain(sum(known), token.decimals) if len(known) == len(units) else None
                of_each = {address: None if amount is None else plain(amount, token.decimals) for address, amount in units.items()}
                row: dict[str, Any] = {"chain": network.chain, "address": next(iter(held)), "crypto": token.coin.symbol}
                row |= {"on": network.chain in self._p.rails, "on_chain": on_chain, "in_books": in_books, "addresses": of_each}
                rows.append(row)
        return rows

    async def holds(self) -> list[str]:
        """Networks whose start has not come to its end, each with the reason."""
        held = await self._p.database.read(attempts.holds)
        return [f"nothing is sent on {chain}, recovery hold: {reason}" for chain, reason in held.items()]

    async def signing_stopped(self) -> str:
        """Why somebody stopped the signer, "" when nobody did."""
        turned = switch.read(folder_of(self._p.settings))
        if turned is not None and turned.stop:
            return turned.reason
        return (await self._p.signer.standing()).stopped if self._p.settings.signer.socket else ""

    async def open_tokens(self, chain: str) -> list[dict[str, Any]]:
        """Let the hot address of a network hold its tokens, or pay many at once in them, where the network asks for that."""
        name = chain.upper()
        if self._p.board.rail(name) is None:
            raise Refused(Problem.INVALID_ARGUMENT, f"network {name} is not on; `penstock treasury --all` shows all")
        await self._p.board.refresh_network(name)
        try:
            opened = await self._p.treasury.open_tokens(name, self._p.board.estimate)
        except CannotOpen as error:
            raise Refused(Problem.INVALID_ARGUMENT, str(error)) from error
        except NodeUnreachable as error:
            raise Refused(Problem.SERVICE_ERROR, str(error)) from error
        return [{"chain": name, "crypto": token.coin.symbol, "contract": token.wire_contract} for token in opened]

    async def _held(self, network: Network) -> dict[str, dict[str, int]]:
        """What each hot address holds at the newest final block, by token id; nothing where no node answers."""
        rail, found = self._p.board.rail(network.chain), dict[str, dict[str, int]]()
        opened = await self._p.database.read(lambda tx: {lane.number for lane in attempts.lanes(tx, network.chain)})
        tokens = self._p.catalog.tokens_on(network.chain)
        for number, address in (await self._p.treasury.addresses(network)).items():
            try:
                found[address] = dict((await rail.holdings(address, tokens)).units) if rail is not None else {}
            except NodeUnreachable:
                # One that was never used may not exist yet (XRP Ledger), where others do: then it holds nothing.
                is_silent = number in {0, *opened} or not any(found.values())
                found[address] = {} if is_silent else {token.id: 0 for token in tokens}
        return found

    async def catalog_rows(self) -> list[dict[str, Any]]:
        """What can be paid."""
        return [
            {
                "coin": token.coin.symbol,
                "chain": token.chain,
                "token_id": token.id,
                "coin_id": token.coin.id,
                "contract": token.wire_contract,
                "decimals": token.decimals,
                "status": 2 if self._p.board.rail(token.chain) is None else token.status,
            }
            for token in self._p.catalog.tokens()
        ]

    async def fee_rows(self) -> list[dict[str, Any]]:
        """Fees of every token of every network that is on."""
        await self._p.refresh_prices()
        await self._p.board.refresh()
        rows = []
        for token in self._p.catalog.tokens():
            if self._p.board.rail(token.chain) is None or token.status == 2:
                continue
            row: dict[str, Any] = {"coin": token.coin.symbol, "chain": token.chain, "token_id": token.id}
            try:
                quote = self._p.board.quote(token)
                estimate = self._p.board.estimate(token)
                age_s = (self._p.runtime.now_ms() - estimate.at_ms) // 1000 if estimate is not None else None
                rows.append(row | {"fee": str(quote.fee), "fee_usd": quote.fee_usd, "age_s": age_s, "problem": ""})
            except Refused as refusal:
                fault = self._p.board.faults.get(token.chain)
                problem = refusal.msg if fault is None else f"its nodes do not answer as they should: {fault}"
                rows.append(row | {"fee": None, "fee_usd": None, "age_s": None, "problem": problem})
        return rows

    async def audit(self, archives: Path | None = None) -> dict[str, Any]:
        """Recompute everything that is in the tables, and in the files of archives where their folder is named. What breaks the books halts what it is about, as it does in the passes of `serve`."""
        journal = "agrees"
        try:
            report = await audit(
                self._p.database, self._symbols(), self._p.audit_terms(), journal=self._p.signer.entries, archives=archives
            )
        except SignLater as later:
            journal = f"not compared: {later}"
            report = await audit(self._p.database, self._symbols(), self._p.audit_terms(), archives=archives)
        now_ms = self._p.runtime.now_ms()
        await self._p.database.write("audit.note", lambda tx: auditor.note(tx, self._p.catalog, report.findings, now_ms=now_ms, over=None))
        stopped = await self.signing_stopped()
        return {
            "ok": not report.breaches,
            "counts": report.counts,
            "breaches": [{"invariant": f.invariant, "text": f.text} for f in report.breaches],
            "warnings": [{"invariant": f.invariant, "text": f.text} for f in report.warnings]
            + ([{"invariant": "signer", "text": f"nothing is signed: {stopped}"}] if stopped else [])
            + [{"invariant": "I9", "text": text} for text in await self.holds()],
            "journal": journal if not any(f.invariant == "I9" for f in report.breaches) else "differs",
            "balances": {self._account_name(account): coins for account, coins in report.balances.items()},
        }

    async def archive(self, before_ms: int, folder: Path | None) -> list[dict[str, Any]]:
        """Move what was over before a moment into files."""
        p = self._p
        archiver = Archiver(
            runtime=p.runtime,
            database=p.database,
            next_ids=p.ids.next,
            terms=p.audit_terms,
            folder=folder or p.settings.home / "archive",
        )
        return await archiver.run(before_ms)

    async def verify_chain(self, wanted_head: str, archives: Path | None = None) -> dict[str, Any]:
        """Recompute every chain from its first row; the first break, and the head that somebody should write down elsewhere."""
        report = await audit(self._p.database, self._symbols(), self._p.audit_terms(), wanted_head=wanted_head, archives=archives)
        broken = [f.text for f in report.findings if f.invariant in ("I1", "I15")]
        return {
            "ok": not broken,
            "first_break": broken[0] if broken else "",
            "breaks": broken,
            "head": report.head,
            "counts": report.counts,
        }

    async def write_liabilities(self, file: Path) -> dict[str, Any]:
        """Root and total of what is owed in each coin, for everybody; and beside it the leaves, for proofs."""
        random_bytes, now_ms = self._p.runtime.random_bytes, self._p.runtime.now_ms()
        taken = await self._p.database.read(lambda tx: liabilities.take(tx, self._symbols(), random_bytes=random_bytes, now_ms=now_ms))
        secret = leaves_file(file)
        _write(secret, json.dumps(taken.secret()))
        _write(file, json.dumps(taken.public, indent=1) + "\n")
        return {"published": str(file), "secret": str(secret)} | dict(taken.public)

    async def prove_liability(self, file: Path, name: str) -> dict[str, Any]:
        """The proof of one holder: a merchant's app id, an account's id, or m:ID and u:ID."""
        holder = name
        if (merchant := await self._p.directory.by_app_id(name)) is not None:
            holder = holder_of_merchant(merchant.id)
        elif (account := await self._p.directory.find(name)) is not None:
            holder = holder_of_account(account.id)
        try:
            taken = liabilities.Liabilities.restored(json.loads(leaves_file(file).read_text("utf-8")))
            return taken.proof(holder)
        except OSError as error:
            raise Refused(Problem.NOT_FOUND, f"{error.filename} cannot be read: {error.strerror}") from error
        except KeyError as error:
            raise Refused(Problem.NOT_FOUND, f"{name} was owed nothing when {file} was written") from error

    def _account_name(self, account: str) -> str:
        kind, _, token_id = account.partition(":")
        token = self._p.catalog.token(token_id)
        return account if token is None else f"{kind}:{token.coin.symbol}:{token.chain}"

    def _symbols(self) -> dict[str, str]:
        return {coin.id: coin.symbol for coin in self._p.catalog.coins()}

    def _symbol(self, coin_id: str) -> str:
        return self._symbols().get(coin_id, coin_id)

    # ------------------------------------------------------------------------------------------------------------- orders

    async def list_orders(self, *, state: str, app_id: str, chain: str, limit: int) -> list[dict[str, Any]]:
        """Newest first."""
        if state and state not in set(OrderState):
            raise Refused(Problem.INVALID_ARGUMENT, f"state is one of {', '.join(OrderState)}")
        merchant_id = (await self._merchant_of(app_id)).id if app_id else None
        return await self._p.timelines.listed(state=state, merchant_id=merchant_id, chain=chain.upper(), limit=limit)

    async def show_order(self, text: str) -> dict[str, Any]:
        """One timeline."""
        shown = await self._p.timelines.of(text)
        if shown is None:
            raise Refused(Problem.NOT_FOUND, f"there is no order {text}; `penstock order list` shows the newest")
        return shown

    async def order_psbt(self, text: str, signed: str = "") -> dict[str, Any]:
        """The order's transaction for an offline signer; or, with what came back from one, the same checked and ready to send."""
        order = await self._p.timelines.find(text)
        if order is None:
            raise Refused(Problem.NOT_FOUND, f"there is no order {text}; `penstock order list` shows the newest")
        intent = await self._p.database.read(lambda tx: attempts.newest_intent(tx, order.id))
        if intent is None and (file := await self._p.timelines.archived(order.id)):
            raise Refused(Problem.NOT_FOUND, f"the transaction of order {text} is archived in {file}")
        if intent is None:
            raise Refused(Problem.INVALID_ARGUMENT, f"order {text} is {order.state} and no transaction was bound for it yet")
        try:
            if not signed:
                return {"chain": intent.chain, "pays_orders": len(intent.payments), "psbt": self._p.signer.export(intent)}
            checked = self._p.signer.check_export(intent, signed)
        except ValueError as error:
            raise Refused(Problem.INVALID_ARGUMENT, str(error)) from error
        return {"chain": intent.chain, "txid": checked.txid, "hex": checked.raw.hex()}

    async def cancel_order(self, text: str, reason: str) -> dict[str, Any]:
        """Fail an order that nothing was bound for."""
        order = await self._p.timelines.find(text)
        if order is None:
            raise Refused(Problem.NOT_FOUND, f"there is no order {text}; `penstock order list` shows the newest")
        held = (await self._p.database.read(attempts.holds)).get(order.chain)
        if held:
            raise Refused(Problem.INVALID_ARGUMENT, f"nothing is decided while {order.chain} is held, it may have been paid: {held}")
        cancelled = await self._p.settler.cancel(order.id, reason)
        if cancelled is None:
            raise Refused(Problem.INVALID_ARGUMENT, f"order {text} is {order.state}: an order can be cancelled until it is bound")
        return summary(cancelled)

    async def decide_order(self, text: str, decision: str, reason: str, *, txid: str, proved: bool) -> dict[str, Any]:
        """A person's word on a quarantined order."""
        order = await self._p.timelines.find(text)
        if order is None:
            raise Refused(Problem.NOT_FOUND, f"there is no order {text}; `penstock order list` shows the newest")
        match decision:
            case "again":
                decided = await self._p.decider.again(order.id, reason)
            case "paid" if txid:
                decided = await self._p.decider.paid(order.id, txid.strip(), reason)
            case "paid":
                raise Refused(Problem.INVALID_ARGUMENT, "`--as paid` needs the transaction that has paid it: `--txid`")
            case "failed":
                decided = await self._p.decider.failed(order.id, reason, proved=proved)
            case _:
                raise Refused(Problem.INVALID_ARGUMENT, "`--as` is again, paid or failed")
        return summary(decided)

    async def resume(self, chain: str, reason: str) -> dict[str, Any]:
        """Send again on a network (or on all of them) that stopped for a person to look, and remember what they have seen."""
        chain = chain.upper()
        name = "" if chain == "ALL" else chain
        p = self._p
        stood = await auditor.resume(p.database, p.catalog, name, reason, next_ids=p.ids.next, now_ms=p.runtime.now_ms())
        if not stood:
            raise Refused(Problem.NOT_FOUND, f"nothing is stopped on {chain}; `penstock audit` shows what is")
        because = "; ".join(f"{where}: {why}" if where and not name else why for where, why in stood.items())
        return {"chain": chain, "stood_because": because, "reason": reason}

    async def relearn(self, reason: str) -> dict[str, Any]:
        """Let the running gateway teach the signer again what it had signed, because its journal is lost for good."""
        action_id, now_ms = self._p.ids.next()[0], self._p.runtime.now_ms()
        waits = await self._p.database.write("relearn", lambda tx: recovery.relearn(tx, reason, action_id=action_id, now_ms=now_ms))
        if not waits:
            raise Refused(Problem.NOT_FOUND, "no network waits for its signer's journal; `penstock audit` shows what does stand")
        return {"relearns": True, "reason": reason}

    async def resend_event(self, text: str) -> dict[str, Any]:
        """Send an order's event again."""
        order = await self._p.timelines.find(text)
        if order is None or not await self._p.outbox.resend_order(order.id):
            if order is not None and (file := await self._p.timelines.archived(order.id)):
                raise Refused(Problem.NOT_FOUND, f"the event of order {text} cannot be sent again: it is archived in {file}")
            raise Refused(Problem.NOT_FOUND, f"order {text} has no event to send again: it is unknown, or not decided yet")
        return {"order_id": wire_id(order.id), "queued": True}


def leaves_file(file: Path) -> Path:
    """Where the leaves of a published proof of liabilities are kept."""
    return file.with_name(file.name + ".leaves")


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, "utf-8")
    except OSError as error:
        raise Refused(Problem.INVALID_ARGUMENT, f"{file} cannot be written: {error.strerror}") from error


def _account(account: Account) -> dict[str, Any]:
    return {"c_id": str(account.id), "email": account.email, "nickname": account.nickname}
