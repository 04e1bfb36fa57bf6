"""What each anticipated failure of a command is to a person: one sentence and an exit code. Imported only once something has failed."""

from __future__ import annotations

from penstock.child import ChildFailed
from penstock.config import SettingWrong
from penstock.core.errors import Refused
from penstock.core.money import MoneyError
from penstock.db import CommitUnknown, DatabaseRefused, DatabaseUnavailable
from penstock.directory import DirectoryError
from penstock.listing import CatalogError
from penstock.orders.seat import SeatLost
from penstock.rates import BadPrice
from penstock.signer.journal import JournalBroken, SignerBusy
from penstock.signer.place import NotInitialised
from penstock.vault import VaultError


def sentence_of(error: Exception) -> tuple[str, int] | None:
    """The sentence and the exit code, 1 or 2; None for what nobody anticipated."""
    match error:
        case (
            SettingWrong()
            | CatalogError()
            | BadPrice()
            | DatabaseRefused()
            | VaultError()
            | NotInitialised()
            | SignerBusy()
            | JournalBroken()
            | ChildFailed()
        ):
            return str(error), 2
        case Refused():
            return f"{error.problem.code} {error.problem.reason}: {error.msg}", 1
        case CommitUnknown():
            return "the database went away while it stored this: it may be done or not; look before you repeat it", 1
        case SeatLost() | DirectoryError() | DatabaseUnavailable() | MoneyError():
            return str(error), 1
        case _:
            return None
