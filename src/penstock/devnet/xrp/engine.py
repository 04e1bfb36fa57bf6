"""What a transaction does to a ledger, and the code it ends with: payments, trust lines, account settings, tickets.

https://xrpl.org/docs/references/protocol/transactions/transaction-results
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from xrpl.core import addresscodec

from penstock.devnet.xrp.state import (
    DEFAULT_RIPPLE,
    DEPOSIT_AUTH,
    DISALLOW_XRP,
    GLOBAL_FREEZE,
    IOU_SCALE,
    REQUIRE_DEST,
    Account,
    Draft,
    Line,
    TrustLine,
)

BASE_RESERVE: Final = 1_000_000
OWNER_RESERVE: Final = 200_000
"""Drops. https://xrpl.org/docs/concepts/accounts/reserves (as of December 2024)"""
TICKETS_MAX: Final = 250
PARTIAL: Final = 0x00020000
_SETTINGS: Final = {1: REQUIRE_DEST, 3: DISALLOW_XRP, 7: GLOBAL_FREEZE, 8: DEFAULT_RIPPLE, 9: DEPOSIT_AUTH}
"""asf flags. https://xrpl.org/docs/references/protocol/transactions/types/accountset#accountset-flags"""
_VALUE: Final = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,15}))?(?:e(-?[0-9]{1,3}))?", re.ASCII | re.IGNORECASE)


class Malformed(ValueError):
    """A tem code: it can never be in any ledger."""


@dataclass(frozen=True, slots=True)
class Amount:
    """Drops, or 10^-15 of a token."""

    units: int
    currency: str = ""
    issuer: str = ""

    def json(self) -> Any:
        """As the ledger writes it."""
        if not self.currency:
            return str(self.units)
        return {"currency": self.currency, "issuer": self.issuer, "value": value_text(self.units)}


def amount_of(given: Any) -> Amount:
    """Raises Malformed."""
    if isinstance(given, str) and given.isascii() and given.isdigit():
        return Amount(int(given))
    if isinstance(given, Mapping) and set(given) == {"currency", "issuer", "value"}:
        match = _VALUE.fullmatch(str(given["value"]))
        if match is not None:
            power = IOU_SCALE - len(match[2] or "") + int(match[3] or 0)
            if 0 <= power <= 40:
                return Amount(int(match[1] + (match[2] or "")) * 10**power, str(given["currency"]), str(given["issuer"]))
    raise Malformed("temBAD_AMOUNT")


def value_text(units: int) -> str:
    """A token amount in plain decimals."""
    sign, digits = ("-", str(-units)) if units < 0 else ("", str(units))
    digits = digits.rjust(IOU_SCALE + 1, "0")
    return sign + (digits[:-IOU_SCALE] + "." + digits[-IOU_SCALE:]).rstrip("0").rstrip(".")


def reserve_of(account: Account) -> int:
    """Drops that an account may not spend on payments."""
    return BASE_RESERVE + OWNER_RESERVE * account.owner_count


class Engine:
    """Applies one transaction to a draft. The fee is taken, and the sequence used, by every tes and tec."""

    def __init__(self, draft: Draft, fields: Mapping[str, Any], *, opened: Collection[Line] = ()) -> None:
        """`opened` are lines that the box makes when the first payment reaches them, as their owner would have before."""
        self._draft = draft
        self._opened = opened
        self._fields = fields
        self._sender = str(fields["Account"])
        self.delivered: Amount | None = None

    def apply(self) -> str:
        """The result code; the draft is changed for tes and tec alone."""
        before = self._draft.account(self._sender)
        if before is None:
            return "terNO_ACCOUNT"
        if before.balance < int(self._fields["Fee"]):
            return "terINSUF_FEE_B"
        paid = self._charged(before)
        kept = dict(self._draft.accounts), dict(self._draft.lines)
        self._draft.accounts[self._sender] = paid
        code = self._do(paid)
        if not code.startswith("tes"):
            self._draft.accounts, self._draft.lines = kept
            self._draft.accounts[self._sender] = paid
            self.delivered = None
        return code

    def _charged(self, account: Account) -> Account:
        charged = replace(account, balance=account.balance - int(self._fields["Fee"]))
        ticket = self._fields.get("TicketSequence")
        if ticket is None:
            return replace(charged, sequence=account.sequence + 1)
        return replace(charged, tickets=account.tickets - {ticket}, owner_count=account.owner_count - 1)

    def _do(self, sender: Account) -> str:
        match self._fields["TransactionType"]:
            case "Payment":
                return self._pay(sender)
            case "TrustSet":
                return self._trust(sender)
            case "AccountSet":
                return self._set(sender)
            case "TicketCreate":
                return self._tickets(sender)
            case "DepositPreauth":
                return self._preauthorize(sender)
            case _:
                return "temDISABLED"

    def _pay(self, sender: Account) -> str:
        amount, to = amount_of(self._fields["Amount"]), str(self._fields["Destination"])
        recipient = self._draft.account(to)
        if recipient is None:
            if amount.currency:
                return "tecNO_DST"
            if amount.units < BASE_RESERVE:
                return "tecNO_DST_INSUF_XRP"
        elif recipient.flags & REQUIRE_DEST and "DestinationTag" not in self._fields:
            return "tecDST_TAG_NEEDED"
        elif recipient.flags & DEPOSIT_AUTH and self._sender not in recipient.preauthorized and self._closed_to(recipient, amount):
            return "tecNO_PERMISSION"
        return self._pay_token(to, amount) if amount.currency else self._pay_xrp(sender, to, recipient, amount.units)

    @staticmethod
    def _closed_to(recipient: Account, amount: Amount) -> bool:
        """An account below its reserve may get as much XRP as the reserve, whoever sends it."""
        small = not amount.currency and amount.units <= BASE_RESERVE
        return not (small and recipient.balance <= BASE_RESERVE)

    def _pay_xrp(self, sender: Account, to: str, recipient: Account | None, drops: int) -> str:
        if sender.balance - drops < reserve_of(sender):
            return "tecUNFUNDED_PAYMENT"
        self._draft.accounts[self._sender] = replace(sender, balance=sender.balance - drops)
        there = recipient or Account(0, self._draft.index)
        self._draft.accounts[to] = replace(there, balance=there.balance + drops)
        self.delivered = Amount(drops)
        return "tesSUCCESS"

    def _pay_token(self, to: str, amount: Amount) -> str:
        """Issuer to holder, holder to issuer, or holder to holder through the issuer."""
        source = (self._sender, amount.issuer, amount.currency)
        target = (to, amount.issuer, amount.currency)
        issuer = self._draft.account(amount.issuer)
        have, there = self._draft.line(source), self._draft.line(target)
        holder = self._draft.account(to)
        if there is None and target in self._opened and holder is not None:
            there = TrustLine(0, 10**40)
            self._draft.accounts[to] = replace(holder, owner_count=holder.owner_count + 1)
        if to != amount.issuer and there is None:
            return "tecPATH_DRY"
        if issuer is None or (issuer.flags & GLOBAL_FREEZE and amount.issuer not in {self._sender, to}):
            return "tecPATH_DRY"
        if self._sender != amount.issuer and (have is None or have.frozen or have.balance == 0):
            return "tecPATH_DRY"
        room = amount.units if there is None or to == amount.issuer else max(0, there.limit - there.balance)
        can = min(amount.units, room, amount.units if have is None or self._sender == amount.issuer else have.balance)
        if can < amount.units and not int(self._fields.get("Flags", 0)) & PARTIAL:
            return "tecPATH_PARTIAL"
        if self._sender != amount.issuer and have is not None:
            self._draft.lines[source] = replace(have, balance=have.balance - can)
        if to != amount.issuer and there is not None:
            self._draft.lines[target] = replace(there, balance=there.balance + can)
        self.delivered = Amount(can, amount.currency, amount.issuer)
        return "tesSUCCESS"

    def _trust(self, sender: Account) -> str:
        limit = amount_of(self._fields["LimitAmount"])
        if not limit.currency or limit.issuer == self._sender:
            return "temDST_IS_SRC"
        if self._draft.account(limit.issuer) is None:
            return "tecNO_DST"
        key = (self._sender, limit.issuer, limit.currency)
        line = self._draft.line(key)
        if line is None:
            if sender.owner_count >= 2 and sender.balance < reserve_of(sender) + OWNER_RESERVE:
                return "tecNO_LINE_INSUF_RESERVE"
            line = TrustLine(0, 0)
            self._draft.accounts[self._sender] = replace(sender, owner_count=sender.owner_count + 1)
        self._draft.lines[key] = replace(line, limit=limit.units)
        return "tesSUCCESS"

    def _set(self, sender: Account) -> str:
        flags = sender.flags | _SETTINGS.get(int(self._fields.get("SetFlag", 0)), 0)
        flags &= ~_SETTINGS.get(int(self._fields.get("ClearFlag", 0)), 0)
        self._draft.accounts[self._sender] = replace(sender, flags=flags)
        return "tesSUCCESS"

    def _tickets(self, sender: Account) -> str:
        count = int(self._fields["TicketCount"])
        if not 1 <= count <= TICKETS_MAX or len(sender.tickets) + count > TICKETS_MAX:
            return "tecDIR_FULL"
        if sender.balance < reserve_of(sender) + OWNER_RESERVE * count:
            return "tecINSUFFICIENT_RESERVE"
        fresh = frozenset(range(sender.sequence, sender.sequence + count))
        self._draft.accounts[self._sender] = replace(
            sender, sequence=sender.sequence + count, tickets=sender.tickets | fresh, owner_count=sender.owner_count + count
        )
        return "tesSUCCESS"

    def _preauthorize(self, sender: Account) -> str:
        friend = self._fields.get("Authorize")
        if friend is None or not addresscodec.is_valid_classic_address(str(friend)):
            return "temMALFORMED"
        self._draft.accounts[self._sender] = replace(
            sender, preauthorized=sender.preauthorized | {str(friend)}, owner_count=sender.owner_count + 1
        )
        return "tesSUCCESS"
