"""One transaction upon a ledger: whether it may be there, what it takes, and the code it ends with.

The order of the checks is rippled's, since it decides which code is answered: sequence, last ledger, fee, key, then what the type asks.
https://xrpl.org/docs/references/protocol/transactions/transaction-results
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from penstock.devnet.xrp import payments, settings
from penstock.devnet.xrp.amounts import Amount
from penstock.devnet.xrp.settings import Task
from penstock.devnet.xrp.state import Account, Draft, View
from penstock.devnet.xrp.transactions import Transaction, address_of

_TYPES: Final[Mapping[str, Callable[[Task], str]]] = {
    "Payment": payments.pay,
    "TrustSet": settings.trust,
    "AccountSet": settings.change,
    "TicketCreate": settings.create_tickets,
    "DepositPreauth": settings.preauthorize,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: a code, what changes (nothing but for tes and tec), the fee that was taken, and what a payment delivered."""

    code: str
    changes: Draft
    fee: int = 0
    delivered: Amount | None = None

    @property
    def applied(self) -> bool:
        """Whether it is in the ledger, whatever it did there."""
        return self.code.startswith(("tes", "tec"))


def place(view: View, transaction: Transaction) -> str:
    """Whether its sequence or ticket is the one that is due."""
    account = view.account(transaction.account)
    if account is None:
        return "terNO_ACCOUNT"
    if transaction.ticket is None:
        if transaction.sequence == account.sequence:
            return "tesSUCCESS"
        return "terPRE_SEQ" if transaction.sequence > account.sequence else "tefPAST_SEQ"
    if transaction.sequence:
        return "temSEQ_AND_TICKET"
    if transaction.ticket >= account.sequence:
        return "terPRE_TICKET"
    return "tesSUCCESS" if transaction.ticket in account.tickets else "tefNO_TICKET"


def admit(view: View, transaction: Transaction, index: int, *, open_fee_min: int | None) -> str:
    """What can be said before its type is looked at. `open_fee_min` in drops: the least for an open ledger; None where it is closed."""
    if (code := place(view, transaction)) != "tesSUCCESS":
        return code
    if transaction.last_ledger is not None and transaction.last_ledger < index:
        return "tefMAX_LEDGER"
    if open_fee_min is not None and transaction.fee < open_fee_min:
        return "telINSUF_FEE_P"
    account = view.account(transaction.account)
    balance = account.balance if account is not None else 0
    if balance < transaction.fee:
        return "tecINSUFF_FEE" if balance > 0 and open_fee_min is None else "terINSUF_FEE_B"
    if address_of(bytes.fromhex(transaction.fields["SigningPubKey"])) != transaction.account:
        return "tefBAD_AUTH"
    return "tesSUCCESS"


def apply(view: View, transaction: Transaction, index: int, *, open_fee_min: int | None = None) -> Outcome:
    """Apply it in the ledger of this index; the changes stand upon `view`, which stays as it is."""
    code = admit(view, transaction, index, open_fee_min=open_fee_min)
    before = view.account(transaction.account)
    if before is None or not code.startswith(("tes", "tec")):
        return Outcome(code, Draft(view))
    fee = min(transaction.fee, before.balance)
    if code == "tesSUCCESS":
        task = Task(transaction, before, _charged(view, transaction, before, fee), index)
        code = _TYPES[transaction.type](task)
        if code == "tesSUCCESS":
            return Outcome(code, task.draft, fee, task.delivered)
        if not code.startswith("tec"):
            return Outcome(code, Draft(view))
    return Outcome(code, _charged(view, transaction, before, fee), fee)


def _charged(view: View, transaction: Transaction, account: Account, fee: int) -> Draft:
    """What every transaction in a ledger takes: its fee, and its sequence or ticket."""
    draft = Draft(view)
    charged = replace(account, balance=account.balance - fee)
    if transaction.ticket is None:
        charged = replace(charged, sequence=transaction.sequence + 1)
    else:
        charged = replace(charged, tickets=account.tickets - {transaction.ticket}, owner_count=account.owner_count - 1)
    draft.accounts[transaction.account] = charged
    return draft
