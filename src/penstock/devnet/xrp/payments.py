"""A payment: XRP from account to account, or an issued token to, from, or through its one issuer.

No order books and no paths beyond that one: what would need them finds no liquidity.
https://xrpl.org/docs/references/protocol/transactions/types/payment
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from penstock.devnet.xrp.amounts import PAR, Amount, amount_of, with_transfer_fee, without_transfer_fee
from penstock.devnet.xrp.lines import may_flow, move
from penstock.devnet.xrp.preflight import NO_DIRECT, PARTIAL
from penstock.devnet.xrp.settings import BASE_RESERVE, Task, reserve_of
from penstock.devnet.xrp.state import DEPOSIT_AUTH, REQUIRE_DEST, Account, line_between


def pay(task: Task) -> str:
    """The code; a payment that delivered has said so in `task.delivered`."""
    fields = task.transaction.fields
    amount, target = amount_of(fields["Amount"]), str(fields["Destination"])
    there = task.draft.account(target)
    if there is None:
        if amount.currency:
            return "tecNO_DST"
        if amount.units < BASE_RESERVE:
            return "tecNO_DST_INSUF_XRP"
        there = Account(0, task.index)
    elif there.flags & REQUIRE_DEST and "DestinationTag" not in fields:
        return "tecDST_TAG_NEEDED"
    if not amount.currency and "SendMax" not in fields:
        return _xrp(task, target, there, amount)
    if not _welcome(task, there):
        return "tecNO_PERMISSION"
    return _issued(task, target, amount)


def _welcome(task: Task, there: Account) -> bool:
    return not there.flags & DEPOSIT_AUTH or task.transaction.account in there.preauthorized


def _xrp(task: Task, target: str, there: Account, amount: Amount) -> str:
    """The balance before the fee must cover the amount and the larger of reserve and fee: a last fee may come out of the reserve."""
    before, sender = task.before, task.transaction.account
    if before.balance < amount.units + max(reserve_of(before), task.transaction.fee):
        return "tecUNFUNDED_PAYMENT"
    small = amount.units <= BASE_RESERVE and there.balance <= BASE_RESERVE
    if not small and not _welcome(task, there):
        return "tecNO_PERMISSION"
    paying = task.account
    task.draft.accounts[sender] = replace(paying, balance=paying.balance - amount.units)
    task.draft.accounts[target] = replace(there, balance=there.balance + amount.units)
    task.delivered = amount
    return "tesSUCCESS"


def _issued(task: Task, target: str, amount: Amount) -> str:
    fields, sender = task.transaction.fields, task.transaction.account
    partial = bool(task.transaction.flags & PARTIAL)
    most = amount_of(fields["SendMax"]) if "SendMax" in fields else replace(amount, issuer=sender)
    if not amount.currency or most.currency != amount.currency or most.issuer not in {sender, amount.issuer}:
        return "tecPATH_DRY"
    if task.transaction.flags & NO_DIRECT:
        return "tecPATH_DRY"
    through = [] if amount.issuer in {sender, target} else [amount.issuer]
    rate, can_arrive = _way(task, [sender, *through, target], amount.currency)
    spendable = most.units if rate is None else min(most.units, rate[1])
    can_arrive = min(can_arrive, without_transfer_fee(spendable, rate[0]) if rate is not None else spendable)
    arrives = min(can_arrive, amount.units)
    if arrives <= 0:
        return "tecPATH_DRY"
    least = amount_of(fields["DeliverMin"]).units if "DeliverMin" in fields else 0
    if arrives < amount.units and (not partial or arrives < least):
        return "tecPATH_PARTIAL"
    leaves = arrives if rate is None else min(spendable, with_transfer_fee(arrives, rate[0]))
    stations = [sender, *through, target]
    for number, (source, end) in enumerate(pairwise(stations)):
        move(task.draft, source, end, amount.currency, leaves if number == 0 else arrives)
    task.delivered = replace(amount, units=arrives)
    return "tesSUCCESS"


def _way(task: Task, stations: list[str], currency: str) -> tuple[tuple[int, int] | None, int]:
    """The issuer's transfer rate with what can leave the sender, where there is an issuer in between, and what can arrive."""
    if len(stations) == 2:
        return None, may_flow(task.draft, stations[0], stations[1], currency, whole=True)
    sender, issuer, target = stations
    account = task.draft.account(issuer)
    if account is None or (_no_ripple(task, issuer, sender, currency) and _no_ripple(task, issuer, target, currency)):
        return (PAR, 0), 0
    first = may_flow(task.draft, sender, issuer, currency, whole=False)
    return (account.transfer_rate or PAR, first), may_flow(task.draft, issuer, target, currency, whole=False)


def _no_ripple(task: Task, issuer: str, holder: str, currency: str) -> bool:
    key = line_between(issuer, holder, currency)
    line = task.draft.line(key)
    return line is not None and line.side(low=key[0] == issuer).no_ripple
