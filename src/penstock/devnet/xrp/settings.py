"""What an account says of itself: trust lines, flags, tickets, and from whom it takes deposits.

https://xrpl.org/docs/references/protocol/transactions/types
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from penstock.devnet.xrp.amounts import PAR, Amount, amount_of
from penstock.devnet.xrp.lines import new_line, put
from penstock.devnet.xrp.preflight import CLEAR_FREEZE, CLEAR_NO_RIPPLE, SET_AUTH, SET_FREEZE, SET_NO_RIPPLE, TICKETS_MAX
from penstock.devnet.xrp.state import (
    DEFAULT_RIPPLE,
    DEPOSIT_AUTH,
    DISALLOW_XRP,
    GLOBAL_FREEZE,
    NO_FREEZE,
    NO_TRUST_LINES,
    REQUIRE_AUTH,
    REQUIRE_DEST,
    Account,
    Draft,
    line_between,
)
from penstock.devnet.xrp.transactions import Transaction

BASE_RESERVE: Final = 1_000_000
OWNER_RESERVE: Final = 200_000
"""Drops. https://xrpl.org/docs/concepts/accounts/reserves (as of December 2024)"""

FREE_OBJECTS: Final = 2
"""So many things may an account own before a new trust line asks for their reserve."""

_DISABLE_MASTER: Final = 4
_SETTINGS: Final = {
    1: REQUIRE_DEST,
    2: REQUIRE_AUTH,
    3: DISALLOW_XRP,
    6: NO_FREEZE,
    7: GLOBAL_FREEZE,
    8: DEFAULT_RIPPLE,
    9: DEPOSIT_AUTH,
    15: NO_TRUST_LINES,
}
"""asf flags. https://xrpl.org/docs/references/protocol/transactions/types/accountset#accountset-flags"""


@dataclass(slots=True)
class Task:
    """One transaction at work: its sender as it was, and a draft in which fee and sequence are taken already."""

    transaction: Transaction
    before: Account
    draft: Draft
    index: int
    delivered: Amount | None = None

    @property
    def account(self) -> Account:
        """The sender as the draft has it."""
        return self.draft.accounts[self.transaction.account]


def reserve_of(account: Account, more: int = 0) -> int:
    """Drops that an account may not spend on payments, or would not if it owned some things more."""
    return BASE_RESERVE + OWNER_RESERVE * (account.owner_count + more)


def trust(task: Task) -> str:
    """A trust line, opened or changed."""
    sender, flags = task.transaction.account, task.transaction.flags
    limit = amount_of(task.transaction.fields["LimitAmount"])
    peer = task.draft.account(limit.issuer)
    if flags & SET_AUTH and not task.before.flags & REQUIRE_AUTH:
        return "tefNO_AUTH_REQUIRED"
    key = line_between(sender, limit.issuer, limit.currency)
    known, low = task.draft.line(key), key[0] == sender
    if peer is None:
        return "tecNO_DST"
    if known is None and peer.flags & NO_TRUST_LINES:
        return "tecNO_PERMISSION"
    if flags & SET_FREEZE and (task.before.flags & NO_FREEZE or flags & CLEAR_FREEZE):
        return "tecNO_PERMISSION"
    line = known or new_line(task.draft, *key)
    side = replace(line.side(low=low), limit=limit.units)
    if known is None:
        side = replace(side, no_ripple=False)
    if flags & SET_NO_RIPPLE and not flags & CLEAR_NO_RIPPLE:
        if line.held(low=low) < 0:
            return "tecNO_PERMISSION"
        side = replace(side, no_ripple=True)
    elif flags & CLEAR_NO_RIPPLE and not flags & SET_NO_RIPPLE:
        side = replace(side, no_ripple=False)
    side = replace(side, authorized=side.authorized or bool(flags & SET_AUTH))
    side = replace(side, freeze=(side.freeze or bool(flags & SET_FREEZE)) and not flags & CLEAR_FREEZE)
    if known is None and not limit.units and not flags & SET_AUTH:
        return "tecNO_LINE_REDUNDANT"
    owned = task.before.owner_count
    if not line.side(low=low).reserve and owned >= FREE_OBJECTS and task.before.balance < reserve_of(task.before, 1):
        return "tecNO_LINE_INSUF_RESERVE" if known is None else "tecINSUF_RESERVE_LINE"
    put(task.draft, key, line.with_side(side, low=low))
    return "tesSUCCESS"


def change(task: Task) -> str:
    """An account's own settings; with none of them it only uses its sequence up."""
    fields, before = task.transaction.fields, task.before
    wanted, unwanted = int(fields.get("SetFlag", 0)), int(fields.get("ClearFlag", 0))
    if wanted == _DISABLE_MASTER:
        return "tecNO_ALTERNATIVE_KEY"
    if _SETTINGS.get(wanted) == REQUIRE_AUTH and not before.flags & REQUIRE_AUTH and before.owner_count:
        return "tecOWNERS"
    flags = before.flags | _SETTINGS.get(wanted, 0)
    cleared = _SETTINGS.get(unwanted, 0)
    kept = cleared == NO_FREEZE or (cleared == GLOBAL_FREEZE and before.flags & NO_FREEZE)
    rate = int(fields.get("TransferRate", before.transfer_rate))
    task.draft.accounts[task.transaction.account] = replace(
        task.account, flags=flags if kept else flags & ~cleared, transfer_rate=0 if rate == PAR else rate
    )
    return "tesSUCCESS"


def create_tickets(task: Task) -> str:
    """Sequences set aside, each an owned thing until it is used."""
    count, account = int(task.transaction.fields["TicketCount"]), task.account
    if task.before.balance < reserve_of(task.before, count):
        return "tecINSUFFICIENT_RESERVE"
    if len(account.tickets) + count > TICKETS_MAX:
        return "tecDIR_FULL"
    fresh = range(account.sequence, account.sequence + count)
    task.draft.accounts[task.transaction.account] = replace(
        account, sequence=fresh.stop, tickets=account.tickets | set(fresh), owner_count=account.owner_count + count
    )
    return "tesSUCCESS"


def preauthorize(task: Task) -> str:
    """From whom deposits are taken in spite of deposit authorisation."""
    fields, account = task.transaction.fields, task.account
    if (friend := fields.get("Unauthorize")) is not None:
        if friend not in account.preauthorized:
            return "tecNO_ENTRY"
        fewer = replace(account, preauthorized=account.preauthorized - {friend}, owner_count=account.owner_count - 1)
        task.draft.accounts[task.transaction.account] = fewer
        return "tesSUCCESS"
    friend = str(fields["Authorize"])
    if task.draft.account(friend) is None:
        return "tecNO_TARGET"
    if friend in account.preauthorized:
        return "tecDUPLICATE"
    if task.before.balance < reserve_of(task.before, 1):
        return "tecINSUFFICIENT_RESERVE"
    more = replace(account, preauthorized=account.preauthorized | {friend}, owner_count=account.owner_count + 1)
    task.draft.accounts[task.transaction.account] = more
    return "tesSUCCESS"
