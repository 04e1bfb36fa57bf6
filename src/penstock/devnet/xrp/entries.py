"""The state in the ledger's own form: entries with their ids, and the metadata that says how a transaction changed them.

https://xrpl.org/docs/references/protocol/ledger-data https://xrpl.org/docs/references/protocol/transactions/metadata
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from penstock.devnet.xrp.amounts import value_text
from penstock.devnet.xrp.state import Account, Draft, Line, TrustLine, account_id
from penstock.devnet.xrp.transactions import half_sha512

NOBODY: Final = "rrrrrrrrrrrrrrrrrrrrBZbvji"
"""The issuer that a trust line names in its balance."""

_SIDES: Final = {
    "reserve": (0x00010000, 0x00020000),
    "authorized": (0x00040000, 0x00080000),
    "no_ripple": (0x00100000, 0x00200000),
    "freeze": (0x00400000, 0x00800000),
}
"""lsf flags of a line, low and high.
https://xrpl.org/docs/references/protocol/ledger-data/ledger-entry-types/ripplestate#ripplestate-flags
"""

_HEX: Final = re.compile(r"[0-9A-F]{40}", re.ASCII)
_THREADED: Final = frozenset({"PreviousTxnID", "PreviousTxnLgrSeq"})
_DEFAULTS: Final = (0, "0")

Fields = dict[str, Any]
Previous = tuple[str, int]


def currency_bytes(code: str) -> bytes:
    """The 20 bytes of a currency code. https://xrpl.org/docs/references/protocol/data-types/currency-formats#currency-codes"""
    return bytes.fromhex(code) if _HEX.fullmatch(code) else bytes(12) + code.encode("ascii") + bytes(5)


@lru_cache(maxsize=65_536)
def account_key(address: str) -> str:
    """https://xrpl.org/docs/references/protocol/ledger-data/common-fields (ledger entry id), as are the following."""
    return half_sha512(b"\0a" + account_id(address)).hex().upper()


@lru_cache(maxsize=65_536)
def line_key(line: Line) -> str:
    """Of a trust line."""
    low, high, currency = line
    return half_sha512(b"\0r" + account_id(low) + account_id(high) + currency_bytes(currency)).hex().upper()


def ticket_key(address: str, number: int) -> str:
    """Of a ticket."""
    return half_sha512(b"\0T" + account_id(address) + number.to_bytes(4, "big")).hex().upper()


def preauth_key(owner: str, friend: str) -> str:
    """Of a deposit authorisation."""
    return half_sha512(b"\0p" + account_id(owner) + account_id(friend)).hex().upper()


def account_fields(address: str, account: Account) -> Fields:
    """An AccountRoot."""
    fields: Fields = {
        "Account": address,
        "Balance": str(account.balance),
        "Flags": account.flags,
        "OwnerCount": account.owner_count,
        "Sequence": account.sequence,
    }
    if account.tickets:
        fields["TicketCount"] = len(account.tickets)
    if account.transfer_rate:
        fields["TransferRate"] = account.transfer_rate
    return fields | _previous(account.previous)


def _previous(previous: Previous) -> Fields:
    return {"PreviousTxnID": previous[0], "PreviousTxnLgrSeq": previous[1]} if previous[0] else {}


def line_fields(key: Line, line: TrustLine) -> Fields:
    """A RippleState."""
    low, high, currency = key
    flags = sum(bit for name, bits in _SIDES.items() for bit, side in zip(bits, (line.low, line.high), strict=True) if getattr(side, name))
    return {
        "Balance": _issued(currency, NOBODY, line.balance),
        "Flags": flags,
        "HighLimit": _issued(currency, high, line.high.limit),
        "HighNode": "0",
        "LowLimit": _issued(currency, low, line.low.limit),
        "LowNode": "0",
    } | _previous(line.previous)


def _issued(currency: str, issuer: str, units: int) -> Fields:
    return {"currency": currency, "issuer": issuer, "value": value_text(units)}


def ticket_fields(address: str, number: int) -> Fields:
    """A Ticket."""
    return {"Account": address, "Flags": 0, "OwnerNode": "0", "TicketSequence": number}


def preauth_fields(owner: str, friend: str) -> Fields:
    """A DepositPreauth."""
    return {"Account": owner, "Authorize": friend, "Flags": 0, "OwnerNode": "0"}


@dataclass(frozen=True, slots=True)
class Change:
    """One entry before and after; None: it was not, or is no more."""

    type: str
    key: str
    before: Fields | None
    after: Fields | None
    owners: tuple[str, ...]


def changes(draft: Draft) -> Iterator[Change]:
    """What a draft changes upon the view below it."""
    for address, account in draft.accounts.items():
        before = draft.below.account(address)
        old = account_fields(address, before) if before is not None else None
        yield Change("AccountRoot", account_key(address), old, account_fields(address, account), (address,))
        was = before or Account(0, 0)
        for number in sorted(was.tickets ^ account.tickets):
            fields = ticket_fields(address, number)
            yield _came_or_went("Ticket", ticket_key(address, number), fields, came=number in account.tickets, owners=(address,))
        for friend in sorted(was.preauthorized ^ account.preauthorized):
            fields = preauth_fields(address, friend)
            came = friend in account.preauthorized
            yield _came_or_went("DepositPreauth", preauth_key(address, friend), fields, came=came, owners=(address, friend))
    for key, line in draft.lines.items():
        known = draft.below.line(key)
        if line is None and known is None:
            continue
        old = line_fields(key, known) if known is not None else None
        new = line_fields(key, line) if line is not None else None
        yield Change("RippleState", line_key(key), old, new, key[:2])


def _came_or_went(kind: str, key: str, fields: Fields, *, came: bool, owners: tuple[str, ...]) -> Change:
    return Change(kind, key, None if came else fields, fields if came else None, owners)


def thread(draft: Draft, txid: str, index: int) -> None:
    """Let everything that a transaction changed name it as the last one to do so."""
    for address, account in draft.accounts.items():
        draft.accounts[address] = replace(account, previous=(txid, index))
    for key, line in draft.lines.items():
        if line is not None:
            draft.lines[key] = replace(line, previous=(txid, index))


def metadata(found: list[Change], *, place: int, code: str, partial: Any = None) -> Fields:
    """As the ledger holds it. `partial`: what a partial payment delivered, in JSON, where that is less than its amount."""
    meta: Fields = {
        "AffectedNodes": [_node(change) for change in sorted(found, key=lambda change: change.key)],
        "TransactionIndex": place,
        "TransactionResult": code,
    }
    return meta if partial is None else {**meta, "DeliveredAmount": partial}


def _node(change: Change) -> Fields:
    named = {"LedgerEntryType": change.type, "LedgerIndex": change.key}
    if change.before is None and change.after is not None:
        fresh = {name: value for name, value in change.after.items() if name not in _THREADED and value not in _DEFAULTS}
        return {"CreatedNode": {**named, "NewFields": fresh}}
    before, after = change.before or {}, change.after
    final = _plain(before if after is None else after)
    differing: Fields = {}
    if after is not None:
        differing = {name: value for name, value in _plain(before).items() if after.get(name) != value}
    threads = {name: before[name] for name in _THREADED if name in before}
    kind = "DeletedNode" if after is None else "ModifiedNode"
    more = {"PreviousFields": differing} if differing else {}
    return {kind: {**named, "FinalFields": final, **more, **threads}}


def _plain(fields: Mapping[str, Any]) -> Fields:
    return {name: value for name, value in fields.items() if name not in _THREADED}
